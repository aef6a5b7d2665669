"""Thousands of checks at once, without training: how often the gate is right.

``speed_decisions`` and ``accuracy_decisions`` are ``find_speed`` and ``find_accuracy`` over arrays;
``test_rates.py`` proves them equal on a sample of the draws.

Pairs: ln(time B / time A) = ln(true ratio) + normal noise; with a chance of 5 % a pair is thrown off by another 20 to
30 %, either way alike. (Something else used the machine while one side had the token: which side is chance.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from mnist_bench.gate import accuracy, speed
from mnist_bench.gate.power import critical_rank_sum
from mnist_bench.gate.records import Decision, Margins, ProcessPair, SeedPair, Training

SPIKES = 0.05
SPIKE = (0.20, 0.30)
IMAGES = 10_000
MARGINS = Margins()

Array = NDArray[np.float64]
Decisions = NDArray[np.str_]


def pair_logs(rng: np.random.Generator, shape: tuple[int, ...], *, ratio: float, sd: float) -> Array:
    """ln(time B / time A) of process pairs."""
    spikes = rng.uniform(*SPIKE, size=shape) * rng.choice((-1.0, 1.0), size=shape) * (rng.random(shape) < SPIKES)
    return np.log(ratio) + rng.normal(0, sd, shape) + spikes


def seed_accuracies(
    rng: np.random.Generator, shape: tuple[int, ...], *, error: float, drop: float, wider: float = 1.0
) -> tuple[Array, Array]:
    """Accuracies of A and B, whole numbers of images; their spread is ``wider`` times sqrt(err / 2n)."""
    sides = []
    for expected in (error, error + drop):
        accuracies = rng.normal(1 - expected, wider * np.sqrt(expected / (2 * IMAGES)), shape)
        sides.append(np.round(accuracies * IMAGES) / IMAGES)
    return sides[0], sides[1]


def speed_decisions(logs: Array, cells: int) -> Decisions:
    """The decision of each row of pairs (rows, pairs)."""
    alpha = speed.level(cells, MARGINS)
    margin, detect = np.log1p(MARGINS.margin), np.log1p(MARGINS.detect)
    decided = np.full(logs.shape[0], "undecided", dtype="<U11")
    for look in speed.looks(cells, MARGINS):
        if look > logs.shape[1]:
            break
        undecided = np.flatnonzero(decided == "undecided")
        x, critical = logs[undecided, :look], critical_rank_sum(look, alpha)
        found = np.full(undecided.size, "undecided", dtype="<U11")
        found[_rank_sums(detect - x) >= critical] = "pass"
        found[_rank_sums(-detect - x) >= critical] = "improvement"
        found[_rank_sums(x - margin) >= critical] = "fail"
        decided[undecided] = found
    return decided


def accuracy_decisions(a: Array, b: Array, cells: int) -> Decisions:
    """The decision of each row of seeds (rows, seeds) of which no predictions are equal."""
    decided = np.full(a.shape[0], "undecided", dtype="<U11")
    fail, passes = accuracy.fail_level(cells, MARGINS), accuracy.pass_level(MARGINS)
    for look in accuracy.LOOKS:
        if look > a.shape[1]:
            break
        undecided = np.flatnonzero(decided == "undecided")
        x, y = a[undecided, :look], b[undecided, :look]
        change, error = (y - x).mean(axis=1), np.sqrt(_variance(x, y) / look)
        found = np.full(undecided.size, "undecided", dtype="<U11")
        found[MARGINS.drop_detect + change >= scipy.stats.t.isf(passes, look - 1) * error] = "pass"
        found[-change - MARGINS.drop >= scipy.stats.t.isf(fail, look - 1) * error] = "fail"
        decided[undecided] = found
    return decided


def _variance(a: Array, b: Array) -> Array:
    errors = [np.maximum(1 - side.mean(axis=1), 1 / IMAGES) for side in (a, b)]
    return np.maximum((b - a).var(axis=1, ddof=1), (errors[0] + errors[1]) / (2 * IMAGES))


def _rank_sums(x: Array) -> Array:
    """Of the positive values of each row."""
    order = np.argsort(np.abs(x), axis=1)
    return np.take_along_axis(x > 0, order, axis=1) @ np.arange(1.0, x.shape[1] + 1)


def process_pairs(logs: Sequence[float]) -> tuple[ProcessPair, ...]:
    return tuple(ProcessPair(number=n, log_ratio=float(log), rounds=()) for n, log in enumerate(logs))


def training(accuracy: float, predictions: str, images: int = IMAGES) -> Training:
    return Training(
        accuracy=accuracy,
        images=images,
        predictions_sha256=predictions,
        device_name="AMD EPYC",
        compile_s=None,
        time_to_first_step_s=3.0,
        train_samples_per_s=20_000.0,
        eval_samples_per_s=50_000.0,
        host_peak_bytes=512 << 20,
        device_peak_bytes=None,
    )


def seed_pairs(a: Sequence[float], b: Sequence[float]) -> tuple[SeedPair, ...]:
    """Seeds of which no predictions are equal."""
    both = enumerate(zip(a, b, strict=True))
    return tuple(SeedPair(seed=n, a=training(float(x), f"a{n}"), b=training(float(y), f"b{n}")) for n, (x, y) in both)


def checks(decisions: Decisions, cells: int, decision: Decision) -> int:
    """In how many checks of so many cells at least one has this decision."""
    return int((decisions.reshape(-1, cells) == decision).any(axis=1).sum())


def rate_bounds(count: int, draws: int, confidence: float = 0.95) -> tuple[float, float]:
    """One-sided bounds of a rate, each at this confidence (Clopper & Pearson 1934, Biometrika 26, 404-413)."""
    low = scipy.stats.beta.ppf(1 - confidence, count, draws - count + 1) if count else 0.0
    high = scipy.stats.beta.ppf(confidence, count + 1, draws - count) if count < draws else 1.0
    return float(low), float(high)
