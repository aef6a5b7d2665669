"""Run B against run A, cell by cell: pure arithmetic. The two lie apart in time, so nothing in it is paired."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from mnist_bench import stats
from mnist_bench.accuracy import compare_accuracy
from mnist_bench.comparability import Difference, differences, key_of, ranked, settings
from mnist_bench.compare import Choice, Indexed, common_seeds, geometric_means, index, marks, worse_class
from mnist_bench.comparisons import MatchedCell, Run, RunComparison
from mnist_bench.records import Cell, Measurement
from mnist_bench.rows import Row
from mnist_bench.speedups import SpeedUp

ALL = "all cells"


def compare_runs(a: Run, b: Run, *, across_machines: bool = False, chosen: Choice | None = None) -> RunComparison:
    """Every cell of two runs, matched by its id.

    Ratios are of means over seeds on the log scale; their intervals are Welch's, and need 3 seeds of both.

    Args:
        across_machines: compute ratios also where the comparability keys differ.
        chosen: the cells to list; None: all.

    Returns:
        A line for each cell of either, those of A first. ``differences`` are those of all cells that are ok in both.
    """
    one, other = index(a), index(b)
    names = dict.fromkeys(row.cell for run in (a, b) for row in run.rows if chosen is None or chosen(row.cell))
    cells = tuple(_matched(cell, one, other, across_machines) for cell in names)
    return RunComparison(
        run_a=a.manifest.run_id,
        run_b=b.manifest.run_id,
        across_machines=across_machines,
        differences=ranked(difference for cell in cells for difference in cell.differences),
        cells=cells,
        throughput_means=geometric_means(
            (ALL, c.class_, c.throughput, marks(c)) for c in cells if c.throughput is not None
        ),
        step_means=geometric_means((ALL, c.class_, c.step, marks(c)) for c in cells if c.step is not None),
    )


def _matched(cell: Cell, a: Indexed, b: Indexed, across_machines: bool) -> MatchedCell:
    in_a, in_b = a.rows.get(cell.id), b.rows.get(cell.id)
    line = MatchedCell(
        cell=cell,
        status_a=in_a.status if in_a else None,
        status_b=in_b.status if in_b else None,
        reason=_why_not(in_a, in_b),
        throughput=None,
        step=None,
        accuracy=None,
        noisy=any(row is not None and row.noisy is True for row in (in_a, in_b)),
        class_=worse_class(*(row.class_ for row in (in_a, in_b) if row)),
        differences=(),
    )
    if line.reason:
        return line
    line = replace(line, differences=_differences(cell, a, b))
    if line.differences and not across_machines:
        return replace(line, reason=f"not comparable: {', '.join(d.name for d in line.differences)}")
    return _compared(line, a, b)


def _why_not(in_a: Row | None, in_b: Row | None) -> str:
    if in_a is None or in_b is None:
        return f"only in run {'A' if in_b is None else 'B'}"
    bad = [f"run {name}: {row.status}: {row.reason}" for name, row in (("A", in_a), ("B", in_b)) if row.status != "ok"]
    return "; ".join(bad)


def _differences(cell: Cell, a: Indexed, b: Indexed) -> tuple[Difference, ...]:
    keys = [key_of(run.run.manifest, cell, _first(run, cell)) for run in (a, b)]
    return tuple(_in_words(difference, cell, a, b) for difference in differences(*keys))


def _first(run: Indexed, cell: Cell) -> Measurement:
    return next(measurement for _, measurement in run.measured[cell.id].values())


def _in_words(difference: Difference, cell: Cell, a: Indexed, b: Indexed) -> Difference:
    """Two hashes tell a person little: the settings that differ, and the data set's name beside its own."""
    if difference.field == "dataset_sha256":
        one, other = (run.run.manifest.dataset.name for run in (a, b))
        return replace(difference, a=f"{one} ({difference.a})", b=f"{other} ({difference.b})")
    if difference.field != "cell_sha256":
        return difference
    before, after = (settings(run.run.manifest.matrix, cell) for run in (a, b))
    names = [name for name in before if before[name] != after.get(name)]
    return replace(difference, a=_listed(before, names), b=_listed(after, names))


def _listed(values: Mapping[str, object], names: list[str]) -> str:
    return ", ".join(f"{name} {values.get(name)}" for name in names)


def _compared(line: MatchedCell, a: Indexed, b: Indexed) -> MatchedCell:
    one, other = a.measured[line.cell.id], b.measured[line.cell.id]
    slow, fast = (_log_seconds_per_step(run, line.cell) for run in (a, b))
    before, after = (_log_rates(run, line.cell) for run in (a, b))
    manifests = a.run.manifest, b.run.manifest
    same_images = len({(manifest.dataset.sha256, manifest.matrix.recipe) for manifest in manifests}) == 1
    return replace(
        line,
        throughput=_ratio(before, after),
        step=_ratio(fast, slow),
        accuracy=compare_accuracy([pair for _, pair in common_seeds(one, other)], same_images=same_images),
    )


def _log_rates(run: Indexed, cell: Cell) -> list[float]:
    """ln of the training samples per second of each seed."""
    found = ((m.train_samples, sum(m.epochs.train_s)) for _, m in run.measured[cell.id].values())
    return [math.log(samples / seconds) for samples, seconds in found if samples > 0 and seconds > 0]


def _log_seconds_per_step(run: Indexed, cell: Cell) -> list[float]:
    found = (run.sessions.log_step_s(trial) for trial, _ in run.measured[cell.id].values())
    return [log for log in found if log is not None]


def _ratio(denominator: list[float], numerator: list[float]) -> SpeedUp | None:
    if not denominator or not numerator:
        return None
    return SpeedUp.of(stats.welch_interval(denominator, numerator), "unpaired")
