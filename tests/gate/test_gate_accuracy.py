"""Accuracy: the exact tier, the seeds that differ, plateaus, and how many seeds are still needed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
import scipy.stats
from gate_kit import seed_pairs, training
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mnist_bench.gate.accuracy import (
    LOOKS,
    AccuracyFinding,
    fail_level,
    find_accuracy,
    floor_variance,
    identical,
    pass_level,
)
from mnist_bench.gate.evidence import SeedPair
from mnist_bench.stats import Interval

unhurried = settings(deadline=None)  # dozens of seeds an example


def equal(seed: int, accuracy: float = 0.97) -> SeedPair:
    return SeedPair(a=training(accuracy, f"s{seed}", seed), b=training(accuracy, f"s{seed}", seed))


def found(seeds: Sequence[SeedPair], cells: int = 1) -> AccuracyFinding:
    finding = find_accuracy(seeds, cells)
    assert finding is not None
    return finding


def dropped(drop: float, seeds: int, accuracy: float = 0.97, spread: float = 0.0005) -> tuple[SeedPair, ...]:
    """Seeds whose accuracies drop by so much on average, give or take a spread."""
    a = [accuracy] * seeds
    return seed_pairs(a, [accuracy - drop + spread * (-1) ** n for n in range(seeds)])


class TestExactTier:
    @pytest.mark.parametrize("seeds", [1, 3, 100])
    def test_equal_predictions_pass(self, seeds: int) -> None:
        finding = found([equal(n) for n in range(seeds)])
        assert (finding.decision, finding.change, finding.more_seeds) == ("pass", Interval(0.0, 0.0, 0.0), 0)
        assert (finding.seeds, finding.identical) == (seeds, seeds)
        assert finding.a == finding.b == pytest.approx(0.97)

    @pytest.mark.parametrize("change", [{"predictions_sha256": "x"}, {"accuracy": 0.5}, {"images": 60_000}])
    def test_all_must_be_equal(self, change: dict[str, object]) -> None:
        one = equal(0)
        assert identical(one)
        assert not identical(SeedPair(a=one.a, b=replace(one.b, **change)))

    def test_an_unknown_hash_equals_nothing(self) -> None:
        one = equal(0)
        unknown = SeedPair(a=replace(one.a, predictions_sha256=""), b=replace(one.b, predictions_sha256=""))
        assert not identical(unknown)


class TestSeedsThatDiffer:
    def test_equal_seeds_do_not_mask_a_drop(self) -> None:
        """However many predict the same: the verdict and the change are those of the seeds that differ."""
        bad = dropped(0.01, 6)
        alone, among = found(bad), found([*(equal(n) for n in range(50)), *bad])
        assert alone.decision == among.decision == "fail"
        assert alone.change == among.change
        assert (among.seeds, among.identical) == (56, 50)

    @unhurried
    @given(st.permutations([*(equal(n) for n in range(5)), *dropped(0.002, 5, spread=0.0)]))
    def test_where_equal_seeds_stand_does_not_matter(self, seeds: list[SeedPair]) -> None:
        finding, alone = found(seeds), found(dropped(0.002, 5, spread=0.0))
        assert finding.decision == alone.decision
        assert finding.change.estimate == pytest.approx(alone.change.estimate)

    def test_first_decision_stands(self) -> None:
        early = dropped(0.02, 6)
        assert found(early).decision == "fail"
        assert found([*early, *dropped(-0.05, 20)]) == found(early)

    def test_between_looks_nothing_is_tested(self) -> None:
        assert found(dropped(0.0, 13, spread=0.0)).decision == found(dropped(0.0, 9, spread=0.0)).decision
        undecided = dropped(0.004, 4, spread=0.0)
        assert found(undecided).decision == "undecided"
        assert found([*undecided, *dropped(0.03, 1)]).decision == "undecided"
        assert found([*undecided, *dropped(0.03, 2)]).decision == "undecided"  # that seed 5 and 6 spread so much
        assert found([*undecided, *dropped(0.004, 2)]).seeds == 6

    @pytest.mark.parametrize("cells", [1, 20])
    def test_thresholds_are_students(self, cells: int) -> None:
        """A drop a hair beyond what Student's t shows fails; a hair short of it does not; likewise for a pass."""
        sd = math.sqrt(0.03 / 10_000)
        for level, bound, sign, decision in (
            (fail_level(cells), -0.0005, -1, "fail"),
            (pass_level(), -0.003, 1, "pass"),
        ):
            number = 9  # twenty cells cannot fail before
            margin = scipy.stats.t.isf(level, number - 1) * sd / math.sqrt(number)
            beyond, short = ((bound + sign * margin * factor) for factor in (1.02, 0.98))
            at_floor = [
                seed_pairs([0.97 - change / 2] * number, [0.97 + change / 2] * number) for change in (beyond, short)
            ]
            assert found(at_floor[0], cells).decision == decision
            assert found(at_floor[1], cells).decision != decision

    @unhurried
    @given(st.lists(st.tuples(st.floats(0.9, 1), st.floats(0.9, 1)), min_size=1, max_size=10), st.floats(0, 0.05))
    def test_a_larger_drop_is_never_judged_better(self, both: list[tuple[float, float]], more: float) -> None:
        """At the look of four, with a floor that hardly moves."""
        four = (both * 4)[:4]
        a, b = [x for x, _ in four], [y for _, y in four]
        order = ["pass", "undecided", "fail"]
        before = found(seed_pairs(a, [y - 0.05 for y in b])).decision
        after = found(seed_pairs([x + more / 2 for x in a], [y - 0.05 - more / 2 for y in b])).decision
        assert order.index(after) >= order.index(before)

    @unhurried
    @given(st.lists(st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)), min_size=1, max_size=80))
    def test_swapping_the_sides_turns_the_finding_round(self, both: list[tuple[float, float]]) -> None:
        there = found(seed_pairs([a for a, _ in both], [b for _, b in both]))
        back = found(seed_pairs([b for _, b in both], [a for a, _ in both]))
        assert not there.decision == back.decision == "fail"
        if there.seeds == back.seeds:
            assert back.change.estimate == pytest.approx(-there.change.estimate)
            assert (there.change.low, there.change.high) == pytest.approx((-back.change.high, -back.change.low))


