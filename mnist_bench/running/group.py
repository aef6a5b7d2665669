"""One group from first worker to last: alive together for the session, then trained one at a time."""

import contextlib
import os
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from operator import methodcaller
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import asdict

from mnist_bench.catalogue import training_of
from mnist_bench.machine import environment, noise
from mnist_bench.machine.energy import Meter
from mnist_bench.machine.forecast import UNMET
from mnist_bench.records import Epochs, Failure, Group, ImageSets, Measurement, Outcome, Session, Skip, Trial, TrialSpec
from mnist_bench.running import protocol
from mnist_bench.running.process import LocalWorker
from mnist_bench.running.protocol import EndSession, EpochDone, Evaluate, Evaluated, Finished, SessionEnded
from mnist_bench.running.session import NS, Leave, Left, Member, failure_of, time_session

if TYPE_CHECKING:
    from mnist_bench.running.runner import RunPlan

CORES = os.cpu_count() or 1  # of the machine
WATERFALL_TOLERANCE = 0.02
# An epoch by the worker's clock against the runner's: what a plug-in that has replaced the clock cannot hide. The
# runner's has the audits beside the epoch in it, and what the machine's load makes of them.
CLOCK_SHARE, CLOCK_SLACK_S = 0.2, 1.0

Stage = Literal["preparing", "timing", "training"]
Line = Session | Trial  # what a group leaves


class Observer:
    """What a run tells while it goes on, only between timed spans. Hears everything and does nothing: override."""

    def notice(self, text: str, *, warning: bool = False) -> None:
        """A line for the log."""

    def started(self, plan: "RunPlan", done: Collection[str]) -> None:
        """``done``: ids of the trials that were found finished."""

    def stage(self, stage: Stage, trial_id: str) -> None:
        """A trial enters a stage; the token is its own."""

    def detail(self, words: str) -> None:
        """How far the stage is."""

    def placed(self, groups: Sequence[tuple[str, str]]) -> None:
        """What is executed where, by (node, group): of a cluster, whenever it may have changed."""

    def finished(self, trial: Trial) -> None:
        """A trial has ended, however it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How groups are executed.

    Args:
        precision: of a session's ratios: half-width of their intervals.
        budget_s: session seconds of a member; 0: no session.
        launch: starts a worker.
        together: sessions are paired.
        reference: the variant that the others are compared with.
        leave: which members of a session need no further rounds (``time_session``).
        unavailable: what no trial need ask again: a device, or what a variant needs there, found to be missing.
    """

    precision: float
    budget_s: float
    launch: Callable[[TrialSpec], LocalWorker]
    observer: Observer = field(default_factory=Observer)
    together: bool = True
    strict_devices: bool = False
    reference: str | None = None
    leave: Leave = lambda members, rounds, alive: ()
    unavailable: dict[str, str] = field(default_factory=dict)


def now() -> str:
    """Wall time only labels: ISO 8601, UTC, whole seconds."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def run_group(
    group: Group, *, settings: Settings, rng: random.Random, timed: frozenset[str] = frozenset(), train: bool = True
) -> Iterator[Session | Trial]:
    """Executes the trials of ``group``; yields each result as soon as it stands.

    Args:
        timed: ids of trials that have a finished session already; they are trained only.
        train: False: sessions alone, their members in the order of the ids, and a trial is a result only where it
            failed, or cannot be.

    Raises:
        Interrupted, WorkerError: as the executor does; every worker has ended.
    """
    for specs in [group.specs] if settings.together else [(spec,) for spec in group.specs]:
        began, workers = (now(), perf_counter_ns()), dict[str, LocalWorker]()
        try:
            opened = zip(specs, _opened(specs, workers, settings), strict=True)
            yield from _executed(group.id, opened, workers, settings, rng, began, timed, train)
        finally:
            _end(workers.values())


def run_pairs(groups: Sequence[Group], *, settings: Settings, rng: random.Random) -> Iterator[list[Session | Trial]]:
    """Sessions alone, of groups whose workers all start side by side: nothing is timed until each has its data.

    Yields:
        Of each group, what it gave; its workers have then ended. A share of the common start is in its session's time.

    Raises: as ``run_group``.
    """
    started_at, begin_ns, workers = now(), perf_counter_ns(), dict[str, LocalWorker]()
    try:
        every = [spec for group in groups for spec in group.specs]
        lost = {spec.id: why for spec, why in zip(every, _opened(every, workers, settings), strict=True)}
        share_ns = (perf_counter_ns() - begin_ns) // len(groups)
        for group in groups:
            opened, began = [(spec, lost[spec.id]) for spec in group.specs], (started_at, perf_counter_ns() - share_ns)
            found = [*_executed(group.id, opened, workers, settings, rng, began)]
            _end([workers[spec.id] for spec in group.specs if spec.id in workers])
            yield found
    finally:
        _end(workers.values())


def _end(workers: Collection[LocalWorker]) -> None:
    """Whatever is left ends side by side."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(methodcaller("kill"), workers))


