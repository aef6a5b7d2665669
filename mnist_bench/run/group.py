"""One group from first worker to last: alive together for the session, then trained one at a time."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from time import perf_counter_ns
from typing import Protocol, TypeVar

from mnist_bench.catalogue import training_of
from mnist_bench.machine import noise
from mnist_bench.records import Epochs, Failure, Group, ImageSets, Measurement, Outcome, Session, Skip, Trial, TrialSpec
from mnist_bench.run import protocol
from mnist_bench.run.observer import Observer
from mnist_bench.run.protocol import EpochDone, Evaluated, Reply, Request
from mnist_bench.run.session import time_session

CORES = os.cpu_count() or 1  # of the machine
NS = 1e-9
WATERFALL_TOLERANCE = 0.02
# An epoch by the worker's clock against the runner's: what a plug-in that has replaced the clock cannot hide. The
# runner's has the audits beside the epoch in it, and what the machine's load makes of them.
CLOCK_SHARE, CLOCK_SLACK_S = 0.2, 1.0

Answer = TypeVar("Answer", bound=protocol.Message)


class Worker(Protocol):
    """What an executor gives: one trial in a fresh process."""

    spec: TrialSpec
    token_ns: int
    exited: bool  # by itself, after its last reply

    @property
    def pid(self) -> int: ...
    def call(self, request: Request) -> Reply: ...
    def close(self) -> int: ...
    def kill(self) -> None: ...


def label(moment: datetime) -> str:
    """Wall time only labels: ISO 8601, UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How groups are executed.

    Args:
        precision: of a session's ratios: half-width of their intervals.
        budget_s: session seconds of a member; 0: no session.
        launch: starts a worker.
        together: sessions are paired.
        reference: the variant that the others are compared with.
        unavailable: what no trial need ask again: a device, or its compiler, found to be missing.
    """

    precision: float
    budget_s: float
    launch: Callable[[TrialSpec], Worker]
    observer: Observer = field(default_factory=Observer)
    together: bool = True
    strict_devices: bool = False
    reference: str | None = None
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Live:
    """A worker that is ready. ``ended``: its session, which has put its state back; ``failure``: why it has left."""

    worker: Worker
    prepared: protocol.Prepared
    ended: protocol.SessionEnded | None = None
    failure: Failure | None = None

    @property
    def spec(self) -> TrialSpec:
        return self.worker.spec

    def ask(self, request: Request, kind: type[Answer]) -> Answer | None:
        """The reply, of the kind that belongs to the request; None: the trial has failed."""
        reply = self.worker.call(request)
        if isinstance(reply, kind):
            return reply
        self.failure = _failure(reply)
        return None

    def block(self, seed: int) -> protocol.BlockDone | None:
        return self.ask(protocol.Block(seed=seed), protocol.BlockDone)

    def token_s(self) -> float:
        return self.worker.token_ns * NS


def run_group(
    group: Group,
    *,
    settings: Settings,
    rng: random.Random,
    timed: frozenset[str] = frozenset(),
    train: bool = True,
) -> Iterator[Session | Trial]:
    """Executes the trials of ``group``; yields each result as soon as it stands.

    Args:
        timed: ids of trials that have a finished session already; they are trained only.
        train: False: sessions alone, and a trial is a result only where it failed, or cannot be. All workers are
            started before the first is prepared: imports, most of a short session's cost, go side by side.

    Raises:
        Interrupted, WorkerError: as the executor does; every worker has ended.
    """
    started_at = label(datetime.now(UTC))
    for specs in [group.specs] if settings.together else [(spec,) for spec in group.specs]:
        begin_ns = perf_counter_ns()
        workers: dict[str, Worker] = {}
        live: list[Live] = []
        try:
            for spec in () if train else specs:
                workers[spec.id] = settings.launch(spec)
            for spec in specs:
                match _prepare(spec, workers, settings):
                    case Live() as ready:
                        live.append(ready)
                    case outcome:
                        yield _trial(spec, outcome, started_at)
            if settings.budget_s > 0:
                yield from _time(group.id, [m for m in live if m.spec.id not in timed], settings, rng, begin_ns)
            for member in rng.sample(live, len(live)):
                measured = _train(member, settings) if train and member.failure is None else None
                member.worker.kill()
                if found := measured or member.failure:
                    yield _trial(member.spec, found, started_at)
        finally:
            for worker in workers.values():
                worker.kill()


def _trial(spec: TrialSpec, outcome: Outcome, started_at: str) -> Trial:
    return Trial(
        id=spec.id,
        cell=spec.cell,
        seed=spec.seed,
        side=spec.side,
        recipe=spec.recipe,
        dataset=spec.data.name,
        dataset_sha256=spec.data.sha256,
        outcome=outcome,
        started_at=started_at,
        ended_at=label(datetime.now(UTC)),
    )


def _prepare(spec: TrialSpec, workers: dict[str, Worker], settings: Settings) -> Live | Failure | Skip:
    """The trial's worker, ready (it is started, where ``workers`` has none); or why it cannot be."""
    device = spec.cell.device
    keys = {"device": device, "compile": f"{device}/{spec.variant.name}"}
    if known := [settings.unavailable[key] for key in keys.values() if key in settings.unavailable]:
        return _skip(known[0], settings)
    settings.observer.stage("preparing", spec.id)
    if spec.id not in workers:
        workers[spec.id] = settings.launch(spec)
    worker = workers[spec.id]
    match worker.call(protocol.Prepare(spec=worker.spec)):
        case protocol.Prepared() as prepared:
            return Live(worker, prepared)
        case protocol.Unavailable(scope=scope, reason=reason):
            settings.unavailable[keys[scope]] = reason
            outcome = _skip(reason, settings)
        case other:
            outcome = _failure(other)
    worker.kill()
    return outcome


