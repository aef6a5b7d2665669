"""Counting: what is a false alarm, what was found, what it cost; and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mnist_bench.gate.judge import VerdictKind
from mnist_bench.labs.selftest_report import (
    CellResult,
    CheckResult,
    Mislabelled,
    Report,
    Slowed,
    Summary,
    document,
    notes,
    rate,
    summarise,
)
from mnist_bench.stats import Interval

MLP, LENET5 = "mlp/cpu/b100/eager", "lenet5/cpu/b100/eager"
BOTH = frozenset({MLP, LENET5})


def result(kinds: Sequence[VerdictKind], seconds: float = 120.0) -> CheckResult:
    """A check of mlp and lenet5, in this order."""
    cells = tuple(
        CellResult(cell=cell, kind=kind, pairs=12, seeds=1, ratio=1.0, change=0.0)
        for cell, kind in zip((MLP, LENET5), kinds, strict=True)
    )
    return CheckResult(condition="identical", seconds=seconds, cells=cells)


def identical(*checks: CheckResult) -> Summary:
    return summarise("identical", frozenset(), None, checks)


def slower(*checks: CheckResult, faulty: frozenset[str] = BOTH) -> Summary:
    checks = tuple(replace(one, condition="10 % slower") for one in checks)
    return summarise("10 % slower", faulty, (0.098, 0.103), checks)


def make_report(*conditions: Summary) -> Report:
    return Report(
        program_version="0.1.0",
        machine="a CPU, 2 cores",
        checks_per_condition=2,
        budget_s=480.0,
        conditions=conditions,
        slowed=(Slowed(cell=MLP, aim=1.1, rows=9, measured=Interval(1.13, 1.12, 1.14), sessions=4),),
        mislabelled=Mislabelled(fraction=0.18, drops={MLP: 0.01, LENET5: 0.007}),
        checks=(),
    )


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_clopper_and_pearsons(counts: tuple[int, int]) -> None:
    hits, trials = counts
    found = rate(hits, trials)
    assert found.low <= hits / trials <= found.high
    # At either end, what was seen or more extreme has a chance of 2.5 %.
    assert binom.sf(hits - 1, trials, found.low) == pytest.approx(0.025 if hits else 1.0, rel=1e-6)
    assert binom.cdf(hits, trials, found.high) == pytest.approx(0.025 if hits < trials else 1.0, rel=1e-6)


def test_what_docs_ci_says_of_few_checks() -> None:
    assert rate(0, 3).high > 0.7
    assert rate(0, 368).high <= 0.01 < rate(0, 367).high


def test_without_trials_nothing_is_known() -> None:
    assert (rate(0, 0).low, rate(0, 0).high) == (0.0, 1.0)


def test_a_false_alarm_is_counted_once_a_check() -> None:
    found = identical(result(["regression", "failed"]), result(["pass", "inconclusive"]), result(["missing", "pass"]))
    assert (found.red.hits, found.red.trials) == (2, 3)
    assert (found.passed, found.inconclusive) == (2, 1)


def test_faults_are_counted_by_cell_and_a_crash_finds_none() -> None:
    found = slower(result(["regression", "failed"]), result(["regression", "inconclusive"]))
    assert (found.red.hits, found.red.trials, found.inconclusive) == (2, 4, 1)
    # A cell without the fault is not held against the gate.
    found = slower(result(["regression", "pass"]), faulty=frozenset({MLP}))
    assert (found.red.hits, found.red.trials, found.passed) == (1, 1, 0)


def test_what_could_not_be_compared_is_no_trial() -> None:
    found = identical(result(["not_comparable", "not_comparable"]))
    assert (found.red.trials, found.unjudged, found.pairs, found.verdict_s) == (0, 2, None, None)


def test_cost_is_the_median_of_a_check_and_of_a_verdict() -> None:
    found = identical(*(result(["pass", "pass"], seconds) for seconds in (60.0, 120.0, 600.0)))
    assert (found.check_s, found.verdict_s, found.pairs) == (120.0, 60.0, 12.0)


def test_it_is_told_as_a_table_with_notes() -> None:
    report = make_report(
        identical(*(result(["pass", "pass"]) for _ in range(2))),
        slower(*(result(["regression", "inconclusive"]) for _ in range(2))),
        summarise("mislabelled", frozenset({MLP}), (0.0124, 0.0124), [result(["pass", "pass"])]),
    )
    (table,) = document(report).tables
    lines = [" ".join(str(line).split()) for line in table.terminal(100)]
    assert lines[-3:] == [
        "identical 0/2 0 % 0-84 % 4 0 2.0 12",
        "10 % slower 9.8-10.3 % 2/4 50 % 7-93 % 0 2 2.0 12",
        "mislabelled 1.2 pp 0/0 0-100 % 0 0",
    ]
    assert table.records()[1]["rate_low"] == pytest.approx(0.0676, abs=1e-4)
    told = " ".join(notes(report))
    assert "identical: 2 checks cannot rule out a rate of false alarms up to 84 %" in told
    assert "aimed at 10 %, measured 13.0 %" in told
    assert "a verdict costs 1.0 minutes" in told
    assert "ended early" in told
    assert not report.complete
    assert "ended early" not in " ".join(notes(make_report(*report.conditions[:2])))
    assert list(notes(make_report())) == ["no cell can be measured on this machine."]
