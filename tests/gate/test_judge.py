"""Verdicts: every kind, the joint rule, the words, the exit code."""

from __future__ import annotations

from typing import Any

import pytest
from gate_kit import evidence, logs, make_check, of_every_kind, pair, sessions, side, verdict
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from record_factory import make_cell

from mnist_bench.gate.evidence import Margins, SideEvidence
from mnist_bench.gate.judge import WORST_FIRST, Verdict, VerdictKind, cells_compared, change, exit_code, judge

FAILED = SideEvidence(status="oom", reason="use less")
SKIPPED = SideEvidence(status="skipped", reason="install a C++ compiler")
CELL = "lenet5/cpu/b100/eager"


def text(**given: Any) -> str:
    return verdict(evidence(**given)).text


class TestMeasured:
    @pytest.mark.parametrize(
        ("ratio", "ending"),
        [
            (1.12, "; it is also 12 % slower (95 % interval 11-13 %, 9 pairs)"),
            (0.8, "; that it is 25 % faster (95 % interval 24-26 %, 9 pairs) does not count"),
            (1.0, "is tolerated"),
            (None, "is tolerated"),
        ],
    )
    def test_speed_counts_only_where_accuracy_has_not_failed(self, ratio: float | None, ending: str) -> None:
        found = verdict(evidence(ratio, -0.02, 6))
        assert found.kind == "regression"
        assert "less accurate" in found.text
        assert found.text.endswith(ending)

    def test_undecided(self) -> None:
        pairs = tuple(pair(log, ("load",) if n < 5 else ()) for n, log in enumerate(logs(1.0, 8)))
        assert text(pairs=pairs) == (
            f"{CELL} is inconclusive; its speed is not decided: measured as fast (95 % interval 0.7 % slower to 0.7 % "
            "faster, 8 pairs), 1 more pair to the next look, at 9; 5 of 8 pairs disturbed by other work on the "
            "machine; accuracy passes: equal predictions (3 seeds)"
        )
        assert "after the last look at 36 pairs: too noisy to tell" in text(
            pairs=tuple(map(pair, logs(1.06, 36, sd=0.5)))
        )
        found = text(change=-0.001, seeds=2)
        assert "; speed passes: a slow-down of 10 % is ruled out" in found
        assert "its accuracy is not decided: measured 0.10 pp less accurate (95 % interval 0.34 pp less" in found
        assert "more seeds needed" in found
        assert "about 1 more seed needed" in text(change=-0.02, seeds=5)

    def test_nothing_was_measured(self) -> None:
        found = verdict(evidence(None, 0.0, 0))
        assert (found.kind, found.speed, found.accuracy) == ("inconclusive", None, None)
        assert found.text == (
            f"{CELL} is inconclusive; its speed was not measured (9 pairs needed for a first look); its accuracy was "
            "not measured"
        )

    def test_number_of_cells_sets_the_levels(self) -> None:
        others = [evidence(cell=make_cell(f"m{n}")) for n in range(19)]
        found = judge(make_check(evidence(1.12), *others))
        assert found[0].speed is not None
        assert found[0].speed.alpha == pytest.approx(0.01 / 80)
        assert found[0].speed.count == 13
        assert [one.cell for one in found][1:] == [one.cell for one in others]

    def test_margins_are_those_of_the_cell_and_a_change_of_them_is_said(self) -> None:
        wide = {"margins": Margins(margin=0.15, detect=0.3), "margins_before": Margins()}
        found = verdict(evidence(1.12, **wide))
        assert found.kind == "pass"
        assert found.text.endswith(
            "; the change moves its margins: 3 % tolerated and 10 % excluded before, 15 % tolerated and 30 % excluded "
            "now"
        )


class TestFloors:
    def test_accuracy_is_held_over_the_seeds_of_the_matrix_as_in_a_run(self) -> None:
        """0.948, 0.953 and 0.954 hold a floor of 0.95, and 0.948 alone does not miss it."""
        for trained in (1, 2, 3):
            b = side([0.948, 0.953, 0.954][:trained])
            found = verdict(evidence(a=b, b=b, min_accuracy=0.95, floor_seeds=(0, 1, 2)))
            assert found.kind == ("pass" if trained == 3 else "inconclusive")
        assert "floor 0.95 of accuracy waits for the matrix's other seeds: 1, 2" in text(
            a=side([0.948]), b=side([0.948]), min_accuracy=0.95, floor_seeds=(0, 1, 2)
        )

    def test_under_it_fails_at_once_where_no_other_seed_can_mend_it(self) -> None:
        floor = {"min_accuracy": 0.98, "floor_seeds": (0, 1, 2)}
        assert text(**floor) == f"{CELL} failed: its accuracy 0.9700 is under the floor 0.98 of the matrix"
        wreck = side([0.1])
        assert text(a=wreck, b=wreck, **floor) == (
            f"{CELL} failed: its accuracy, 0.1000 with seed 0, can no more reach the floor 0.98 of the matrix"
        )
        assert verdict(evidence(min_accuracy=0.97, floor_seeds=(0, 1, 2))).kind == "pass"

    def test_seeds_beyond_those_of_the_matrix_do_not_count(self) -> None:
        assert verdict(evidence(b=side([0.97, 0.97, 0.1]), min_accuracy=0.97, floor_seeds=(0, 1))).kind != "failed"

    def test_a_throughput_that_was_not_measured_misses_nothing(self) -> None:
        """Trainings of a check are deterministic, and may be slower than what the floor is about."""
        assert verdict(evidence(None, min_train_samples_per_s=20_001.0)).kind == "inconclusive"

    @pytest.mark.parametrize("alone", [{"a": None}, {"differences": ("lr: 1 in A, 2 in B",)}, {"a": FAILED}])
    def test_hold_for_a_cell_that_is_compared_with_nothing(self, alone: dict[str, Any]) -> None:
        floor = {"b": side([0.5]), "floor_seeds": (0,), **alone}
        assert verdict(evidence(min_accuracy=0.5, **floor)).kind == (
            "new" if "a" in alone and not alone["a"] else "not_comparable"
        )
        assert verdict(evidence(min_accuracy=0.9, **floor)).kind == "failed"


