"""A group whose workers are made up: each answers by a script; all that is said and done is in one log."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record_factory import make_cell, make_manifest, make_matrix

from mnist_bench import cells, records
from mnist_bench.disk.folder import RunFolder
from mnist_bench.machine import noise
from mnist_bench.records import Group, Matrix, Session, Trial, TrialSpec, trial_id
from mnist_bench.running import protocol, runner
from mnist_bench.running.group import Settings, run_group
from mnist_bench.running.protocol import Reply, Request
from mnist_bench.running.runner import trial_spec

Script = Callable[[Request, int], Reply | BaseException | None]  # (request, how many of its kind before); None: usual
SECOND_NS = 1_000_000_000
CALM = noise.Counters(at_s=0, busy_s=0, steal_s=0, own_s=0, pressure_s=0, load_1min=0, throttled=None)


def make_spec(device: str = "cpu", variant: str = "eager", seed: int = 0) -> TrialSpec:
    """Of mlp, two epochs, one thread."""
    matrix = make_matrix(variants=(records.Variant(name=variant, threads=1),))
    cell = make_cell(device=device, variant=variant)
    return trial_spec(matrix, make_manifest().dataset, records.RunOptions(), cell, seed)


PREPARED = protocol.Prepared(
    pairable=True,
    device_name="a CPU",
    parameters=623_290,
    class_="A",
    loss_trace=(2.3, 2.2),
    time_to_first_step_s=1.5,
    compile_s=None,
    peaks=records.Peaks(host_bytes=1 << 29, device_bytes=None),
)
STEP_TIMES = records.StepTimes(p50_ms=1.0, p95_ms=2.0, p99_ms=3.0, count=10)


def usual(request: Request, number: int) -> None:
    """The script of a worker that does what workers do."""


def answers(kind: type, reply: Reply | BaseException, at: int = 0) -> Script:
    """A worker that answers the ``at``-th request of a kind in its own way."""
    return lambda request, number: reply if isinstance(request, kind) and number == at else None


class FakeWorker:
    """Every request costs it a second of token time; its own clocks agree, unless the script says otherwise."""

    def __init__(self, spec: TrialSpec, script: Script = usual, log: list[str] | None = None) -> None:
        self.spec, self.token_ns, self.exited, self.pid = spec, 0, True, 1
        self._script, self._log = script, [] if log is None else log
        self._seen = Counter[type]()
        self._alive = True
        self._log.append(f"launch {spec.id}")

    def call(self, request: Request) -> Reply:
        assert self._alive, f"{self.spec.id} was called after its end"
        self._log.append(f"{request.type} {self.spec.id}")
        self.token_ns += SECOND_NS
        reply = self._script(request, self._seen[type(request)])
        self._seen[type(request)] += 1
        if isinstance(reply, BaseException):
            raise reply
        return reply or self._usual(request)

    def _usual(self, request: Request) -> Reply:
        match request:
            case protocol.Open():
                return protocol.Opened()
            case protocol.Prepare():
                return PREPARED
            case protocol.Block():
                return protocol.BlockDone(steps=10, seconds=0.1)
            case protocol.EndSession():
                return protocol.SessionEnded(step_times=STEP_TIMES if protocol.Block in self._seen else None)
            case protocol.TrainEpoch(epoch=epoch):
                return protocol.EpochDone(seconds=1.0, loader_s=0.125, loss=1.0 / (epoch + 1), samples=60_000)
            case protocol.Evaluate():
                return protocol.Evaluated(seconds=0.5, correct=9500, samples=10_000, predictions_sha256="f" * 64)
            case protocol.Finish():
                return self.finished()

    def finished(self, *, awake_s: float | None = None, phases_s: float | None = None) -> protocol.Finished:
        """The last word, over the token time so far; another one, to disagree."""
        awake = self.token_ns / SECOND_NS if awake_s is None else awake_s
        return protocol.Finished(
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


@dataclass(kw_only=True)
class Scene:
    """What happened: ``results`` as they came, the ``log``."""

    results: list[Session | Trial] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    workers: dict[str, FakeWorker] = field(default_factory=dict)

    @property
    def outcomes(self) -> dict[str, Any]:
        return {each.id: each.outcome for each in self.results if isinstance(each, Trial)}

    @property
    def sessions(self) -> list[Session]:
        return [each for each in self.results if isinstance(each, Session)]

    def lines(self, *verbs: str) -> list[str]:
        return [line for line in self.log if line.partition(" ")[0] in verbs]

    @property
    def survivors(self) -> set[str]:
        started, ended = ({line.partition(" ")[2] for line in self.lines(verb)} for verb in ("launch", "kill"))
        return started - ended

    def stream(
        self,
        specs: Sequence[TrialSpec],
        scripts: Mapping[str, Script] | None = None,
        timed: frozenset[str] = frozenset(),
        *,
        train: bool = True,
        **changes: Any,
    ) -> Iterator[Session | Trial]:
        """Runs a group, result by result; ``scripts`` by trial id, ``changes`` of the settings."""

        def launch(spec: TrialSpec) -> FakeWorker:
            self.workers[spec.id] = FakeWorker(spec, (scripts or {}).get(spec.id, usual), self.log)
            return self.workers[spec.id]

        usually = {"precision": 0.02, "budget_s": 4.0, "reference": "eager", "launch": launch}
        group = Group(id="mlp/b100/s0", specs=tuple(specs))
        settings = Settings(**{**usually, **changes})
        return run_group(group, timed=timed, settings=settings, rng=random.Random(0), train=train)

    def play(self, specs: Sequence[TrialSpec], scripts: Mapping[str, Script] | None = None, **changes: Any) -> Scene:
        """Runs a group to its end, as ``stream``. An exception leaves what happened here."""
        self.results.extend(self.stream(specs, scripts, **changes))
        return self


def play(specs: Sequence[TrialSpec], scripts: Mapping[str, Script] | None = None, **changes: Any) -> Scene:
    return Scene().play(specs, scripts, **changes)


def planned(results: Path, matrix: Matrix, run: records.RunOptions, **options: Any) -> runner.RunPlan:
    """A run that has not begun."""
    asked = runner.Options(run=run, matrix_path="m", output_dir=results, data_root=results, **options)
    groups = runner.draft(matrix, asked.run)
    manifest = make_manifest(
        [trial_id(*pair) for _, pairs in groups for pair in pairs],
        matrix=matrix,
        matrix_sha256=cells.fingerprint(matrix),
        order=tuple(name for name, _ in groups),
        status="interrupted",
        options=run,
    )
    return runner.resume(RunFolder.create(results, manifest), asked)
