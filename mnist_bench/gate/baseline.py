"""A baseline: what a run measured, as a file of the repository keeps it, to hold later runs against. Pure.

Figures are rounded to the digits that they are worth, so that the file's diff is short.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mnist_bench.analysis.keys import Key, key_of
from mnist_bench.analysis.summary import Run
from mnist_bench.errors import UsageError
from mnist_bench.figures import Row
from mnist_bench.gate.indexed import Indexed, index
from mnist_bench.gate.records import SessionLogRatio, Training
from mnist_bench.gate.run_figures import (
    Choice,
    reference_of,
    reference_sha256,
    refuse_unfinished,
    session_ratios,
    telling_settings,
    training_of,
)
from mnist_bench.records import Cell, Manifest
from mnist_bench.table import plain

TIME_DIGITS = 4  # significant ones, of times and rates: advisory, and machines drift by 20 %
RATIO_DIGITS = 5  # of a ratio: a rounding of 0.005 % at most
SD_DIGITS = 3
MIB = 1 << 20

Settings = Mapping[str, Any]  # names and plain values


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The run that figures of a baseline come from, and why it was made one. Texts are of one line."""

    run_id: str
    reason: str
    date: str  # UTC, ISO 8601: when the run began
    commit: str | None
    dirty: bool
    program_version: str
    machine: str  # in words, as are the next three
    platform: str
    python: str
    torch: str | None
    dataset: str
    recipe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFigures:
    """One seed of one cell."""

    seed: int
    training: Training


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRatios:
    """A cell against its reference variant, session by session.

    ``reference`` is a cell's id, ``reference_sha256`` covers its settings and threads (``reference_sha256``).
    """

    reference: str
    reference_sha256: str
    sessions: tuple[SessionLogRatio, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineCell:
    """One cell of a baseline.

    Args:
        run_id: of its ``Source``.
        reason: why it was skipped.
        key: what a measurement must have in common with this one; None where it was skipped.
        settings: what its names stand for, defaults left out: for the words of a difference. ``key`` decides.
        ratios: None where it is itself the reference variant, or the run has no reference.
    """

    cell: Cell
    run_id: str
    status: Literal["ok", "skipped"]
    reason: str = ""
    key: Key | None = None
    settings: Settings | None = None
    step_ms_p50: float | None = None
    seeds: tuple[SeedFigures, ...] = ()
    ratios: CellRatios | None = None

    @property
    def accuracy(self) -> float | None:
        """The mean over the seeds."""
        return statistics.fmean(one.training.accuracy for one in self.seeds) if self.seeds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The content of a baseline file: cells in the order of their ids' parts, and the runs that they come from."""

    sources: tuple[Source, ...]
    cells: tuple[BaselineCell, ...]

    def source_of(self, cell: BaselineCell) -> Source:
        return next(source for source in self.sources if source.run_id == cell.run_id)


def baseline_of(run: Run, reason: str, chosen: Choice | None = None) -> Baseline:
    """What a run measured as a baseline.

    Args:
        run: with the rows of ``summary.summarise``.
        reason: why it is one: for those who read the file's history.
        chosen: the cells to take; None: all.

    Raises:
        UsageError: no reason; a chosen cell is not finished or failed; none was measured.
    """
    if not plain(reason):
        raise UsageError('--reason: a baseline needs one, as in --reason "compile is 10 % faster since torch 2.14"')
    rows = [row for row in run.rows if chosen is None or chosen(row.cell)]
    _refuse_unfit(run, rows, chosen)
    indexed = index(run)
    cells = sorted((_cell(row, indexed) for row in rows), key=lambda one: one.cell)
    return Baseline(sources=(_source(run.manifest, plain(reason)),), cells=tuple(cells))


def updated(old: Baseline | None, new: Baseline, chosen: Choice | None) -> Baseline:
    """The old baseline with the new cells in it.

    Args:
        chosen: what the update is about; cells of the old one that are none of these stay. None: nothing stays.
    """
    kept = [one for one in old.cells if not chosen(one.cell)] if old and chosen else []
    cells = sorted([*kept, *new.cells], key=lambda one: one.cell)
    needed = {one.run_id for one in cells}
    # Of a run that is there already, the new words hold: they were given for all its cells that are here now.
    sources = {source.run_id: source for source in (*(old.sources if old else ()), *new.sources)}
    return Baseline(
        sources=tuple(sources[run_id] for run_id in sorted(sources) if run_id in needed), cells=tuple(cells)
    )


def rounded(value: float, digits: int) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")


def _refuse_unfit(run: Run, rows: Sequence[Row], chosen: Choice | None) -> None:
    name = plain(run.manifest.run_id)
    refuse_unfinished(run, chosen)
    if failed := [row for row in rows if row.status not in ("ok", "skipped")]:
        lines = [f"  {plain(row.cell.id)}: {row.status}: {plain(row.reason)}" for row in failed]
        head = f"run {name}: a failed cell cannot be a baseline: mend it and run again, or leave it out with --filter:"
        raise UsageError("\n".join([head, *lines]))
    if not any(row.status == "ok" for row in rows):
        raise UsageError(f"run {name}: nothing was measured, so nothing can be a baseline")


def _source(manifest: Manifest, reason: str) -> Source:
    environment = manifest.environment
    cores = environment.cores
    return Source(
        run_id=manifest.run_id,
        reason=reason,
        date=manifest.started_at,
        commit=environment.commit,
        dirty=environment.dirty,
        program_version=manifest.program_version,
        machine=plain(f"{environment.cpu}, {cores} core{'s' if cores != 1 else ''}"),
        platform=plain(environment.platform),
        python=environment.python,
        torch=environment.packages.get("torch"),
        dataset=manifest.dataset.name,
        recipe=manifest.matrix.recipe,
    )


def _cell(row: Row, indexed: Indexed) -> BaselineCell:
    manifest = indexed.run.manifest
    if row.status == "skipped":
        return BaselineCell(cell=row.cell, run_id=manifest.run_id, status="skipped", reason=plain(row.reason))
    measured = sorted(indexed.measured[row.cell.id].items())
    reference = reference_of(manifest.matrix, row.cell)
    return BaselineCell(
        cell=row.cell,
        run_id=manifest.run_id,
        status="ok",
        key=key_of(manifest, row.cell, measured[0][1][1]),
        settings=telling_settings(manifest.matrix, row.cell),
        step_ms_p50=None if row["step_ms_p50"] is None else rounded(row["step_ms_p50"], TIME_DIGITS),
        seeds=tuple(SeedFigures(seed=seed, training=_brief(training_of(one))) for seed, (_, one) in measured),
        ratios=None if reference is None else _ratios(row.cell, reference, indexed),
    )


def _ratios(cell: Cell, reference: Cell, indexed: Indexed) -> CellRatios:
    return CellRatios(
        reference=reference.id,
        reference_sha256=reference_sha256(reference, indexed),
        sessions=tuple(map(_brief_ratio, session_ratios(cell, reference, indexed))),
    )


def _brief_ratio(session: SessionLogRatio) -> SessionLogRatio:
    speedup = rounded(math.exp(-session.log_ratio), RATIO_DIGITS)  # as the file has it
    return replace(session, log_ratio=-math.log(speedup), sd=rounded(session.sd, SD_DIGITS))


def _brief(training: Training) -> Training:
    device = training.device_peak_bytes
    return replace(
        training,
        compile_s=None if training.compile_s is None else rounded(training.compile_s, TIME_DIGITS),
        time_to_first_step_s=rounded(training.time_to_first_step_s, TIME_DIGITS),
        train_samples_per_s=rounded(training.train_samples_per_s, TIME_DIGITS),
        eval_samples_per_s=rounded(training.eval_samples_per_s, TIME_DIGITS),
        host_peak_bytes=round(training.host_peak_bytes / MIB) * MIB,
        device_peak_bytes=None if device is None else round(device / MIB) * MIB,
    )
