"""Evidence for tests, each record with the least that must be said."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from record_factory import make_cell

from mnist_bench.gate.evidence import CellEvidence, Check, Pair, SeedPair, SessionRatio, SideEvidence, Training
from mnist_bench.records import Round, Tree

IMAGES = 10_000


def pair(log_ratio: float, noisy: Sequence[str] = (), **grown: float) -> Pair:
    """A process pair whose B takes so much longer a step; ``grown``: ln of its peaks of memory against A's 512 MiB."""
    peaks = {key: (512.0, 512.0 * math.exp(log)) for key, log in grown.items()}
    one = Round(order=(0, 1), steps=(10, 10), seconds=(0.1, 0.1 * math.exp(log_ratio)))
    return Pair(rounds=(one,), noisy=tuple(noisy), peaks=peaks)


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


def sessions(*log_ratios: float, sd: float = 0.017) -> tuple[SessionRatio, ...]:
    """Of seconds per step, cell / reference."""
    return tuple(SessionRatio(seed=n, speedup=math.exp(-one), sd=sd, rounds=30) for n, one in enumerate(log_ratios))


def seed_pairs(a: Sequence[float], b: Sequence[float]) -> tuple[SeedPair, ...]:
    """Seeds of which no predictions are equal."""
    both = enumerate(zip(a, b, strict=True))
    return tuple(SeedPair(a=training(float(x), f"a{n}", n), b=training(float(y), f"b{n}", n)) for n, (x, y) in both)