def _skip(reason: str, settings: Settings) -> Skip | Failure:
    if settings.strict_devices:
        return Failure(kind="failed", reason=f"{reason} (--strict-devices)")
    return Skip(reason=reason)


def _time(group: str, live: Sequence[Live], settings: Settings, rng: random.Random, begin_ns: int) -> Iterator[Session]:
    """One paired session of all that can pair, a solo session for each of the others."""
    together = [member for member in live if member.prepared.pairable]
    alone = [[member] for member in live if not member.prepared.pairable]
    for members in [together, *alone]:
        if members:
            session = _session(group, members, settings, rng)
            settings.observer.session(session)
            yield replace(session, seconds=(perf_counter_ns() - begin_ns) * NS)


def _session(group: str, members: Sequence[Live], settings: Settings, rng: random.Random) -> Session:
    settings.observer.stage("timing", members[0].spec.id)

    def progress(rounds: int, width: float | None, used: float) -> None:
        known = "" if width is None else f", known to ±{width:.1%}"
        words = f"round {rounds}{known}, {used:.1f} of at most {settings.budget_s:.1f} s a trial"
        settings.observer.detail(words, min(1.0, used / settings.budget_s))

    pids = tuple(member.worker.pid for member in members)
    before = noise.read(pids)
    rounds, stopped = time_session(
        members,
        rng,
        pairs=_pairs(members, settings.reference),
        precision=settings.precision,
        budget_s=settings.budget_s,
        progress=progress,
    )
    _, noisy = noise.compare(before, noise.read(pids), CORES)
    for member in members:
        if member.failure is None:
            member.ended = member.ask(protocol.EndSession(), protocol.SessionEnded)
    return Session(
        group=group,
        members=tuple(member.spec.id for member in members),
        paired=len(members) > 1,
        rounds=rounds,
        steps={m.spec.id: m.ended.step_times for m in members if m.ended and m.ended.step_times},
        stopped=stopped,
        noisy=noisy,
    )


def _pairs(members: Sequence[Live], reference: str | None) -> list[tuple[int, int]]:
    """The ratios that the tables will show: against the reference variant, and against the CPU."""
    places = {(member.spec.cell.device, member.spec.cell.variant): place for place, member in enumerate(members)}
    return [
        (places[other], place)
        for (device, variant), place in places.items()
        for other in ((device, reference or ""), ("cpu", variant))
        if places.get(other, place) != place
    ]


def _train(member: Live, settings: Settings) -> Measurement | None:
    """The trial's training and its last word; None: it has failed."""
    spec, worker = member.spec, member.worker
    readings = [noise.read((worker.pid,))]
    epochs: list[tuple[EpochDone, Evaluated]] = []
    if member.ended is None and not member.ask(protocol.EndSession(), protocol.SessionEnded):
        return None
    settings.observer.stage("training", spec.id)
    for epoch in range(spec.epochs):
        before_ns = worker.token_ns
        if not (done := member.ask(protocol.TrainEpoch(epoch=epoch), EpochDone)):
            return None
        if doubt := _clock_doubt(epoch, done.seconds, (worker.token_ns - before_ns) * NS):
            member.failure = Failure(kind="failed", reason=doubt)
            return None
        if not (score := member.ask(protocol.Evaluate(), Evaluated)):
            return None
        epochs.append((done, score))
        readings.append(noise.read((worker.pid,)))
        settings.observer.detail(_epoch_words(epoch, spec.epochs, done, score), (epoch + 1) / spec.epochs)
    final = None
    if spec.score_both:
        if not (other := member.ask(protocol.Evaluate(other_set=True), Evaluated)):
            return None
        final = _image_sets(spec, epochs[-1][1], other)
    if not (finished := member.ask(protocol.Finish(), protocol.Finished)):
        return None
    return _measurement(member, epochs, finished, readings, final)


