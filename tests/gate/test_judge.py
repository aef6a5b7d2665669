"""Verdicts: the joint rule, the levels, the exit code; every sentence: tests/golden/stored/check-words.txt."""

import pytest
from gate_kit import make_check
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell

from mnist_bench.gate.judge import Verdict, change, exit_code


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
def test_the_exit_code_is_the_contracts(kinds, code):
    verdicts = [Verdict(cell=make_cell(), kind=kind, text="") for kind in kinds]
    assert exit_code(make_check(), verdicts) == code
    assert exit_code(make_check(status="interrupted"), verdicts) == 130


@given(st.floats(1e-6, 1e6))
def test_a_speed_turned_round_is_of_the_same_size(ratio):
    words = change(ratio).replace("faster", "slower")
    assert words == change(1 / ratio).replace("faster", "slower")
