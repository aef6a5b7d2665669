"""Where a check measures: real workers of two trees on this machine."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mnist_bench.disk.folder import RunFolder
from mnist_bench.gate.sides import Side
from mnist_bench.records import Cell, Failure, Group, Round, RunOptions, Session, Trial, TrialSpec
from mnist_bench.records import Side as SideName
from mnist_bench.run.group import Observer, Settings, run_group
from mnist_bench.run.process import Interrupts, LocalWorker
from mnist_bench.run.runner import trial_spec

PAIR_TOKEN_S = 2.0  # of each side of a process pair: rounds of blocks (docs/decisions/0016)
NAMES: tuple[SideName, SideName] = ("A", "B")


class CheckObserver(Observer):
    """Hears what a run tells, and what is measured of two sides."""

    def working(self, now: str, left_s: float, budget_s: float) -> None:
        """What is measured now, and how much of the budget is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How two sides are measured.

    Args:
        budget_s: wall time over all sittings.
        clock: seconds; ``started_s``: the clock when this sitting began.
        unchanged: raises where a side is no longer what it was: nothing more may be kept then.
    """

    a: Side
    b: Side
    budget_s: float
    clock: Callable[[], float]
    started_s: float
    interrupts: Interrupts
    observer: CheckObserver
    allow_plugins: bool = False
    unchanged: Callable[[], None] = lambda: None


class Bench:
    """Real workers of two trees on this machine. What a side cannot do is a line, and is not raised."""

    def __init__(self, folder: RunFolder, setting: Setting) -> None:
        self._folder, self._setting = folder, setting
        self._sides = {"A": setting.a, "B": setting.b}
        self._missing: dict[str, dict[str, str]] = {"A": {}, "B": {}}

    def pair(self, cell: Cell, number: int) -> list[Session | Trial]:
        """One fresh process of each side; which of them starts first alternates (docs/log.md).

        Returns:
            The session, its members in the order A, B; or the trials that failed.
        """
        specs = [self._spec(name, cell, number, f"{cell.id}/p{number}@{name}") for name in NAMES]
        group = Group(id=cell.id, specs=tuple(specs if number % 2 else specs[::-1]))
        rng = random.Random(f"{self._folder.run_id}/{cell.id}/p{number}")
        begin = self._setting.clock()
        found = list(run_group(group, settings=self._settings(PAIR_TOKEN_S, {}), rng=rng, train=False))
        if failed := [line for line in found if isinstance(line, Trial)]:
            return list(failed)
        (session,) = (line for line in found if isinstance(line, Session))
        return [replace(in_order(session, [spec.id for spec in specs]), seconds=self._setting.clock() - begin)]

    def train(self, cell: Cell, seed: int, names: Sequence[SideName], within_s: float) -> list[Session | Trial]:
        """Sides trained one after the other, in random order, in deterministic mode.

        One that fails does not keep the other from it: whether the reference fails too is part of the verdict, and so
        are B's floors.

        Args:
            within_s: after so many seconds a training is given up.

        Returns:
            The trials, A's first; empty: given up. A side that failed in time is there, whatever became of the other.
        """
        end_s = self._setting.clock() + within_s
        order = random.Random(f"{self._folder.run_id}/{cell.id}/s{seed}").sample(names, len(names))
        found = {name: self._train(name, cell, seed, end_s) for name in order}
        known = [trial for name in names if (trial := found[name]) is not None]
        return [trial for trial in known if len(known) == len(names) or trial.status != "ok"]

    def _train(self, name: SideName, cell: Cell, seed: int, end_s: float) -> Trial | None:
        """One side trained; None: given up when the clock says ``end_s``."""
        within_s = end_s - self._setting.clock()
        if within_s <= 0:
            return None
        spec = self._spec(name, cell, seed, f"{cell.id}/s{seed}@{name}", deterministic=True)
        settings = self._settings(0.0, self._missing[name], within_s)
        group = Group(id=cell.id, specs=(spec,))
        (trial,) = run_group(group, settings=settings, rng=random.Random(spec.id))
        assert isinstance(trial, Trial)
        timed_out = isinstance(trial.outcome, Failure) and trial.outcome.kind == "timeout"
        return None if timed_out and within_s < self._limit_s(name) else trial

    def _spec(self, name: SideName, cell: Cell, seed: int, trial: str, *, deterministic: bool = False) -> TrialSpec:
        side = self._sides[name]
        assert side.matrix is not None
        options = RunOptions(plugin_path=str(side.matrix_path.parent), allow_plugins=self._setting.allow_plugins)
        spec = replace(trial_spec(side.matrix, side.data, options, cell, seed), id=trial, side=name)
        if not deterministic or spec.variant.deterministic:
            return spec
        return replace(spec, variant=replace(spec.variant, deterministic=True), deterministic_if_possible=True)

    def _settings(self, budget_s: float, missing: dict[str, str], within_s: float = math.inf) -> Settings:
        return Settings(
            precision=0.0,  # a pair ends by its budget alone: to stop at a lucky look would be a choice
            budget_s=budget_s,
            launch=partial(self._launch, within_s=within_s),
            observer=self._setting.observer,
            unavailable=missing,
        )

    def _limit_s(self, name: SideName) -> float:
        matrix = self._sides[name].matrix
        return matrix.limits.timeout_seconds if matrix else 0.0

    def _launch(self, spec: TrialSpec, within_s: float) -> LocalWorker:
        side = self._sides[spec.side or "B"]
        timeout_s = min(within_s, self._limit_s(side.name))
        log = self._folder.log_path(f"{spec.cell.id}@{side.name}")
        return LocalWorker(spec, log.resolve(), side.environ, timeout_s, self._setting.interrupts, side.root)


def in_order(session: Session, members: Sequence[str]) -> Session:
    """The same session with its members in another order."""
    places = [session.members.index(member) for member in members]
    rounds = tuple(
        Round(
            order=tuple(places.index(index) for index in one.order),
            steps=tuple(one.steps[place] for place in places),
            seconds=tuple(one.seconds[place] for place in places),
        )
        for one in session.rounds
    )
    return replace(session, members=tuple(members), rounds=rounds)
