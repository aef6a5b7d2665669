"""Cells measured by made-up workers of two sides: who is started in which order, where, and what is kept of it."""

import math
import sys
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import Mock

import pytest
from check_kit import MATRIX, parse, side
from group_kit import FakeWorker, Script, answers, usual
from record_factory import make_cell, make_manifest

from mnist_bench.analysis.ratios import round_log_ratios
from mnist_bench.disk.folder import RunFolder
from mnist_bench.gate import sides
from mnist_bench.gate.sides import NAMES, Bench, CheckObserver
from mnist_bench.machine import environment
from mnist_bench.running.protocol import Block, BlockDone, Evaluate, Evaluated, Failed, Prepare, Reply, Request

SLOWER = 1.25
HOUR = 3600.0
CRASH = ("crashed", "killed by SIGSEGV")
CRASHED = Failed(kind=CRASH[0], reason=CRASH[1])


class Scene:
    """A bench whose workers answer by a script of each side; B's blocks take ``SLOWER`` times A's."""

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        self.started: list[tuple[Any, ...]] = []
        self.scripts: dict[str, Script] = {}
        self.now = 0.0
        self.bench = Bench(
            folder=RunFolder.create(folder / "checks", make_manifest()),
            a=side("A", parse(), folder / "A", SIDE="A"),
            b=side("B", parse(MATRIX + "limits: {timeout_seconds: 900}\n"), folder / "B", SIDE="B"),
            clock=lambda: self.now,
            interrupts=Mock(),
            observer=CheckObserver(),
        )

    def launch(self, spec, log, environ, timeout_s, _, root, python):
        assert python == sys.executable
        self.started.append((spec, log, environ, timeout_s, root))
        own = self.scripts.get(environ["SIDE"], usual)

        def script(request: Request, number: int) -> Reply | BaseException | None:
            slow = isinstance(request, Block) and environ["SIDE"] == "B"
            return own(request, number) or (BlockDone(steps=10, seconds=0.1 * SLOWER) if slow else None)

        return FakeWorker(spec, script, self.log)

    def train(self, seed: int = 0, within_s: float = HOUR) -> dict[str, tuple[str, str]]:
        """What both sides ended with."""
        return ended(self.bench.train(make_cell(), seed, NAMES, within_s))

    def launched(self) -> list[str]:
        return [line[-4:] for line in self.log if line.startswith("launch")]


@pytest.fixture
def scene(tmp_path, monkeypatch):
    made = Scene(tmp_path)
    monkeypatch.setattr(sides, "LocalWorker", made.launch)
    monkeypatch.setattr(environment, "available_cores", lambda: 1)  # workers start in their order
    yield made
    started, ended = ({line for line in made.log if line.startswith(verb)} for verb in ("launch", "kill"))
    assert {line.partition(" ")[2] for line in started} == {line.partition(" ")[2] for line in ended}  # none is left


def ended(lines: list[Any]) -> dict[str, tuple[str, str]]:
    return {line.side: (line.status, line.reason) for line in lines}


def test_a_pair_is_a_and_b_whichever_starts_first_each_in_its_own_tree(scene, tmp_path, monkeypatch):
    """With its own environment, log and limit; both have their data before one is prepared; nothing is trained."""
    monkeypatch.setattr(sides, "PAIR_TOKEN_S", 2.0)
    for number in (1, 2):
        ((_, (session,)),) = scene.bench.pairs([(make_cell(), number)])
        assert session.members == tuple(f"{make_cell().id}/p{number}@{name}" for name in "AB")
        assert session.group == make_cell().id
        assert {one.seconds for one in session.rounds} == {(0.1, 0.1 * SLOWER)}
        assert median(round_log_ratios(session.rounds, 1, 0)) == pytest.approx(math.log(SLOWER))
        assert len(session.rounds) == 2  # a second of token time each
    assert scene.launched() == ["p1@A", "p1@B", "p2@B", "p2@A"]
    words = [line.split()[0] for line in scene.log]
    assert words[:6] == ["launch", "open"] * 2 + ["prepare"] * 2
    assert set(words) == {"launch", "open", "prepare", "block", "end_session", "kill"}
    for (spec, log, environ, timeout_s, root), name in zip(scene.started, "ABBA", strict=True):
        assert (spec.side, spec.cell, spec.plugin_path) == (name, make_cell(), str(tmp_path / name))
        assert (environ["SIDE"], root, log.name) == (name, tmp_path / name, f"mlp+cpu+b100+eager@{name}.log")
        assert timeout_s == {"A": 1800.0, "B": 900.0}[name]
        assert (spec.variant.deterministic, spec.steps_only) == (False, True)
        assert spec.variant.threads is not None


