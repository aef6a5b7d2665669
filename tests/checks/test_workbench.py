"""Cells measured by made-up workers: who is started in which order, where, and what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from check_kit import MATRIX, cell
from group_kit import FakeWorker

from mnist_bench import config
from mnist_bench.checks import workbench
from mnist_bench.checks.events import CheckEvent, OutOfTime, Stage
from mnist_bench.checks.workbench import Workbench, log_ratio, process_pair
from mnist_bench.errors import BenchError, Interrupted
from mnist_bench.gate.records import ProcessPair, SeedPair, SideFault, Solo
from mnist_bench.gate.sides import Side
from mnist_bench.interrupts import Interrupts
from mnist_bench.protocol import Block, BlockDone, Evaluate, Evaluated, Failed, Prepare, Reply, Request, Unavailable
from mnist_bench.records import DataSet, Failure, Round, Session, Skip, TrialSpec

SLOWER = 1.25
HOUR = 3600.0
Script = Callable[[Request, int], Reply | BaseException | None]


class Scene:
    """A workbench whose workers answer by a script of each side; B's blocks take ``SLOWER`` times A's."""

    def __init__(self, folder: Path, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.events: list[CheckEvent] = []
        self.started: list[tuple[TrialSpec, Path, Mapping[str, str], float, Path]] = []
        self.scripts: dict[str, Script] = {}
        self.changed: BaseException | None = None
        self.folder = folder
        self.now = 0.0
        monkeypatch.setattr(workbench, "LocalWorker", self._launch)
        self.bench = Workbench(
            sides={"A": self._side("A"), "B": self._side("B")},
            name="a-check",
            logs=folder,
            interrupts=interrupts,
            emit=self.events.append,
            allow_plugins=False,
            timeout_s=None,
            clock=lambda: self.now,
            unchanged=self._unchanged,
        )

    def _side(self, name: str) -> Side:
        return Side(
            name="A" if name == "A" else "B",
            label=name,
            root=self.folder / name,
            matrix_path=self.folder / name / "m.yaml",
            matrix=config.parse(MATRIX, source="m", allow_plugins=False),
            environ={"SIDE": name},
            data=DataSet(name="mnist", root="/nowhere", sha256="0" * 64),
        )

    def _unchanged(self) -> None:
        if self.changed is not None:
            raise self.changed

    def _launch(
        self, spec: TrialSpec, log: Path, environ: Mapping[str, str], timeout_s: float, _: Interrupts, root: Path
    ) -> FakeWorker:
        self.started.append((spec, log, environ, timeout_s, root))
        side = environ["SIDE"]
        own = self.scripts.get(side, lambda request, number: None)

        def script(request: Request, number: int) -> Reply | BaseException | None:
            if (said := own(request, number)) is not None:
                return said
            return BlockDone(steps=10, seconds=0.1 * SLOWER) if isinstance(request, Block) and side == "B" else None

        return FakeWorker(spec, script, self.log)

    def lines(self, what: str) -> list[str]:
        return [line for line in self.log if line.startswith(what)]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with Interrupts() as interrupts:
        made = Scene(tmp_path, interrupts, monkeypatch)
        yield made
    started = {line.partition(" ")[2] for line in made.lines("launch")}
    assert started == {line.partition(" ")[2] for line in made.lines("kill")}  # none is left behind


def test_a_pair_is_b_over_a_whichever_starts_first(scene: Scene) -> None:
    for number in (1, 2):
        pair = scene.bench.pair(cell(), number)
        assert isinstance(pair, ProcessPair)
        assert pair.log_ratio == pytest.approx(math.log(SLOWER))
        assert {one.seconds for one in pair.rounds} == {(0.1, 0.1 * SLOWER)}
    assert [line.split()[1] for line in scene.lines("launch")] == [
        "mlp/cpu/b100/eager@A/s1",
        "mlp/cpu/b100/eager@B/s1",
        "mlp/cpu/b100/eager@B/s2",
        "mlp/cpu/b100/eager@A/s2",
    ]


def test_both_workers_of_a_pair_start_before_one_is_prepared_and_nothing_is_trained(scene: Scene) -> None:
    scene.bench.pair(cell(), 1)
    kinds = [line.split()[0] for line in scene.log]
    assert kinds[:4] == ["launch", "launch", "prepare", "prepare"]
    assert set(kinds) == {"launch", "prepare", "block", "end_session", "kill"}


def test_rounds_go_on_until_a_side_has_had_its_seconds(scene: Scene) -> None:
    pair = scene.bench.pair(cell(), 1)
    assert isinstance(pair, ProcessPair)
    assert len(pair.rounds) == math.ceil(workbench.PAIR_TOKEN_S)  # a block of these workers is a second of token
    assert {one.order for one in pair.rounds} <= {(0, 1), (1, 0)}


def test_each_side_works_in_its_own_tree(scene: Scene) -> None:
    scene.bench.pair(cell(), 1)
    for spec, log, environ, timeout_s, root in scene.started:
        name = environ["SIDE"]
        assert root == scene.folder / name
        assert spec.plugin_path == str(root)
        assert log == scene.folder / f"mlp+cpu+b100+eager@{name}.log"
        assert timeout_s == 1800.0
        assert not spec.variant.deterministic


def test_both_sides_are_trained_in_deterministic_mode_one_after_the_other(scene: Scene) -> None:
    found = scene.bench.seed(cell(), 3, HOUR)
    assert isinstance(found, SeedPair)
    assert (found.seed, found.a, found.b.accuracy, found.b.images) == (3, found.b, 0.95, 10_000)
    assert found.a.train_samples_per_s == 60_000 / 4.0
    kinds = [line.split()[0] for line in scene.log]
    assert kinds.count("block") == 0
    assert kinds.index("kill") < len(kinds) - 1 - kinds[::-1].index("launch")
    assert all(spec.variant.deterministic and spec.seed == 3 for spec, *_ in scene.started)
    assert all(spec.deterministic_if_possible for spec, *_ in scene.started)  # an operator that cannot be is no failure


def test_predictions_and_accuracy_belong_to_their_side(scene: Scene) -> None:
    def worse(request: Request, number: int) -> Any:
        if isinstance(request, Evaluate):
            return Evaluated(seconds=0.5, correct=9000, samples=10_000, predictions_sha256="e" * 64)
        return None

    scene.scripts["B"] = worse
    for seed in range(4):  # in either order
        found = scene.bench.seed(cell(), seed, HOUR)
        assert isinstance(found, SeedPair)
        assert (found.a.accuracy, found.b.accuracy) == (0.95, 0.9)
    orders = {tuple(line[-4] for line in scene.lines("launch")[n : n + 2]) for n in range(0, 8, 2)}
    assert orders == {("A", "B"), ("B", "A")}


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def at(kind: type, reply: Reply | BaseException, occurrence: int = 0) -> Script:
    return lambda request, number: reply if isinstance(request, kind) and number == occurrence else None


CRASHED = Failed(kind="crashed", reason="killed by SIGSEGV")
FAULT = SideFault(side="B", outcome=Failure(kind="crashed", reason="killed by SIGSEGV"))


@pytest.mark.parametrize("where", [at(Prepare, CRASHED), at(Block, CRASHED), at(Block, CRASHED, 1)])
def test_a_crash_in_a_pair_is_its_sides_fault(where: Script, scene: Scene) -> None:
    scene.scripts["B"] = where
    for number in (1, 2):
        assert scene.bench.pair(cell(), number) == (FAULT,)


def test_a_training_that_fails_does_not_hide_the_other_sides_failure(scene: Scene) -> None:
    scene.scripts["A"] = scene.scripts["B"] = at(Prepare, CRASHED)
    found = scene.bench.seed(cell(), 0, HOUR)
    assert found == (replace(FAULT, side="A"), FAULT)
    scene.scripts.pop("A")
    assert scene.bench.seed(cell(), 1, HOUR) == (FAULT,)


def test_a_reference_that_fails_does_not_hide_what_b_did(scene: Scene) -> None:
    scene.scripts["A"] = at(Prepare, CRASHED)
    for seed in range(3):  # in either order
        fault, solo = scene.bench.seed(cell(), seed, HOUR)  # type: ignore[misc]
        assert fault == replace(FAULT, side="A")
        assert (solo.seed, solo.b.accuracy) == (seed, 0.95)


def test_a_missing_device_is_asked_for_once_a_side(scene: Scene) -> None:
    missing = at(Prepare, Unavailable(scope="device", reason="no CUDA device"))
    scene.scripts["A"] = scene.scripts["B"] = missing
    skips = tuple(SideFault(side=side, outcome=Skip(reason="no CUDA device")) for side in ("A", "B"))  # type: ignore[arg-type]
    assert scene.bench.seed(cell(), 0, HOUR) == skips
    assert scene.bench.seed(cell("lenet5"), 0, HOUR) == skips
    assert len(scene.lines("launch")) == 2


def test_b_is_trained_alone(scene: Scene) -> None:
    (found,) = scene.bench.solo(cell(), 7, HOUR)  # type: ignore[misc]
    assert isinstance(found, Solo)
    assert (found.seed, found.b.accuracy) == (7, 0.95)
    scene.scripts["B"] = at(Prepare, CRASHED)
    assert scene.bench.solo(cell(), 0, HOUR) == (FAULT,)
    assert all("@B" in line for line in scene.lines("launch"))


LATE = Failed(kind="timeout", reason="no answer")


@pytest.mark.parametrize(("within_s", "fault"), [(60.0, False), (HOUR, True)])
def test_a_training_that_outlives_the_budget_is_no_timeout_of_its_own(
    scene: Scene, within_s: float, fault: bool
) -> None:
    scene.scripts["A"] = scene.scripts["B"] = at(Evaluate, LATE)
    timeouts = tuple(
        SideFault(side=side, outcome=Failure(kind="timeout", reason="no answer"))
        for side in ("A", "B")  # type: ignore[arg-type]
    )
    assert scene.bench.seed(cell(), 0, within_s) == (timeouts if fault else OutOfTime())
    assert scene.bench.solo(cell(), 0, within_s) == (timeouts[1:] if fault else OutOfTime())
    assert {one[3] for one in scene.started} == {min(within_s, 1800.0)}


def test_a_side_is_not_begun_when_the_budget_is_spent_and_a_failure_is_kept(scene: Scene) -> None:
    assert scene.bench.seed(cell(), 0, 0.0) == OutOfTime()
    assert not scene.lines("launch")
    scene.scripts["A"] = scene.scripts["B"] = lambda request, number: (setattr(scene, "now", 61.0), CRASHED)[1]
    (found,) = scene.bench.seed(cell(), 0, 60.0)  # type: ignore[misc]
    assert found.outcome == FAULT.outcome
    assert len(scene.lines("launch")) == 1


def test_an_interrupt_ends_both_workers(scene: Scene) -> None:
    scene.scripts["A"] = at(Block, Interrupted("interrupted"))
    with pytest.raises(Interrupted):
        scene.bench.pair(cell(), 1)


def test_nothing_is_kept_of_a_tree_that_was_changed_meanwhile(scene: Scene) -> None:
    scene.changed = BenchError("changed")
    with pytest.raises(BenchError, match="changed"):
        scene.bench.pair(cell(), 1)
    for measure in (scene.bench.seed, scene.bench.solo):
        with pytest.raises(BenchError, match="changed"):
            measure(cell(), 1, HOUR)


def test_a_worker_that_cannot_start_leaves_none_behind(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = scene._launch

    def second_fails(spec: TrialSpec, *rest: Any) -> FakeWorker:
        if spec.cell.variant.endswith("@B"):
            raise OSError("no more processes")
        return launch(spec, *rest)

    monkeypatch.setattr(workbench, "LocalWorker", second_fails)
    with pytest.raises(OSError, match="no more processes"):
        scene.bench.pair(cell(), 1)


def test_what_happens_is_told(scene: Scene) -> None:
    scene.bench.pair(cell(), 1)
    texts = [event.text for event in scene.events if isinstance(event, Stage)]
    assert texts[0] == "preparing mlp/cpu/b100/eager@A/s1"
    assert texts[-1].startswith("timing ")


# ── a session as a pair ──────────────────────────────────────────────────────────────────────────────────────────────


def session(members: tuple[str, str], rounds: tuple[Round, ...]) -> Session:
    return Session(
        group="g", members=members, paired=True, rounds=rounds, steps={}, stopped="budget", noisy=("others: 7 %",)
    )


def test_the_members_are_turned_into_a_and_b() -> None:
    one = Round(order=(0, 1), steps=(5, 10), seconds=(1.0, 1.0))
    found = process_pair(session(("b", "a"), (one,)), 4, ("a", "b"))
    assert found.rounds == (Round(order=(1, 0), steps=(10, 5), seconds=(1.0, 1.0)),)
    assert found.log_ratio == pytest.approx(math.log(2))
    assert (found.number, found.noisy) == (4, ("others: 7 %",))
    same = process_pair(session(("a", "b"), (one,)), 4, ("a", "b"))
    assert same.rounds == (one,)
    assert same.log_ratio == pytest.approx(-math.log(2))


def test_the_statistic_is_the_median_over_rounds() -> None:
    rounds = tuple(Round(order=(0, 1), steps=(1, 1), seconds=(1.0, b)) for b in (1.1, 1.2, 9.0))
    assert log_ratio(rounds) == pytest.approx(math.log(1.2))
