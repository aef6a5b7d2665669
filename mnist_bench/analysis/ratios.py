"""How much faster one side is than another: the paired ratios of timing sessions, and how far to believe them. Pure.

Ratios of rounds live on the log scale: ``ln(seconds per step of the numerator / of the denominator)``.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mnist_bench import stats
from mnist_bench.figures import Paired
from mnist_bench.records import Round, Session
from mnist_bench.stats import NORMAL_QUANTILE, FloatArray, Interval, t_interval
from mnist_bench.table import grouped

# Two fresh processes with the same code differ by this much for a whole session (standard deviation of the log of
# their ratio): what no round of that session can show. Measured: docs/measurement.md, "A session"; held against new
# measurements by ``python -m bench.aa``.
PROCESS_SD = 0.015
BATCH = 64  # sessions: what is computed with so many at once stays in a cache


@dataclass(frozen=True, slots=True)
class SessionRatio:
    """What one session says of a pair (log scale): the median over rounds, its interval, and its variance."""

    interval: Interval
    rounds: int
    variance: float | None  # of the median; None below 2 rounds


def seconds_per_step(rounds: Sequence[Round], members: int) -> FloatArray:
    """Seconds per step, shape (rounds, members); NaN where a member took no step."""
    steps = np.array([r.steps for r in rounds], dtype=np.float64).reshape(-1, members)
    seconds = np.array([r.seconds for r in rounds], dtype=np.float64).reshape(-1, members)
    per_step: FloatArray = np.divide(seconds, steps, out=np.full_like(seconds, np.nan), where=steps > 0)
    return per_step


def round_log_ratios(rounds: Sequence[Round], numerator: int, denominator: int) -> FloatArray:
    """ln(seconds per step / seconds per step) of two members (by index) in every round in which both took steps."""
    step_s = seconds_per_step(rounds, len(rounds[0].steps) if rounds else 2)
    ratios: FloatArray = np.log(step_s[:, numerator] / step_s[:, denominator])
    return ratios[~np.isnan(ratios)]


def log_ratios(step_s: FloatArray, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    """Those of every round, shape (rounds, pairs); NaN where a member took no step.

    Args:
        step_s: as ``seconds_per_step`` has them.
        pairs: members by index (numerator, denominator).
    """
    numerators, denominators = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    ratios: FloatArray = np.log(step_s[:, numerators]) - np.log(step_s[:, denominators])
    return ratios


def ratios_of(columns: FloatArray) -> list[SessionRatio | None]:
    """What the log ratios of n rounds say of each of k pairs, shape (n, k); None where no round has both members.

    Many at once are a fraction of the work, whatever sessions they are of; those with gaps are taken one by one.
    """
    if not len(columns):
        return [None] * columns.shape[1]
    gaps = np.isnan(columns)
    whole = np.all(~gaps, axis=0)
    found = iter(_ratios_of(columns[:, whole]))
    rest = (column[~gap] for column, gap in zip(columns.T[~whole], gaps.T[~whole], strict=True))
    others = (ratio_of(known) if known.size else None for known in rest)
    return [next(found if one else others) for one in whole]


def ratio_of(values: ArrayLike) -> SessionRatio:
    """What the log ratios of one session's rounds, one at least, say: median, interval, variance of the median.

    The bounds are those of the Hodges-Lehmann estimate, stretched where a skewed sample puts the median outside.
    The variance is read off the interval (half of it over the normal quantile); below 6 rounds, where there is no
    interval, it is that of the median of a normal sample, pi/2 s^2/n.
    """
    return _ratios_of(np.asarray(values, dtype=np.float64)[:, np.newaxis])[0]


def _ratios_of(columns: FloatArray) -> list[SessionRatio]:
    """``ratio_of`` each column, without gaps."""
    rounds = len(columns)
    centres = zip(stats.hodges_lehmann_of_columns(columns), stats.medians(columns).tolist(), strict=True)
    intervals = [interval.holding(median) for interval, median in centres]
    few: list[float | None] = [None] * len(intervals)
    if rounds > 1 and stats.critical_rank(rounds) is None:
        few = (math.pi / 2 / rounds * columns.var(axis=0, ddof=1)).tolist()
    return [
        SessionRatio(one, rounds, variance if one.half is None else (one.half / NORMAL_QUANTILE) ** 2)
        for one, variance in zip(intervals, few, strict=True)
    ]


def between_processes(ratio: SessionRatio, sd: float = PROCESS_SD) -> SessionRatio:
    """The same estimate as one of the code, not of these two processes: wider by what differs between processes.

    The independent error ``sd`` is added in quadrature to each side of the interval and to the variance.

    Source of the model: Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013. Every level of
    repetition has a variance; that of processes is repeated once here, so it has to be known beforehand.
    """
    variance = None if ratio.variance is None else ratio.variance + sd**2
    interval, half = ratio.interval, NORMAL_QUANTILE * sd
    if interval.low is not None and interval.high is not None:
        centre = interval.estimate
        ends = centre - math.hypot(centre - interval.low, half), centre + math.hypot(interval.high - centre, half)
        interval = Interval(centre, *ends)
    return SessionRatio(interval, ratio.rounds, variance)


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


def widest_half_width(rounds: Sequence[Round], pairs: Sequence[tuple[int, int]]) -> float | None:
    """The stopping rule of a session: the widest half-width among the ratios of ``pairs`` of members.

    Relative to the ratio (0.02: +-2 %), over rounds alone: what differs between processes, no further round makes
    smaller.

    Args:
        rounds: those so far, one at least.
        pairs: indices of members (numerator, denominator).

    Returns:
        None while one of them is not yet known (fewer than 6 common rounds), or without any pair.
    """
    found = ratios_of(log_ratios(seconds_per_step(rounds, len(rounds[0].steps)), pairs))
    ratios = [one.interval.exp() for one in found if one is not None]
    widths = [half / ratio.estimate for ratio in ratios if (half := ratio.half) is not None]
    return max(widths, default=None) if len(widths) == len(pairs) else None


# From weak to strong: the rounds of one session cannot show what differs between sessions.
STRENGTH: tuple[Paired, ...] = ("unpaired", "within", "between")


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """Reference seconds per step / this cell's: above 1 this cell is faster. ``sessions``: that both shared."""

    interval: Interval
    paired: Paired
    sessions: int = 0

    @property
    def shown(self) -> Literal["faster", "slower", ""]:
        """What the interval shows; empty where it holds 1, or has no bounds."""
        low, high = self.interval.low, self.interval.high
        return "faster" if low is not None and low > 1 else "slower" if high is not None and high < 1 else ""


