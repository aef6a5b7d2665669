"""Crossover and break-even: known answers, and the laws that they obey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell

from mnist_bench.analysis.answers import BatchPoint, BreakEven, Crossover, break_even, crossover
from mnist_bench.analysis.ratios import SpeedUp
from mnist_bench.stats import Interval

SIZES = (10, 100, 1000, 10_000)


def speed(ratio: float, width: float | None = 1.1) -> SpeedUp:
    bounds = () if width is None else (ratio / width, ratio * width)
    return SpeedUp(Interval(ratio, *bounds), "between")


def found(ratios: Sequence[float], width: float | None = 1.1) -> Crossover:
    return crossover("mlp", "cuda", "eager", [(s, speed(r, width)) for s, r in zip(SIZES, ratios, strict=False)])


def position(point: BatchPoint) -> float:
    """On a line, for laws about order."""
    return {"below": 0.0, "above": math.inf}.get(point.where, point.batch_size or math.nan)


def words(one: Crossover) -> list[str]:
    return [one.words(point) for point in (one.low, one.estimate, one.high)]


rising = st.lists(st.floats(0.01, 100), min_size=1, max_size=4).map(sorted)
widths = st.floats(1.0, 3.0)


@pytest.mark.parametrize(
    ("ratios", "width", "expected"),
    [
        ([0.1, 0.5, 2.0, 8.0], 1.0, ["316", "316", "316"]),  # half way on the log scale
        ([0.1, 0.5, 2.0, 8.0], 2.0, ["100", "316", "1,000"]),  # where the band holds 1
        ([0.5, 1.0, 2.0], 1.0, ["100", "100", "100"]),
        ([1.5, 2.0], 1.1, ["below 10"] * 3),
        ([3.0], 1.1, ["below 10"] * 3),
        ([0.5, 0.9], 1.1, ["above 100"] * 3),
        ([1.0], 1.0, ["above 10"] * 3),
        ([1.05, 2.0], 1.1, ["below 10", "below 10", "11.8"]),
        ([0.5, 0.95], 1.1, ["85.4", "above 100", "above 100"]),
        ([0.5, 2.0], None, ["unknown", "31.6", "unknown"]),
        ([2.0, 0.5], 1.1, ["unknown"] * 3),
        ([0.5, 2.0, 0.5, 2.0], 1.1, ["unknown"] * 3),
        ([], 1.1, ["unknown"] * 3),
    ],
)
def test_crossover(ratios: list[float], width: float | None, expected: list[str]) -> None:
    one = found(ratios, width)
    assert words(one) == expected
    assert bool(one.reason) == ("unknown" in expected)


@given(rising, widths, st.floats(1.0, 3.0))
def test_interval_holds_the_estimate_and_wider_ratios_widen_it(ratios: list[float], width: float, more: float) -> None:
    one, wide = found(ratios, width), found(ratios, width * more)
    places = [position(point) for point in (wide.low, one.low, one.estimate, one.high, wide.high)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(places))
    if one.estimate.where == "at":
        assert 10 * (1 - 1e-9) <= position(one.estimate) <= SIZES[len(ratios) - 1] * (1 + 1e-9)


@given(rising, st.floats(1.0, 50.0))
def test_a_faster_device_never_crosses_later(ratios: list[float], faster: float) -> None:
    before, after = found(ratios), found([ratio * faster for ratio in ratios])
    for a, b in ((before.estimate, after.estimate), (before.low, after.low), (before.high, after.high)):
        assert position(b) <= position(a) * (1 + 1e-9)


def test_order_of_the_points_does_not_matter() -> None:
    points = [(s, speed(r)) for s, r in zip(SIZES, (0.1, 0.5, 2.0, 8.0), strict=True)]
    assert crossover("m", "d", "v", points) == crossover("m", "d", "v", points[::-1])


def earned(ratio: SpeedUp, compile_s: float = 12.0, step_s: float = 0.003) -> BreakEven:
    cells = make_cell(variant="compile"), make_cell()
    return break_even(*cells, ratio, compile_s=compile_s, step_s=step_s, epoch_samples=60_000)


def numbers(interval: Interval | None) -> tuple[float | None, ...]:
    assert interval is not None
    return interval.estimate, interval.low, interval.high


def test_break_even_of_known_answer() -> None:
    one = earned(SpeedUp(Interval(1.5, 1.2, 2.0), "between"))
    assert numbers(one.steps) == pytest.approx((12_000, 8_000, 24_000))
    assert numbers(one.epochs) == pytest.approx((20, 40 / 3, 40))
    assert numbers(one.seconds) == pytest.approx((36, 24, 72))
    assert (one.verdict, one.words) == ("after", "after 20 epochs")
    assert numbers(earned(speed(1.5, None)).steps) == (pytest.approx(12_000), None, None)
    assert numbers(earned(speed(1.5, None), compile_s=-0.1).steps) == (0, None, None)  # it costs nothing


@given(st.floats(1.01, 50), st.floats(0.1, 100), st.floats(1e-5, 1))
def test_both_have_then_cost_the_same(ratio: float, compile_s: float, step_s: float) -> None:
    one = earned(speed(ratio, 1.001), compile_s, step_s)
    steps, low, high = numbers(one.steps)
    assert low <= steps <= high
    assert one.seconds.estimate == pytest.approx(steps * step_s)
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
def test_what_does_not_pay_off(ratio: SpeedUp, verdict: str, says: str) -> None:
    one = earned(ratio)
    assert (one.verdict, one.words, one.steps, one.epochs, one.seconds) == (verdict, says, None, None, None)
