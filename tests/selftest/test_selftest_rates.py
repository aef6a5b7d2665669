"""Counting: what is a false alarm, what was found, what it cost; and how it is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from selftest_kit import DATA, LENET5, MLP, PLAIN, result

from mnist_bench.selftest.rates import rate, summarise
from mnist_bench.selftest.records import MISLABELLED, CheckResult, Condition, Mislabelled, Slowed
from mnist_bench.selftest.table import Report, document, notes, rows
from mnist_bench.stats import Interval

IDENTICAL = Condition(name="identical", a=PLAIN, b=PLAIN)
SLOWER = Condition(name="10 % slower", a=PLAIN, b=PLAIN, faulty=frozenset({MLP, LENET5}), size=(0.098, 0.103))


def make_report(*results: CheckResult, wanted: int = 2, **changes: object) -> Report:
    known = {
        "summaries": summarise((IDENTICAL, SLOWER), results),
        "slowed": (Slowed(cell=MLP, aim=1.1, rows=9, measured=Interval(1.13, 1.12, 1.14), sessions=4),),
        "mislabelled": Mislabelled(data=DATA, fraction=0.18, drops={MLP: 0.01, LENET5: 0.007}),
        "results": results,
        "wanted": wanted,
        "budget_s": 480.0,
        "program_version": "0.1.0",
        "machine": "a CPU, 2 cores",
    }
    return Report(**{**known, **changes})  # type: ignore[arg-type]


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
    checks = [
        result("identical", ["regression", "failed"]),
        result("identical", ["pass", "inconclusive"]),
        result("identical", ["missing", "pass"]),
    ]
    (summary,) = summarise((IDENTICAL,), checks)
    assert (summary.red.hits, summary.red.trials) == (2, 3)
    assert (summary.passed, summary.inconclusive) == (2, 1)


def test_faults_are_counted_by_cell_and_a_crash_finds_none() -> None:
    checks = [result("10 % slower", ["regression", "failed"]), result("10 % slower", ["regression", "inconclusive"])]
    (summary,) = summarise((SLOWER,), checks)
    assert (summary.red.hits, summary.red.trials) == (2, 4)
    assert summary.inconclusive == 1


def test_a_cell_without_the_fault_is_not_held_against_the_gate() -> None:
    hurt = Condition(name="mislabelled", a=PLAIN, b=PLAIN, faulty=frozenset({MLP}), size=(0.01, 0.01))
    (summary,) = summarise((hurt,), [result("mislabelled", ["regression", "pass"])])
    assert (summary.red.hits, summary.red.trials, summary.passed) == (1, 1, 0)


def test_what_could_not_be_compared_is_no_trial() -> None:
    (summary,) = summarise((IDENTICAL,), [result("identical", ["not_comparable", "not_comparable"])])
    assert (summary.red.trials, summary.unjudged, summary.pairs) == (0, 2, None)


def test_cost_is_the_median_of_a_check_and_of_a_verdict() -> None:
    checks = [result("identical", ["pass", "pass"], seconds) for seconds in (60.0, 120.0, 600.0)]
    (summary,) = summarise((IDENTICAL,), checks)
    assert (summary.check_s, summary.verdict_s, summary.pairs) == (120.0, 60.0, 12.0)


def test_a_drop_of_accuracy_is_told_in_points() -> None:
    spoilt = Condition(name=MISLABELLED, a=PLAIN, b=PLAIN, faulty=frozenset({MLP}), size=(0.0124, 0.0124))
    (row,) = rows(make_report(summaries=summarise((spoilt,), ())))
    assert row["measured"] == "1.2 pp"


def test_rows_are_a_line_for_each_condition() -> None:
    report = make_report(
        *(result("identical", ["pass", "pass"]) for _ in range(2)),
        *(result("10 % slower", ["regression", "inconclusive"]) for _ in range(2)),
    )
    first, second = rows(report)
    assert first == {
        "side B": "identical",
        "measured": "",
        "red": "0/2",
        "rate": "0 %",
        "95 %": "0-84 %",
        "pass": 4,
        "open": 0,
        "min": "2.0",
        "pairs": "12",
    }
    assert (second["measured"], second["red"], second["open"]) == ("9.8-10.3 %", "2/4", 2)
    told = " ".join(notes(report))
    assert "a rate of false alarms up to 84 %" in told
    assert "aimed at 10 %, measured 13.0 %" in told
    assert "a verdict costs 1.0 minutes" in told
    assert "ended early" not in told


def test_an_interrupted_selftest_says_so() -> None:
    report = make_report(result("identical", ["pass", "pass"]))
    assert not report.complete
    assert rows(report)[1]["rate"] == ""
    assert "ended early" in " ".join(notes(report))


def test_the_document_is_json_with_everything() -> None:
    found = json.loads(json.dumps(document(make_report(result("identical", ["pass", "regression"]))), allow_nan=False))
    assert found["conditions"][0]["red"] == {"hits": 1, "trials": 1, "low": pytest.approx(0.025), "high": 1.0}
    assert found["checks"][0]["cells"][1]["cell"] == LENET5.id
    assert found["slowed"][0]["measured"]["estimate"] == 1.13
    assert found["mislabelled"]["drops"] == {MLP.id: 0.01, LENET5.id: 0.007}
