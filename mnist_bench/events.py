"""What a run tells its observer while it goes on. Events come only between timed spans, never inside one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mnist_bench.records import DataSet, Group, Manifest, Session, Trial

Stage = Literal["starting", "preparing", "timing", "training", "evaluating", "finishing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A line for the log; ``level`` as in logging."""

    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    manifest: Manifest
    path: str  # the run folder
    total: int  # trials to finish, those of a resumed run included
    done: int  # trials found finished


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStarted:
    group: Group
    number: int  # from 1
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A trial enters a stage; the token is its own."""

    trial_id: str
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionProgress:
    """After some rounds of a timing session. ``half_width``: of the widest ratio's interval; None: not yet known."""

    group: str
    rounds: int
    half_width: float | None
    token_s: float  # the most that a member has used
    budget_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFinished:
    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFinished:
    trial_id: str
    epoch: int  # from 1
    epochs: int
    samples_per_s: float
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished:
    trial: Trial
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    manifest: Manifest
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReady:
    data: DataSet


Event = (
    Notice
    | DataReady
    | RunStarted
    | GroupStarted
    | StageStarted
    | SessionProgress
    | SessionFinished
    | EpochFinished
    | TrialFinished
    | RunFinished
)
Observer = Callable[[Event], None]
