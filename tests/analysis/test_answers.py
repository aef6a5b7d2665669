"""Crossover, break-even, equal accuracy: known answers, the laws that they obey, and how often verdicts are wrong."""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell, make_epochs, make_measurement

from mnist_bench.analysis import answers
from mnist_bench.analysis.answers import ENOUGH_SEEDS, MARGIN, break_even, compare_accuracy, crossover
from mnist_bench.analysis.ratios import SpeedUp
from mnist_bench.records import Measurement
from mnist_bench.stats import Interval

SIZES = (10, 100, 1000, 10_000)
rising = st.lists(st.floats(0.01, 100), min_size=1, max_size=4).map(sorted)


def speed(ratio: float, width: float | None = 1.1) -> SpeedUp:
    bounds = () if width is None else (ratio / width, ratio * width)
    return SpeedUp(Interval(ratio, *bounds), "between")


def found(ratios: Sequence[float], width: float | None = 1.1) -> answers.Crossover:
    points = [(size, speed(ratio, width)) for size, ratio in zip(SIZES, ratios, strict=False)]
    return crossover("mlp", "cuda", "eager", points[::-1])


def position(point: answers.BatchPoint) -> float:
    """On a line, for laws about order."""
    return {"below": 0.0, "above": math.inf}.get(point.where, point.batch_size or math.nan)


class TestCrossover:
    @pytest.mark.parametrize(
        ("ratios", "width", "estimate", "bounds"),
        [
            ([0.1, 0.5, 2.0, 8.0], 1.0, "316", "[316, 316]"),  # half way on the log scale
            ([0.1, 0.5, 2.0, 8.0], 2.0, "316", "[100, 1,000]"),  # where the band holds 1
            ([0.5, 1.0, 2.0], 1.0, "100", "[100, 100]"),
            ([3.0], 1.1, "below 10", "[below 10, below 10]"),
            ([0.5, 0.9], 1.1, "above 100", "[above 100, above 100]"),
            ([1.0], 1.0, "above 10", "[above 10, above 10]"),
            ([1.05, 2.0], 1.1, "below 10", "[below 10, 11.8]"),
            ([0.5, 0.95], 1.1, "above 100", "[85.4, above 100]"),
            ([0.5, 2.0], None, "31.6", ""),
            ([2.0, 0.5], 1.1, "unknown", ""),
            ([0.5, 2.0, 0.5, 2.0], 1.1, "unknown", ""),
            ([], 1.1, "unknown", ""),
        ],
    )
    def test_known_answers(self, ratios, width, estimate, bounds):
        one = found(ratios, width)
        assert (one.estimate.words, one.bounds, bool(one.reason)) == (estimate, bounds, not bounds)

    @given(rising, st.floats(1.0, 3.0), st.floats(1.0, 3.0), st.floats(1.0, 50.0))
    def test_interval_holds_the_estimate_wider_ratios_widen_it_and_a_faster_device_never_crosses_later(
        self, ratios, width, more, faster
    ):
        one, wide, fast = found(ratios, width), found(ratios, width * more), found([r * faster for r in ratios], width)
        places = [position(point) for point in (wide.low, one.low, one.estimate, one.high, wide.high)]
        assert all(a <= b * (1 + 1e-9) for a, b in pairwise(places))
        for before, after in ((one.estimate, fast.estimate), (one.low, fast.low), (one.high, fast.high)):
            assert position(after) <= position(before) * (1 + 1e-9)
        if one.estimate.where == "at":
            assert 10 * (1 - 1e-9) <= position(one.estimate) <= SIZES[len(ratios) - 1] * (1 + 1e-9)


def earned(ratio: SpeedUp, compile_s: float = 12.0, step_s: float = 0.003) -> answers.BreakEven:
    cells = make_cell(variant="compile"), make_cell()
    return break_even(*cells, ratio, compile_s=compile_s, step_s=step_s, epoch_samples=60_000)


class TestBreakEven:
    def test_known_answer(self):
        one = earned(SpeedUp(Interval(1.5, 1.2, 2.0), "between"))
        assert astuple(one.steps) == pytest.approx((12_000, 8_000, 24_000))
        assert astuple(one.epochs) == pytest.approx((20, 40 / 3, 40))
        assert astuple(one.seconds) == pytest.approx((36, 24, 72))
        assert (one.verdict, one.words) == ("after", "after 20 epochs")
        assert astuple(earned(speed(1.5, None)).steps) == (pytest.approx(12_000), None, None)
        assert astuple(earned(speed(1.5, None), compile_s=-0.1).steps) == (0, None, None)  # it costs nothing

    @given(st.floats(1.01, 50), st.floats(0.1, 100), st.floats(1e-5, 1))
    def test_both_have_then_cost_the_same(self, ratio, compile_s, step_s):
        steps, low, high = astuple(earned(speed(ratio, 1.001), compile_s, step_s).steps)
        assert low <= steps <= high
        assert steps * step_s == pytest.approx(compile_s + steps * step_s / ratio)

    @pytest.mark.parametrize(
        ("ratio", "verdict", "says"),
        [
            *((speed(one, None), "never", "never: not faster") for one in (0.01, 0.9, 1.0)),
            (speed(0.5), "never", "never: not faster"),
            *((speed(one), "unproven", "not shown") for one in (0.95, 1.0, 1.05, 1.1)),
            (SpeedUp(Interval(0.95, 0.9, 1.0), "within"), "unproven", "not shown"),
        ],
    )
    def test_what_does_not_pay_off(self, ratio, verdict, says):
        one = earned(ratio)
        assert (one.verdict, one.words, one.steps, one.epochs, one.seconds) == (verdict, says, None, None, None)