class TestUnmeasured:
    @pytest.mark.parametrize(
        ("a", "b", "kind", "words"),
        [
            (side(), FAILED, "failed", "failed (oom): use less"),
            (None, FAILED, "failed", "failed (oom): use less"),
            (FAILED, FAILED, "failed", "use less; the reference failed too"),
            (SKIPPED, FAILED, "failed", "failed (oom): use less"),
            (FAILED, side(), "not_comparable", "cannot be compared: the reference failed (oom): use less"),
            (FAILED, SKIPPED, "not_comparable", "it is skipped here, and the reference measured it: install"),
            (SKIPPED, side(), "not_comparable", "cannot be compared: the reference skipped it: install a C++ compiler"),
            (SKIPPED, SKIPPED, "not_comparable", "it is skipped here, and the reference skipped it too: install a C++"),
            (None, SKIPPED, "not_comparable", "it is skipped here, and the reference lacks it: install"),
            (side(), SKIPPED, "missing", "is no longer executed here: the change skips it, unlike the reference: ins"),
            (side(), None, "missing", "is missing: the reference has this cell, the change has not"),
            (None, side(()), "inconclusive", "is new, and was not trained in time"),
            (None, side(), "new", "is new: the reference has no such cell"),
        ],
    )
    def test_sides(self, a: Any, b: Any, kind: VerdictKind, words: str) -> None:
        found = verdict(evidence(a=a, b=b))
        assert found.kind == kind
        assert words in found.text
        assert (found.speed, found.accuracy) == (None, None)

    def test_text_from_outside_is_one_harmless_line(self) -> None:
        hostile = "first\nsecond\x1b[31m\u202e"
        broken = SideEvidence(status="crashed", reason=hostile)
        skipped = SideEvidence(status="skipped", reason=hostile)
        for changes in (
            {"b": broken},
            {"a": broken},
            {"a": skipped},
            {"b": skipped},
            {"differences": (hostile,)},
            {"cell": make_cell(hostile)},
        ):
            assert text(**changes).isprintable()
            assert "first second" in text(**changes)


class TestBaseline:
    """The same judge over the ratios of two runs to their reference variant."""

    def found(self, *ratios: float, **changes: Any) -> Verdict:
        reference = "lenet5/cpu/b100/eager"
        a, b = (replace(side(), reference=reference, ratios=sessions(*each)) for each in ((0.1,) * 3, ratios))
        one = evidence(None, cell=make_cell("lenet5", variant="compile"), a=a, b=b)
        return verdict(replace(one, **changes), "baseline")

    def test_says_what_would_decide(self) -> None:
        found = self.found(0.15)
        assert found.kind == "inconclusive"
        assert "seeds in both would do; accuracy passes: equal predictions (3 seeds)" in found.text
        found = self.found(why_no_ratio="its reference is not in this run")
        assert found.kind == "inconclusive"
        assert "its speed cannot be judged: its reference is not in this run" in found.text


class TestExitCode:
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
    def test_is_the_contracts(self, kinds: tuple[VerdictKind, ...], code: int) -> None:
        verdicts = [Verdict(cell=make_cell(), kind=kind, text="") for kind in kinds]
        assert exit_code(make_check(), verdicts) == code
        assert exit_code(make_check(status="interrupted"), verdicts) == 130

    def test_every_kind_can_be_reached(self) -> None:
        assert tuple(one.kind for one in judge(make_check(*of_every_kind()))) == WORST_FIRST


def test_cells_count_whatever_became_of_them() -> None:
    """How often is looked may not hang on what was found."""
    assert cells_compared([evidence(), evidence(b=FAILED), evidence(a=SKIPPED)]) == 3
    assert cells_compared([evidence(a=None), evidence(b=None), evidence(differences=("x",))]) == 0


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1.0, "as fast"),
        (1.0004, "as fast"),
        (1 / 1.12, "12 % slower"),
        (1.042, "4.2 % faster"),
        (1.0994, "9.9 % faster"),
        (1.25, "25 % faster"),
        (1.99, "99 % faster"),
        (0.5, "2.0x slower"),
        (2.76, "2.8x faster"),
        (1 / 16.2, "16x slower"),
        (1e6, "1,000,000x faster"),
    ],
)
def test_a_speed_in_words(ratio: float, words: str) -> None:
    assert change(ratio) == words


@given(st.floats(1e-6, 1e6))
def test_a_speed_turned_round_is_of_the_same_size(ratio: float) -> None:
    words = change(ratio).replace("faster", "slower")
    assert words == change(1 / ratio).replace("faster", "slower")
