"""What a number of process pairs can find: said before a check starts. Pure, and the same every time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mnist_bench import stats
from mnist_bench.gate.records import Margins
from mnist_bench.gate.speed import DEFAULT, level, looks

DRAWS = 2000  # the standard error of the slow-down at power 0.9 is then a few per cent of it


def detectable(pairs: int, cells: int, sd: float, margins: Margins = DEFAULT, power: float = 0.9) -> float:
    """The smallest slow-down of a cell that so many pairs find with the given probability.

    As ``find_speed`` decides: found where, at one of the looks that are reached, a ratio <= 1 + margin is rejected, and
    a ratio >= 1 + detect was at none before, which is a pass. So more pairs than the first look's help less than one
    might think: a slow-down of 5 % mostly passes there, as it may. Log ratios are taken as normal; spikes cost power.

    Each draw of a fixed sample of the standard normal has a smallest shift from which on it is found. The test is
    inverted for it: it rejects where the r-th smallest Walsh average, r by the critical rank sum, lies above the bound.

    Args:
        pairs: of one cell, all that the budget allows.
        cells: K, how many the check compares.
        sd: of a pair's log ratio (0.04: pairs differ by about 4 %).
        margins: what is tolerated and certified.
        power: the probability.

    Returns:
        As a fraction (0.1: 10 % slower); infinite where the pairs do not reach the first look.

    Raises:
        ValueError: no cell; a negative or non-finite sd; a power outside (0, 1).
    """
    if not 0 <= sd < math.inf or not 0 < power < 1:
        raise ValueError(f"sd must be finite and not negative, power between 0 and 1, not {sd} and {power}")
    found = np.full(DRAWS, math.inf)  # from which log ratio on
    passed = np.full(DRAWS, -math.inf)  # below which one it has passed by then
    planned = looks(cells, margins)
    for look in planned:
        if look > pairs:
            break
        ends = _sample_ends(look, planned[-1], level(cells, margins))
        found = np.minimum(found, np.maximum(math.log1p(margins.margin) - sd * ends.low, passed))
        passed = np.maximum(passed, math.log1p(margins.detect) - sd * ends.high)
    return math.expm1(float(np.quantile(found, power))) if pairs >= planned[0] else math.inf


def critical_rank_sum(pairs: int, alpha: float) -> int:
    """The smallest sum of positive ranks that the one-sided exact test rejects.

    Raises:
        ValueError: even all pairs on one side are not enough.
    """
    tails = np.cumsum(stats.signed_rank_distribution(pairs)[::-1])  # P(T >= largest), P(T >= largest - 1), ...
    rejected = int(np.searchsorted(tails, alpha * (1 + 1e-12), side="right"))
    if not rejected:
        raise ValueError(f"{pairs} pairs cannot reject anything at the level {alpha:g}")
    return tails.size - rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """The critical Walsh averages of each draw: a centre below ``low`` is rejected, and one above ``high``."""

    low: stats.FloatArray
    high: stats.FloatArray


@lru_cache(maxsize=64)
def _sample_ends(look: int, last_look: int, alpha: float) -> _Ends:
    """Of a standard normal sample at a look, which ``looks`` has made large enough for its level."""
    critical = critical_rank_sum(look, alpha)
    sample = np.random.default_rng(0).standard_normal((DRAWS, last_look))[
        :, :look
    ]  # each look has the last one's pairs
    first, second = np.triu_indices(look)
    walsh = (sample[:, first] + sample[:, second]) / 2
    # As many of them lie above a bound as the sum of positive ranks about it says (Hollander & Wolfe, section 3.2).
    ends = walsh.shape[1] - critical, critical - 1
    part = np.partition(walsh, ends, axis=1)
    return _Ends(low=part[:, ends[0]], high=part[:, ends[1]])