def _executed(
    group: str,
    opened: Iterable[tuple[TrialSpec, Failure | Skip | None]],
    workers: dict[str, LocalWorker],
    settings: Settings,
    rng: random.Random,
    began: tuple[str, int],
    timed: frozenset[str] = frozenset(),
    train: bool = False,
) -> Iterator[Session | Trial]:
    """What is left to do of trials whose workers are open, or why they are not; as ``run_group``.

    Args:
        began: wall time, and the clock.
    """
    started_at, live = began[0], list[Member]()
    for spec, lost in opened:
        match lost or _prepare(spec, workers, settings):
            case Member() as ready:
                live.append(ready)
            case outcome:
                yield trial_of(spec, outcome, started_at)
    if not train:
        live.sort(key=lambda member: member.spec.id)
    for members in _sessions([member for member in live if member.spec.id not in timed], settings):
        yield _session(group, members, settings, rng, began[1])
    for member in rng.sample(live, len(live)):
        found = _outcome(member, settings, train=train)
        if train:
            member.worker.kill()
        if found:
            yield trial_of(member.spec, found, started_at)


@contextlib.contextmanager
def ready(spec: TrialSpec, settings: Settings) -> Iterator[Member | Failure | Skip]:
    """The worker of a trial, ready for blocks, or why there is none. It has ended afterwards."""
    workers: dict[str, LocalWorker] = {}
    try:
        yield _open(spec, workers, settings) or _prepare(spec, workers, settings)
    finally:
        for worker in workers.values():
            worker.kill()


def trial_of(spec: TrialSpec, outcome: Outcome, started_at: str) -> Trial:
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
        ended_at=now(),
    )


def _opened(
    specs: Sequence[TrialSpec], workers: dict[str, LocalWorker], settings: Settings
) -> list[Failure | Skip | None]:
    """Starts workers, which import and open their data side by side; of each trial, why it has none that is ready.

    No more of them at once than there are cores: what a start takes is then hardly longer than alone, and that is part
    of a trial's figures (docs/measurement.md).

    Args:
        workers: takes them.
    """
    settings.observer.stage("preparing", specs[0].id)
    with ThreadPoolExecutor(environment.available_cores()) as pool:  # its threads sleep, each in a call
        return list(pool.map(lambda spec: _open(spec, workers, settings), specs))


def _open(spec: TrialSpec, workers: dict[str, LocalWorker], settings: Settings) -> Failure | Skip | None:
    if known := _known(spec, settings):
        return known
    worker = workers[spec.id] = settings.launch(spec)
    reply = worker.call(protocol.Open(spec=worker.spec))
    if isinstance(reply, protocol.Opened):
        return None
    worker.kill()
    return failure_of(reply)


def _prepare(spec: TrialSpec, workers: dict[str, LocalWorker], settings: Settings) -> Member | Failure | Skip:
    """The trial's worker, which has opened its data, ready for blocks; or why it cannot be."""
    outcome = _known(spec, settings)
    if outcome is None:
        settings.observer.stage("preparing", spec.id)
        reply = workers[spec.id].call(protocol.Prepare(fill=spec.variant.compile.cache == "warm"))
        if isinstance(reply, protocol.Filled):
            workers[spec.id].kill()
            if lost := _open(spec, workers, settings):
                return lost
            reply = workers[spec.id].call(protocol.Prepare())
        match reply:
            case protocol.Prepared() as prepared:
                return Member(workers[spec.id], prepared)
            case protocol.Unavailable(scope=scope, reason=reason):
                settings.unavailable[_keys(spec)[scope]] = reason
                outcome = _skip(reason, settings)
            case other:
                outcome = failure_of(other)
    workers[spec.id].kill()
    return outcome


def _keys(spec: TrialSpec) -> dict[str, str]:
    """What may be found missing, by the scope of a worker's word."""
    return {"device": spec.cell.device, "variant": f"{spec.cell.device}/{spec.variant.name}"}


