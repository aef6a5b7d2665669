"""How much faster one side is than another: the paired ratios of timing sessions, and how far to believe them. Pure.

Ratios of rounds live on the log scale: ``ln(seconds per step of the numerator / of the denominator)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mnist_bench import stats
from mnist_bench.figures import Paired
from mnist_bench.records import Round, Session
from mnist_bench.stats import NORMAL_QUANTILE, FloatArray, Interval, t_interval

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


def round_log_ratios(rounds: Sequence[Round], numerator: int, denominator: int) -> FloatArray:
    """ln(seconds per step / seconds per step) of two members (by index) in every round in which both took steps."""
    step_s = seconds_per_step(rounds, len(rounds[0].steps) if rounds else 2)
    ratios: FloatArray = np.log(step_s[:, numerator] / step_s[:, denominator])
    return ratios[~np.isnan(ratios)]


def ratio_of(values: ArrayLike) -> SessionRatio:
    """What the log ratios of one session's rounds, one at least, say: median, interval, variance of the median.

    The bounds are those of the Hodges-Lehmann estimate, stretched where a skewed sample puts the median outside.
    The variance is read off the interval (half of it over the normal quantile); below 6 rounds, where there is no
    interval, it is that of the median of a normal sample, pi/2 s^2/n.
    """
    return _ratios_of(np.asarray(values, dtype=np.float64)[:, np.newaxis])[0]


def ratios_of(values: FloatArray) -> list[SessionRatio | None]:
    """``ratio_of`` each column, all without a gap at once, which takes a fraction of the time.

    Args:
        values: shape (rounds, pairs); NaN where a pair shares no round.

    Returns:
        One for each column; None where it has no value.
    """
    gaps = np.isnan(values)
    at_once = iter(_ratios_of(values[:, ~gaps.any(axis=0)]) if len(values) else ())
    known = [column[~gap] for column, gap in zip(values.T, gaps.T, strict=True)]
    found = (next(at_once) if one.size == len(values) else ratio_of(one) for one in known if one.size)
    return [next(found) if one.size else None for one in known]


def _ratios_of(x: FloatArray) -> list[SessionRatio]:
    """``ratio_of`` each column of a sample without gaps."""
    rounds, medians = len(x), stats.medians(x)
    rank = stats.critical_rank(rounds)
    if rank is None:
        variances = (math.pi / 2 / rounds * x.var(axis=0, ddof=1)).tolist() if rounds > 1 else [None] * x.shape[1]
        return [SessionRatio(Interval(m), rounds, v) for m, v in zip(medians.tolist(), variances, strict=True)]
    walsh = stats.walsh_averages(x)
    ends = rank, len(walsh) - 1 - rank
    part = np.partition(walsh, ends, axis=0)
    lows, highs = np.minimum(part[ends[0]], medians), np.maximum(part[ends[1]], medians)
    variances = ((highs - lows) / (2 * NORMAL_QUANTILE)) ** 2
    figures = zip(medians.tolist(), lows.tolist(), highs.tolist(), variances.tolist(), strict=True)
    return [SessionRatio(Interval(centre, low, high), rounds, variance) for centre, low, high, variance in figures]


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


def pooled_ratio(sessions: Sequence[SessionRatio]) -> Interval:
    """Several sessions of one pair: the mean of their medians and its t interval over sessions (log scale).

    The spread between sessions carries what rounds of one session cannot show (where memory landed, which cores).
    Its variance is floored by the mean variance that one session alone would state: two sessions that happen to agree
    are not a narrow interval. Two sessions have one degree of freedom: honest, and wide. One session gives its own.
    """
    if len(sessions) == 1:
        return sessions[0].interval
    medians = [session.interval.estimate for session in sessions]
    within = [session.variance for session in sessions if session.variance is not None]
    variance = math.fsum(within) / len(within) if within else 0.0
    return t_interval(medians, variance_floor=variance, least=2)


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


# From weak to strong: the rounds of one session cannot show what differs between sessions.
STRENGTH: tuple[Paired, ...] = ("unpaired", "within", "between")


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """Reference seconds per step / this cell's: above 1 this cell is faster."""

    interval: Interval
    paired: Paired

    def scaled(self, by: float) -> SpeedUp:
        """Of what is done in a step, where a step of this cell does ``by`` times as much."""
        return SpeedUp(self.interval.scaled(by), self.paired)

    @property
    def shown(self) -> Literal["faster", "slower", ""]:
        """What the interval shows; empty where it holds 1, or has no bounds."""
        low, high = self.interval.low, self.interval.high
        return "faster" if low is not None and low > 1 else "slower" if high is not None and high < 1 else ""


