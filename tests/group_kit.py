"""A group whose workers are made up: each answers by a script; all that is said and done is in one log."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mnist_bench.records import (
    Cell,
    DataSet,
    Group,
    ModelEntry,
    Session,
    StepTimes,
    Trial,
    TrialSpec,
    Variant,
    trial_id,
)
from mnist_bench.run.group import Observer, Settings, run_group
from mnist_bench.run.protocol import (
    Block,
    BlockDone,
    EndSession,
    EpochDone,
    Evaluate,
    Evaluated,
    Finish,
    Finished,
    Prepare,
    Prepared,
    Reply,
    Request,
    SessionEnded,
    TrainEpoch,
)

Script = Callable[[Request, int], Reply | BaseException | None]  # (request, how many of its kind before); None: usual
SECOND_NS = 1_000_000_000


def make_spec(device: str = "cpu", variant: str = "eager", epochs: int = 2, seed: int = 0) -> TrialSpec:
    cell = Cell(model="mlp", device=device, batch_size=100, variant=variant)
    return TrialSpec(
        id=trial_id(cell, seed),
        cell=cell,
        seed=seed,
        model=ModelEntry(name="mlp", model="mlp"),
        variant=Variant(name=variant, threads=1),
        recipe="standard",
        epochs=epochs,
        data=DataSet(name="mnist", root="/nowhere", sha256="0" * 64),
    )


PREPARED = Prepared(
    pairable=True,
    device_name="a CPU",
    parameters=623_290,
    class_="A",
    loss_trace=(2.3, 2.2),
    time_to_first_step_s=1.5,
    compile_s=None,
)


class FakeWorker:
    """Every request costs it a second of token time; its own clocks agree, unless the script says otherwise."""

    def __init__(self, spec: TrialSpec, script: Script, log: list[str]) -> None:
        self.spec = spec
        self.token_ns = 0
        self.exited = True
        self.pid = 1
        self._script, self._log = script, log
        self._seen: dict[type, int] = {}
        self._alive = True
        log.append(f"launch {spec.id}")

    def call(self, request: Request) -> Reply:
        assert self._alive, f"{self.spec.id} was called after its end"
        self._log.append(f"{request.type} {self.spec.id}")
        self.token_ns += SECOND_NS
        number = self._seen.get(type(request), 0)
        self._seen[type(request)] = number + 1
        match self._script(request, number):
            case None:
                return self._usual(request)
            case BaseException() as error:
                raise error
            case reply:
                return reply

    def _usual(self, request: Request) -> Reply:
        match request:
            case Prepare():
                return PREPARED
            case Block():
                return BlockDone(steps=10, seconds=0.1)
            case EndSession():
                times = StepTimes(p50_ms=1.0, p95_ms=2.0, p99_ms=3.0, count=10)
                return SessionEnded(step_times=times if Block in self._seen else None)
            case TrainEpoch(epoch=epoch):
                return EpochDone(seconds=1.0, loader_s=0.125, loss=1.0 / (epoch + 1), samples=60_000)
            case Evaluate():
                return Evaluated(seconds=0.5, correct=9500, samples=10_000, predictions_sha256="f" * 64)
            case Finish():
                return self.finished()

    def finished(self, *, awake_s: float | None = None, phases_s: float | None = None) -> Finished:
        """The last word, over the token time so far; another one, to disagree."""
        awake = self.token_ns / SECOND_NS if awake_s is None else awake_s
        return Finished(
            phases={"import": 1.0, "session": 2.0, "train step": (awake if phases_s is None else phases_s) - 3.0},
            elapsed_s=awake + 100.0,
            asleep_s=100.0,
            host_peak_bytes=1 << 30,
            device_peak_bytes=None,
            order_sha256="e" * 64,
            numerics={"threads": 1},
        )

    def close(self) -> int:
        self._log.append(f"close {self.spec.id}")
        self.token_ns += SECOND_NS // 2
        return SECOND_NS // 2

    def kill(self) -> None:
        if self._alive:
            self._log.append(f"kill {self.spec.id}")
        self._alive = False


class Heard(Observer):
    """What was told, as tuples."""

    def __init__(self, events: list[tuple[Any, ...]]) -> None:
        self._events = events

    def stage(self, stage: str, trial_id: str) -> None:
        self._events.append(("stage", stage))

    def detail(self, words: str, share: float) -> None:
        self._events.append(("detail", words, share))

    def session(self, session: Session) -> None:
        self._events.append(("session", session.group))


@dataclass(kw_only=True)
class Scene:
    """What happened: ``results`` as they came, the ``log``, the ``events``."""

    results: list[Session | Trial] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    workers: dict[str, FakeWorker] = field(default_factory=dict)

    @property
    def findings(self) -> dict[str, Any]:
        return {each.id: each.outcome for each in self.results if isinstance(each, Trial)}

    @property
    def sessions(self) -> list[Session]:
        return [each for each in self.results if isinstance(each, Session)]

    @property
    def survivors(self) -> set[str]:
        started = {line.partition(" ")[2] for line in self.log if line.startswith("launch")}
        return started - {line.partition(" ")[2] for line in self.log if line.startswith("kill")}


def stream(
    specs: Sequence[TrialSpec],
    scripts: Mapping[str, Script] | None,
    scene: Scene,
    *,
    timed: frozenset[str] = frozenset(),
    unavailable: dict[str, str] | None = None,
    **changes: Any,
) -> Iterator[Session | Trial]:
    """Runs a group, result by result; ``scripts`` by trial id, ``changes`` of the settings."""
    known = scripts or {}

    def launch(spec: TrialSpec) -> FakeWorker:
        worker = FakeWorker(spec, known.get(spec.id, lambda request, number: None), scene.log)
        scene.workers[spec.id] = worker
        return worker

    settings = replace(
        Settings(
            precision=0.02,
            budget_s=4.0,
            reference="eager",
            launch=launch,
            observer=Heard(scene.events),
            unavailable={} if unavailable is None else unavailable,
        ),
        **changes,
    )
    group = Group(id="mlp/b100/s0", specs=tuple(specs))
    return run_group(group, timed=timed, settings=settings, rng=random.Random(0))


def play(
    specs: Sequence[TrialSpec],
    scripts: Mapping[str, Script] | None = None,
    *,
    scene: Scene | None = None,
    **changes: Any,
) -> Scene:
    """Runs a group to its end, as ``stream``. An exception leaves what happened in ``scene``."""
    scene = scene or Scene()
    scene.results.extend(stream(specs, scripts, scene, **changes))
    return scene