def _known(spec: TrialSpec, settings: Settings) -> Skip | Failure | None:
    """What becomes of a trial whose device, or variant, is known not to be had."""
    if spec.variant.nodes > 1 and not spec.rendezvous:
        return _skip(f"{spec.variant.name}: on {spec.variant.nodes} machines, {UNMET}", settings)
    known = [settings.unavailable[key] for key in _keys(spec).values() if key in settings.unavailable]
    return _skip(known[0], settings) if known else None


def _skip(reason: str, settings: Settings) -> Skip | Failure:
    if settings.strict_devices:
        return Failure(kind="failed", reason=f"{reason} (--strict-devices)")
    return Skip(reason=reason)


# ── the session ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _sessions(live: Sequence[Member], settings: Settings) -> list[list[Member]]:
    """One paired session of all that can pair, a solo session for each of the others."""
    together = [member for member in live if member.prepared.pairable]
    alone = [[member] for member in live if not member.prepared.pairable]
    return [members for members in (together, *alone) if members and settings.budget_s > 0]


def _session(group: str, members: Sequence[Member], settings: Settings, rng: random.Random, begin_ns: int) -> Session:
    settings.observer.stage("timing", members[0].spec.id)

    def progress(rounds: int, width: float | None, used: float) -> None:
        known = "" if width is None else f", known to ±{width:.1%}"
        settings.observer.detail(f"round {rounds}{known}, {used:.1f} of at most {settings.budget_s:.1f} s a trial")

    pids = tuple(member.worker.pid for member in members)
    before = noise.read(pids)
    rounds, stopped = time_session(
        members,
        rng,
        pairs=_pairs(members, settings.reference),
        precision=settings.precision,
        budget_s=settings.budget_s,
        progress=progress,
        leave=settings.leave,
    )
    _, noisy = noise.compare(before, noise.read(pids), CORES)
    for member in members:
        with contextlib.suppress(Left):
            member.ended = None if member.failure else member.ask(EndSession(), SessionEnded)
    return Session(
        group=group,
        members=tuple(member.spec.id for member in members),
        paired=len(members) > 1,
        rounds=rounds,
        steps={m.spec.id: m.ended.step_times for m in members if m.ended and m.ended.step_times},
        stopped=stopped,
        seconds=(perf_counter_ns() - begin_ns) * NS,
        noisy=noisy,
        peaks={member.spec.id: member.prepared.peaks for member in members},
        traces={member.spec.id: member.prepared.loss_trace for member in members},
    )


def _pairs(members: Sequence[Member], reference: str | None) -> list[tuple[int, int]]:
    """The ratios that the tables will show: against the reference variant, and against the CPU."""
    places = {member.spec.cell: place for place, member in enumerate(members)}
    return [
        (places[other], place)
        for cell, place in places.items()
        for other in (replace(cell, variant=reference or ""), replace(cell, device="cpu"))
        if places.get(other, place) != place
    ]


# ── the training ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _outcome(member: Member, settings: Settings, *, train: bool) -> Outcome | None:
    """What became of the trial; None: it has not failed, and is not to be trained."""
    with contextlib.suppress(Left):
        if train and member.failure is None:
            return _train(member, settings)
    return member.failure


def _train(member: Member, settings: Settings) -> Outcome:
    """The trial's training and its last word.

    Raises:
        Left: it has failed.
    """
    spec, worker, observer = member.spec, member.worker, settings.observer
    readings = [noise.read((worker.pid,))]
    epochs: list[EpochDone] = []
    scores: list[Evaluated] = []
    if member.ended is None:
        member.ask(EndSession(), SessionEnded)
    observer.stage("training", spec.id)
    meter = Meter(spec.cell.device, member.prepared.gpu)
    for epoch in range(spec.epochs):
        before_ns = worker.token_ns
        with meter:
            done = member.ask(protocol.TrainEpoch(epoch=epoch), EpochDone)
        if doubt := _clock_doubt(epoch, done.seconds, (worker.token_ns - before_ns) * NS):
            return Failure(kind="failed", reason=doubt)
        score = member.ask(Evaluate(), Evaluated)
        epochs.append(done)
        scores.append(score)
        readings.append(noise.read((worker.pid,)))
        observer.detail(_epoch_words(epoch, spec.epochs, done, score))
    final = _image_sets(spec, scores[-1], member.ask(Evaluate(other_set=True), Evaluated)) if spec.score_both else None
    finished = member.ask(protocol.Finish(), Finished)
    return _measurement(member, epochs, scores, finished, readings, final, meter.joules)


