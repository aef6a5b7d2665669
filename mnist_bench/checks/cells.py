"""The cells of two matrices side by side: where each is, and why it may not be compared. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mnist_bench.analysis.keys import settings
from mnist_bench.cells import Filter, expand, select, variant_of
from mnist_bench.gate.records import CellEvidence
from mnist_bench.records import Cell, Matrix

AXES = {"recipe": "recipe", "epochs": "epochs"}  # of the whole matrix, and what a person calls them


def union(a: Matrix | None, b: Matrix, wanted: Filter | None) -> tuple[CellEvidence, ...]:
    """The cells of both matrices, B's first, with nothing measured yet.

    Args:
        a: None: the reference has no matrix, and every cell is new.
        wanted: of ``--filter``; None: all.

    Raises:
        UsageError: the filter wants what no cell is.
    """
    before, after = () if a is None else expand(a), expand(b)
    cells = dict.fromkeys((*after, *before))
    return tuple(_evidence(cell, a, b, before, after) for cell in select(tuple(cells), wanted))


def _evidence(
    cell: Cell, a: Matrix | None, b: Matrix, before: tuple[Cell, ...], after: tuple[Cell, ...]
) -> CellEvidence:
    if cell not in after:
        return CellEvidence(cell=cell, sides="only A")
    floors = [floor for floor in b.expect if floor.matches(cell)]
    rates = [floor.min_train_samples_per_s for floor in floors if floor.min_train_samples_per_s is not None]
    accuracies = [floor.min_accuracy for floor in floors if floor.min_accuracy is not None]
    both = a is not None and cell in before
    return CellEvidence(
        cell=cell,
        sides="both" if both else "only B",
        differences=tuple(differences(a, b, cell)) if both and a is not None else (),
        min_accuracy=max(accuracies, default=None),
        min_train_samples_per_s=max(rates, default=None),
    )


def differences(a: Matrix, b: Matrix, cell: Cell) -> Iterator[str]:
    """What a cell's names stand for on each side, where it is not the same; and what cannot be paired."""
    before, after = settings(a, cell), settings(b, cell)
    for name in before:
        if before[name] != after[name]:
            yield f"{name}: {before[name]} in A, {after[name]} in B"
    threads = tuple(variant_of(matrix, cell.variant).threads for matrix in (a, b))
    if threads[0] != threads[1]:
        yield f"threads: {_threads(threads[0])} in A, {_threads(threads[1])} in B"
    for field, name in AXES.items():
        if getattr(a, field) != getattr(b, field):
            yield f"{name}: {getattr(a, field)} in A, {getattr(b, field)} in B"
    if workers := variant_of(b, cell.variant).workers:
        yield (
            f"workers: {workers}: loader processes work on while the other side has its turn, so that the two cannot "
            "be paired; check a variant with workers: 0"
        )


def _threads(count: int | None) -> str:
    return "all cores" if count is None else str(count)
