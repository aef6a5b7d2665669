"""Races that are drawn, not timed: what a look sees of cells whose true gaps are known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mnist_bench.analysis.elimination import EARLY, MOST_SD, Standing, standing
from mnist_bench.stats import student_quantile

WITHIN = 0.005  # what a session of one process shows of it, standard error
PRECISION = 0.02


@dataclass(frozen=True, kw_only=True)
class Drawn:
    standing: Standing
    cost: int  # processes that were timed


def groups_of_a_run(sd: float) -> int:
    """How many process groups a run takes until the t interval of a pair is as precise."""
    return next(n for n in range(2, 1000) if student_quantile(n - 1) * sd / math.sqrt(n) <= math.log1p(PRECISION))


def draw(gaps: Sequence[float], sd: float, rng: np.random.Generator) -> Drawn:
    """A race of cells that are so far behind (ln), whose pairs of processes differ by ``sd``.

    It has the time that a run of all cells would take.
    """
    names = [str(number) for number in range(len(gaps))]
    budget = groups_of_a_run(sd) * len(names)
    groups: list[dict[str, float]] = []
    alive, early, cost = names, list[str](), 0
    while True:
        spread = math.hypot(sd / math.sqrt(2), WITHIN)
        seen = {name: gaps[int(name)] + rng.normal(0, spread) for name in alive}
        groups.append(seen)
        cost += len(alive)
        if len(groups) == 1:
            bound = NormalDist().inv_cdf(1 - EARLY / (len(names) - 1)) * math.sqrt(MOST_SD**2 + 2 * WITHIN**2)
            early = [name for name in names if seen[name] - min(seen.values()) > bound]
        over = cost + len(alive) > budget
        found = standing(groups, names, precision=PRECISION, early=early, over=over)
        if found.decided or over:
            return Drawn(standing=found, cost=cost)
        alive = [*found.alive]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Over many races: how often the fastest stays, how often a cell 5 % behind leaves, the time in that of a run."""

    kept: float
    dropped: float
    time: float


def rates(sd: float, draws: int, seed: int = 1) -> Rates:
    """Nine cells, the second 5 % behind the first, the others anywhere up to 30 %."""
    rng = np.random.default_rng(seed)
    kept = dropped = cost = 0
    for _ in range(draws):
        gaps = [0.0, math.log(1.05), *rng.uniform(0, math.log(1.30), 7)]
        drawn = draw(gaps, sd, rng)
        kept += "0" in drawn.standing.alive
        dropped += "1" not in drawn.standing.alive
        cost += drawn.cost
    return Rates(kept=kept / draws, dropped=dropped / draws, time=cost / draws / groups_of_a_run(sd) / 9)
