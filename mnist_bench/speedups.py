"""How much faster one cell is than another: the sessions' paired ratios, and how far to believe them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mnist_bench import stats
from mnist_bench.records import Session
from mnist_bench.rows import Paired
from mnist_bench.session_ratios import SessionRatio, between_processes, pooled_ratio, ratios_of, seconds_per_step

# From weak to strong: the rounds of one session cannot show what differs between sessions.
STRENGTH: tuple[Paired, ...] = ("unpaired", "within", "between")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedUp:
    """Reference seconds per step / this cell's: above 1 this cell is faster. Bounds are None where unknown."""

    ratio: float
    low: float | None
    high: float | None
    paired: Paired

    @classmethod
    def of(cls, log_ratio: stats.Interval, paired: Paired) -> Self:
        """From the log scale."""
        ratio = log_ratio.exp()
        return cls(ratio=ratio.estimate, low=ratio.low, high=ratio.high, paired=paired)

    @property
    def log(self) -> stats.Interval:
        """The same on the log scale."""
        if self.low is None or self.high is None:
            return stats.Interval(math.log(self.ratio))
        return stats.Interval(math.log(self.ratio), math.log(self.low), math.log(self.high))


class SessionIndex(dict[str, list[Session]]):
    """The sessions that each trial took part in, by trial id. What is read off a session is computed once."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        super().__init__()
        # By the session's id(): they live as long as this.
        self._step_s: dict[int, stats.FloatArray] = {}
        self._medians: dict[int, stats.FloatArray] = {}
        self._columns: dict[int, dict[str, int]] = {}
        self._log_step_s: dict[str, float | None] = {}
        self._ratios: dict[tuple[int, str, str], SessionRatio | None] = {}
        for session in sessions:
            self._columns[id(session)] = {member: number for number, member in enumerate(session.members)}
            for member in session.members:
                self.setdefault(member, []).append(session)

    def step_s(self, session: Session) -> stats.FloatArray:
        """``seconds_per_step`` of one of these sessions."""
        found = self._step_s.get(id(session))
        if found is None:
            found = self._step_s[id(session)] = seconds_per_step(session.rounds, len(session.members))
        return found

    def log_step_s(self, trial: str) -> float | None:
        """ln of the median seconds per step over all rounds in which a trial (an id) took steps; None: in none."""
        if trial not in self._log_step_s:
            found = self._median_step_s(trial)
            self._log_step_s[trial] = None if found is None or math.isnan(found) else math.log(found)
        return self._log_step_s[trial]

    def _median_step_s(self, trial: str) -> float | None:
        """None or NaN where the trial took no step."""
        match self.get(trial, []):
            case []:
                return None
            case [session]:  # nearly always: all of its members at once
                if id(session) not in self._medians:
                    self._medians[id(session)] = stats.medians(self.step_s(session))
                return float(self._medians[id(session)][self._columns[id(session)][trial]])
            case found:
                parts = [self.step_s(session)[:, self._columns[id(session)][trial]] for session in found]
                return float(stats.medians(np.concatenate(parts)[:, np.newaxis])[0])

    def measure(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Reads off every session the ratios of all these pairs (reference, this) that it timed together.

        ``ratio`` does it one by one; thousands of pairs are better measured first.
        """
        wanted: dict[int, tuple[Session, list[tuple[str, str]]]] = {}
        for reference, this in pairs:
            for session in self.together(reference, this):
                wanted.setdefault(id(session), (session, []))[1].append((reference, this))
        for session, own in wanted.values():
            log_step_s = np.log(self.step_s(session))
            columns = self._columns[id(session)]
            references, these = ([columns[pair[side]] for pair in own] for side in (0, 1))
            found = ratios_of(log_step_s[:, references] - log_step_s[:, these])
            for pair, ratio in zip(own, found, strict=True):
                self._ratios[id(session), *pair] = None if ratio is None else between_processes(ratio)

    def together(self, reference: str, this: str) -> list[Session]:
        """The sessions in which two trials took turns."""
        return [s for s in self.get(reference, ()) if s.paired and this in self._columns[id(s)]]

    def ratio(self, session: Session, reference: str, this: str) -> SessionRatio | None:
        """What a session says of the code of two members (``between_processes``); None: no common round."""
        key = (id(session), reference, this)
        if key not in self._ratios:
            self.measure([(reference, this)])
        return self._ratios[key]


def index_sessions(sessions: Iterable[Session]) -> SessionIndex:
    """The sessions that each trial took part in, by trial id."""
    return SessionIndex(sessions)


def speed_up(pairs: Sequence[tuple[str, str]], sessions: SessionIndex) -> SpeedUp | None:
    """The speed-up over the seeds of two cells.

    Args:
        pairs: trial ids (reference, this) of one seed each, both of them ok.
        sessions: of the run, by member.

    Returns:
        From the sessions that both shared: ``within`` (one) or ``between`` (several). Where they never shared one,
        ``unpaired``: the medians of separate sessions, seed by seed. None where one of them was never timed.
    """
    shared = [ratio for reference, this in pairs for ratio in _paired_ratios(reference, this, sessions)]
    if shared:
        return SpeedUp.of(pooled_ratio(shared), "within" if len(shared) == 1 else "between")
    apart = [ratio for reference, this in pairs if (ratio := _unpaired_ratio(reference, this, sessions)) is not None]
    return SpeedUp.of(stats.t_interval(apart), "unpaired") if apart else None


def weakest(*speed_ups: SpeedUp | None) -> Paired | None:
    """The weakest word among those that were measured."""
    return min((s.paired for s in speed_ups if s is not None), key=STRENGTH.index, default=None)


def _paired_ratios(reference: str, this: str, sessions: SessionIndex) -> list[SessionRatio]:
    found = (sessions.ratio(session, reference, this) for session in sessions.together(reference, this))
    return [ratio for ratio in found if ratio is not None]


def _unpaired_ratio(reference: str, this: str, sessions: SessionIndex) -> float | None:
    slow, fast = sessions.log_step_s(reference), sessions.log_step_s(this)
    return None if slow is None or fast is None else slow - fast
