"""Whether two cells are equally accurate: verdicts, intervals, and how often they are wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_epochs, make_measurement

from mnist_bench.accuracy import MARGIN, compare_accuracy
from mnist_bench.comparisons import AccuracyDifference
from mnist_bench.records import Measurement


def scored(accuracy: float, sha: str = "") -> Measurement:
    return make_measurement(
        epochs=make_epochs(train_s=(1.0,), accuracy=(accuracy,)),
        eval_samples=10_000,
        predictions_sha256=sha or f"of {accuracy}",
    )


def difference(reference: Sequence[float], this: Sequence[float], **kwargs: bool) -> AccuracyDifference:
    pairs = [(scored(a, f"a{n}"), scored(b, f"b{n}")) for n, (a, b) in enumerate(zip(reference, this, strict=True))]
    found = compare_accuracy(pairs, **kwargs)
    assert found is not None
    return found


class TestVerdicts:
    def test_equal_predictions_are_identical_whatever_their_number(self) -> None:
        for seeds in (1, 2, 5):
            one = compare_accuracy([(scored(0.92, f"s{n}"), scored(0.92, f"s{n}")) for n in range(seeds)])
            assert one is not None
            assert (one.verdict, one.difference, one.low, one.high, one.mark) == ("identical", 0.0, 0.0, 0.0, "")
            assert one.seeds == seeds

    def test_one_seed_that_differs_is_not_identical(self) -> None:
        pairs = [(scored(0.92, "x"), scored(0.92, "x")), (scored(0.92, "y"), scored(0.92, "z"))]
        one = compare_accuracy(pairs)
        assert one is not None
        assert one.verdict == "unproven"

    @pytest.mark.parametrize(
        ("reference", "this", "verdict", "mark"),
        [
            ([0.990, 0.991, 0.989], [0.9901, 0.9911, 0.9889], "equivalent", ""),
            ([0.990, 0.991, 0.989], [0.980, 0.981, 0.979], "worse", "↓"),
            ([0.980, 0.981, 0.979], [0.990, 0.991, 0.989], "better", "?"),
            ([0.980, 0.985, 0.979], [0.983, 0.980, 0.979], "unproven", "?"),
            ([0.92, 0.921, 0.919], [0.92, 0.921, 0.919], "unproven", "?"),  # so many errors hide 0.3 pp
        ],
    )
    def test_three_seeds(self, reference: list[float], this: list[float], verdict: str, mark: str) -> None:
        one = difference(reference, this)
        assert (one.verdict, one.mark) == (verdict, mark)

    def test_few_seeds_take_the_spread_of_two_trainings(self) -> None:
        one = difference([0.99], [0.992])
        half = 1.959964 * math.sqrt(0.009 / 10_000)
        assert (one.low, one.high) == pytest.approx((0.002 - half, 0.002 + half))
        assert one.verdict == "better"
        two = difference([0.99, 0.99], [0.992, 0.992])
        assert two.high == pytest.approx(0.002 + half / math.sqrt(2))

    def test_two_seeds_that_disagree_are_believed_over_the_formula(self) -> None:
        one = difference([0.99, 0.99], [0.95, 0.99])
        assert one.low == pytest.approx(-0.02 - 1.959964 * 0.02)
        assert one.verdict == "unproven"

    def test_no_error_at_all_is_no_certainty(self) -> None:
        one = difference([1.0], [1.0])
        assert one.low is not None
        assert one.low < 0
        assert one.verdict == "equivalent"

    def test_other_images_show_nothing(self) -> None:
        one = compare_accuracy([(scored(0.99, "x"), scored(0.99, "x"))] * 3, same_images=False)
        assert one is not None
        assert (one.verdict, one.mark) == ("incomparable", "?")

    def test_nothing_scored(self) -> None:
        empty = make_measurement(epochs=make_epochs(train_s=(), accuracy=()))
        assert compare_accuracy([]) is None
        assert compare_accuracy([(empty, scored(0.9))]) is None

    def test_number_of_scored_images_counts(self) -> None:
        """The tutorial scores 60,000: less is left to chance."""
        pairs = [(scored(0.99, "a"), scored(0.99, "b"))]
        many = [(make_measurement(epochs=m.epochs, eval_samples=60_000, predictions_sha256=m.predictions_sha256))
                for m in pairs[0]]  # fmt: skip
        few, more = compare_accuracy(pairs), compare_accuracy([(many[0], many[1])])
        assert few is not None
        assert more is not None
        assert few.high == pytest.approx((more.high or 0) * math.sqrt(6))


accuracies = st.floats(0.5, 0.999)


class TestLaws:
    @given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=6))
    def test_swapping_the_sides_turns_the_difference_round(self, pairs: list[tuple[float, float]]) -> None:
        there = difference([a for a, _ in pairs], [b for _, b in pairs])
        back = difference([b for _, b in pairs], [a for a, _ in pairs])
        assert (back.difference, back.low, back.high) == pytest.approx(
            (-there.difference, -(there.high or 0), -(there.low or 0)), abs=1e-12
        )
        turned = {"better": "worse", "worse": "better"}
        assert back.verdict == turned.get(there.verdict, there.verdict)

    @given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=6))
    def test_equivalent_only_within_the_margin(self, pairs: list[tuple[float, float]]) -> None:
        one = difference([a for a, _ in pairs], [b for _, b in pairs])
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.difference <= one.high
        assert (one.verdict == "equivalent") == (max(-one.low, one.high) < MARGIN)


class TestErrorRates:
    """Two trainings of one recipe: their accuracies spread by sqrt(err / 2n) each."""

    @pytest.mark.parametrize("seeds", [1, 2, 3, 5])
    def test_a_drop_of_the_margin_is_rarely_called_equivalent(self, seeds: int) -> None:
        assert self._rate("equivalent", drop=MARGIN, seeds=seeds) < 0.025 + 0.01

    @pytest.mark.parametrize("seeds", [1, 2, 3, 5])
    def test_the_same_recipe_is_rarely_called_worse(self, seeds: int) -> None:
        assert self._rate("worse", drop=0.0, seeds=seeds) < 0.025 + 0.01

    def test_the_same_recipe_is_shown_equivalent_by_enough_seeds(self) -> None:
        assert self._rate("equivalent", drop=0.0, seeds=10) > 0.9

    def _rate(self, verdict: str, *, drop: float, seeds: int, draws: int = 1500) -> float:
        rng, error = np.random.default_rng(7), 0.01
        sd = math.sqrt(error / 20_000)
        hits = 0
        for _ in range(draws):
            reference, this = rng.normal(1 - error, sd, seeds), rng.normal(1 - error - drop, sd, seeds)
            hits += difference(list(reference), list(this)).verdict == verdict
        return hits / draws


def test_interval_is_students() -> None:
    changes = [0.0, 0.01, -0.004, 0.006]
    one = difference([0.9] * 4, [0.9 + change for change in changes])
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(changes), scipy.stats.sem(changes))
    assert (one.low, one.high) == pytest.approx((low, high))
