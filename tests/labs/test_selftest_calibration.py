"""Calibration finds the rows at any speed, with overhead and noise, and never claims what it did not see."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.labs.selftest_calibration import (
    AIMS,
    ATTEMPTS,
    MOST_ROWS,
    PROBES,
    ROW_FLOPS,
    SESSIONS,
    TOLERANCE,
    calibrate,
    guess,
    pooled,
)


class Machine:
    """Sessions on a machine where a row takes ``row_s``, extra work at all ``overhead_s``, and processes differ."""

    def __init__(self, step_s: float, row_s: float, overhead_s: float = 0.0, sd: float = 0.0, seed: int = 0) -> None:
        self.step_s, self.row_s, self.overhead_s, self.sd = step_s, row_s, overhead_s, sd
        self.rng = random.Random(seed)
        self.sessions = 0

    def ratio(self, rows: int) -> float:
        return (self.step_s + self.overhead_s + rows * self.row_s) / self.step_s

    def __call__(self, rows: Sequence[int], sessions: int) -> list[list[float]]:
        self.sessions += sessions
        return [[math.log(self.ratio(count)) + self.rng.gauss(0, self.sd) for count in rows] for _ in range(sessions)]


@given(step_s=st.floats(2e-3, 1.0), flops=st.floats(3e9, 2e12), overhead=st.floats(0, 0.02))
def test_rows_meet_the_aims_whatever_the_speed(step_s: float, flops: float, overhead: float) -> None:
    machine = Machine(step_s, ROW_FLOPS / flops, overhead * step_s)
    for one, aim in zip(calibrate(step_s, AIMS, machine), AIMS, strict=True):
        assert one.ratio.estimate == pytest.approx(machine.ratio(one.rows), abs=TOLERANCE), "stated is what is so"
        assert one.ratio.estimate == pytest.approx(aim, abs=1.01 * TOLERANCE) or one.rows == MOST_ROWS


def test_noise_between_processes_does_not_lead_astray() -> None:
    """Over 300 calibrations: near the aim, what is stated is unbiased, and its interval holds the truth."""
    held, errors = [], []
    for seed in range(100):
        machine = Machine(4e-3, ROW_FLOPS / 3e10, 1e-5, PROCESS_SD, seed)
        for one, aim in zip(calibrate(4e-3, AIMS, machine), AIMS, strict=True):
            truth = machine.ratio(one.rows)
            assert truth == pytest.approx(aim, abs=0.035)
            assert one.ratio.low is not None
            assert one.ratio.high is not None
            held.append(one.ratio.low <= truth <= one.ratio.high)
            errors.append(one.ratio.estimate - truth)
        assert machine.sessions <= PROBES + ATTEMPTS * SESSIONS
    assert np.mean(held) > 0.93
    assert abs(np.mean(errors)) < 0.002


def test_work_that_cannot_be_made_small_enough_is_stated_as_measured() -> None:
    machine = Machine(1e-4, 1e-7, overhead_s=3e-5)
    first, *_ = calibrate(1e-4, AIMS, machine)
    assert first.rows == 1
    assert first.ratio.estimate == pytest.approx(1.301)


def test_the_first_guess_has_a_row_at_least() -> None:
    assert guess(1e-9, 1.05) == 1
    assert guess(1e9, 1.2) == MOST_ROWS


def test_a_ratio_over_sessions_is_never_surer_than_its_processes() -> None:
    found = pooled([(50, math.log(1.1))] * 4, 50)
    assert (found.rows, found.sessions) == (50, 4)
    assert found.ratio.estimate == pytest.approx(1.1)
    assert found.ratio.low is not None
    assert found.ratio.low < 1.1 * math.exp(-2 * PROCESS_SD / 2)


def test_sessions_with_about_as_many_rows_are_scaled_and_others_left_out() -> None:
    found = pooled([(10, math.log(2.0)), (40, math.log(1.08)), (50, math.log(1.10)), (60, math.log(1.12))], 50)
    assert found.sessions == 3
    assert found.ratio.estimate == pytest.approx(1.1)
