"""What a selftest found: counts to rates with their intervals, what a verdict cost, and how it is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mnist_bench.figures import significant
from mnist_bench.gate.judge import Verdict, VerdictKind
from mnist_bench.stats import CONFIDENCE, Interval
from mnist_bench.table import Column, Document, Table, at

RED: frozenset[VerdictKind] = frozenset(("regression", "missing", "failed"))
JUDGED: frozenset[VerdictKind] = RED | {"pass", "improvement", "inconclusive"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowed:
    """Extra work for one cell: ``rows`` of it, and the ratio of seconds per step that was measured with them.

    ``measured`` is the mean over sessions of fresh process pairs with its 95 % t interval; ``aim`` what it was to be.
    """

    cell: str
    aim: float
    rows: int
    measured: Interval
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mislabelled:
    """A training set of which ``fraction`` of the labels are wrong; ``drops``: of accuracy, by cell, with one seed."""

    fraction: float
    drops: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check. ``seconds``: wall time of it."""

    condition: str
    seconds: float
    cells: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One condition: how often the gate was red, and what it cost.

    Args:
        size: of the fault as it was measured, least and most over the cells; empty: there is none.
        red: on identical sides the false alarms, ``of`` checks; else the faults found, of cells with a fault.
        rate: of both, with its exact 95 % interval; None: there was none.
        passed: of the same cells (identical sides: all), those with the verdict pass or improvement.
        inconclusive: likewise.
        unjudged: cells that the gate could not compare (a device that is missing, say); in no other count.
        check_s: wall seconds of a check, the median; None: there was none.
        verdict_s: the same over the cells that were judged.
        pairs: process pairs of a judged cell, the median.
    """

    condition: str
    size: str
    red: int
    of: int
    rate: Interval | None
    passed: int
    inconclusive: int
    unjudged: int
    check_s: float | None
    verdict_s: float | None
    pairs: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a selftest found; fewer than ``checks_per_condition`` were made where it ended early."""

    schema_version: int = 2
    program_version: str
    machine: str
    checks_per_condition: int
    budget_s: float
    conditions: tuple[Summary, ...]
    slowed: tuple[Slowed, ...]
    mislabelled: Mislabelled | None
    checks: tuple[CheckResult, ...]

    @property
    def complete(self) -> bool:
        return len(self.checks) == self.checks_per_condition * len(self.conditions)


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


def summarise(name: str, faulty: frozenset[str], size: str, results: Sequence[CheckResult]) -> Summary:
    """What the checks of the condition ``name``, among ``results``, come to.

    Args:
        faulty: the ids of the cells of B that are worse; none: the sides are alike, and every alarm is false.
    """
    checks = [one for one in results if one.condition == name]
    judged = [[cell for cell in check.cells if cell.kind in JUDGED] for check in checks]
    cells = [cell for of_check in judged for cell in of_check]
    watched = [cell for cell in cells if cell.cell.id in faulty] if faulty else cells
    if faulty:  # only a regression has found the fault: what crashed was found by nobody
        red = [cell.kind == "regression" for cell in watched]
    else:
        red = [any(cell.kind in RED for cell in of_check) for of_check in judged if of_check]
    costs = [check.seconds / len(of_check) for check, of_check in zip(checks, judged, strict=True) if of_check]
    return Summary(
        condition=name,
        size=size,
        red=sum(red),
        of=len(red),
        rate=rate(sum(red), len(red)),
        passed=sum(cell.kind in ("pass", "improvement") for cell in watched),
        inconclusive=sum(cell.kind == "inconclusive" for cell in watched),
        unjudged=sum(len(check.cells) for check in checks) - len(cells),
        check_s=_median([check.seconds for check in checks]),
        verdict_s=_median(costs),
        pairs=_median([cell.speed.count if cell.speed else 0 for cell in cells]),
    )


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


# ── how it is told ───────────────────────────────────────────────────────────────────────────────────────────────────


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _bounds(summary: Summary) -> str:
    return f"{100 * (summary.rate.low or 0):.0f}-{_percent(summary.rate.high)}" if summary.rate else ""


def _minutes(seconds: float | None) -> str:
    return "" if seconds is None else significant(seconds / 60, 2)


COLUMNS: tuple[Column[Summary], ...] = (
    Column("side B", right=False, key="condition", value=at("condition")),
    Column("measured", key="measured", value=lambda s: s.size or None),
    Column("red", lambda s: f"{s.red}/{s.of}", key="red", value=at("red")),
    Column(None, key="of", value=at("of")),
    Column("rate", lambda s: _percent(at("rate.estimate")(s)), 1, key="rate", value=at("rate.estimate")),
    Column("95 %", _bounds, key="rate_low", value=at("rate.low")),
    Column(None, key="rate_high", value=at("rate.high")),
    Column("pass", rank=2, key="passed", value=at("passed")),
    Column("open", rank=2, key="inconclusive", value=at("inconclusive")),
    Column("min", lambda s: _minutes(s.check_s), 3, key="check_s", value=at("check_s")),
    Column("a verdict", lambda s: _minutes(s.verdict_s), 3, key="verdict_s", value=at("verdict_s")),
    Column("pairs", lambda s: significant(s.pairs, 2), 3, key="pairs", value=at("pairs")),
    Column("unjudged", lambda s: str(s.unjudged or ""), 4, key="unjudged", value=at("unjudged")),
)


def document(report: Report) -> Document:
    """The table, a row per condition, and what it means and does not show."""
    notes = [
        "measured: the size of the fault as it was found before the checks, least and most over the cells, not what "
        "was aimed at. red: of identical sides the checks that raised an alarm, of the others the cells whose fault "
        "was found; 95 %: the rates that so few of them cannot rule out, more --checks narrow it. pass, open: cells "
        "that passed or stayed inconclusive; min: minutes of a check; a verdict: of one of its cells; pairs: process "
        "pairs of a cell (all medians). unjudged: cells that could not be compared (a missing device, say)."
    ]
    if not report.conditions:
        notes = ["no cell can be measured on this machine."]
    elif not report.complete:
        notes.append(f"ended early: fewer than the {report.checks_per_condition} checks of each condition were made.")
    return Document(
        title="The gate, measured on this machine", tables=(Table("", COLUMNS, report.conditions),), notes=notes
    )
