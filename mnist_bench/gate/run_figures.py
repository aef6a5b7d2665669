"""What the gate takes from a run: the figures of its seeds, ratios to the reference variant, settings. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from mnist_bench.analysis.keys import digest, key_of, settings
from mnist_bench.analysis.ratios import SessionIndex
from mnist_bench.analysis.summary import Run
from mnist_bench.cells import reference_variant
from mnist_bench.errors import UsageError
from mnist_bench.gate.indexed import Indexed
from mnist_bench.gate.records import SessionLogRatio, Training
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Matrix, Measurement
from mnist_bench.table import listed, plain

Choice = Callable[[Cell], bool]


def cell_of(cell_id: str) -> Cell:
    """The inverse of ``Cell.id``.

    Raises:
        ValueError: it is no cell's id.
    """
    match cell_id.split("/"):
        case [model, device, batch, variant] if batch[:1] == "b" and batch[1:].isdecimal():
            cell = Cell(model=model, device=device, batch_size=int(batch[1:]), variant=variant)
            if cell.id == cell_id and all((model, device, variant)):
                return cell
    raise ValueError(f"{cell_id!r} is no cell (as lenet5/cpu/b100/eager is one)")


def refuse_unfinished(run: Run, chosen: Choice | None) -> None:
    """Raises UsageError where trials of chosen cells are still to come: such a cell is neither measured nor gone."""
    name, missing = plain(run.manifest.run_id), run.pending
    wanted = [plain(one) for one in missing if chosen is None or chosen(cell_of(one.rpartition("/s")[0]))]
    if wanted:
        raise UsageError(
            f"run {name} is {run.manifest.status}, not finished: {len(wanted)} trials are missing ({listed(wanted)}): "
            f"go on with `mnist-bench run --resume {name}`, or leave their cells out with --filter"
        )


def training_of(measurement: Measurement) -> Training:
    """The figures of one seed, as evidence of the gate."""
    epochs = measurement.epochs
    return Training(
        accuracy=epochs.accuracy[-1],
        images=round(measurement.eval_samples / len(epochs.accuracy)),
        predictions_sha256=measurement.predictions_sha256,
        device_name=measurement.device_name,
        compile_s=measurement.compile_s,
        time_to_first_step_s=measurement.time_to_first_step_s,
        train_samples_per_s=measurement.train_samples / math.fsum(epochs.train_s),
        eval_samples_per_s=measurement.eval_samples / math.fsum(epochs.eval_s),
        host_peak_bytes=measurement.host_peak_bytes,
        device_peak_bytes=measurement.device_peak_bytes,
    )


def reference_of(matrix: Matrix, cell: Cell) -> Cell | None:
    """The cell that this one's time is held against; None: it is itself that cell, or the matrix has no reference."""
    variant = reference_variant(matrix)
    return None if variant in (None, cell.variant) else replace(cell, variant=str(variant))


def reference_sha256(reference: Cell, indexed: Indexed) -> str:
    """What a ratio to this cell of a run is a ratio to: the digest of its settings and threads; empty: not measured."""
    measured = indexed.measured.get(reference.id)
    if not measured:
        return ""
    manifest = indexed.run.manifest
    key = key_of(manifest, reference, next(iter(measured.values()))[1])
    return digest({**settings(manifest.matrix, reference), "threads": key.threads})


def session_ratios(cell: Cell, reference: Cell, indexed: Indexed) -> tuple[SessionLogRatio, ...]:
    """What each session says that timed both together; those of fewer rounds than an interval needs are left out."""
    found: list[SessionLogRatio] = []
    theirs = indexed.measured.get(reference.id, {})
    for seed, (trial, _) in sorted(indexed.measured[cell.id].items()):
        if seed in theirs:
            found += _of_seed(seed, theirs[seed][0], trial, indexed.sessions)
    return tuple(found)


def telling_settings(matrix: Matrix, cell: Cell) -> dict[str, Any]:
    """A cell's settings without those that ``eager`` has too; the model, its optimizer and rate always."""
    values = settings(matrix, cell)
    plain_matrix = replace(matrix, variants=(BUILTIN_VARIANTS["eager"],))
    defaults = settings(plain_matrix, replace(cell, variant="eager"))
    always = ("model", "optimizer", "lr")
    return {name: value for name, value in values.items() if name in always or value != defaults[name]}


def _of_seed(seed: int, reference: str, trial: str, sessions: SessionIndex) -> Iterator[SessionLogRatio]:
    for session in sessions.together(reference, trial):
        ratio = sessions.ratio(session, reference, trial)
        if ratio is None or ratio.variance is None or ratio.interval.low is None:
            continue
        yield SessionLogRatio(
            seed=seed,
            log_ratio=-ratio.interval.estimate,  # theirs is a speed-up
            sd=math.sqrt(ratio.variance),
            rounds=ratio.rounds,
            noisy=bool(session.noisy),
        )