class Timed:
    """A session, to read ratios off."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.columns = {member: number for number, member in enumerate(session.members)}

    @property
    def step_s(self) -> FloatArray:
        return seconds_per_step(self.session.rounds, len(self.session.members))

    def log_ratios(self, pairs: Iterable[tuple[str, str]]) -> FloatArray:
        return log_ratios(self.step_s, [(self.columns[reference], self.columns[this]) for reference, this in pairs])


class SessionIndex(dict[str, list[Timed]]):
    """The sessions that each trial took part in, by trial id."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        super().__init__()
        self._all = [*map(Timed, sessions)]
        self._ratios: dict[tuple[str, str], list[tuple[Timed, SessionRatio]]] = {}
        for timed in self._all:
            for member in timed.session.members:
                self.setdefault(member, []).append(timed)

    @cached_property
    def log_step_s(self) -> Mapping[str, float]:
        """By trial that was timed, ln of its seconds per step: the median over its sessions of those over rounds."""
        found: dict[str, list[float]] = {}
        for alike in _batches(self._all):
            members = (member for timed in alike for member in timed.session.members)
            logs = np.log(stats.medians(np.hstack([timed.step_s for timed in alike])))
            for member, log in zip(members, logs.tolist(), strict=True):
                if not math.isnan(log):
                    found.setdefault(member, []).append(log)
        return {member: statistics.median(logs) for member, logs in found.items()}

    def together(self, reference: str, this: str) -> list[Timed]:
        """The sessions in which two trials took turns."""
        return [one for one in self.get(reference, ()) if one.session.paired and one in self.get(this, ())]

    def measure(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Reads off every session the ratios of all these pairs (reference, this) that it timed together.

        ``ratios`` does it for a few; thousands of pairs are better measured first.
        """
        wanted: dict[Timed, list[tuple[str, str]]] = {}
        for pair in pairs:
            if pair not in self._ratios:
                self._ratios[pair] = []
                for timed in self.together(*pair):
                    wanted.setdefault(timed, []).append(pair)
        for alike in _batches(wanted):
            found = ratios_of(np.hstack([timed.log_ratios(wanted[timed]) for timed in alike]))
            places = ((pair, timed) for timed in alike for pair in wanted[timed])
            for (pair, timed), ratio in zip(places, found, strict=True):
                if ratio is not None:
                    self._ratios[pair].append((timed, between_processes(ratio)))

    def forget(self) -> None:
        """Lets go of what ``measure`` has found: it would be measured again."""
        self._ratios.clear()

    def ratios(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Timed, SessionRatio]]:
        """What each session says of the code of these pairs (``between_processes``), where a round has both."""
        self.measure(pairs)
        return [one for pair in pairs for one in self._ratios[pair]]


def _batches(sessions: Iterable[Timed]) -> Iterator[list[Timed]]:
    """Sessions with equally many rounds, some at a time: to compute with many at once takes a tenth of the time."""
    for alike in grouped(sessions, lambda timed: len(timed.session.rounds)).values():
        yield from (alike[first : first + BATCH] for first in range(0, len(alike), BATCH))


def speed_up(pairs: Sequence[tuple[str, str]], sessions: SessionIndex) -> SpeedUp | None:
    """The speed-up over the seeds of two cells.

    Args:
        pairs: trial ids (reference, this) of one seed each, both of them ok.
        sessions: of the run, by member.

    Returns:
        From the sessions that both shared: ``within`` (one) or ``between`` (several). Where they never shared one,
        ``unpaired``: the medians of separate sessions, seed by seed. None where one of them was never timed.
    """
    if known := [ratio for _, ratio in sessions.ratios(pairs)]:
        return SpeedUp(pooled_ratio(known).exp(), "within" if len(known) == 1 else "between", len(known))
    log_step_s = sessions.log_step_s
    logs = [log_step_s[one] - log_step_s[this] for one, this in pairs if one in log_step_s and this in log_step_s]
    return SpeedUp(t_interval(logs).exp(), "unpaired") if logs else None


def weakest(*speed_ups: SpeedUp | None) -> Paired | None:
    """The weakest word among those that were measured."""
    return min((s.paired for s in speed_ups if s is not None), key=STRENGTH.index, default=None)
