"""Estimates, intervals and the quantiles that they need: pure functions of samples, no I/O.

Quantiles are computed here where that is simple: to import ``scipy.special`` takes longer than most commands do.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # half the width of a 95 % interval, in standard errors
# Up to here the null distribution of the signed-rank statistic is exact; above, the normal approximation with
# continuity correction differs by at most one rank in either end of the interval.
EXACT_UP_TO = 60

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds of its confidence interval; None where the sample is too small for them."""

    estimate: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """Half its width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def holding(self, estimate: float) -> "Interval":
        """These bounds about another estimate, stretched where they would not hold it."""
        if self.low is None or self.high is None:
            return Interval(estimate)
        return Interval(estimate, min(self.low, estimate), max(self.high, estimate))

    def exp(self) -> "Interval":
        """From the log scale to the ratio itself."""
        return self._map(math.exp)

    def log(self) -> "Interval":
        """From a ratio to the log scale."""
        return self._map(math.log)

    def scaled(self, by: float) -> "Interval":
        """In another unit."""
        return self._map(lambda value: value * by)

    def _map(self, function: Callable[[float], float]) -> "Interval":
        if self.low is None or self.high is None:
            return Interval(function(self.estimate))
        return Interval(function(self.estimate), function(self.low), function(self.high))


def median(values: ArrayLike) -> float:
    """The median of a non-empty sample."""
    return float(medians(_sample(values)[:, np.newaxis])[0])


def medians(columns: FloatArray) -> FloatArray:
    """The median of each column (n, k) -> (k,), its NaN left out; NaN for a column that has nothing else."""
    if not len(columns):
        return np.full(columns.shape[1], np.nan)
    ordered = np.sort(columns, axis=0)  # NaN comes last
    counts = np.count_nonzero(~np.isnan(columns), axis=0)
    places = np.arange(columns.shape[1])
    low, high = (ordered[np.maximum(middle, 0), places] for middle in ((counts - 1) // 2, counts // 2))
    found: FloatArray = (low + high) / 2
    return found


def mean_and_variance(values: Sequence[float]) -> tuple[float, float]:
    """Of two values at least, n - 1 in the denominator.

    In plain Python: numpy and ``statistics`` take ten times as long over a handful of seeds.
    """
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) * (value - mean) for value in values) / (len(values) - 1)


def hodges_lehmann(values: ArrayLike) -> Interval:
    """The centre of a symmetric distribution: the median of the Walsh averages (x_i + x_j) / 2, i <= j.

    The interval inverts the Wilcoxon signed-rank test: with c the largest rank sum for which
    P(T <= c) <= (1 - ``CONFIDENCE``) / 2, it runs from the (c+1)-th smallest Walsh average to the (c+1)-th largest.

    Args:
        values: shape (n,), n >= 1, finite. Of symmetric ones the true coverage is at least what it says (n <= 60).

    Returns:
        The estimate and its bounds; None bounds where even the whole range is not confident enough (n < 6 at 95 %).

    Raises:
        ValueError: an empty or non-finite sample.

    Source: Hodges & Lehmann (1963), Ann. Math. Statist. 34, 598-611; Hollander, Wolfe & Chicken, *Nonparametric
    Statistical Methods*, 3rd ed., sections 3.2 and 3.3.
    """
    return hodges_lehmann_of_columns(_sample(values)[:, np.newaxis])[0]


def hodges_lehmann_of_columns(columns: FloatArray) -> list[Interval]:
    """``hodges_lehmann`` of each column (n, k), in a fraction of the time."""
    first, second = _pairs(len(columns))
    walsh = np.sort(columns[first] / 2 + columns[second] / 2, axis=0)  # halved first: no overflow
    centres, rank = (walsh[(len(walsh) - 1) // 2] + walsh[len(walsh) // 2]) / 2, critical_rank(len(columns))
    if rank is None:
        return [Interval(centre) for centre in centres.tolist()]
    low, high = walsh[rank], walsh[-1 - rank]
    # Rounding of the mean of two equal neighbours may step over a bound that is the same number.
    bounded = zip(np.clip(centres, low, high).tolist(), low.tolist(), high.tolist(), strict=True)
    return [Interval(*one) for one in bounded]


@lru_cache(maxsize=1024)
def student_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The t that a Student variable stays below in size with the given probability.

    Args:
        freedom: degrees of freedom, above 0. Where they are a whole number the distribution function is a finite sum,
            and bisection inverts it; else, or above 200, scipy does.

    Source: Abramowitz & Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
    """
    if not float(freedom).is_integer() or freedom > 200:
        from scipy.special import stdtrit

        return float(stdtrit(freedom, (1 + confidence) / 2))
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _student_within(angle, int(freedom)) < confidence else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _student_within(angle: float, freedom: int) -> float:
    """P(|T| <= t) with t = sqrt(freedom) tan(angle)."""
    odd = freedom % 2
    cosine = math.cos(angle)
    term, total = cosine if odd else 1.0, 0.0
    for power in range(odd, freedom - 1, 2):  # of the cosine
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    inner = math.sin(angle) * total
    return (angle + inner) * 2 / math.pi if odd else inner


