"""Verdicts: the joint rule, the levels, the exit code; every sentence: tests/golden/stored/check-words.txt."""

from __future__ import annotations

import pytest
from gate_kit import evidence, make_check, of_every_kind, sessions, side
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from record_factory import make_cell

from mnist_bench.gate.evidence import SideEvidence
from mnist_bench.gate.judge import WORST_FIRST, Verdict, VerdictKind, cells_compared, change, exit_code, judge

FAILED = SideEvidence(status="oom", reason="use less")
SKIPPED = SideEvidence(status="skipped", reason="install a C++ compiler")


def test_every_kind_can_be_reached() -> None:
    assert tuple(one.kind for one in judge(make_check(*of_every_kind()))) == WORST_FIRST


def test_the_number_of_cells_sets_the_levels() -> None:
    others = [evidence(cell=make_cell(f"m{n}")) for n in range(19)]
    found = judge(make_check(evidence(1.12), *others))
    assert found[0].speed is not None
    assert found[0].speed.alpha == pytest.approx(0.01 / 80)
    assert found[0].speed.count == 13
    assert [one.cell for one in found][1:] == [one.cell for one in others]


def test_cells_count_whatever_became_of_them() -> None:
    """How often is looked may not hang on what was found."""
    assert cells_compared([evidence(), evidence(b=FAILED), evidence(a=SKIPPED)]) == 3
    assert cells_compared([evidence(a=None), evidence(b=None), evidence(differences=("x",))]) == 0


@pytest.mark.parametrize(
    ("ratio", "kind", "words"),
    [
        (0.15, "inconclusive", " seeds in both would do; accuracy passes: equal predictions (3 seeds)"),
        (0.3, "regression", "3 sessions) against the baseline, relative to lenet5/cpu/b100/eager; up to 3 % is"),
        (-0.3, "improvement", "equal predictions (3 seeds); the baseline is stale: update it"),
    ],
)
def test_the_same_judge_holds_ratios_of_two_runs_against_each_other(ratio: float, kind: str, words: str) -> None:
    a, b = (
        replace(side(), reference="lenet5/cpu/b100/eager", ratios=sessions(*logs))
        for logs in ((0.1,) * 3, (ratio,) * (1 if kind == "inconclusive" else 3))
    )
    (found,) = judge(make_check(evidence(None, cell=make_cell(variant="compile"), a=a, b=b), mode="baseline"))
    assert (found.kind, words in found.text) == (kind, True), found.text


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        (("pass", "new"), 0),
        (("improvement",), 0),
        (("new",), 5),
        (("not_comparable",), 5),
        ((), 5),
        (("pass", "not_comparable"), 0),
        (("pass", "inconclusive"), 4),
        (("inconclusive", "regression"), 3),
        (("missing", "pass"), 3),
        (("failed",), 3),
    ],
)
def test_the_exit_code_is_the_contracts(kinds: tuple[VerdictKind, ...], code: int) -> None:
    verdicts = [Verdict(cell=make_cell(), kind=kind, text="") for kind in kinds]
    assert exit_code(make_check(), verdicts) == code
    assert exit_code(make_check(status="interrupted"), verdicts) == 130


SPEEDS = {
    1.0: "as fast",
    1.0004: "as fast",
    1 / 1.12: "12 % slower",
    1.042: "4.2 % faster",
    1.0994: "9.9 % faster",
    1.25: "25 % faster",
    1.99: "99 % faster",
    0.5: "2.0x slower",
    2.76: "2.8x faster",
    1 / 16.2: "16x slower",
    1e6: "1,000,000x faster",
}


@pytest.mark.parametrize("ratio", SPEEDS)
def test_a_speed_in_words(ratio: float) -> None:
    assert change(ratio) == SPEEDS[ratio]


@given(st.floats(1e-6, 1e6))
def test_a_speed_turned_round_is_of_the_same_size(ratio: float) -> None:
    words = change(ratio).replace("faster", "slower")
    assert words == change(1 / ratio).replace("faster", "slower")
