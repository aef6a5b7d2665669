"""What a run tells while it goes on: only between timed spans, never inside one."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from mnist_bench.records import Session, Trial

if TYPE_CHECKING:
    from mnist_bench.run.runner import RunPlan

Stage = Literal["preparing", "timing", "training"]


class Observer:
    """Hears everything and does nothing: override what is wanted."""

    def notice(self, text: str, *, warning: bool = False) -> None:
        """A line for the log."""

    def started(self, plan: RunPlan, done: Collection[str]) -> None:
        """``done``: ids of the trials that were found finished."""

    def stage(self, stage: Stage, trial_id: str) -> None:
        """A trial enters a stage; the token is its own."""

    def detail(self, words: str, share: float) -> None:
        """How far the stage is, in words and as a share of 1."""

    def session(self, session: Session) -> None:
        """A timing session has ended."""

    def finished(self, trial: Trial) -> None:
        """A trial has ended, however it did."""
