"""How much faster one cell is than another: the sessions' paired ratios, and how far to believe them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mnist_bench import stats
from mnist_bench.records import BUILTIN_VARIANTS, Matrix, Session
from mnist_bench.rows import Paired

# From weak to strong: the rounds of one session cannot show what differs between sessions.
STRENGTH: tuple[Paired, ...] = ("unpaired", "within", "between")

SessionIndex = Mapping[str, Sequence[Session]]


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


def index_sessions(sessions: Iterable[Session]) -> SessionIndex:
    """The sessions that each trial took part in, by trial id."""
    index: dict[str, list[Session]] = {}
    for session in sessions:
        for member in session.members:
            index.setdefault(member, []).append(session)
    return index


def reference_variant(matrix: Matrix) -> str | None:
    """The variant that the others are compared with: the one named ``eager``, else one with its settings."""
    plain = BUILTIN_VARIANTS["eager"]
    if any(variant.name == plain.name for variant in matrix.variants):
        return plain.name
    return next((v.name for v in matrix.variants if replace(v, name=plain.name) == plain), None)


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
        return SpeedUp.of(stats.pooled_ratio(shared), "within" if len(shared) == 1 else "between")
    apart = [ratio for reference, this in pairs if (ratio := _unpaired_ratio(reference, this, sessions)) is not None]
    return SpeedUp.of(stats.t_interval(apart), "unpaired") if apart else None


def weakest(*speed_ups: SpeedUp | None) -> Paired | None:
    """The weakest word among those that were measured."""
    return min((s.paired for s in speed_ups if s is not None), key=STRENGTH.index, default=None)


def _paired_ratios(reference: str, this: str, sessions: SessionIndex) -> list[stats.SessionRatio]:
    both = [s for s in sessions.get(reference, ()) if s.paired and this in s.members]
    ratios = (stats.session_ratio(session, reference, this) for session in both)
    return [ratio for ratio in ratios if ratio is not None]


def _unpaired_ratio(reference: str, this: str, sessions: SessionIndex) -> float | None:
    slow, fast = log_seconds_per_step(reference, sessions), log_seconds_per_step(this, sessions)
    return None if slow is None or fast is None else slow - fast


def log_seconds_per_step(trial: str, sessions: SessionIndex) -> float | None:
    """ln of the median seconds per step over all rounds in which the trial (an id) took steps; None: in none."""
    per_step = []
    for session in sessions.get(trial, ()):
        member = session.members.index(trial)
        per_step += [r.seconds[member] / r.steps[member] for r in session.rounds if r.steps[member] > 0]
    middle = float(np.median(per_step)) if per_step else 0.0
    return math.log(middle) if middle > 0 else None