def test_pairs_start_side_by_side_and_are_then_timed_and_ended_one_after_the_other(scene):
    both = make_cell(), make_cell("lenet5")
    found = scene.bench.pairs([(both[0], 1), (both[1], 4)])
    _, (first,) = next(found)
    begun = [line.split() for line in scene.log]
    assert [verb for verb, _ in begun[:8]] == ["launch", "open"] * 4
    assert {name.rpartition("/")[0] for verb, name in begun[8:]} == {both[0].id}
    assert [verb for verb, _ in begun].count("kill") == 2
    ((place, (second,)),) = found
    assert place == 1
    assert [one.group for one in (first, second)] == [one.id for one in both]
    assert scene.launched() == ["p1@A", "p1@B", "p4@B", "p4@A"]


@pytest.mark.parametrize(("cores", "gib", "pairs"), [(1, 64, 1), (2, 64, 1), (8, 64, 4), (8, 6.5, 2), (8, 1, 1)])
def test_as_many_pairs_live_together_as_there_are_cores_and_memory_for_their_start(
    scene, cores, gib, pairs, monkeypatch
):
    monkeypatch.setattr(environment, "available_cores", lambda: cores)
    monkeypatch.setattr(sides.psutil, "virtual_memory", lambda: Mock(available=int(gib * 2**30), total=2**40))
    assert scene.bench.abreast() == pairs


def test_both_sides_are_trained_deterministically_one_after_the_other_in_either_order(scene):
    worse = Evaluated(seconds=0.5, correct=9000, samples=10_000, predictions_sha256="e" * 64)
    scene.scripts["B"] = answers(Evaluate, worse)
    orders = set()
    for seed in range(8):
        found = scene.bench.train(make_cell(), seed, NAMES, HOUR)
        assert [line.id for line in found] == [f"{make_cell().id}/s{seed}@{name}" for name in "AB"]
        assert [line.outcome.epochs.accuracy[-1] for line in found] == [0.95, 0.9]
        orders.add(tuple(scene.launched()[-2:]))
    assert {tuple(one[-1] for one in order) for order in orders} == {("A", "B"), ("B", "A")}
    assert all(
        spec.variant.deterministic and spec.deterministic_if_possible and not spec.steps_only
        for spec, *_ in scene.started
    )


def test_a_crash_in_a_pair_is_its_sides_fault(scene):
    scene.scripts["B"] = answers(Block, CRASHED)
    for number in (1, 2):
        assert [ended(found) for _, found in scene.bench.pairs([(make_cell(), number)])] == [{"B": CRASH}]


def test_a_training_that_fails_does_not_hide_the_other_side(scene):
    scene.scripts["A"] = scene.scripts["B"] = answers(Prepare, CRASHED)
    assert scene.train() == {"A": CRASH, "B": CRASH}
    scene.scripts.pop("B")
    for seed in range(3):  # in either order
        assert scene.train(seed) == {"A": CRASH, "B": ("ok", "")}
    assert ended(scene.bench.train(make_cell(), 7, ("B",), HOUR)) == {"B": ("ok", "")}
    assert scene.launched()[-1] == "s7@B"


@pytest.mark.parametrize("late_s", [59.0, 60.0])
def test_a_training_that_outlives_the_budget_is_no_timeout_of_its_own(scene, late_s):
    def late(request: Request, number: int) -> Reply | None:
        if isinstance(request, Evaluate):
            scene.now = late_s
            return Failed(kind="timeout", reason="no answer")
        return None

    scene.scripts["A"] = scene.scripts["B"] = late
    assert scene.train(within_s=60.0) == (dict.fromkeys("AB", ("timeout", "no answer")) if late_s < 60 else {})
    assert [one[3] for one in scene.started] == ([60.0, 1.0] if late_s < 60 else [60.0])


def test_a_side_is_not_begun_when_the_budget_is_spent_and_a_failure_is_kept(scene):
    assert scene.train(within_s=0.0) == {}
    scene.scripts["A"] = scene.scripts["B"] = lambda request, number: (setattr(scene, "now", 61.0), CRASHED)[1]
    assert list(scene.train(within_s=60.0).values()) == [CRASH]
    assert len(scene.launched()) == 1
