"""Counts to rates with their intervals, and what a verdict cost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mnist_bench.selftest.records import JUDGED, RED, CheckResult, Condition
from mnist_bench.stats import CONFIDENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """``hits`` of ``trials`` and the exact 95 % interval of their rate; without trials it is from 0 to 1."""

    hits: int
    trials: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One condition: how often the gate was red, and what it cost.

    Args:
        red: on identical sides the false alarms, of checks; else the faults found, of cells with a fault.
        passed: of the same cells (identical sides: all), those with the verdict pass or improvement.
        inconclusive: likewise.
        unjudged: cells that the gate could not compare (a device that is missing, say); in no other count.
        check_s: wall seconds of a check, the median; None: there was none.
        verdict_s: the same over the cells that were judged.
        pairs: process pairs of a judged cell, the median.
    """

    condition: str
    size: tuple[float, float] | None
    red: Rate
    checks: int
    passed: int
    inconclusive: int
    unjudged: int
    check_s: float | None
    verdict_s: float | None
    pairs: float | None


def rate(hits: int, trials: int) -> Rate:
    """A rate and its Clopper-Pearson interval.

    Source: Clopper & Pearson (1934), Biometrika 26, 404-413, by ``scipy.stats.binomtest``.

    >>> rate(0, 3)
    Rate(hits=0, trials=3, low=0.0, high=0.7075982261703572)
    """
    if trials == 0:
        return Rate(hits=0, trials=0, low=0.0, high=1.0)
    from scipy.stats import binomtest

    interval = binomtest(hits, trials).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return Rate(hits=hits, trials=trials, low=float(interval.low), high=float(interval.high))


def summarise(conditions: Sequence[Condition], results: Sequence[CheckResult]) -> tuple[Summary, ...]:
    """A summary of each condition, in their order, from the checks that were made."""
    return tuple(_summary(one, [check for check in results if check.condition == one.name]) for one in conditions)


def _summary(condition: Condition, checks: Sequence[CheckResult]) -> Summary:
    cells = [cell for check in checks for cell in check.cells]
    judged = [cell for cell in cells if cell.kind in JUDGED]
    watched = [cell for cell in judged if cell.cell in condition.faulty] if condition.faulty else judged
    if condition.faulty:
        # Only a regression has found the fault: what crashed was found by nobody.
        red = rate(sum(cell.kind == "regression" for cell in watched), len(watched))
    else:
        meant = [check for check in checks if any(cell.kind in JUDGED for cell in check.cells)]
        red = rate(sum(any(cell.kind in RED for cell in check.cells) for check in meant), len(meant))
    per_verdict = [check.seconds / n for check in checks if (n := sum(cell.kind in JUDGED for cell in check.cells))]
    return Summary(
        condition=condition.name,
        size=condition.size,
        red=red,
        checks=len(checks),
        passed=sum(cell.kind in ("pass", "improvement") for cell in watched),
        inconclusive=sum(cell.kind == "inconclusive" for cell in watched),
        unjudged=len(cells) - len(judged),
        check_s=_median(checks, lambda check: check.seconds),
        verdict_s=median(per_verdict) if per_verdict else None,
        pairs=_median(judged, lambda cell: cell.pairs),
    )


def _median(values: Sequence[Any], of: Callable[[Any], float]) -> float | None:
    return float(median(map(of, values))) if values else None