class TestFloorOfSpread:
    def test_is_that_of_two_trainings(self) -> None:
        a, b = training(0.99, "a"), training(0.97, "b", images=60_000)
        assert floor_variance([a], [b]) == pytest.approx(0.01 / 20_000 + 0.03 / 120_000)

    def test_no_error_is_no_certainty(self) -> None:
        perfect = [training(1.0, "p")]
        assert floor_variance(perfect, perfect) == pytest.approx(2 * 1e-4 / 20_000)
        assert found(seed_pairs([1.0] * 4, [1.0] * 4)).change.high > 0

    def test_seeds_that_happen_to_agree_prove_little(self) -> None:
        """Four times the same drop of 0.2 pp: no spread of their own, and still not decided."""
        finding = found(dropped(0.002, 4, spread=0.0))
        assert finding.decision == "undecided"
        half = scipy.stats.t.ppf(0.975, 3) * math.sqrt((0.03 + 0.032) / 20_000 / 4)
        assert (finding.change.low, finding.change.high) == pytest.approx((-0.002 - half, -0.002 + half))

    def test_their_own_spread_is_believed_where_it_is_larger(self) -> None:
        changes = [-0.02, 0.01, -0.01, 0.03]
        finding = found(seed_pairs([0.95] * 4, [0.95 + change for change in changes]))
        low, high = scipy.stats.t.interval(0.95, 3, statistics.fmean(changes), scipy.stats.sem(changes))
        assert (finding.change.low, finding.change.high) == pytest.approx((low, high))


class TestPlateaus:
    """Nothing fails before two humps that are no change at all would hardly ever look like it."""

    @pytest.mark.parametrize(("cells", "seeds"), [(1, 6), (20, 9)])
    def test_a_wreck_fails_at_the_first_look_that_a_plateau_cannot_explain(self, cells: int, seeds: int) -> None:
        assert 0.25**seeds <= fail_level(cells)
        wreck = dropped(0.7, seeds)
        assert found(wreck, cells).decision == "fail"
        assert found(wreck[:-1], cells).decision == "undecided"
        assert found(wreck[:4], cells).more_seeds == seeds - 4


class TestMoreSeeds:
    def test_reach_the_look_that_would_decide(self) -> None:
        """A clear drop needs the first look that may fail, none at all some more, one in between all of them."""
        assert found(dropped(0.05, 1)).more_seeds == LOOKS[1] - 1
        assert found(dropped(0.0, 1, spread=0.0)).more_seeds == LOOKS[2] - 1
        wide = seed_pairs([0.9, 0.9], [0.9 + 0.05, 0.9 - 0.05])
        assert found(wide).more_seeds == LOOKS[-1] - 2

    def test_equal_seeds_are_counted_in(self) -> None:
        """One seed in three differs: three times as many are needed."""
        assert found([equal(0), equal(1), *dropped(0.05, 1)]).more_seeds == 3 * (LOOKS[1] - 1)

    def test_after_the_last_look_none_helps(self) -> None:
        wide = [0.9 + 0.2 * (-1) ** n for n in range(LOOKS[-1] + 3)]
        finding = found(seed_pairs([0.9] * len(wide), [min(one, 1.0) for one in wide]))
        assert (finding.decision, finding.more_seeds) == ("undecided", 0)
