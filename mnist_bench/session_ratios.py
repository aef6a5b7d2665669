"""What the rounds of a timing session say of a pair of its members: pure functions of records, no I/O.

Ratios live on the log scale: ``ln(seconds per step of the numerator / of the denominator)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnist_bench.records import Round, Session
from mnist_bench.stats import (
    CONFIDENCE,
    NORMAL_QUANTILE,
    FloatArray,
    Interval,
    critical_rank,
    hodges_lehmann,
    median,
    normal_quantile,
    t_interval,
    walsh_averages,
)

# Two fresh processes with the same code differ by this much for a whole session (standard deviation of the log of
# their ratio): what no round of that session can show. Measured: docs/measurement.md, "A session"; held against new
# measurements by ``python -m bench.aa``.
PROCESS_SD = 0.015


@dataclass(frozen=True, slots=True)
class SessionRatio:
    """What one session says of a pair (log scale): the median over rounds, its interval, and its variance."""

    interval: Interval
    rounds: int
    variance: float | None  # of the median; None below 2 rounds


def seconds_per_step(rounds: Sequence[Round], members: int) -> FloatArray:
    """Seconds per step, shape (rounds, members); NaN where a member took no step (or no time)."""
    steps = np.array([r.steps for r in rounds], dtype=np.float64).reshape(-1, members)
    seconds = np.array([r.seconds for r in rounds], dtype=np.float64).reshape(-1, members)
    took = (steps > 0) & (seconds > 0)
    per_step: FloatArray = np.divide(seconds, steps, out=np.full_like(seconds, np.nan), where=took)
    return per_step


def step_log_ratios(step_s: FloatArray, numerator: int, denominator: int) -> FloatArray:
    """ln of the ratio of two columns of ``seconds_per_step``, in the rounds in which both took steps."""
    ratios: FloatArray = np.log(step_s[:, numerator] / step_s[:, denominator])
    return ratios[~np.isnan(ratios)]


def round_log_ratios(rounds: Sequence[Round], numerator: int, denominator: int) -> FloatArray:
    """ln(seconds per step / seconds per step) of two members (by index) in every round in which both took steps."""
    members = len(rounds[0].steps) if rounds else 2
    return step_log_ratios(seconds_per_step(rounds, members), numerator, denominator)


def log_ratios(session: Session, numerator_member: str, denominator_member: str) -> FloatArray:
    """``round_log_ratios`` of two members by their trial ids.

    Raises:
        ValueError: one of them is not a member of the session.
    """
    members = session.members
    return round_log_ratios(session.rounds, members.index(numerator_member), members.index(denominator_member))


def ratio_of(values: ArrayLike, confidence: float = CONFIDENCE) -> SessionRatio:
    """What the log ratios of one session's rounds say: median, Hodges-Lehmann interval, variance of the median.

    The bounds are those of the Hodges-Lehmann estimate, stretched where a skewed sample puts the median outside.
    The variance is read off the interval (half of it over the normal quantile); below 6 rounds, where there is no
    interval, it is that of the median of a normal sample, pi/2 s^2/n.
    """
    x = np.asarray(values, dtype=np.float64)
    interval = hodges_lehmann(x, confidence).holding(median(x))
    return SessionRatio(interval, x.size, _variance_of_median(x, interval, confidence))


def ratios_of(values: FloatArray, confidence: float = CONFIDENCE) -> list[SessionRatio | None]:
    """``ratio_of`` each column, all of them at once, which takes a fraction of the time.

    Args:
        values: shape (rounds, pairs); NaN where a pair shares no round.

    Returns:
        One for each column; None where it has no value.
    """
    rounds = values.shape[0]
    rank = critical_rank(rounds, confidence) if rounds else None
    full: NDArray[np.bool_] = np.isfinite(values).all(axis=0)  # type: ignore[assignment]  # of two dimensions: no scalar
    if rank is None or not full.any():
        return [_ratio_of_known(column, confidence) for column in values.T]
    batch = iter(_ratios_of_full(values[:, full], rank, confidence))
    columns = zip(values.T, full.tolist(), strict=True)
    return [next(batch) if whole else _ratio_of_known(column, confidence) for column, whole in columns]


def _ratios_of_full(x: FloatArray, rank: int, confidence: float) -> list[SessionRatio]:
    """``ratio_of`` each column of a sample without gaps, large enough for an interval of that critical rank."""
    rounds = x.shape[0]
    ordered = np.sort(x, axis=0)
    medians = (ordered[(rounds - 1) // 2] + ordered[rounds // 2]) / 2
    walsh = walsh_averages(x)
    ends = rank, walsh.shape[0] - 1 - rank
    part = np.partition(walsh, ends, axis=0)
    lows, highs = np.minimum(part[ends[0]], medians), np.maximum(part[ends[1]], medians)
    variances = ((highs - lows) / (2 * normal_quantile(confidence))) ** 2
    figures = zip(medians.tolist(), lows.tolist(), highs.tolist(), variances.tolist(), strict=True)
    return [SessionRatio(Interval(centre, low, high), rounds, variance) for centre, low, high, variance in figures]


def _ratio_of_known(column: FloatArray, confidence: float) -> SessionRatio | None:
    known = column[~np.isnan(column)]
    return ratio_of(known, confidence) if known.size else None


def _variance_of_median(x: FloatArray, interval: Interval, confidence: float) -> float | None:
    if interval.low is not None and interval.high is not None:
        return ((interval.high - interval.low) / (2 * normal_quantile(confidence))) ** 2
    return math.pi / 2 * float(x.var(ddof=1)) / x.size if x.size > 1 else None


def between_processes(ratio: SessionRatio, sd: float = PROCESS_SD) -> SessionRatio:
    """The same estimate as one of the code, not of these two processes: wider by what differs between processes.

    The independent error ``sd`` is added in quadrature to each side of the interval and to the variance.

    Source of the model: Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013. Every level of
    repetition has a variance; that of processes is repeated once here, so it has to be known beforehand.
    """
    variance = None if ratio.variance is None else ratio.variance + sd**2
    centre, low, high = ratio.interval.estimate, ratio.interval.low, ratio.interval.high
    if low is None or high is None:
        return SessionRatio(ratio.interval, ratio.rounds, variance)
    half = NORMAL_QUANTILE * sd
    wider = Interval(centre, centre - math.hypot(centre - low, half), centre + math.hypot(high - centre, half))
    return SessionRatio(wider, ratio.rounds, variance)


def pooled_ratio(sessions: Sequence[SessionRatio], confidence: float = CONFIDENCE) -> Interval:
    """Several sessions of one pair: the mean of their medians and its t interval over sessions (log scale).

    The spread between sessions carries what rounds of one session cannot show (where memory landed, which cores).
    Its variance is floored by the mean variance that one session alone would state: two sessions that happen to agree
    are not a narrow interval. Two sessions have one degree of freedom: honest, and wide. One session gives its own.

    Raises:
        ValueError: no session.
    """
    if not sessions:
        raise ValueError("a ratio needs at least one session")
    if len(sessions) == 1:
        return sessions[0].interval
    medians = [session.interval.estimate for session in sessions]
    within = [session.variance for session in sessions if session.variance is not None]
    variance = math.fsum(within) / len(within) if within else 0.0
    return t_interval(medians, confidence, variance_floor=variance, least=2)


def ratio_half_width(interval: Interval) -> float | None:
    """Half the width of a ratio's interval, relative to the ratio (0.02: +-2 %); None without bounds.

    Args:
        interval: on the log scale.
    """
    if interval.low is None or interval.high is None:
        return None
    return (math.exp(interval.high - interval.estimate) - math.exp(interval.low - interval.estimate)) / 2


def widest_half_width(rounds: Sequence[Round], pairs: Sequence[tuple[int, int]]) -> float | None:
    """The stopping rule of a session: the widest relative half-width among the ratios of ``pairs`` of members.

    Over rounds alone: what differs between processes, no further round makes smaller.

    Args:
        rounds: those so far.
        pairs: indices of members (numerator, denominator).

    Returns:
        None while one of them is not yet known (fewer than 6 common rounds), or without any pair.
    """
    widest = None
    for numerator, denominator in pairs:
        values = round_log_ratios(rounds, numerator, denominator)
        width = ratio_half_width(ratio_of(values).interval) if values.size else None
        if width is None:
            return None
        widest = width if widest is None else max(widest, width)
    return widest
