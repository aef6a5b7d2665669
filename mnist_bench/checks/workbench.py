"""Where a check measures: real workers of two trees on this machine."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from urllib.parse import quote

from mnist_bench.cells import model_of, variant_of
from mnist_bench.checks.costs import PAIR_TOKEN_S
from mnist_bench.checks.events import CheckObserver, OutOfTime, Stage
from mnist_bench.errors import BenchError
from mnist_bench.events import Event, StageStarted
from mnist_bench.executors.local import LocalWorker
from mnist_bench.gate.records import ProcessPair, SeedPair, SideFault, Solo, Training
from mnist_bench.gate.records import Side as SideName
from mnist_bench.gate.sides import Side
from mnist_bench.group import Finding, Settings, Worker, run_group, time_group
from mnist_bench.interrupts import Interrupts
from mnist_bench.machine import environment
from mnist_bench.records import Cell, Failure, Group, Measurement, Round, Session, TrialSpec, trial_id

MARK = "@"  # between a variant and its side; no name in a matrix holds one
NAMES: tuple[SideName, SideName] = ("A", "B")


@dataclass(slots=True, kw_only=True)
class Workbench:
    """Measures cells of two sides.

    Args:
        sides: by name.
        name: of the check: with it the draws of every session are its own, and can be had again.
        logs: the folder that takes what workers print.
        timeout_s: of a trial, with the token; None: as each side's matrix says.
        clock: seconds.
        unchanged: raises where the working tree is no longer what it was: nothing more may be kept then.
    """

    sides: Mapping[SideName, Side]
    name: str
    logs: Path
    interrupts: Interrupts
    emit: CheckObserver
    allow_plugins: bool
    timeout_s: float | None
    clock: Callable[[], float]
    unchanged: Callable[[], None]
    _missing: dict[SideName, dict[str, str]] = field(default_factory=lambda: {name: {} for name in NAMES})

    def pair(self, cell: Cell, number: int) -> ProcessPair | tuple[SideFault, ...]:
        """One fresh process of each side; which of them starts first alternates (docs/log.md)."""
        specs = [self._spec(name, cell, number) for name in NAMES]
        in_turn = specs if number % 2 else specs[::-1]
        group = Group(id=f"{cell.id}/p{number}", specs=tuple(in_turn))
        rng = random.Random(f"{self.name}/{group.id}")
        results = list(time_group(group, settings=self._settings(PAIR_TOKEN_S, {}), rng=rng))
        self.unchanged()
        if faults := tuple(_fault(found) for found in results if isinstance(found, Finding)):
            return faults
        (session,) = (found for found in results if isinstance(found, Session))
        return process_pair(session, number, tuple(spec.id for spec in specs))

    def seed(self, cell: Cell, seed: int, within_s: float) -> SeedPair | tuple[SideFault | Solo, ...] | OutOfTime:
        """Both sides trained, one after the other, in random order. One that fails does not keep the other from it:
        whether the reference fails too is part of the verdict, and so are B's floors."""
        end_s = self.clock() + within_s
        order = random.Random(f"{self.name}/{cell.id}/s{seed}").sample(NAMES, len(NAMES))
        found = {name: self._train(name, cell, seed, end_s) for name in order}
        self.unchanged()
        match found["A"], found["B"]:
            case Training() as a, Training() as b:
                return SeedPair(seed=seed, a=a, b=b)
            case SideFault() as a, Training() as b:
                return a, Solo(seed=seed, b=b)
            case a, b:
                return tuple(one for one in (a, b) if isinstance(one, SideFault)) or OutOfTime()

    def solo(self, cell: Cell, seed: int, within_s: float) -> tuple[SideFault | Solo, ...] | OutOfTime:
        found = self._train("B", cell, seed, self.clock() + within_s)
        self.unchanged()
        if isinstance(found, Training):
            return (Solo(seed=seed, b=found),)
        return (found,) if isinstance(found, SideFault) else found

    def _train(self, name: SideName, cell: Cell, seed: int, end_s: float) -> Training | SideFault | OutOfTime:
        """One side trained; given up when the clock says ``end_s``."""
        within_s = end_s - self.clock()
        if within_s <= 0:
            return OutOfTime()
        spec = self._spec(name, cell, seed, deterministic=True)
        group = Group(id=spec.id, specs=(spec,))
        settings = self._settings(0.0, self._missing[name], within_s)
        (result,) = run_group(group, timed=frozenset(), settings=settings, rng=random.Random(spec.id))
        if isinstance(result, Finding) and isinstance(result.outcome, Measurement):
            return training(result.outcome)
        if isinstance(result, Finding) and _timed_out(result) and within_s < self._limit_s(name):
            return OutOfTime()
        if isinstance(result, Finding):
            return _fault(result)
        raise BenchError(f"{spec.id}: a session where a training was asked for")

    def _spec(self, name: SideName, cell: Cell, seed: int, *, deterministic: bool = False) -> TrialSpec:
        side = self.sides[name]
        return spec_of(side, cell, seed, allow_plugins=self.allow_plugins, deterministic=deterministic)

    def _settings(self, budget_s: float, missing: dict[str, str], within_s: float = math.inf) -> Settings:
        return Settings(
            precision=0.0,  # a pair ends by its budget alone: to stop at a lucky look would be a choice
            budget_s=budget_s,
            together=True,
            strict_devices=False,
            cores=os.cpu_count() or 1,
            reference=None,
            launch=partial(self._launch, within_s=within_s),
            emit=self._heard,
            unavailable=missing,
        )

    def _limit_s(self, name: SideName) -> float:
        matrix = self.sides[name].matrix
        return self.timeout_s or (matrix.limits.timeout_seconds if matrix else 0.0)

    def _launch(self, spec: TrialSpec, within_s: float) -> Worker:
        side = self.sides[side_of(spec)]
        timeout_s = min(within_s, self._limit_s(side.name))
        log = self.logs / f"{quote(spec.id.rpartition('/')[0].replace('/', '+').replace(':', '='), safe='+=@')}.log"
        return LocalWorker(spec, log, side.environ, timeout_s, self.interrupts, side.root)

    def _heard(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self.emit(Stage(text=f"{event.stage} {event.trial_id}"))


def spec_of(side: Side, cell: Cell, seed: int, *, allow_plugins: bool, deterministic: bool = False) -> TrialSpec:
    """A trial of one side. Its variant's name carries the side, so that both may be members of one session."""
    if side.matrix is None:
        raise ValueError(f"side {side.name} has no matrix")
    variant = variant_of(side.matrix, cell.variant)
    marked = replace(cell, variant=f"{cell.variant}{MARK}{side.name}")
    return TrialSpec(
        id=trial_id(marked, seed),
        cell=marked,
        seed=seed,
        model=model_of(side.matrix, cell.model),
        variant=replace(
            variant,
            threads=variant.threads or environment.available_cores(),
            deterministic=deterministic or variant.deterministic,
        ),
        deterministic_if_possible=deterministic and not variant.deterministic,
        recipe=side.matrix.recipe,
        epochs=side.matrix.epochs,
        data=side.data,
        memory_bytes=int(side.matrix.limits.memory_gib * (1 << 30)),
        plugin_path=str(side.matrix_path.parent),
        allow_plugins=allow_plugins,
    )


def side_of(spec: TrialSpec) -> SideName:
    """The side that a trial of ``spec_of`` belongs to."""
    return "A" if spec.cell.variant.endswith(f"{MARK}A") else "B"


def process_pair(session: Session, number: int, members: Sequence[str]) -> ProcessPair:
    """A session of two as a process pair, its members turned into the order (A, B).

    Args:
        members: the trial ids of A and B.
    """
    a, b = (session.members.index(member) for member in members)
    place = {a: 0, b: 1}
    rounds = tuple(
        Round(
            order=tuple(place[index] for index in one.order),
            steps=(one.steps[a], one.steps[b]),
            seconds=(one.seconds[a], one.seconds[b]),
        )
        for one in session.rounds
    )
    return ProcessPair(number=number, log_ratio=log_ratio(rounds), rounds=rounds, noisy=session.noisy)


def log_ratio(rounds: Sequence[Round]) -> float:
    """The median over rounds of ln(seconds per step, B / A)."""
    return median(math.log(r.seconds[1] / r.steps[1]) - math.log(r.seconds[0] / r.steps[0]) for r in rounds)


def training(measured: Measurement) -> Training:
    """What the gate keeps of a training: its last accuracy, and figures that are shown beside the verdict."""
    epochs = measured.epochs
    return Training(
        accuracy=epochs.accuracy[-1],
        images=measured.eval_samples // len(epochs.accuracy),
        predictions_sha256=measured.predictions_sha256,
        device_name=measured.device_name,
        compile_s=measured.compile_s,
        time_to_first_step_s=measured.time_to_first_step_s,
        train_samples_per_s=measured.train_samples / sum(epochs.train_s),
        eval_samples_per_s=measured.eval_samples / sum(epochs.eval_s),
        host_peak_bytes=measured.host_peak_bytes,
        device_peak_bytes=measured.device_peak_bytes,
    )


def _timed_out(found: Finding) -> bool:
    return isinstance(found.outcome, Failure) and found.outcome.kind == "timeout"


def _fault(found: Finding) -> SideFault:
    if isinstance(found.outcome, Measurement):
        raise BenchError(f"{found.spec.id}: a training where a session was asked for")
    return SideFault(side=side_of(found.spec), outcome=found.outcome)
