"""A check on the nodes of a cluster, which are made up: who measures what, and what becomes of it when one dies."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from check_kit import CRASH, Repo, Scene, Told, by_model, clean_environ, kinds, side
from gate_kit import evidence
from msgspec.structs import replace as with_
from record_factory import make_cell, make_manifest, make_session
from test_check_bench import FakeWorker

from mnist_bench import config
from mnist_bench.errors import BenchError
from mnist_bench.gate import nodes, sides, trees
from mnist_bench.gate.conduct import measure
from mnist_bench.gate.evidence import Check, Pair
from mnist_bench.gate.judge import verdict_of
from mnist_bench.gate.nodes import Asked, CheckAgent, ClusterBench, Trees
from mnist_bench.gate.samples import find_speed
from mnist_bench.records import Environment, Session, Trial
from mnist_bench.running import agent as agents
from mnist_bench.running import runner
from mnist_bench.running.agent import Share
from mnist_bench.running.agent import Told as Result
from mnist_bench.running.cluster import News, Place
from mnist_bench.running.process import Interrupts

PLAIN = make_manifest().environment
BIG = replace(PLAIN, cpu="a big one", cores=64)


class FakeFleet:
    """Nodes that measure as a scene's bench does, each for itself; ``losses``: how often one is lost instead.

    What ends first is drawn. The clock goes on by what one of them takes for each sweep.
    """

    def __init__(self, scene: Scene, where: Mapping[str, Environment], losses: float = 0.0) -> None:
        self._bench, self._rng, self._losses = scene.bench, random.Random(0), losses
        self._where, self._new = where, [Place(name, 0) for name in where]
        self._at_work: dict[Place, Iterator[Session | Trial]] = {}
        self.given: list[tuple[str, Asked]] = []

    @property
    def starting(self) -> int:
        return len(self._new)

    def give(self, place: Place, asked: Asked) -> None:
        assert place not in self._at_work
        self.given.append((place.node, asked))
        self._bench.node = place.node
        if asked.what == "pair":
            lines = self._bench.pair(asked.cell, asked.number)
        else:
            lines = self._bench.train(asked.cell, asked.number, asked.names, asked.within_s)
        self._at_work[place] = iter(lines)

    def news(self) -> list[News]:
        if self._new:
            place = self._new.pop(0)
            return [(place, self._where[place.node])]
        if not self._at_work:
            return []
        place = self._rng.choice([*self._at_work])
        if self._rng.random() < self._losses:
            del self._at_work[place]
            self._new.append(Place(place.node, place.number + 1))
            return [(place, "is lost")]
        for line in self._at_work[place]:
            return [(place, Result(line, b"said\n"))]
        del self._at_work[place]
        return [(place, None)]

    def close(self) -> None:
        pass


@pytest.fixture
def scene(tmp_path, monkeypatch):
    return Scene(tmp_path, monkeypatch)


def run(scene: Scene, fleet: FakeFleet, budget_s: float = 10_000.0) -> Check:
    none: Any = side("A", None)
    bench = ClusterBench(
        folder=scene.folder,
        a=none,
        b=none,
        clock=scene.bench.clock,
        interrupts=Interrupts(),
        observer=Told(scene.events),
        fleet=fleet,
    )
    return measure(bench, budget_s, scene.bench.now)


def test_pairs_and_seeds_go_to_all_nodes_and_say_where_they_were_measured(scene):
    fleet = FakeFleet(scene, {"one": PLAIN, "two": PLAIN, "three": PLAIN})
    check = run(scene, fleet)
    assert kinds(check) == {"mlp": "pass", "lenet5": "pass"}
    lines = [*scene.folder.sessions(), *scene.folder.trials()]
    assert {line.node for line in lines} == {"one", "two", "three"} == {*scene.folder.manifest().nodes}
    assert any(re.match("pair 9/9  mlp/cpu/b100/eager on (one|two|three)  ", text) for text in scene.said)
    for one in check.cells:
        where = Counter(pair.node for pair in one.pairs)
        assert where.total() == 9
        assert max(where.values()) - min(where.values()) <= 2
    begun = [(node, asked.cell, asked.names[0]) for node, asked in fleet.given if asked.what == "pair"]
    for node, cell in {(node, cell) for node, cell, _ in begun}:
        first = [name for *where, name in begun if where == [node, cell]]
        assert first == [*("ABABABABA"[: len(first)])]  # on each node by turns


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_node_takes_its_pair_alone(scene, seed):
    fleet = FakeFleet(scene, {"one": PLAIN, "two": PLAIN}, losses=0.1)
    fleet._rng.seed(seed)
    check = run(scene, fleet)
    assert kinds(check) == {"mlp": "pass", "lenet5": "pass"}
    sessions = Counter(session.members for session in scene.folder.sessions())
    assert {*sessions.values()} == {1}
    trainings = Counter(trial.id for trial in scene.folder.trials())
    assert {*trainings.values()} == {1}
    assert len(fleet.given) > len(sessions) + len(trainings) // 2  # some were lost, and measured again


def test_nodes_of_another_kind_than_the_first_are_not_used(scene):
    check = run(scene, FakeFleet(scene, {"one": PLAIN, "big": BIG}))
    assert {pair.node for one in check.cells for pair in one.pairs} == {"one"}
    assert [*scene.folder.manifest().nodes] == ["one"]
    assert any("a big one" in text and "another kind of machine" in text for text in scene.said)


def test_without_a_node_that_kind_it_goes_on_later(scene):
    with pytest.raises(BenchError, match=f"no node is left .*: --resume {scene.folder.run_id} goes on"):
        run(scene, FakeFleet(scene, {}))
    assert scene.folder.manifest().status == "interrupted"
    assert run(scene, FakeFleet(scene, {"one": PLAIN})).status == "complete"


def test_what_one_node_shows_alone_passes_nowhere():
    """Of 21 nodes one is slower by far; at the looks before the third, no test can tell yet."""
    logs, where = [0.4, *(0.001 * number for number in range(20))], [f"n{number}" for number in range(21)]
    assert find_speed(logs, 1).decision == "pass"
    found = find_speed(logs, 1, nodes=where)
    assert (found.decision, found.slower_on, found.next_look) == ("undecided", ("n0",), 37)
    assert find_speed([0.4] * 21, 1, nodes=where).decision == "fail"
    rounds = [make_session(["a", "b"], [[1.0, math.exp(log)]]).rounds for log in logs]
    pairs = tuple(Pair(rounds=one, node=node) for one, node in zip(rounds, where, strict=True))
    verdict = verdict_of(with_(evidence(), pairs=pairs), 1, "against")
    assert verdict.kind == "inconclusive"
    assert "it would pass, but is 10 % slower on n0" in verdict.text


def test_a_failure_is_told_with_its_log(scene):
    scene.bench.slower = lambda which, number: CRASH if which.model == "mlp" else 0.0
    check = run(scene, FakeFleet(scene, {"one": PLAIN, "two": PLAIN}))
    assert kinds(check)["mlp"] == "failed"
    assert by_model(check)["mlp"].b.reason == "it fell over"
    (log, *_) = scene.folder.path.glob("logs/*")
    assert b"said" in log.read_bytes()


# ── on a node ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A repository, and an agent's surroundings."""
    repo = Repo(tmp_path / "the project")
    repo.put("src/parts.py", "A = 1\n")
    repo.put("m.yaml", "version: 1\nmodels: [mlp]\ndevices: [cpu]\nbatch_sizes: [100]\nvariants: [eager]\nepochs: 1\n")
    repo.put(".gitignore", "ignored.py\n")
    repo.commit()
    repo.put("src/parts.py", "B = 1\n")
    repo.put("new file.py", "new\n")
    repo.put("ignored.py", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(agents.data, "placed", lambda dataset, fetch, cache: replace(dataset, root=str(cache)))
    monkeypatch.setattr(agents, "_settle", lambda cores: None)
    return repo


def sent(repo: Repo, cache: Path) -> Iterator[Trees]:
    git, _ = trees.find(repo.root / "m.yaml", repo.root, clean_environ())
    with trees.planted(git, git.head(), cache, "check") as root:
        matrix = config.load(root / "m.yaml", source="m.yaml", allow_plugins=False)
        a, b = (
            replace(side(name, matrix), root=at, matrix_path=at / "m.yaml")
            for name, at in (("A", root), ("B", repo.root))
        )
        yield Trees(a, b, (trees.packed(git.at(root)), trees.packed(git)), repo.root, repo.root / "src", False)


@pytest.fixture
def told(user, tmp_path):
    yield from sent(user, tmp_path / "trees")


def plan_of(told: Trees) -> runner.RunPlan:
    manifest = make_manifest(matrix=told.b.matrix)
    return runner.RunPlan(folder=Mock(), manifest=manifest, groups=(), options=Mock())


def files(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.py")}


def test_a_node_has_both_trees_as_they_are_here_and_proves_what_they_import(told, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "the project" / "src"))  # which this node sees too
    agent = CheckAgent()
    where = agent.ready(Share(0, 1, 0), "", plan_of(told), [None], told)
    assert isinstance(where, Environment), where
    a, b = agent._sides
    assert files(a.root) == {"src/parts.py": "A = 1\n"}
    assert files(b.root) == {"src/parts.py": "B = 1\n", "new file.py": "new\n"}
    for one in (a, b):
        assert one.root.name == "the project"
        assert one.environ["PYTHONPATH"].split(":")[:2] == [str(one.root), str(one.root / "src")]
        assert str(tmp_path / "the project") not in one.environ["PYTHONPATH"]
        assert one.data.root == str(tmp_path / "cache" / "mnist_bench")
    agent.stop()
    assert not a.root.exists()
    assert not b.root.exists()


def test_a_node_where_a_side_does_not_import_says_so(told, monkeypatch):
    monkeypatch.setattr(nodes, "prove", Mock(side_effect=BenchError("A does not import")))
    assert CheckAgent().ready(Share(0, 1, 0), "", plan_of(told), [None], told) == "A does not import"


def test_a_node_measures_as_this_machine_would(told, monkeypatch):
    monkeypatch.setattr(nodes, "prove", lambda *_: ("", []))
    launched: list[str] = []

    def launch(spec: Any, log: Path, environ: Any, timeout_s: float, interrupts: Any, root: Path, python: str) -> Any:
        launched.append(spec.id)
        log.write_text(f"{spec.id}\n")
        return FakeWorker(spec)

    monkeypatch.setattr(sides, "LocalWorker", launch)
    agent = CheckAgent()
    agent.ready(Share(0, 1, 0), "", plan_of(told), [None], told)
    cell = make_cell()
    (pair,) = agent.run(Asked("pair", cell, 3, ("B", "A"), 1e9))
    assert pair.record.members == (f"{cell.id}/p3@A", f"{cell.id}/p3@B")
    assert launched == [f"{cell.id}/p3@B", f"{cell.id}/p3@A"]
    trainings = [*agent.run(Asked("training", cell, 1, ("A", "B"), 1e9))]
    assert [one.record.id for one in trainings] == [f"{cell.id}/s1@A", f"{cell.id}/s1@B"]
    assert [one.log for one in trainings] == [f"{one.record.id}\n".encode() for one in trainings]
    agent.stop()
