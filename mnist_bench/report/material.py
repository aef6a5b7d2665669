"""All that a report is made of, gathered once from the records of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.compare import Comparison, compare_cells
from mnist_bench.analysis.summary import Run, epochs
from mnist_bench.figures import Row
from mnist_bench.records import Cell, Measurement, Trial
from mnist_bench.report.curves import Curve, curves
from mnist_bench.report.palette import colour_of, shape_of
from mnist_bench.report.panels import MOST_PANELS, Key
from mnist_bench.table import plain

SKETCH = 400  # order statistics kept of one trial's steps
MOST_SEEDS = 5  # of a cell, whose steps are read

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A run, its figures, and what was compared in it.

    ``step_ms``: of each cell id whose samples were read, its steps (a sketch of each seed's), milliseconds.
    ``unread``: the trials whose samples are missing or broken. ``pending``: those that have not finished.
    """

    run: Run
    curves: tuple[Curve, ...]  # in the order of the matrix
    by_device: Comparison
    by_variant: Comparison
    step_ms: Mapping[str, NDArray[np.float64]]
    unread: tuple[str, ...]
    pending: tuple[str, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.run.rows

    @property
    def measured(self) -> tuple[Row, ...]:
        """The cells with at least one seed that is ok."""
        return tuple(row for row in self.rows if row.seeds)

    @property
    def variants(self) -> tuple[str, ...]:
        """As the plots name them, in the order of the matrix."""
        return tuple(dict.fromkeys(plain(row.cell.variant) for row in self.rows))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(sorted({row.cell.batch_size for row in self.rows}))


def gather(run: Run, step_ms: Mapping[str, NDArray[np.float64] | None]) -> Material:
    """The material of a run.

    Args:
        step_ms: by trial id, the single steps of its session in milliseconds; None where they cannot be read. Those
            that ``trials_to_read`` names are enough.
    """
    pooled: dict[str, list[NDArray[np.float64]]] = {}
    for trial in run.trials:
        steps = step_ms.get(trial.id)
        if steps is not None and steps.size:
            pooled.setdefault(trial.cell.id, []).append(sketch(steps))
    return Material(
        run=run,
        curves=_in_order(curves(epochs(run.trials)), run.rows),
        by_device=compare_cells(run, "device", partial=True),
        by_variant=compare_cells(run, "variant", partial=True),
        step_ms={cell: np.concatenate(parts) for cell, parts in pooled.items()},
        unread=tuple(trial for trial, steps in step_ms.items() if steps is None),
        pending=run.pending,
    )


def sketch(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most ``SKETCH`` order statistics, evenly spaced: the same distribution, and every seed counts alike."""
    if steps.size <= SKETCH:
        return steps
    ranks = ((np.arange(SKETCH) + 0.5) / SKETCH * steps.size).astype(np.intp)
    return np.sort(steps)[ranks]


def trials_to_read(run: Run) -> tuple[Trial, ...]:
    """The trials whose samples the plot of step times shows: timed ones of its first panels, some seeds of a cell."""
    timed = {member for session in run.sessions for member in session.steps}
    ok = [trial for trial in run.trials if isinstance(trial.outcome, Measurement) and trial.id in timed]
    drawn = list(dict.fromkeys(_place(row.cell) for row in run.rows if row.seeds))[:MOST_PANELS]
    places = frozenset(drawn)
    wanted = [trial for trial in ok if _place(trial.cell) in places]
    return tuple(trial for _, own in grouped(wanted, lambda trial: (trial.cell.id,)) for trial in own[:MOST_SEEDS])


def grouped(items: Iterable[_T], key: Callable[[_T], tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], list[_T]]]:
    """The items that have a key in common, in the order in which keys first come."""
    groups: dict[tuple[str, ...], list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    yield from groups.items()


def titled(*names: object) -> str:
    """Names from outside as one title: ``lenet5 · cpu``."""
    return " · ".join(plain(str(name)) for name in names)


def batch(size: int) -> str:
    return f"batch {size:,}"


def variant_keys(material: Material, used: Iterable[str]) -> tuple[Key, ...]:
    """The legend of variants: the same colour and shape in every plot of the page."""
    wanted = {plain(name) for name in used}
    numbered = enumerate(material.variants, start=1)
    return tuple(Key(label=v, colour=colour_of(n), shape=shape_of(n)) for n, v in numbered if v in wanted)


def left_out(what: str, shown: int, of: int) -> tuple[str, ...]:
    """A note where not everything is drawn."""
    return () if shown >= of else (f"The first {shown} of {of} {what} are drawn; the table has them all.",)


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Failed cells first, then skipped ones, then those with figures, each in the order of the matrix."""
    rank = {"ok": 2, "skipped": 1}
    return sorted(rows, key=lambda row: rank.get(row.status, 0))


def _in_order(found: Sequence[Curve], rows: Sequence[Row]) -> tuple[Curve, ...]:
    """In the order of the rows; trials end in another."""
    place = {row.cell: number for number, row in enumerate(rows)}
    return tuple(sorted(found, key=lambda one: place[one.cell]))


def _place(cell: Cell) -> tuple[str, str, int]:
    return cell.model, cell.device, cell.batch_size
