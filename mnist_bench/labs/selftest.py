"""A selftest: experiments with the gate itself, and how often it was red in each: a row of one table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import msgspec

from mnist_bench import __version__
from mnist_bench.disk.folder import RunFolder, new_run_id
from mnist_bench.errors import Interrupted
from mnist_bench.figures import interval_columns, significant
from mnist_bench.gate.conduct import measure
from mnist_bench.gate.evidence import Check
from mnist_bench.gate.judge import Verdict, VerdictKind, judge
from mnist_bench.gate.sides import CheckObserver, Side
from mnist_bench.labs.faults import AIMS, Bench, Fault, measurable, mislabel, slow_down
from mnist_bench.machine import environment
from mnist_bench.records import Cell, RunOptions, Sides, Tree
from mnist_bench.running.runner import new_manifest
from mnist_bench.stats import CONFIDENCE, Interval
from mnist_bench.table import Column, Document, Table, at

SCHEMA_VERSION = 3  # of the JSON document
RED: frozenset[VerdictKind] = frozenset(("regression", "missing", "failed"))
JUDGED: frozenset[VerdictKind] = RED | {"pass", "improvement", "inconclusive"}


class Warned(CheckObserver):
    """Of a check, its warnings: a selftest that can decide nothing should not take hours."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def notice(self, text: str, *, warning: bool = False) -> None:
        if warning:
            self._say(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One check. ``seconds``: wall time of it; ``cells``: those that the gate could judge."""

    seconds: float
    cells: Sequence[Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What differs between the sides of a check, and what the gate said of it, time and again.

    Args:
        faults: of B's cells; none: the sides are alike, and every alarm is false.
        unit: of the faults' sizes, times 100.
    """

    name: str
    a: Side
    b: Side
    faults: Sequence[Fault] = ()
    unit: str = "%"
    checks: Sequence[Checked] = ()

    @property
    def measured(self) -> str | None:
        """The least and the most of the faults' sizes."""
        sizes = sorted(one.size.estimate for one in self.faults)
        ends = dict.fromkeys(f"{100 * size:.1f}" for size in (*sizes[:1], *sizes[-1:]))
        return f"{'-'.join(ends)} {self.unit}" if sizes else None

    @property
    def watched(self) -> list[Verdict]:
        """The verdicts of cells with a fault; of identical sides all."""
        faulty = {fault.cell for fault in self.faults}
        return [one for check in self.checks for one in check.cells if one.cell.id in faulty or not faulty]

    @property
    def reds(self) -> list[bool]:
        """Of identical sides, which checks raised an alarm; else of which cells the fault was found.

        Only a regression has found a fault: what crashed was found by nobody.
        """
        if self.faults:
            return [one.kind == "regression" for one in self.watched]
        return [any(one.kind in RED for one in check.cells) for check in self.checks if check.cells]

    @property
    def rate(self) -> Interval | None:
        return rate(sum(self.reds), len(self.reds))

    @property
    def open(self) -> int:
        return sum(one.kind == "inconclusive" for one in self.watched)

    @property
    def minutes(self) -> float | None:
        """Wall time of a check over the cells that it judged, the median."""
        return _median([one.seconds / len(one.cells) / 60 for one in self.checks if one.cells])

    @property
    def pairs(self) -> float | None:
        """Process pairs of a cell, the median."""
        return _median([one.speed.count if one.speed else 0 for check in self.checks for one in check.cells])


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


def rate(hits: int, trials: int) -> Interval | None:
    """A rate and its Clopper-Pearson interval; None without trials.

    Source: Clopper & Pearson (1934), Biometrika 26, 404-413, by ``scipy.stats.binomtest``.

    >>> rate(0, 3)
    Interval(estimate=0.0, low=0.0, high=0.7075982261703572)
    """
    if trials == 0:
        return None
    from scipy.stats import binomtest

    interval = binomtest(hits, trials).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return Interval(hits / trials, float(interval.low), float(interval.high))


# ── what is tried ────────────────────────────────────────────────────────────────────────────────────────────────────


def measure_gate(bench: Bench, cells: Sequence[Cell], times: int, budget_s: float) -> Iterator[list[Experiment]]:
    """Calibration, then the checks: each experiment so many times over, in turns.

    So what the machine does over an hour is shared out, and an interrupted selftest has of all of them.

    Yields:
        What is known: before the first check, and after each. None: no cell can be measured here.

    Raises:
        Interrupted: the check that was at work counts for nothing.
    """
    step_s = measurable(bench, cells)
    found = experiments(bench, step_s) if step_s else []
    yield found
    for number in range(times * len(found)):
        one = found[number % len(found)]
        bench.say(f"check {number + 1} of {times * len(found)}: {one.name}")
        begin = bench.gate.clock()
        check = carry_out(bench, one, list(step_s), budget_s)
        if check.status != "complete":
            raise Interrupted("interrupted")
        judged = [each for each in judge(check) if each.kind in JUDGED]
        done = Checked(seconds=bench.gate.clock() - begin, cells=judged)
        found[number % len(found)] = replace(one, checks=(*one.checks, done))
        yield found


def experiments(bench: Bench, step_s: dict[Cell, float]) -> list[Experiment]:
    """Identical sides, each slow-down, mislabelled data where they cost enough: in each, all cells at once."""
    plain, b = bench.gate.a, bench.gate.b
    found = [Experiment(name="identical", a=plain, b=b)]
    slowed = {cell: slow_down(bench, cell, seconds) for cell, seconds in step_s.items()}
    for n, aim in enumerate(AIMS):
        slow_a, slow_b = bench.laden({cell: int(own[n].injected) for cell, own in slowed.items()})
        faults = [own[n] for own in slowed.values()]
        found.append(Experiment(name=f"{100 * aim:.0f} % slower", a=slow_a, b=slow_b, faults=faults))
    data, hurt = mislabel(bench, list(step_s))
    spoilt = Experiment(name="mislabelled", a=plain, b=replace(b, data=data), faults=hurt, unit="pp")
    return [*found, spoilt] if hurt else found


def carry_out(bench: Bench, one: Experiment, cells: Sequence[Cell], budget_s: float) -> Check:
    """The gate itself, by the path that ``check --against`` takes below git.

    Raises: as ``gate.conduct.measure`` does.
    """
    a, b, gate = one.a, one.b, bench.gate
    assert b.matrix is not None
    tree, name = Tree(label="selftest", commit=None), new_run_id()
    sides = Sides(a=tree, b=tree, matrix=a.matrix, cells=tuple(cells), budget_s=budget_s)
    options = RunOptions(allow_plugins=gate.allow_plugins)
    matrix = replace(b.matrix, expect=())  # a missed floor fails whatever the sides do
    manifest = new_manifest(name, matrix, b.data, b.environ, options, str(b.matrix_path))
    folder = RunFolder.create(bench.folder / "checks", replace(manifest, check=sides))
    return measure(replace(gate, a=a, b=b, folder=folder), budget_s, gate.clock())


# ── how it is told ───────────────────────────────────────────────────────────────────────────────────────────────────


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


COLUMNS: tuple[Column[Experiment], ...] = (
    Column("side B", right=False, key="condition", value=at("name")),
    Column("measured", key="measured", value=at("measured")),
    Column("red", lambda one: f"{sum(one.reds)}/{len(one.reds)}", key="red", value=lambda one: sum(one.reds)),
    Column(None, key="of", value=lambda one: len(one.reds)),
    *interval_columns("rate", "rate", "rate", text=_percent, rank=1, rank_beside=0),
    Column("open", rank=2, key="inconclusive", value=at("open")),
    Column("min", lambda one: significant(one.minutes, 2), 3, key="verdict_min", value=at("minutes")),
    Column("pairs", lambda one: significant(one.pairs, 2), 3, key="pairs", value=at("pairs")),
)
NOTES = (
    "measured: the size of the fault, least and most over the cells. red: of identical sides the checks that raised an "
    "alarm, of the others the cells whose fault was found, with the 95 % interval of the rate. open: cells that stayed "
    "inconclusive. min: minutes that a verdict on a cell took; pairs: its process pairs (medians)."
)


def document(found: Sequence[Experiment], times: int) -> Document:
    """The table, a row per experiment, and what it means."""
    notes = [NOTES if found else "no cell can be measured on this machine."]
    if any(len(one.checks) < times for one in found):
        notes.append(f"ended early: fewer than the {times} checks of each condition were made.")
    return Document(title="The gate, measured on this machine", tables=(Table("", COLUMNS, found),), notes=notes)


def to_json(found: Sequence[Experiment], times: int, budget_s: float, environ: Mapping[str, str]) -> dict[str, Any]:
    """The rows, each with its faults and every verdict, as JSON values."""
    rows = Table("", COLUMNS, found).records()
    own = [{name: msgspec.to_builtins(getattr(one, name)) for name in ("faults", "checks")} for one in found]
    return {
        "schema_version": SCHEMA_VERSION,
        "program_version": __version__,
        "environment": msgspec.to_builtins(environment.describe(environ)),
        "checks_per_condition": times,
        "budget_s": budget_s,
        "conditions": [row | more for row, more in zip(rows, own, strict=True)],
    }
