"""Evidence for tests, each record with the least that must be said; and thousands of simulated checks at once.

``speed_decisions`` and ``accuracy_decisions`` are ``find_speed`` and ``find_accuracy`` over arrays;
``test_rates.py`` proves them equal on a sample of the draws.

Pairs: ln(time B / time A) = ln(true ratio) + normal noise; with a chance of 5 % a pair is thrown off by another 20 to
30 %, either way alike. (Something else used the machine while one side had the token: which side is chance.)
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
from msgspec.structs import replace
from numpy.typing import NDArray
from record_factory import make_cell

from mnist_bench import stats
from mnist_bench.gate import samples
from mnist_bench.gate.evidence import CellEvidence, Check, Margins, Pair, SeedPair, SessionRatio, SideEvidence, Training
from mnist_bench.gate.judge import Verdict, judge
from mnist_bench.gate.samples import Decision
from mnist_bench.records import Round, Tree

SPIKES = 0.05
SPIKE = (0.20, 0.30)
IMAGES = 10_000
MARGINS = Margins()

Array = NDArray[np.float64]
Decisions = NDArray[np.str_]
Call = Callable[..., tuple[int, str, str]]  # the program: exit code, stdout, stderr


# ── evidence ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pair(log_ratio: float, noisy: Sequence[str] = ()) -> Pair:
    """A process pair whose B takes so much longer a step."""
    one = Round(order=(0, 1), steps=(10, 10), seconds=(0.1, 0.1 * math.exp(log_ratio)))
    return Pair(rounds=(one,), noisy=tuple(noisy))


def logs(ratio: float, pairs: int = 16, sd: float = 0.01) -> list[float]:
    """About a ratio of times B / A, evenly spread in a mixed order."""
    return [float(x) for x in math.log(ratio) + np.random.default_rng(3).permutation(np.linspace(-sd, sd, pairs))]


def training(accuracy: float, predictions: str, seed: int = 0, images: int = IMAGES) -> Training:
    return Training(seed=seed, accuracy=accuracy, images=images, predictions_sha256=predictions)


def side(accuracies: Sequence[float] = (0.97,) * 3, sha: str = "s", **changes: Any) -> SideEvidence:
    """A side with seeds 0, 1, ...; predictions are equal to those of a side with the same ``sha``."""
    trainings = tuple(training(one, f"{sha}{seed}", seed) for seed, one in enumerate(accuracies))
    return replace(SideEvidence(trainings=trainings), **changes)


def evidence(ratio: float | None = 1.0, change: float = 0.0, seeds: int = 3, **changes: Any) -> CellEvidence:
    """A cell of both sides: 16 pairs about a ratio of times, seeds that differ by ``change`` (0: not at all)."""
    one = CellEvidence(
        cell=make_cell("lenet5"),
        a=side((0.97,) * seeds),
        b=side((0.97 + change,) * seeds, "s" if change == 0 else "t"),
        pairs=() if ratio is None else tuple(map(pair, logs(ratio))),
    )
    return replace(one, **changes)


def make_check(*cells: CellEvidence, **changes: Any) -> Check:
    check = Check(
        id="20261126T101500Z-a1b2c3",
        program_version="0.1.0",
        mode="against",
        status="complete",
        a=Tree(label="main", commit="c0ffee" * 6 + "beef"),
        b=Tree(label="working tree", commit="f00d" * 10, changed=("mnist_bench/models/lenet5.py",)),
        matrix_path="benchmarks.yaml",
        dataset="mnist",
        recipe="standard",
        cells=cells,
        started_at="2026-11-26T10:15:00Z",
        ended_at="2026-11-26T10:27:30Z",
        budget_s=1200.0,
        spent_s=750.0,
    )
    return replace(check, **changes)


def verdict(one: CellEvidence, mode: str = "against") -> Verdict:
    (found,) = judge(make_check(one, mode=mode))
    return found


def sessions(*log_ratios: float, sd: float = 0.017) -> tuple[SessionRatio, ...]:
    """Of seconds per step, cell / reference."""
    return tuple(SessionRatio(seed=n, speedup=math.exp(-one), sd=sd, rounds=30) for n, one in enumerate(log_ratios))


def of_every_kind() -> list[CellEvidence]:
    """Cells of which each gets another verdict: in the order of ``WORST_FIRST``."""
    made: list[tuple[str, dict[str, Any]]] = [
        ("failed", {"b": SideEvidence(status="oom", reason="use less")}),
        ("missing", {"b": None}),
        ("regression", {"pairs": tuple(map(pair, logs(1.12)))}),
        ("inconclusive", {"pairs": tuple(pair(log, ("load",)) for log in logs(1.0, 5))}),
        ("not_comparable", {"differences": ("epochs: 1 in A, 2 in B",)}),
        ("improvement", {"pairs": tuple(map(pair, logs(0.05)))}),
        ("new", {"a": None}),
        ("pass", {}),
    ]
    return [evidence(cell=make_cell(variant=name), **changes) for name, changes in made]


# ── simulation ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


def two_humped(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> Array:
    """Accuracies of trainings of which a share ends on a plateau."""
    means = np.where(rng.random(shape) < share, 0.21, 0.92)
    return np.round(rng.normal(means, np.sqrt((1 - means) / (2 * IMAGES))) * IMAGES) / IMAGES


def critical_rank_sum(pairs: int, alpha: float) -> int:
    """The smallest sum of positive ranks that the one-sided exact test rejects."""
    tails = np.cumsum(stats.signed_rank_distribution(pairs)[::-1])  # P(T >= largest), P(T >= largest - 1), ...
    return tails.size - int(np.searchsorted(tails, alpha * (1 + 1e-12), side="right"))


def speed_decisions(logs: Array, cells: int) -> Decisions:
    """The decision of each row of pairs (rows, pairs)."""
    alpha = samples.level(cells, MARGINS)
    margin, detect = np.log1p(MARGINS.margin), np.log1p(MARGINS.detect)
    decided = np.full(logs.shape[0], "undecided", dtype="<U11")
    for look in samples.looks(cells, MARGINS):
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


def accuracy_decisions(a: Array, b: Array, cells: int, *, humps: bool = True) -> Decisions:
    """The decision of each row of seeds (rows, seeds) of which no predictions are equal.

    Args:
        humps: False: Student's t alone fails a cell.
    """
    decided = np.full(a.shape[0], "undecided", dtype="<U11")
    fail, passes = samples.drop_level(cells, MARGINS), samples.drop_level(1, MARGINS)
    for look in samples.SEED_LOOKS:
        if look > a.shape[1]:
            break
        undecided = np.flatnonzero(decided == "undecided")
        x, y = a[undecided, :look], b[undecided, :look]
        change, error = (y - x).mean(axis=1), np.sqrt(_variance(x, y) / look)
        found = np.full(undecided.size, "undecided", dtype="<U11")
        found[MARGINS.drop_detect + change >= scipy.stats.t.isf(passes, look - 1) * error] = "pass"
        if not humps or 0.25**look <= fail:
            found[-change - MARGINS.drop >= scipy.stats.t.isf(fail, look - 1) * error] = "fail"
        decided[undecided] = found
    return decided


def _variance(a: Array, b: Array) -> Array:
    errors = [np.maximum(1 - each.mean(axis=1), 1 / IMAGES) for each in (a, b)]
    return np.maximum((b - a).var(axis=1, ddof=1), (errors[0] + errors[1]) / (2 * IMAGES))


def _rank_sums(x: Array) -> Array:
    """Of the positive values of each row."""
    order = np.argsort(np.abs(x), axis=1)
    return np.take_along_axis(x > 0, order, axis=1) @ np.arange(1.0, x.shape[1] + 1)


def seed_pairs(a: Sequence[float], b: Sequence[float]) -> tuple[SeedPair, ...]:
    """Seeds of which no predictions are equal."""
    both = enumerate(zip(a, b, strict=True))
    return tuple(SeedPair(a=training(float(x), f"a{n}", n), b=training(float(y), f"b{n}", n)) for n, (x, y) in both)


def checks(decisions: Decisions, cells: int, decision: Decision) -> int:
    """In how many checks of so many cells at least one has this decision."""
    return int((decisions.reshape(-1, cells) == decision).any(axis=1).sum())


def rate_bounds(count: int, draws: int, confidence: float = 0.95) -> tuple[float, float]:
    """One-sided bounds of a rate, each at this confidence (Clopper & Pearson 1934, Biometrika 26, 404-413)."""
    low = scipy.stats.beta.ppf(1 - confidence, count, draws - count + 1) if count else 0.0
    high = scipy.stats.beta.ppf(confidence, count + 1, draws - count) if count < draws else 1.0
    return float(low), float(high)