def _epoch_words(epoch: int, epochs: int, done: EpochDone, score: Evaluated) -> str:
    rate, accuracy = done.samples / done.seconds, score.correct / score.samples
    return f"epoch {epoch + 1}/{epochs}: {rate:,.0f} samples/s, loss {done.loss:.4f}, accuracy {accuracy:.4f}"


def _clock_doubt(epoch: int, said_s: float, seen_s: float) -> str | None:
    """Why the worker's clock is not believed: no epoch is longer than the wait for it, nor far shorter."""
    if seen_s * (1 - CLOCK_SHARE) - CLOCK_SLACK_S <= said_s <= seen_s * (1 + WATERFALL_TOLERANCE):
        return None
    return (
        f"epoch {epoch + 1} took {said_s:.2f} s by the worker's clock and {seen_s:.2f} s by the runner's: does the "
        "model replace a clock?"
    )


def _image_sets(spec: TrialSpec, scored: Evaluated, other: Evaluated) -> ImageSets:
    accuracies = scored.correct / scored.samples, other.correct / other.samples
    on_training_images = training_of(spec.model, spec.recipe).scored_on_training_images
    train, test = accuracies if on_training_images else reversed(accuracies)
    return ImageSets(train=train, test=test)


def _measurement(
    member: Live,
    epochs: Sequence[tuple[EpochDone, Evaluated]],
    finished: protocol.Finished,
    readings: Sequence[noise.Counters],
    final: ImageSets | None,
) -> Measurement:
    worker, prepared, (trained, scored) = member.worker, member.prepared, zip(*epochs, strict=True)
    exit_ns = worker.close()
    phases = {**finished.phases, "teardown": finished.phases.get("teardown", 0.0) + exit_ns * NS}
    awake_s = finished.elapsed_s - finished.asleep_s + exit_ns * NS
    return Measurement(
        epochs=Epochs(
            train_s=tuple(done.seconds for done in trained),
            loader_s=tuple(done.loader_s for done in trained),
            loss=tuple(done.loss for done in trained),
            eval_s=tuple(score.seconds for score in scored),
            accuracy=tuple(score.correct / score.samples for score in scored),
        ),
        train_samples=sum(done.samples for done in trained),
        eval_samples=sum(score.samples for score in scored),
        class_=prepared.class_,
        predictions_sha256=scored[-1].predictions_sha256,
        order_sha256=finished.order_sha256,
        loss_trace=prepared.loss_trace,
        phases=phases,
        awake_s=awake_s,
        token_s=member.token_s(),
        total_s=awake_s - phases.get("session", 0.0),
        time_to_first_step_s=prepared.time_to_first_step_s,
        compile_s=prepared.compile_s,
        host_peak_bytes=finished.host_peak_bytes,
        device_peak_bytes=finished.device_peak_bytes,
        parameters=prepared.parameters,
        device_name=prepared.device_name,
        numerics=finished.numerics,
        interference=noise.compare(readings[0], readings[-1], CORES)[0],
        noisy=_disturbances(member.spec.cell.device, readings),
        marks=_marks(phases, awake_s, member.token_s(), exited=worker.exited),
        final=final,
    )


def _disturbances(device: str, readings: Sequence[noise.Counters]) -> tuple[str, ...]:
    """What disturbed any span between two readings, each said once."""
    noisy = [words for before, after in pairwise(readings) for words in noise.compare(before, after, CORES)[1]]
    # Every worker descends from this process: those of the group that wait hold their part of the GPU meanwhile.
    if device.startswith("cuda") and (foreign := noise.foreign_gpu_processes()):
        noisy.append(f"{len(foreign)} other processes were on the GPU")
    return tuple(dict.fromkeys(noisy))


def _marks(phases: dict[str, float], awake_s: float, token_s: float, *, exited: bool) -> tuple[str, ...]:
    """Doubts about a trial's own clocks (docs/measurement.md, rule 6)."""
    marks = []
    if abs(sum(phases.values()) - awake_s) > WATERFALL_TOLERANCE * awake_s:
        marks.append(f"the phases add up to {sum(phases.values()):.2f} s of {awake_s:.2f} s awake")
    if abs(token_s - awake_s) > WATERFALL_TOLERANCE * awake_s:
        marks.append(f"the worker was awake {awake_s:.2f} s by its own clock, {token_s:.2f} s by the runner's")
    if not exited:
        marks.append("the worker did not exit by itself")
    return tuple(marks)


def _failure(reply: Reply) -> Failure:
    if isinstance(reply, protocol.Failed):
        return Failure(kind=reply.kind, reason=reply.reason)
    return Failure(kind="failed", reason=f"the worker broke the protocol: an unexpected {reply.type}")