def _epoch_words(epoch: int, epochs: int, done: EpochDone, score: Evaluated) -> str:
    rate, accuracy = done.samples / done.seconds, score.correct / score.samples
    return f"epoch {epoch + 1}/{epochs}: {rate:,.0f} samples/s, loss {done.loss:.4f}, accuracy {accuracy:.4f}"


def _clock_doubt(epoch: int, said_s: float, seen_s: float) -> str | None:
    """Why the worker's clock is not believed: no epoch is longer than the wait for it, nor far shorter."""
    if seen_s * (1 - CLOCK_SHARE) - CLOCK_SLACK_S <= said_s <= seen_s * (1 + WATERFALL_TOLERANCE):
        return None
    clocks = f"{said_s:.2f} s by the worker's clock and {seen_s:.2f} s by the runner's"
    return f"epoch {epoch + 1} took {clocks}: does the model replace a clock?"


def _image_sets(spec: TrialSpec, scored: Evaluated, other: Evaluated) -> ImageSets:
    accuracies = scored.correct / scored.samples, other.correct / other.samples
    on_training_images = training_of(spec.model, spec.recipe).scored_on_training_images
    train, test = accuracies if on_training_images else reversed(accuracies)
    return ImageSets(train=train, test=test)


def _measurement(
    member: Member,
    epochs: Sequence[EpochDone],
    scores: Sequence[Evaluated],
    finished: Finished,
    readings: Sequence[noise.Counters],
    final: ImageSets | None,
    energy_j: float | None,
) -> Measurement:
    """What the worker said of itself, under the names that it gave it, and what follows from its epochs."""
    exit_s = member.worker.close() * NS
    phases = {**finished.phases, "teardown": finished.phases.get("teardown", 0.0) + exit_s}
    awake_s, token_s = finished.elapsed_s - finished.asleep_s + exit_s, member.token_s()
    said: dict[str, Any] = {**asdict(member.prepared), **asdict(finished), "phases": phases}
    return Measurement(
        **{name: said[name] for name in Measurement.__struct_fields__ if name in said},
        epochs=Epochs(
            train_s=tuple(done.seconds for done in epochs),
            loader_s=tuple(done.loader_s for done in epochs),
            loss=tuple(done.loss for done in epochs),
            eval_s=tuple(score.seconds for score in scores),
            accuracy=tuple(score.correct / score.samples for score in scores),
        ),
        train_samples=sum(done.samples for done in epochs),
        eval_samples=sum(score.samples for score in scores),
        predictions_sha256=scores[-1].predictions_sha256,
        awake_s=awake_s,
        token_s=token_s,
        total_s=awake_s - phases.get("session", 0.0) - phases.get("extras", 0.0),
        interference=noise.compare(readings[0], readings[-1], CORES)[0],
        noisy=_disturbances(member.spec.cell.device, readings),
        marks=(*finished.missed, *_marks(sum(phases.values()), awake_s, token_s, exited=member.worker.exited)),
        final=final,
        energy_j=energy_j,
    )


def _disturbances(device: str, readings: Sequence[noise.Counters]) -> tuple[str, ...]:
    """What disturbed any span between two readings, each said once."""
    noisy = [words for before, after in pairwise(readings) for words in noise.compare(before, after, CORES)[1]]
    # Every worker descends from this process: those of the group that wait hold their part of the GPU meanwhile.
    if device.startswith("cuda") and (foreign := noise.foreign_gpu_processes()):
        noisy.append(f"{len(foreign)} other processes were on the GPU")
    return tuple(dict.fromkeys(noisy))


def _marks(phases_s: float, awake_s: float, token_s: float, *, exited: bool) -> tuple[str, ...]:
    """Doubts about a trial's own clocks (docs/measurement.md, rule 6)."""
    marks = []
    if abs(phases_s - awake_s) > WATERFALL_TOLERANCE * awake_s:
        marks.append(f"the phases add up to {phases_s:.2f} s of {awake_s:.2f} s awake")
    if abs(token_s - awake_s) > WATERFALL_TOLERANCE * awake_s:
        marks.append(f"the worker was awake {awake_s:.2f} s by its own clock, {token_s:.2f} s by the runner's")
    if not exited:
        marks.append("the worker did not exit by itself")
    return tuple(marks)
