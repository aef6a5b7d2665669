"""One group from first worker to last: alive together for the session, then trained one at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from time import perf_counter_ns
from typing import Literal, Protocol

from mnist_bench.catalogue import training_of
from mnist_bench.machine import noise
from mnist_bench.records import (
    Cell,
    Epochs,
    Failure,
    Group,
    ImageSets,
    Measurement,
    Outcome,
    Session,
    Skip,
    StepTimes,
    Trial,
    TrialSpec,
)
from mnist_bench.run.observer import Observer
from mnist_bench.run.protocol import (
    Block,
    BlockDone,
    EndSession,
    EpochDone,
    Evaluate,
    Evaluated,
    Failed,
    Finish,
    Finished,
    Prepare,
    Prepared,
    Reply,
    Request,
    SessionEnded,
    TrainEpoch,
    Unavailable,
)
from mnist_bench.run.session import Plan, time_session

NS = 1e-9
WATERFALL_TOLERANCE = 0.02
# An epoch by the worker's clock against the runner's: what a plug-in that has replaced the clock cannot hide. The
# runner's has the audits beside the epoch in it, and what the machine's load makes of them.
CLOCK_SHARE, CLOCK_SLACK_S = 0.2, 1.0


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
    """How groups are executed. ``budget_s``: session seconds of a member; ``together``: sessions are paired."""

    precision: float
    budget_s: float
    together: bool
    strict_devices: bool
    cores: int  # of the machine
    reference: str | None  # the variant that the others are compared with
    launch: Callable[[TrialSpec], Worker]
    observer: Observer = field(default_factory=Observer)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)  # for labels alone
    # What no trial need ask again: a device, or its compiler, found to be missing.
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Live:
    """A worker that is ready. ``failure`` is set when it has left."""

    worker: Worker
    prepared: Prepared
    steps: StepTimes | None = None
    failure: Failure | None = None
    session_start_ns: int = 0

    @property
    def id(self) -> str:
        return self.worker.spec.id

    @property
    def cell(self) -> Cell:
        return self.worker.spec.cell

    def block(self, seed: int) -> BlockDone | None:
        match self.worker.call(Block(seed=seed)):
            case BlockDone() as done:
                return done
            case other:
                self.failure = _failure(other)
                return None

    def token_s(self) -> float:
        return (self.worker.token_ns - self.session_start_ns) * NS


def run_group(
    group: Group, *, timed: frozenset[str], settings: Settings, rng: random.Random
) -> Iterator[Session | Trial]:
    """Executes the trials of ``group``; yields each result as soon as it stands.

    Args:
        timed: ids of trials that have a finished session already; they are trained only.

    Raises:
        Interrupted, WorkerError: as the executor does; every worker has ended.
    """
    batches = [group.specs] if settings.together else [(spec,) for spec in group.specs]
    started_at = label(settings.now())
    for specs in batches:
        live: list[Live] = []
        begin_ns = perf_counter_ns()
        try:
            for spec, missing in _prepare(specs, live, settings, settings.launch):
                yield _trial(spec, missing, started_at, settings)
            if settings.budget_s > 0:
                yield from _time(group.id, [m for m in live if m.id not in timed], settings, rng, begin_ns)
            for member in rng.sample(live, len(live)):
                outcome = member.failure or _train(member, settings)
                member.worker.kill()
                yield _trial(member.worker.spec, outcome, started_at, settings)
        finally:
            for member in live:
                member.worker.kill()


def time_group(group: Group, *, settings: Settings, rng: random.Random) -> Iterator[Session | Trial]:
    """The sessions of ``group`` alone: nothing is trained, and only a trial that failed, or cannot be, is a result.

    The workers are all started before the first is prepared: imports, most of a short session's cost, go side by side.

    Raises:
        Interrupted, WorkerError: as the executor does; every worker has ended.
    """
    started: dict[str, Worker] = {}
    live: list[Live] = []
    started_at, begin_ns = label(settings.now()), perf_counter_ns()
    try:
        for spec in group.specs:
            started[spec.id] = settings.launch(spec)
        for spec, outcome in _prepare(group.specs, live, settings, lambda spec: started[spec.id]):
            yield _trial(spec, outcome, started_at, settings)
        yield from _time(group.id, live, settings, rng, begin_ns)
        for member in live:
            if member.failure is not None:
                yield _trial(member.worker.spec, member.failure, started_at, settings)
    finally:
        for worker in started.values():
            worker.kill()


def _trial(spec: TrialSpec, outcome: Outcome, started_at: str, settings: Settings) -> Trial:
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
        ended_at=label(settings.now()),
    )


def _prepare(
    specs: Sequence[TrialSpec], live: list[Live], settings: Settings, launch: Callable[[TrialSpec], Worker]
) -> Iterator[tuple[TrialSpec, Failure | Skip]]:
    """Adds to ``live`` the workers that are ready; yields the outcomes of the others."""
    for spec in specs:
        if known := _known_missing(spec, settings):
            yield spec, _skip(known, settings)
            continue
        settings.observer.stage("preparing", spec.id)
        worker = launch(spec)
        try:
            reply = worker.call(Prepare(spec=worker.spec))
        except BaseException:
            worker.kill()
            raise
        match reply:
            case Prepared() as prepared:
                live.append(Live(worker, prepared))
                continue
            case Unavailable(scope=scope, reason=reason):
                settings.unavailable[_missing_key(spec, scope)] = reason
                outcome: Failure | Skip = _skip(reason, settings)
            case other:
                outcome = _failure(other)
        worker.kill()
        yield spec, outcome


def _missing_key(spec: TrialSpec, scope: Literal["device", "compile"]) -> str:
    return spec.cell.device if scope == "device" else f"{spec.cell.device}/{spec.variant.name}"


def _known_missing(spec: TrialSpec, settings: Settings) -> str | None:
    missing = settings.unavailable
    return missing.get(_missing_key(spec, "device")) or missing.get(_missing_key(spec, "compile"))


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
    for member in members:
        member.session_start_ns = member.worker.token_ns
    settings.observer.stage("timing", members[0].id)

    def progress(rounds: int, width: float | None, used: float) -> None:
        known = "" if width is None else f", known to ±{width:.1%}"
        words = f"round {rounds}{known}, {used:.1f} of at most {settings.budget_s:.1f} s a trial"
        settings.observer.detail(words, min(1.0, used / settings.budget_s))

    pids = tuple(member.worker.pid for member in members)
    before = noise.read(pids)
    plan = Plan(pairs=_pairs(members, settings.reference), precision=settings.precision, budget_s=settings.budget_s)
    rounds, stopped = time_session(members, plan, rng, progress)
    _, noisy = noise.compare(before, noise.read(pids), settings.cores)
    for member in members:
        if member.failure is None:
            match member.worker.call(EndSession()):
                case SessionEnded(step_times=steps):
                    member.steps = steps
                case other:
                    member.failure = _failure(other)
    return Session(
        group=group,
        members=tuple(member.id for member in members),
        paired=len(members) > 1,
        rounds=rounds,
        steps={member.id: member.steps for member in members if member.steps is not None},
        stopped=stopped,
        noisy=noisy,
    )


def _pairs(members: Sequence[Live], reference: str | None) -> tuple[tuple[int, int], ...]:
    """The ratios that the tables will show: against the reference variant, and against the CPU."""
    index = {(member.cell.device, member.cell.variant): position for position, member in enumerate(members)}
    pairs = []
    for (device, variant), position in index.items():
        for other in (index.get((device, reference or "")), index.get(("cpu", variant))):
            if other is not None and other != position:
                pairs.append((other, position))
    return tuple(pairs)


def _train(member: Live, settings: Settings) -> Measurement | Failure:
    spec, worker = member.worker.spec, member.worker
    readings = [noise.read((worker.pid,))]
    trained: list[EpochDone] = []
    scored: list[Evaluated] = []
    if member.steps is None:  # no session has put the state back
        reply = worker.call(EndSession())
        if not isinstance(reply, SessionEnded):
            return _failure(reply)
    settings.observer.stage("training", spec.id)
    for epoch in range(spec.epochs):
        before_ns = worker.token_ns
        done = worker.call(TrainEpoch(epoch=epoch))
        if not isinstance(done, EpochDone):
            return _failure(done)
        if doubt := _clock_doubt(epoch, done.seconds, (worker.token_ns - before_ns) * NS):
            return Failure(kind="failed", reason=doubt)
        score = worker.call(Evaluate())
        if not isinstance(score, Evaluated):
            return _failure(score)
        trained.append(done)
        scored.append(score)
        readings.append(noise.read((worker.pid,)))
        settings.observer.detail(_epoch_words(epoch, spec.epochs, done, score), (epoch + 1) / spec.epochs)
    final = None
    if spec.score_both:
        other = worker.call(Evaluate(other_set=True))
        if not isinstance(other, Evaluated):
            return _failure(other)
        final = _image_sets(spec, scored[-1], other)
    finished = worker.call(Finish())
    if not isinstance(finished, Finished):
        return _failure(finished)
    return _measurement(member, trained, scored, finished, readings, settings.cores, final)


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
    trained: Sequence[EpochDone],
    scored: Sequence[Evaluated],
    finished: Finished,
    readings: Sequence[noise.Counters],
    cores: int,
    final: ImageSets | None,
) -> Measurement:
    exit_ns = member.worker.close()
    phases = {**finished.phases, "teardown": finished.phases.get("teardown", 0.0) + exit_ns * NS}
    awake_s = finished.elapsed_s - finished.asleep_s + exit_ns * NS
    token_s = member.worker.token_ns * NS
    found, _ = noise.compare(readings[0], readings[-1], cores)
    spans = pairwise(readings)
    noisy = [words for before, after in spans for words in noise.compare(before, after, cores)[1]]
    if foreign := _foreign(member):
        noisy.append(f"{foreign} other processes were on the GPU")
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
        class_=member.prepared.class_,
        predictions_sha256=scored[-1].predictions_sha256,
        order_sha256=finished.order_sha256,
        loss_trace=member.prepared.loss_trace,
        phases=phases,
        awake_s=awake_s,
        token_s=token_s,
        total_s=awake_s - phases.get("session", 0.0),
        time_to_first_step_s=member.prepared.time_to_first_step_s,
        compile_s=member.prepared.compile_s,
        host_peak_bytes=finished.host_peak_bytes,
        device_peak_bytes=finished.device_peak_bytes,
        parameters=member.prepared.parameters,
        device_name=member.prepared.device_name,
        numerics=finished.numerics,
        interference=found,
        noisy=tuple(dict.fromkeys(noisy)),
        marks=_marks(phases, awake_s, token_s, exited=member.worker.exited),
        final=final,
    )


def _foreign(member: Live) -> int:
    if not member.cell.device.startswith("cuda"):
        return 0
    # Every worker descends from this process: those of the group that wait hold their part of the GPU meanwhile.
    return len(noise.foreign_gpu_processes())


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
    match reply:
        case Failed(kind=kind, reason=reason):
            return Failure(kind=kind, reason=reason)
        case other:
            return Failure(kind="failed", reason=f"the worker broke the protocol: an unexpected {other.type}")