def t_interval(values: ArrayLike, *, variance_floor: float = 0.0, least: int = 3) -> Interval:
    """The mean and its Student t interval.

    Args:
        values: shape (n,), n >= 1, finite.
        variance_floor: the least variance of one value that is believed.
        least: below so many values (2 or more) the bounds are None: two seeds bound nothing of use.
    """
    x = _sample(values).tolist()
    if len(x) < least:
        return Interval(math.fsum(x) / len(x))
    mean, own = mean_and_variance(x)
    half = student_quantile(len(x) - 1) * math.sqrt(max(own, variance_floor) / len(x))
    return Interval(mean, mean - half, mean + half)


def welch_interval(a: ArrayLike, b: ArrayLike) -> Interval:
    """The mean of ``b`` less that of ``a``, two samples that are not paired, and Welch's t interval.

    Args:
        a: shape (n,), n >= 1, finite.
        b: shape (m,), m >= 1, finite.

    Returns:
        None bounds where either has fewer than 3 values, as in ``t_interval``.

    Source: Welch (1947), Biometrika 34, 28-35; degrees of freedom by Welch and Satterthwaite.
    """
    x, y = _sample(a).tolist(), _sample(b).tolist()
    if min(len(x), len(y)) < 3:
        return Interval(math.fsum(y) / len(y) - math.fsum(x) / len(x))
    (before, x_variance), (after, y_variance) = mean_and_variance(x), mean_and_variance(y)
    estimate, parts = after - before, (x_variance / len(x), y_variance / len(y))
    if sum(parts) == 0:
        return Interval(estimate, estimate, estimate)
    shares = [part / sum(parts) for part in parts]  # not the parts' squares, which underflow
    freedom = 1 / (shares[0] ** 2 / (len(x) - 1) + shares[1] ** 2 / (len(y) - 1))
    half = student_quantile(freedom) * math.sqrt(sum(parts))
    return Interval(estimate, estimate - half, estimate + half)


@lru_cache(maxsize=128)
def signed_rank_distribution(n: int) -> FloatArray:
    """P(T = t), t = 0 ... n(n+1)/2: the null distribution of Wilcoxon's signed-rank statistic.

    Each rank is in the sum with probability one half, independently: one convolution per rank (Hollander & Wolfe,
    section 3.1, comment 5). Read-only.
    """
    probability = np.zeros(n * (n + 1) // 2 + 1)
    probability[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.zeros_like(probability)
        shifted[rank:] = probability[:-rank]
        probability = (probability + shifted) / 2
    probability.setflags(write=False)
    return probability


@lru_cache(maxsize=2048)
def critical_rank(n: int, tail: float = (1 - CONFIDENCE) / 2) -> int | None:
    """The largest c with P(T <= c) <= ``tail``, T as in ``signed_rank_distribution``; None where n is too small."""
    if n <= EXACT_UP_TO:
        # Sums of halves: the slack keeps a tail that is met exactly (1/64, say) on the right side of rounding.
        below = int(np.searchsorted(np.cumsum(signed_rank_distribution(n)), tail * (1 + 1e-12), side="right"))
        return below - 1 if below else None
    mean = n * (n + 1) / 4
    deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return math.floor(mean + NormalDist().inv_cdf(tail) * deviation - 0.5)


@lru_cache(maxsize=128)
def _pairs(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(n)


def _sample(values: ArrayLike) -> FloatArray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"a sample is one-dimensional and not empty, not of shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("a sample holds finite numbers only")
    return x
