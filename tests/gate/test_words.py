"""The phrases: sizes, directions, rounding."""

from __future__ import annotations

import pytest

from mnist_bench.gate import words
from mnist_bench.gate.records import AccuracyFinding, SpeedFinding
from mnist_bench.stats import Interval


def speed(estimate: float, low: float | None = None, high: float | None = None, pairs: int = 16) -> str:
    finding = SpeedFinding(
        decision="undecided",
        ratio=Interval(estimate, low, high),
        pairs=pairs,
        p_slower=1.0,
        p_within=1.0,
        alpha=0.01,
        next_look=None,
    )
    return words.speed(finding)


def accuracy(estimate: float, low: float | None = None, high: float | None = None, identical: int = 0) -> str:
    finding = AccuracyFinding(
        decision="undecided",
        a=0.97,
        b=0.97 + estimate,
        change=Interval(estimate, low, high),
        seeds=9,
        identical=identical,
        more_seeds=0,
    )
    return words.accuracy(finding)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((1.12, 1.10, 1.14), "12 % slower (95 % interval 10-14 %, 16 pairs)"),
        ((1.042, 1.0312, 1.0949), "4.2 % slower (95 % interval 3.1-9.5 %, 16 pairs)"),
        ((1 / 1.12, 1 / 1.14, 1 / 1.10), "12 % faster (95 % interval 10-14 %, 16 pairs)"),
        ((1.0, 0.98, 1.01), "as fast (95 % interval 2 % faster to 1 % slower, 16 pairs)"),
        ((1.0004, 0.9, 1.2), "as fast (95 % interval 11 % faster to 20 % slower, 16 pairs)"),
        ((1.25, 1.247, 1.253), "25 % slower (95 % interval 24.7-25.3 %, 16 pairs)"),
        ((1.0996, 1.0994, 1.15), "10 % slower (95 % interval 9.9-15 %, 16 pairs)"),
        ((3.0, 1.0, 4.0), "200 % slower (95 % interval 0-300 %, 16 pairs)"),
        ((1.0, 1.0, 1.0), "as fast (95 % interval 0.0-0.0 %, 16 pairs)"),
        ((1.5, None, None), "50 % slower (16 pairs)"),
    ],
)
def test_speed(interval: tuple[float, float | None, float | None], text: str) -> None:
    assert speed(*interval) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.03, "3"), (0.042, "4.2"), (0.0994, "9.9"), (0.0996, "10"), (0.1, "10"), (2.0, "200"), (12.345, "1,234")],
)
def test_percent(fraction: float, text: str) -> None:
    assert words.percent(fraction) == text


def test_one_pair_is_singular() -> None:
    assert speed(1.5, pairs=1) == "50 % slower (1 pair)"


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((-0.0062, -0.0083, -0.0041), "0.62 pp less accurate (95 % interval 0.41-0.83 pp, 9 seeds)"),
        ((0.0062, 0.0041, 0.0083), "0.62 pp more accurate (95 % interval 0.41-0.83 pp, 9 seeds)"),
        ((-0.00002, -0.001, 0.0014), "as accurate (95 % interval 0.10 pp less to 0.14 pp more, 9 seeds)"),
        ((-0.01, None, None), "1.00 pp less accurate (9 seeds)"),
    ],
)
def test_accuracy(interval: tuple[float, float | None, float | None], text: str) -> None:
    assert accuracy(*interval) == text


def test_accuracy_of_seeds_that_are_equal() -> None:
    assert accuracy(0.0, 0.0, 0.0, identical=9) == "equal predictions (9 seeds)"
    assert accuracy(-0.01, identical=5) == "1.00 pp less accurate (over the 4 of 9 seeds whose predictions differ)"
