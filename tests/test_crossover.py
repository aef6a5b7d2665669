"""Crossover and break-even: known answers, and the laws that they obey."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell

from mnist_bench.comparisons import BatchPoint, BreakEven, Crossover
from mnist_bench.crossover import break_even, crossover
from mnist_bench.speedups import SpeedUp

SIZES = (10, 100, 1000, 10_000)


def speed(ratio: float, width: float | None = 1.1) -> SpeedUp:
    low, high = (None, None) if width is None else (ratio / width, ratio * width)
    return SpeedUp(ratio=ratio, low=low, high=high, paired="between")


def found(ratios: Sequence[float], width: float | None = 1.1, sizes: Sequence[int] = SIZES) -> Crossover:
    return crossover("mlp", "cuda", "eager", [(s, speed(r, width)) for s, r in zip(sizes, ratios, strict=False)])


def position(point: BatchPoint) -> float:
    """On a line, for laws about order."""
    return {"below": 0.0, "above": math.inf}.get(point.where, point.batch_size or math.nan)


rising = st.lists(st.floats(0.01, 100), min_size=1, max_size=4).map(sorted)
widths = st.floats(1.0, 3.0)


class TestCrossover:
    def test_half_way_on_the_log_scale(self) -> None:
        one = found([0.1, 0.5, 2.0, 8.0], width=1.0)
        assert one.estimate.where == "at"
        assert one.estimate.batch_size == pytest.approx(math.sqrt(100 * 1000))
        assert (one.smallest, one.largest, one.reason) == (10, 10_000, "")

    def test_interval_is_where_the_band_holds_1(self) -> None:
        one = found([0.1, 0.5, 2.0, 8.0], width=2.0)
        assert (one.low.batch_size, one.high.batch_size) == pytest.approx((100, 1000))

    def test_a_ratio_of_1_is_the_crossover(self) -> None:
        assert found([0.5, 1.0, 2.0], width=1.0).estimate.batch_size == pytest.approx(100)

    def test_always_faster_or_never(self) -> None:
        assert found([1.5, 2.0]).estimate.where == found([3.0]).estimate.where == "below"
        assert found([0.5, 0.9]).estimate.where == found([0.2]).estimate.where == found([1.0]).estimate.where == "above"

    def test_end_that_lies_outside_of_what_was_measured(self) -> None:
        one = found([1.05, 2.0])
        assert one.estimate.where == "below"
        assert (one.low.where, one.high.where) == ("below", "at")
        one = found([0.5, 0.95])
        assert (one.low.where, one.high.where) == ("at", "above")

    def test_without_intervals_the_ends_are_unknown(self) -> None:
        one = found([0.5, 2.0], width=None)
        assert one.estimate.where == "at"
        assert one.low.where == one.high.where == "unknown"
        assert "no interval" in one.reason

    def test_more_than_one_crossing_is_unknown(self) -> None:
        for ratios in ([2.0, 0.5], [0.5, 2.0, 0.5, 2.0]):
            one = found(ratios)
            assert one.estimate.where == one.low.where == one.high.where == "unknown"
            assert one.reason

    def test_nothing_measured(self) -> None:
        one = found([])
        assert (one.estimate.where, one.smallest) == ("unknown", None)
        assert "no batch size" in one.reason

    def test_order_of_the_points_does_not_matter(self) -> None:
        points = [(s, speed(r)) for s, r in zip(SIZES, (0.1, 0.5, 2.0, 8.0), strict=True)]
        assert crossover("m", "d", "v", points) == crossover("m", "d", "v", points[::-1])

    @given(rising, widths)
    def test_interval_holds_the_estimate(self, ratios: list[float], width: float) -> None:
        one = found(ratios, width)
        low, middle, high = map(position, (one.low, one.estimate, one.high))
        assert low <= middle * (1 + 1e-9)
        assert middle <= high * (1 + 1e-9)

    @given(rising, st.floats(1.0, 50.0))
    def test_a_faster_device_never_crosses_later(self, ratios: list[float], faster: float) -> None:
        before, after = found(ratios), found([ratio * faster for ratio in ratios])
        for a, b in ((before.estimate, after.estimate), (before.low, after.low), (before.high, after.high)):
            assert position(b) <= position(a) * (1 + 1e-9)

    @given(rising, widths, st.floats(1.0, 3.0))
    def test_wider_ratios_widen_it(self, ratios: list[float], width: float, more: float) -> None:
        narrow, wide = found(ratios, width), found(ratios, width * more)
        assert position(wide.low) <= position(narrow.low) * (1 + 1e-9)
        assert position(narrow.high) <= position(wide.high) * (1 + 1e-9)

    @given(rising)
    def test_within_what_was_measured(self, ratios: list[float]) -> None:
        one = found(ratios)
        if one.estimate.where == "at":
            assert one.estimate.batch_size is not None
            assert one.smallest is not None
            assert one.largest is not None
            assert one.smallest * (1 - 1e-9) <= one.estimate.batch_size <= one.largest * (1 + 1e-9)


def earned(ratio: SpeedUp, compile_s: float = 12.0, step_s: float = 0.003) -> BreakEven:
    return break_even(
        make_cell(variant="compile"),
        make_cell(),
        ratio,
        compile_s=compile_s,
        reference_step_s=step_s,
        samples_per_epoch=60_000,
    )


class TestBreakEven:
    def test_known_answer(self) -> None:
        one = earned(SpeedUp(ratio=1.5, low=1.2, high=2.0, paired="between"))
        assert (one.steps, one.steps_low, one.steps_high) == pytest.approx((12_000, 8_000, 24_000))
        assert (one.epochs, one.epochs_low, one.epochs_high) == pytest.approx((20, 40 / 3, 40))
        assert (one.seconds, one.seconds_low, one.seconds_high) == pytest.approx((36, 24, 72))
        assert one.verdict == "after"

    @given(st.floats(1.01, 50), st.floats(0.1, 100), st.floats(1e-5, 1))
    def test_both_have_then_cost_the_same(self, ratio: float, compile_s: float, step_s: float) -> None:
        one = earned(speed(ratio, 1.001), compile_s, step_s)
        assert one.steps is not None
        assert one.seconds == pytest.approx(one.steps * step_s)
        assert one.seconds == pytest.approx(compile_s + one.steps * step_s / ratio)

    @given(st.floats(1.2, 50), st.floats(1.01, 10))
    def test_a_faster_step_earns_sooner(self, ratio: float, more: float) -> None:
        slow, fast = earned(speed(ratio)), earned(speed(ratio * more))
        assert slow.steps is not None
        assert fast.steps is not None
        assert fast.steps < slow.steps

    @given(st.floats(1.2, 50), widths)
    def test_interval_holds_the_estimate(self, ratio: float, width: float) -> None:
        one = earned(speed(ratio, width))
        if one.verdict == "after":
            assert one.steps_low is not None
            assert one.steps is not None
            assert one.steps_high is not None
            assert one.steps_low <= one.steps <= one.steps_high

    @given(st.floats(0.01, 1.0))
    def test_never_where_the_step_is_no_faster(self, ratio: float) -> None:
        one = earned(speed(ratio, None))
        assert (one.verdict, one.steps, one.seconds) == ("never", None, None)
        assert earned(speed(0.5, 1.1)).verdict == "never"

    @pytest.mark.parametrize("ratio", [0.95, 1.0, 1.05])
    def test_unproven_where_the_interval_holds_1(self, ratio: float) -> None:
        one = earned(speed(ratio, 1.1))
        assert (one.verdict, one.steps) == ("unproven", None)

    def test_without_an_interval_the_estimate_stands_alone(self) -> None:
        one = earned(speed(1.5, None))
        assert one.steps == pytest.approx(12_000)
        assert (one.steps_low, one.steps_high) == (None, None)

    def test_a_compilation_that_costs_nothing_is_earned_at_once(self) -> None:
        assert earned(speed(1.5), compile_s=-0.1).steps == 0
