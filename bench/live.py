"""Real workers for the proofs: every session and every epoch goes through ``mnist_bench.running.group.run_group``."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bench.errors import WorkerError
from mnist_bench.machine import environment, noise
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    TRAIN_IMAGES,
    Cell,
    DataSet,
    Group,
    Limits,
    Measurement,
    ModelEntry,
    Recipe,
    Session,
    Trial,
    TrialSpec,
    Variant,
    group_id,
    trial_id,
)
from mnist_bench.running.group import CORES, NS, Settings, run_group
from mnist_bench.running.process import Interrupts, LocalWorker
from mnist_bench.running.protocol import Reply, Request

BATCH_SIZE = 100
EAGER = BUILTIN_VARIANTS["eager"]
PLAIN = "plain"  # the variant name under which the plain loop takes part
TRAINING_PHASE = 2  # ``phase`` of a training step in the raw samples


class Watched(LocalWorker):
    """The real worker; keeps the token time of each call."""

    def __init__(self, *args: Any) -> None:
        self.calls: list[tuple[str, float]] = []  # type of the request, seconds
        super().__init__(*args)

    def call(self, request: Request) -> Reply:
        before = self.token_ns
        try:
            return super().call(request)
        finally:
            self.calls.append((request.type, (self.token_ns - before) * NS))

    def seconds_of(self, *types: str) -> list[float]:
        return [seconds for name, seconds in self.calls if name in types]


class PlainWorker(Watched):
    """The plain hand-written loop in its own process, behind the same pipes."""

    def _command(self, requests: int, replies: int, lifeline: int) -> list[str]:
        command = super()._command(requests, replies, lifeline)
        return ["bench.plain_worker" if word == "mnist_bench.worker" else word for word in command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where the workers of a proof run. ``folder`` takes their logs and raw samples."""

    data: DataSet
    folder: Path
    environ: Mapping[str, str]
    interrupts: Interrupts

    def spec(
        self, model: str, variant: Variant, seed: int, *, recipe: Recipe = "standard", epochs: int = 1
    ) -> TrialSpec:
        """A trial as the runner would make it: batch 100 on the CPU, all cores."""
        cell = Cell(model=model, device="cpu", batch_size=BATCH_SIZE, variant=variant.name)
        return TrialSpec(
            id=trial_id(cell, seed),
            cell=cell,
            seed=seed,
            model=ModelEntry(name=model, model=model),
            variant=replace(variant, threads=environment.available_cores()),
            recipe=recipe,
            epochs=epochs,
            data=self.data,
            memory_bytes=int(Limits().memory_gib * (1 << 30)),
            samples_path=str(self.folder / f"{_file_name(cell.id)}.npy"),
        )

    def launch(self, spec: TrialSpec) -> Watched:
        kind = PlainWorker if spec.variant.name == PLAIN else Watched
        log = self.folder / f"{_file_name(spec.id)}.log"
        return kind(spec, log, self.environ, Limits().timeout_seconds, self.interrupts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One timing session, what it cost, and the state of the machine from the first worker's start to its end."""

    session: Session
    timing_s: float  # the members' token seconds in the session, summed: about its wall time
    machine: dict[str, float]
    noisy: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One trained trial: its figures, and the parts of its epochs in seconds (tuples of one value an epoch)."""

    measurement: Measurement
    call_s: tuple[float, ...]  # token time of the request
    step_s: tuple[float, ...]  # the steps alone, summed from the raw stamps
    machine: dict[str, float]


def time_session(
    specs: Sequence[TrialSpec], workshop: Workshop, *, precision: float, budget_s: float, reference: str | None
) -> Timed:
    """One session of fresh processes, alive together, ended after it.

    Args:
        precision: half-width of the ratio's interval that ends the session; 0: the budget alone does.
        budget_s: token seconds of a member.
        reference: the variant that the others are compared with.

    Raises:
        WorkerError: one of them failed.
    """
    workers: list[Watched] = []
    settings = _settings(workshop, workers, precision=precision, budget_s=budget_s, reference=reference)
    group = Group(id=group_id(specs[0].cell, specs[0].seed), specs=tuple(specs))
    rng = random.Random("/".join(spec.id for spec in specs))
    before = noise.read(())
    with _ended(workers):
        results = run_group(group, settings=settings, rng=rng)
        session = next(results)  # ``results`` is kept: closed, it would end the workers before their time is read
        machine, _ = noise.compare(before, noise.read(_pids(workers)), CORES)
    if not isinstance(session, Session):
        raise _failed(session)
    for member, steps in zip(session.members, session.rounds[-1].steps, strict=True):
        if not steps:
            raise WorkerError(f"{member} left the session: its log is in {workshop.folder}")
    calls = (seconds for worker in workers for seconds in worker.seconds_of("block", "end_session"))
    return Timed(session=session, timing_s=sum(calls), machine=machine, noisy=session.noisy)


def train(spec: TrialSpec, workshop: Workshop) -> Trained:
    """One trial without a session: prepared, trained and scored ``spec.epochs`` times.

    Raises:
        WorkerError: it failed, or its raw samples are not those of whole epochs.
    """
    workers: list[Watched] = []
    settings = _settings(workshop, workers, precision=0.0, budget_s=0.0, reference=None)
    group = Group(id=group_id(spec.cell, spec.seed), specs=(spec,))
    before = noise.read(())
    with _ended(workers):
        finding = next(run_group(group, settings=settings, rng=random.Random(spec.id)))
    machine, _ = noise.compare(before, noise.read(()), CORES)
    if not isinstance(finding, Trial) or not isinstance(finding.outcome, Measurement):
        raise _failed(finding)
    return Trained(
        measurement=finding.outcome,
        call_s=tuple(workers[0].seconds_of("train_epoch")),
        step_s=step_seconds(spec),
        machine={name: value for name, value in machine.items() if name != "others"},  # the worker is gone: unknown
    )


@contextmanager
def _ended(workers: Sequence[Watched]) -> Iterator[None]:
    """Ends the workers whatever happens: a group is left after its first result."""
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()


def _settings(
    workshop: Workshop, workers: list[Watched], *, precision: float, budget_s: float, reference: str | None
) -> Settings:
    def launch(spec: TrialSpec) -> Watched:
        workers.append(workshop.launch(spec))
        return workers[-1]

    return Settings(
        precision=precision,
        budget_s=budget_s,
        strict_devices=True,
        reference=reference,
        launch=launch,
    )


def step_seconds(spec: TrialSpec) -> tuple[float, ...]:
    """Of each epoch, the seconds between a batch's arrival and the end of its step, summed."""
    samples = np.load(spec.samples_path)
    samples = samples[samples["phase"] == TRAINING_PHASE]
    expected = spec.epochs * math.ceil(TRAIN_IMAGES / spec.cell.batch_size)
    if len(samples) != expected:
        raise WorkerError(f"{spec.samples_path}: {len(samples)} training steps, not the {expected} of whole epochs")
    steps = (samples["done_ns"] - samples["loaded_ns"]) * NS
    return tuple(float(steps[samples["index"] == epoch].sum()) for epoch in range(spec.epochs))


def _failed(result: Session | Trial) -> WorkerError:
    if isinstance(result, Session) or isinstance(result.outcome, Measurement):
        return WorkerError(f"the group gave an unexpected {type(result).__name__}")
    return WorkerError(f"{result.spec.id}: {result.outcome.reason}")


def _pids(workers: Sequence[Watched]) -> tuple[int, ...]:
    return tuple(worker.pid for worker in workers)


def _file_name(trial_id: str) -> str:
    return trial_id.replace("/", "+")
