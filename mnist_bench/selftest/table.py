"""A selftest as rows, notes and one JSON document. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mnist_bench.figures import significant
from mnist_bench.selftest.rates import Rate, Summary
from mnist_bench.selftest.records import MISLABELLED, CheckResult, Mislabelled, Slowed
from mnist_bench.table import plain

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a selftest found. ``wanted``: checks of each condition; fewer were made where it ended early."""

    summaries: tuple[Summary, ...]
    slowed: tuple[Slowed, ...]
    mislabelled: Mislabelled | None
    results: tuple[CheckResult, ...]
    wanted: int
    budget_s: float
    program_version: str
    machine: str

    @property
    def complete(self) -> bool:
        return all(summary.checks == self.wanted for summary in self.summaries)


def rows(report: Report) -> list[dict[str, object]]:
    """A row per condition, as people read it."""
    return [
        {
            "side B": summary.condition,
            "measured": _size(summary),
            "red": f"{summary.red.hits}/{summary.red.trials}",
            "rate": _percent(summary.red.hits / summary.red.trials) if summary.red.trials else "",
            "95 %": _bounds(summary.red),
            "pass": summary.passed,
            "open": summary.inconclusive,
            "min": "" if summary.check_s is None else significant(summary.check_s / 60, 2),
            "pairs": "" if summary.pairs is None else significant(summary.pairs, 2),
        }
        for summary in report.summaries
    ]


def notes(report: Report) -> list[str]:
    """What the figures mean, and what they do not show."""
    if not report.summaries:
        return ["no cell can be measured on this machine."]
    found = [
        "red: of identical sides the checks that raised an alarm, of the others the cells whose fault was found; "
        "pass, open: cells that passed or stayed inconclusive; min: minutes of a check; pairs: process pairs of a cell "
        "(both medians).",
    ]
    found += _cost(report.summaries)
    found += [_doubt(summary) for summary in report.summaries if summary.size is None and summary.red.trials]
    found += [_off(one) for one in report.slowed if abs(one.measured.estimate - one.aim) > 0.01]
    if unjudged := sum(summary.unjudged for summary in report.summaries):
        found.append(f"{unjudged} verdicts said nothing (not comparable: a missing device, say) and are in no count.")
    if not report.complete:
        found.append(f"ended early: fewer than the {report.wanted} checks of each condition were made.")
    return found


def document(report: Report) -> dict[str, Any]:
    """The whole, for programs: seconds, fractions, ratios."""
    return {
        "schema_version": SCHEMA_VERSION,
        "program_version": report.program_version,
        "machine": report.machine,
        "checks_per_condition": report.wanted,
        "budget_s": report.budget_s,
        "conditions": [asdict(summary) for summary in report.summaries],
        "slowed": [{**asdict(one), "cell": one.cell.id} for one in report.slowed],
        "mislabelled": None
        if report.mislabelled is None
        else {
            "fraction": report.mislabelled.fraction,
            "drops": {cell.id: drop for cell, drop in report.mislabelled.drops.items()},
        },
        "checks": [
            {**asdict(check), "cells": [{**asdict(cell), "cell": cell.cell.id} for cell in check.cells]}
            for check in report.results
        ],
    }


def _size(summary: Summary) -> str:
    if summary.size is None:
        return ""
    low, high = (f"{100 * value:.1f}" for value in summary.size)
    unit = "pp" if summary.condition == MISLABELLED else "%"
    return f"{low} {unit}" if low == high else f"{low}-{high} {unit}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _bounds(rate: Rate) -> str:
    return f"{100 * rate.low:.0f}-{100 * rate.high:.0f} %"


def _cost(summaries: Sequence[Summary]) -> list[str]:
    costs = [summary.verdict_s for summary in summaries if summary.verdict_s is not None]
    if not costs:
        return []
    low, high = (significant(value / 60, 2) for value in (min(costs), max(costs)))
    spread = low if low == high else f"{low} to {high}"
    return [f"a verdict costs {spread} minutes here (a check's time over its cells, by condition)."]


def _doubt(summary: Summary) -> str:
    """How little so few checks show of a rate that is promised to be small."""
    count = "1 check" if summary.red.trials == 1 else f"{summary.red.trials} checks"
    return (
        f"{summary.condition}: {count} cannot rule out a rate of false alarms up to "
        f"{_percent(summary.red.high)}; more --checks narrow it."
    )


def _off(one: Slowed) -> str:
    return (
        f"{plain(one.cell.id)}: aimed at {_percent(one.aim - 1)}, measured {100 * (one.measured.estimate - 1):.1f} %: "
        "what was measured is what counts."
    )
