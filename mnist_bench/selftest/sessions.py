"""Real workers for calibration: sessions of fresh processes, and single trainings."""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import cast

from mnist_bench.analysis.ratios import round_log_ratios
from mnist_bench.cells import model_of, variant_of
from mnist_bench.errors import WorkerError
from mnist_bench.executors.local import LocalWorker
from mnist_bench.group import Finding, Settings, run_group
from mnist_bench.interrupts import Interrupts
from mnist_bench.machine import environment
from mnist_bench.records import Cell, DataSet, Group, Matrix, Measurement, Session, Skip, TrialSpec, group_id, trial_id
from mnist_bench.selftest.instruments import SIDE_MARK, instrumented, loads

SESSION_S = 3.0  # token time of a member: some 30 rounds, whose median is far surer than one process of another


class NotHere(WorkerError):
    """This machine cannot execute the cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where the workers of a selftest run. ``folder`` takes their logs; ``plugin_path`` is the matrix file's folder."""

    matrix: Matrix
    data: DataSet
    folder: Path
    plugin_path: str
    allow_plugins: bool
    environ: Mapping[str, str]
    interrupts: Interrupts

    def spec(self, matrix: Matrix, cell: Cell, seed: int, mark: str = "") -> TrialSpec:
        """A trial as a run would make it; ``mark`` tells members of one session apart."""
        variant = variant_of(matrix, cell.variant)
        threads = variant.threads or environment.available_cores()
        marked = replace(cell, variant=cell.variant + mark)
        return TrialSpec(
            id=trial_id(marked, seed),
            cell=marked,
            seed=seed,
            model=model_of(matrix, cell.model),
            variant=replace(variant, threads=threads),
            recipe=matrix.recipe,
            epochs=matrix.epochs,
            data=self.data,
            memory_bytes=int(matrix.limits.memory_gib * (1 << 30)),
            plugin_path=self.plugin_path,
            allow_plugins=self.allow_plugins,
        )

    def settings(self, environs: Mapping[str, Mapping[str, str]], session_s: float) -> Settings:
        """``environs``: of the workers, by trial id; the parent's for all others."""

        def launch(spec: TrialSpec) -> LocalWorker:
            log = self.folder / f"{spec.id.replace('/', '+')}.log"
            environ = environs.get(spec.id, self.environ)
            return LocalWorker(spec, log, environ, self.matrix.limits.timeout_seconds, self.interrupts)

        return Settings(
            precision=0.0,
            budget_s=session_s,
            together=True,
            strict_devices=False,
            cores=os.cpu_count() or 1,
            reference=None,
            launch=launch,
            emit=lambda event: None,
        )


@dataclass(slots=True)
class Timer:
    """``calibration.Ratios`` of one cell. Every session has a seed, and processes, of its own."""

    workshop: Workshop
    cell: Cell
    session_s: float = SESSION_S
    _seeds: count[int] | None = None

    def __call__(self, rows: Sequence[int], sessions: int) -> list[tuple[float, ...]]:
        return [self._session((0, *rows)) for _ in range(sessions)]

    def step_s(self) -> float:
        """Seconds per step of the plain model, about."""
        session = self._time((0,))
        return median(one.seconds[0] / one.steps[0] for one in session.rounds)

    def _session(self, rows: Sequence[int]) -> tuple[float, ...]:
        session = self._time(rows)
        return tuple(float(median(round_log_ratios(session.rounds, n, 0))) for n in range(1, len(rows)))

    def _time(self, rows: Sequence[int]) -> Session:
        """One session, its members in the order of ``rows``, whatever order they were started in.

        Raises:
            NotHere: its device, or its compiler, is missing.
            WorkerError: one of them failed.
        """
        if self._seeds is None:
            self._seeds = count()
        seed, shop = next(self._seeds), self.workshop
        matrix = instrumented(shop.matrix, [self.cell])
        specs = [shop.spec(matrix, self.cell, seed, f"{SIDE_MARK}{n}") for n in range(len(rows))]
        environs = {
            spec.id: {**shop.environ, **loads(shop.matrix, {self.cell: amount})}
            for spec, amount in zip(specs, rows, strict=True)
        }
        rng = random.Random(f"{self.cell.id}/{seed}")
        group = Group(id=group_id(self.cell, seed), specs=tuple(rng.sample(specs, len(specs))))
        settings = shop.settings(environs, self.session_s)
        session = _first(run_group(group, timed=frozenset(), settings=settings, rng=rng))
        if not isinstance(session, Session) or not all(session.rounds[-1].steps):
            raise _failed(self.cell, session, shop.folder)
        return _in_order(session, [spec.id for spec in specs])


def train(workshop: Workshop, cell: Cell, seed: int) -> float:
    """The accuracy of a cell after its training with one seed on the workshop's images, without a session.

    Raises:
        WorkerError: the trial failed.
    """
    spec = workshop.spec(workshop.matrix, cell, seed)
    group = Group(id=group_id(cell, seed), specs=(spec,))
    settings = workshop.settings({}, 0.0)
    finding = _first(run_group(group, timed=frozenset(), settings=settings, rng=random.Random(spec.id)))
    if not isinstance(finding, Finding) or not isinstance(finding.outcome, Measurement):
        raise _failed(cell, finding, workshop.folder)
    return finding.outcome.epochs.accuracy[-1]


def _first(results: Iterator[Session | Finding]) -> Session | Finding:
    """The first result of a group, whose workers have ended when it is returned."""
    with closing(cast("Generator[Session | Finding, None, None]", results)):
        return next(results)


def _in_order(session: Session, members: Sequence[str]) -> Session:
    """The same session with its members in another order."""
    places = [session.members.index(member) for member in members]
    rounds = tuple(
        replace(
            one,
            order=tuple(places.index(place) for place in one.order),
            steps=tuple(one.steps[place] for place in places),
            seconds=tuple(one.seconds[place] for place in places),
        )
        for one in session.rounds
    )
    return replace(session, members=tuple(members), rounds=rounds)


def _failed(cell: Cell, result: Session | Finding, folder: Path) -> WorkerError:
    if isinstance(result, Session):
        return WorkerError(f"{cell.id}: a worker left the session; its log is in {folder}")
    match result.outcome:
        case Skip(reason=reason):
            return NotHere(f"{cell.id}: {reason}")
        case Measurement():
            return WorkerError(f"{cell.id}: was trained before its session")
        case failure:
            return WorkerError(f"{cell.id}: {failure.reason}; logs: {folder}")
