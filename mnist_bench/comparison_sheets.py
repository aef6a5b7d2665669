"""Comparisons as people read them: which tables, which columns, which words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mnist_bench import figures
from mnist_bench.accuracy import MARGIN
from mnist_bench.comparability import Difference
from mnist_bench.compare import marks
from mnist_bench.comparisons import (
    AccuracyDifference,
    BatchPoint,
    BreakEven,
    ComparedCell,
    Comparison,
    Crossover,
    GeometricMean,
    MatchedCell,
    RunComparison,
)
from mnist_bench.sheets import Column, Grid, Sheet, grid
from mnist_bench.speedups import SpeedUp

FOOTNOTES = {
    **figures.FOOTNOTES,
    "↓": f"accuracy shown to be worse than the reference's, and not shown to be within {100 * MARGIN:.2f} pp of it",
    "?": f"accuracy not shown to be equivalent (within {100 * MARGIN:.2f} pp): judge the speed-up together with it",
}
MEANS_NOTE = (
    "Geometric means: over the cells named, classes apart, with these cells' signs, not a forecast for other cells; "
    "the errors of the cells are taken as independent."
)
VERDICTS = {"unproven": "not shown: the interval holds 1", "never": "never: the step is not faster", "after": ""}


def sheet_of_cells(comparison: Comparison) -> Sheet:
    """The cells of one run against a reference each."""
    what = "samples per second" if comparison.by == "batch_size" else "seconds per step"
    grids = [
        grid(f"Speed-ups by {comparison.by.replace('_', ' ')}", _cell_columns(comparison), comparison.cells),
        _means_grid("Geometric means", comparison.means),
        _crossover_grid(comparison.crossovers),
        _break_even_grid(comparison.break_evens),
    ]
    return Sheet(
        title=f"Run {comparison.run_id}: each cell against {comparison.reference}",
        facts=(f"Ratios of {what}, with 95 % intervals; above 1 is faster than the reference.",),
        grids=tuple(one for one in grids if one.lines),
        notes=(
            *_footnotes(marks(cell) for cell in comparison.cells),
            *_reasons((cell.cell.id, _unmeasured(cell)) for cell in comparison.cells),
            *([MEANS_NOTE] if comparison.means else []),
        ),
    )


def sheet_of_runs(comparison: RunComparison) -> Sheet:
    """Run B against run A; across machines, their differences come first."""
    grids = [
        _differences_grid(comparison) if comparison.across_machines else grid("", (), ()),
        grid("Cell by cell", _matched_columns(comparison.cells), comparison.cells),
        _means_grid("Geometric means of throughput", comparison.throughput_means),
        _means_grid("Geometric means of step time", comparison.step_means),
    ]
    return Sheet(
        title=f"Run {comparison.run_b} (B) against run {comparison.run_a} (A)",
        facts=(
            "Ratios with 95 % intervals over seeds (3 or more of both); above 1, B is faster.",
            "The two runs lie apart in time: what the machine did meanwhile is in every ratio.",
        ),
        grids=tuple(one for one in grids if one.lines),
        notes=(
            *_footnotes(marks(cell) for cell in comparison.cells),
            *_reasons((cell.cell.id, cell.reason) for cell in comparison.cells),
            *([MEANS_NOTE] if comparison.comparable else []),
        ),
    )


def point(value: BatchPoint, smallest: int | None, largest: int | None) -> str:
    """``244``, ``below 100``, ``above 1,000`` or ``unknown``."""
    match value.where:
        case "at":
            return figures.significant(value.batch_size)
        case "below":
            return f"below {smallest:,}"
        case "above":
            return f"above {largest:,}"
    return "unknown"


def _cell_columns(comparison: Comparison) -> tuple[Column[ComparedCell], ...]:
    by_size = comparison.by == "batch_size"
    return (
        *_name_columns(),
        Column("against", lambda one: f"{one.reference.batch_size:,}" if by_size and one.reference else "", rank=5),
        Column("status", _status(comparison.cells), rank=1, right=False),
        Column("speed-up", lambda one: _ratio(one.speed_up)),
        Column("95 %", lambda one: _bounds(one.speed_up), rank=2),
        *_accuracy_columns("reference"),
        Column("", marks, rank=1, right=False),
    )


def _matched_columns(cells: Sequence[MatchedCell]) -> tuple[Column[MatchedCell], ...]:
    all_ok = all(one.status_a == one.status_b == "ok" for one in cells)
    return (
        *_name_columns(),
        Column("status", lambda one: "" if all_ok else _both_statuses(one), rank=1, right=False),
        Column("samples/s", lambda one: _ratio(one.throughput), rank=3),
        Column("95 %", lambda one: _bounds(one.throughput), rank=5),
        Column("step", lambda one: _ratio(one.step)),
        Column("95 %", lambda one: _bounds(one.step), rank=2),
        *_accuracy_columns("A's"),
        Column("", marks, rank=1, right=False),
    )


def _name_columns() -> tuple[Column[Any], ...]:
    """Of a ``ComparedCell`` or a ``MatchedCell``."""
    return (
        Column("model", lambda one: one.cell.model, right=False),
        Column("device", lambda one: one.cell.device, right=False),
        Column("batch", lambda one: f"{one.cell.batch_size:,}"),
        Column("variant", lambda one: one.cell.variant, right=False),
    )


def _accuracy_columns(reference: str) -> tuple[Column[Any], ...]:
    """Of a ``ComparedCell`` or a ``MatchedCell``."""

    def of(show: Callable[[AccuracyDifference], str]) -> Callable[[ComparedCell | MatchedCell], str]:
        return lambda one: "" if one.accuracy is None else show(one.accuracy)

    return (
        Column("accuracy", of(lambda accuracy: figures.accuracy(accuracy.this, None)), rank=1),
        Column(reference, of(lambda accuracy: figures.accuracy(accuracy.reference, None)), rank=4),
        Column("Δ pp", of(lambda accuracy: f"{100 * accuracy.difference:+.2f}"), rank=6),
        Column("95 %", of(_accuracy_bounds), rank=8),
        Column("which is", of(lambda accuracy: accuracy.verdict), rank=7, right=False),
    )


def _status(cells: Sequence[ComparedCell]) -> Callable[[ComparedCell], str]:
    """Nothing where all are ok: there is nothing to tell apart."""
    all_ok = all(one.status == "ok" for one in cells)
    return lambda one: "" if all_ok else one.status


def _both_statuses(cell: MatchedCell) -> str:
    """``ok``, ``only in B``, or ``oom, ok`` where A and B differ."""
    if cell.status_a is None or cell.status_b is None:
        return f"only in {'A' if cell.status_b is None else 'B'}"
    return cell.status_a if cell.status_a == cell.status_b else f"{cell.status_a}, {cell.status_b}"


def _means_grid(title: str, means: Sequence[GeometricMean]) -> Grid:
    columns: tuple[Column[GeometricMean], ...] = (
        Column("of", lambda one: one.of, right=False),
        Column("class", lambda one: one.class_ or "", rank=1, right=False),
        Column("cells", lambda one: f"{one.cells:,}"),
        Column("mean", lambda one: figures.ratio(one.ratio)),
        Column("95 %", lambda one: figures.bounds(one.low, one.high), rank=2),
        Column("", lambda one: one.marks, rank=1, right=False),
    )
    return grid(title, columns, means)


def _crossover_grid(found: Sequence[Crossover]) -> Grid:
    columns: tuple[Column[Crossover], ...] = (
        Column("model", lambda one: one.model, right=False),
        Column("device", lambda one: one.device, right=False),
        Column("variant", lambda one: one.variant, right=False),
        Column("batch", lambda one: point(one.estimate, one.smallest, one.largest)),
        Column("95 %", _crossover_bounds, rank=1, right=False),
        Column("why unknown", lambda one: one.reason, rank=2, right=False),
    )
    return grid("Crossover: the batch size from which on the device is faster than the CPU", columns, found)


def _break_even_grid(found: Sequence[BreakEven]) -> Grid:
    columns: tuple[Column[BreakEven], ...] = (
        Column("model", lambda one: one.cell.model, right=False),
        Column("device", lambda one: one.cell.device, right=False),
        Column("batch", lambda one: f"{one.cell.batch_size:,}"),
        Column("variant", lambda one: one.cell.variant, right=False),
        Column("compile s", lambda one: figures.significant(one.compile_s)),
        Column("steps", lambda one: figures.significant(one.steps), rank=1),
        Column("95 %", lambda one: figures.rate_bounds(one.steps_low, one.steps_high), rank=4),
        Column("epochs", lambda one: figures.significant(one.epochs), rank=1),
        Column("95 %", lambda one: figures.rate_bounds(one.epochs_low, one.epochs_high), rank=2),
        Column("seconds", lambda one: figures.significant(one.seconds), rank=1),
        Column("95 %", lambda one: figures.rate_bounds(one.seconds_low, one.seconds_high), rank=3),
        Column("", lambda one: VERDICTS[one.verdict], rank=1, right=False),
    )
    return grid("Break-even: after how much training the compilation is earned back", columns, found)


def _differences_grid(comparison: RunComparison) -> Grid:
    columns: tuple[Column[Difference], ...] = (
        Column("differs", lambda one: one.name, right=False),
        Column("run A", lambda one: one.a, right=False),
        Column("run B", lambda one: one.b, right=False),
        Column("moves", lambda one: one.affects, right=False),
    )
    title = "Across machines: what the ratios hold beside the code, what moves speed most first"
    return grid(title, columns, comparison.differences)


def _crossover_bounds(one: Crossover) -> str:
    low, high = point(one.low, one.smallest, one.largest), point(one.high, one.smallest, one.largest)
    return "" if "unknown" in (low, high) else f"[{low}, {high}]"


def _accuracy_bounds(accuracy: AccuracyDifference) -> str:
    if accuracy.low is None or accuracy.high is None:
        return ""
    return f"[{100 * accuracy.low:+.2f}, {100 * accuracy.high:+.2f}]"


def _ratio(speed: SpeedUp | None) -> str:
    return "" if speed is None else figures.ratio(speed.ratio)


def _bounds(speed: SpeedUp | None) -> str:
    return "" if speed is None else figures.bounds(speed.low, speed.high)


def _unmeasured(cell: ComparedCell) -> str:
    """Why there is no ratio, the status in front where it is the cell's own."""
    return cell.reason if cell.status == "ok" else f"{cell.status}: {cell.reason}"


def _footnotes(found: Iterable[str]) -> list[str]:
    used = set("".join(found))
    return [f"{mark} {text}" for mark, text in FOOTNOTES.items() if mark in used]


def _reasons(found: Iterable[tuple[str, str]]) -> list[str]:
    """Every reason once, with its cells."""
    cells: dict[str, list[str]] = {}
    for cell, reason in found:
        if reason:
            cells.setdefault(reason, []).append(cell)
    return [f"{figures.listed(ids)}: {reason}" for reason, ids in cells.items()]