class SessionIndex(dict[str, list[Session]]):
    """The sessions that each trial took part in, by trial id. What is read off a session is computed once."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        super().__init__()
        self._read: dict[int, _Read] = {}  # by the session's id(): they live as long as this
        self._log_step_s: dict[str, float | None] = {}
        for session in sessions:
            self._read[id(session)] = _Read(session)
            for member in session.members:
                self.setdefault(member, []).append(session)

    def log_step_s(self, trial: str) -> float | None:
        """ln of the median seconds per step over all rounds in which a trial (an id) took steps; None: in none."""
        if trial not in self._log_step_s:
            read = [self._read[id(session)] for session in self.get(trial, ())]
            if len(read) == 1:  # nearly always: all of its members at once
                found = read[0].medians[read[0].columns[trial]]
            else:
                parts = [np.empty(0), *(one.step_s[:, one.columns[trial]] for one in read)]
                found = stats.medians(np.concatenate(parts)[:, np.newaxis])[0]
            self._log_step_s[trial] = None if math.isnan(found) else math.log(found)
        return self._log_step_s[trial]

    def measure(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Reads off every session the ratios of all these pairs (reference, this) that it timed together.

        ``ratio`` does it one by one; thousands of pairs are better measured first.
        """
        wanted: dict[int, tuple[Session, list[tuple[str, str]]]] = {}
        for reference, this in pairs:
            for session in self.together(reference, this):
                wanted.setdefault(id(session), (session, []))[1].append((reference, this))
        for session, own in wanted.values():
            read = self._read[id(session)]
            log_step_s = np.log(read.step_s)
            references, these = ([read.columns[pair[side]] for pair in own] for side in (0, 1))
            found = ratios_of(log_step_s[:, references] - log_step_s[:, these])
            for pair, ratio in zip(own, found, strict=True):
                read.ratios[pair] = None if ratio is None else between_processes(ratio)

    def together(self, reference: str, this: str) -> list[Session]:
        """The sessions in which two trials took turns."""
        return [s for s in self.get(reference, ()) if s.paired and this in self._read[id(s)].columns]

    def ratio(self, session: Session, reference: str, this: str) -> SessionRatio | None:
        """What a session says of the code of two members (``between_processes``); None: no common round."""
        ratios = self._read[id(session)].ratios
        if (reference, this) not in ratios:
            self.measure([(reference, this)])
        return ratios[reference, this]


class _Read:
    """What was read off a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.columns = {member: number for number, member in enumerate(session.members)}
        self.ratios: dict[tuple[str, str], SessionRatio | None] = {}  # by (reference, this)

    @cached_property
    def step_s(self) -> FloatArray:
        return seconds_per_step(self._session.rounds, len(self.columns))

    @cached_property
    def medians(self) -> FloatArray:
        return stats.medians(self.step_s)


def speed_up(pairs: Sequence[tuple[str, str]], sessions: SessionIndex) -> SpeedUp | None:
    """The speed-up over the seeds of two cells.

    Args:
        pairs: trial ids (reference, this) of one seed each, both of them ok.
        sessions: of the run, by member.

    Returns:
        From the sessions that both shared: ``within`` (one) or ``between`` (several). Where they never shared one,
        ``unpaired``: the medians of separate sessions, seed by seed. None where one of them was never timed.
    """
    shared = [sessions.ratio(one, *pair) for pair in pairs for one in sessions.together(*pair)]
    known = [ratio for ratio in shared if ratio is not None]
    if known:
        return SpeedUp(pooled_ratio(known).exp(), "within" if len(known) == 1 else "between")
    apart = [(sessions.log_step_s(reference), sessions.log_step_s(this)) for reference, this in pairs]
    logs = [slow - fast for slow, fast in apart if slow is not None and fast is not None]
    return SpeedUp(t_interval(logs).exp(), "unpaired") if logs else None


def weakest(*speed_ups: SpeedUp | None) -> Paired | None:
    """The weakest word among those that were measured."""
    return min((s.paired for s in speed_ups if s is not None), key=STRENGTH.index, default=None)