def scored(accuracy: float, sha: str, images: int = 10_000) -> Measurement:
    epochs = make_epochs(train_s=(1.0,), accuracy=(accuracy,))
    return make_measurement(epochs=epochs, eval_samples=images, predictions_sha256=sha)


def difference(reference: Sequence[float], this: Sequence[float], **more: int) -> answers.AccuracyDifference:
    pairs = zip(reference, this, strict=True)
    return compare_accuracy([(scored(a, "a", **more), scored(b, "b", **more)) for a, b in pairs])


LEVEL, LOWER = [0.990, 0.991, 0.989], [0.980, 0.981, 0.979]
Training = Callable[[np.random.Generator, int], np.ndarray]


def plain(error: float) -> Training:
    """Accuracies spread by sqrt(err / 2n)."""
    return lambda rng, seeds: rng.normal(1 - error, math.sqrt(error / 20_000), seeds)


def stuck(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Half of the trainings stay on a plateau."""
    return plain(0.01)(rng, seeds) - 0.04 * rng.integers(0, 2, seeds)


class TestAccuracy:
    @pytest.mark.parametrize("seeds", [1, 2, 5])
    def test_equal_predictions_are_identical_whatever_their_number(self, seeds):
        same = [(scored(0.92, f"s{n}"), scored(0.92, f"s{n}")) for n in range(seeds)]
        one, elsewhere = (compare_accuracy(same, same_images=same_images) for same_images in (True, False))
        mixed = compare_accuracy([*same, (scored(0.92, "x"), scored(0.88, "y"))])
        assert (one.verdict, one.seeds, one.mark, astuple(one.difference)) == ("identical", seeds, "", (0.0, 0.0, 0.0))
        assert [(each.verdict, each.mark) for each in (elsewhere, mixed)] == [("incomparable", "?"), ("unproven", "?")]
        assert compare_accuracy([]) is None

    @pytest.mark.parametrize(
        ("reference", "this", "verdict", "mark"),
        [
            (LEVEL * 2, [0.9901, 0.9911, 0.9889] * 2, "equivalent", ""),
            (LEVEL, [0.9901, 0.9911, 0.9889], "unproven", "?"),  # within the margin, but of three seeds
            (LEVEL, LOWER, "worse", "↓"),
            (LOWER, LEVEL, "better", "?"),
            ([0.980, 0.985, 0.979], [0.983, 0.980, 0.979], "unproven", "?"),
            ([0.60, 0.601, 0.599] * 2, [0.60, 0.601, 0.599] * 2, "unproven", "?"),  # so many errors hide 0.3 pp
            ([0.99, 0.99], [0.95, 0.95], "unproven", "?"),  # two seeds bound nothing
            ([1.0] * 6, [1.0] * 6, "equivalent", ""),
        ],
    )
    def test_verdicts(self, reference, this, verdict, mark):
        one = difference(reference, this)
        assert (one.verdict, one.mark, one.difference.low is None) == (verdict, mark, len(this) < 3)

    def test_interval_is_students_over_seeds_but_never_narrower_than_chance(self):
        changes = [0.0, 0.01, -0.004, 0.006]
        low, high = scipy.stats.t.interval(0.95, 3, np.mean(changes), scipy.stats.sem(changes))
        found = difference([0.9] * 4, [0.9 + change for change in changes])
        assert astuple(found.difference) == pytest.approx((0.003, low, high))
        half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.01 / 20_000 / 3)
        assert difference([0.99] * 3, [0.99] * 3).difference.half == pytest.approx(half)
        assert difference([1.0] * 3, [1.0] * 3).difference.half == pytest.approx(half / 10)  # one error at least
        many = difference([0.99] * 3, [0.99] * 3, images=60_000)  # as the tutorial scores
        assert many.difference.half == pytest.approx(half / math.sqrt(6))

    @given(st.lists(st.tuples(st.floats(0.5, 0.999), st.floats(0.5, 0.999)), min_size=1, max_size=8))
    def test_laws(self, pairs):
        before, after = zip(*pairs, strict=True)
        there, back = difference(before, after), difference(after, before)
        assert (there.reference, there.this) == (back.this, back.reference)
        assert back.verdict == {"better": "worse", "worse": "better"}.get(there.verdict, there.verdict)
        if len(pairs) >= 3:
            estimate, low, high = astuple(there.difference)
            assert astuple(back.difference) == pytest.approx((-estimate, -high, -low), abs=1e-12)
            assert (there.verdict == "equivalent") == (max(-low, high) < MARGIN and len(pairs) >= ENOUGH_SEEDS)

    @pytest.mark.parametrize("seeds", [1, 2, 3, 5, 6])
    @pytest.mark.parametrize(
        ("reference", "this", "false"),
        [
            (plain(0.01), plain(0.01 + MARGIN), ["equivalent"]),
            (plain(0.01), plain(0.01), ["worse"]),
            (stuck, stuck, ["worse"]),  # the same recipe twice, two-humped
            (plain(0.01), stuck, ["equivalent", "better"]),
            (stuck, plain(0.01), ["equivalent", "worse"]),
        ],
    )
    def test_false_verdicts_are_rare(self, reference, this, false, seeds):
        rng, draws = np.random.default_rng(7), 600
        found = [difference(reference(rng, seeds).tolist(), this(rng, seeds).tolist()).verdict for _ in range(draws)]
        assert sum(map(found.count, false)) / draws < 0.025 + 0.012

    def test_the_same_recipe_is_shown_equivalent_by_enough_seeds(self):
        rng, recipe = np.random.default_rng(7), plain(0.01)
        found = [difference(recipe(rng, 10).tolist(), recipe(rng, 10).tolist()).verdict for _ in range(300)]
        assert found.count("equivalent") / len(found) > 0.9
