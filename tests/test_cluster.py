"""A run whose groups go to nodes, which are made up: what each gets, what is told, and what is left when it dies."""

import contextlib
import os
import random
import signal
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import group_kit
import pytest
from group_kit import CALM, FakeWorker, Scene
from record_factory import make_manifest, make_matrix

from mnist_bench.analysis.keys import key_of
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.errors import BenchError, DataError, UsageError
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Environment,
    Group,
    Measurement,
    ModelEntry,
    RunOptions,
    Session,
    Trial,
)
from mnist_bench.running import agent as agents
from mnist_bench.running import cluster, fleet, group, runner
from mnist_bench.running.agent import Agent, Share, Told, shares
from mnist_bench.running.cluster import News, Place
from mnist_bench.running.group import Observer

MODELS = tuple(ModelEntry(name=name, model=name) for name in ("mlp", "cnn"))
MATRIX = make_matrix(models=MODELS, batch_sizes=(100, 1000), seeds=(0, 1))  # 8 groups of two variants
PLAIN = make_manifest().environment
BIG = replace(PLAIN, cpu="a big one", cores=64)
LATER = "2099-11-23T11:15:00Z"


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    """No data set is looked at, and no machine."""
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    monkeypatch.setattr(group.noise, "read", lambda pids: CALM)


class FakeFleet:
    """Results come from a node that is drawn; ``losses``: how often the node is lost instead.

    A node that is lost comes back, unless ``for_good``.
    """

    def __init__(
        self, nodes: Mapping[str, Environment], seed: int = 0, losses: float = 0.0, *, for_good: bool = False
    ) -> None:
        self._nodes, self._rng, self._losses, self._for_good = {**nodes}, random.Random(seed), losses, for_good
        self._new = [Place(name, 0) for name in nodes]
        self._at_work: dict[Place, Iterator[Session | Trial]] = {}
        self.given: list[tuple[str, Group, frozenset[str]]] = []
        self.closed = False

    @property
    def starting(self) -> int:
        return len(self._new)

    def give(self, place: Place, group: Group, timed: frozenset[str]) -> None:
        assert place not in self._at_work
        self.given.append((place.node, group, timed))
        self._at_work[place] = Scene().stream(group.specs, timed=timed)

    def news(self) -> list[News]:
        if self._new:
            place = self._new.pop()
            return [(place, self._nodes[place.node])]
        if not self._at_work:
            return []
        place = self._rng.choice([*self._at_work])
        if self.lost(place):
            del self._at_work[place]
            self._new += [] if self._for_good else [Place(place.node, place.number + 1)]
            return [(place, "is lost")]
        for record in self._at_work[place]:
            return [(place, Told(record, b"said\n", b"stamps"))]
        del self._at_work[place]
        return [(place, None)]

    def lost(self, place: Place) -> bool:
        return self._rng.random() < self._losses

    def close(self) -> None:
        self.closed = True


def planned(results: Path, matrix: Any = MATRIX) -> runner.RunPlan:
    return group_kit.planned(results, matrix, RunOptions())


def execute(plan: runner.RunPlan, fleet: FakeFleet, observer: Observer | None = None) -> Run:
    run = runner.execute(
        plan, observer or Observer(), {}, executor=partial(cluster.executor, lambda plan: contextlib.closing(fleet))
    )
    assert fleet.closed
    return run


def check_complete(run: Run) -> None:
    """Every trial once, and timed."""
    assert run.manifest.status == "complete"
    assert Counter(trial.id for trial in run.trials) == Counter(run.manifest.trials)
    assert {member for session in run.sessions for member in session.members} == {*run.manifest.trials}


def marks(trial: Trial) -> tuple[str, ...]:
    assert isinstance(trial.outcome, Measurement)
    return trial.outcome.marks


def test_groups_stay_whole_and_their_files_come_along(tmp_path):
    observer, plan = Mock(), planned(tmp_path)
    fleet = FakeFleet({"one": PLAIN, "two": PLAIN})
    run = execute(plan, fleet, observer)
    check_complete(run)
    assert sorted(group.id for _, group, _ in fleet.given) == sorted(plan.manifest.order)
    nodes = {spec.id: node for node, group, _ in fleet.given for spec in group.specs}
    assert {trial.id: trial.node for trial in run.trials} == nodes
    assert {*nodes.values()} == {"one", "two"} == {*run.manifest.nodes}
    assert {key.cpu for key in keys(run).values()} == {PLAIN.cpu} == {run.manifest.environment.cpu}
    assert not any(map(marks, run.trials))
    for trial in run.trials:
        assert plan.folder.log_path(trial.id).read_bytes() == b"said\n"
        assert plan.folder.samples_path(trial.id).read_bytes() == b"stamps"
    shown = {len(call.args[0]) for call in observer.placed.call_args_list}
    assert shown == {1, 2}


def keys(run: Run) -> dict[str, Any]:
    return {cell.id: key_of(run.manifest_of(cell), cell, one.ok[0]) for cell, one in run.cells.items()}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_nothing_is_lost_or_doubled(tmp_path, seed):
    """Sixteen trials; an end in between, and --resume."""
    plan, nodes = planned(tmp_path), {"one": PLAIN, "two": PLAIN, "three": BIG}
    for attempt in range(3):
        with contextlib.suppress(BenchError):  # a group may lose its node three times
            execute(plan, FakeFleet(nodes, seed + attempt, losses=0.2))
        plan = runner.resume(plan.folder, plan.options)
    check_complete(execute(plan, FakeFleet(nodes)))


def test_what_is_left_of_a_dead_nodes_group_goes_to_another_and_says_so(tmp_path):
    class First(FakeFleet):
        def lost(self, place: Place) -> bool:
            own = [trial for trial in plan.folder.trials() if trial.node == place.node]
            finished = len(own) == 1 and not self._for_good
            self._for_good |= finished
            return finished

    matrix = make_matrix(seeds=(0, 1))
    plan, observer = planned(tmp_path, matrix), Mock()
    fleet = First({"one": PLAIN, "two": PLAIN}, seed=3)
    run = execute(plan, fleet, observer)
    check_complete(run)
    (_, whole, _), *_, (_, rest, timed) = sorted(fleet.given, key=lambda one: -len(one[1].specs))
    assert (len(whole.specs), len(rest.specs)) == (2, 1)
    assert timed == {rest.specs[0].id}  # it was timed before; it is trained only
    assert {trial.id for trial in run.trials if marks(trial)} == timed
    lost = next(node for node, group, _ in fleet.given if group.id == rest.id)
    assert {words for trial in run.trials for words in marks(trial)} == {f"begun again here: node {lost} was lost"}
    assert f"node {lost}: is lost" in [call.args[0] for call in observer.notice.call_args_list]
    assert "begun again here" in (plan.folder.path / "results.csv").read_text()


def test_the_groups_of_a_model_stay_on_one_kind_of_machine(tmp_path):
    observer = Mock()
    run = execute(planned(tmp_path), FakeFleet({"one": PLAIN, "two": BIG, "three": PLAIN}), observer)
    check_complete(run)
    where = {(trial.cell.model, run.manifest.nodes[trial.node].cpu) for trial in run.trials}
    assert len(where) == 2
    assert {(cell.split("/")[0], key.cpu) for cell, key in keys(run).items()} == where
    assert run.manifest.environment.cpu in (
        "AMD EPYC (2 cores) + a big one (64 cores)",
        "a big one (64 cores) + AMD EPYC (2 cores)",
    )
    assert any("another kind of machine" in call.args[0] for call in observer.notice.call_args_list)


def test_where_no_node_of_that_kind_is_left_another_takes_over_and_nothing_is_compared_unseen(tmp_path):
    class Dying(FakeFleet):
        def lost(self, place: Place) -> bool:
            return place.node == "two" and len(plan.folder.trials()) > 4

    plan = planned(tmp_path)
    run = execute(plan, Dying({"one": PLAIN, "two": BIG}, for_good=True))
    check_complete(run)
    moved = {trial.cell for trial in run.trials if any("another kind of machine" in words for words in marks(trial))}
    assert len({cell.model for cell in moved}) == 1
    both = {cell for cell in moved if len({trial.node for trial in run.by_cell[cell]}) == 2}
    assert both
    assert all(" + " in keys(run)[cell.id].cpu for cell in both)


def test_a_resumed_run_keeps_its_models_where_they_were(tmp_path):
    plan = planned(tmp_path)
    nodes = {"one": PLAIN, "two": BIG}
    stop = Mock(finished=lambda trial: os.kill(os.getpid(), signal.SIGINT) if len(plan.folder.trials()) == 6 else None)
    run = execute(plan, FakeFleet(nodes), stop)
    assert (run.manifest.status, len(run.trials)) == ("interrupted", 6)
    homes = {trial.cell.model: trial.node for trial in run.trials}
    run = execute(runner.resume(plan.folder, plan.options), FakeFleet({"two": BIG, "one": PLAIN}, seed=5))
    check_complete(run)
    assert {trial.cell.model: trial.node for trial in run.trials} == homes


def test_a_nodes_clock_moves_labels_alone(tmp_path):
    class Ahead(FakeFleet):
        def news(self) -> list[News]:
            return [(place, self.told(news) if place.node == "two" else news) for place, news in super().news()]

        def told(self, news: Any) -> Any:
            if isinstance(news, Told) and isinstance(news.record, Trial):
                return news._replace(record=replace(news.record, started_at=LATER, ended_at=LATER))
            return news

    plans = [planned(tmp_path / name) for name in ("right", "ahead")]
    runs = [
        execute(plan, kind({"one": PLAIN, "two": PLAIN})) for plan, kind in zip(plans, (FakeFleet, Ahead), strict=True)
    ]
    assert {trial.node for trial in runs[1].trials if trial.started_at == LATER} == {"two"}
    for name in ("results.csv", "results.md", "epochs.csv"):
        right, ahead = ((plan.folder.path / name).read_text() for plan in plans)
        assert right == ahead


def test_a_group_that_ends_its_nodes_is_left_and_the_others_are_executed(tmp_path):
    class Cursed(FakeFleet):
        def lost(self, place: Place) -> bool:
            at_work = {node: group for node, group, _ in self.given}
            return at_work[place.node].id == "cnn/b100/s0"

    plan = planned(tmp_path)
    with pytest.raises(BenchError, match=r"cnn/b100/s0: lost its node 3 times .*; 14 of 16 trials are kept"):
        execute(plan, Cursed({"one": PLAIN, "two": PLAIN}))
    assert plan.folder.manifest().status == "stopped"


def test_without_a_node_the_run_is_kept(tmp_path):
    with pytest.raises(BenchError, match="no node of the cluster is left that has what a group takes"):
        execute(planned(tmp_path), FakeFleet({"one": PLAIN}, losses=1.0, for_good=True))


@pytest.mark.parametrize(
    ("cpus", "gpus", "most_gpus", "devices", "limit", "expected"),
    [
        (8, 0, 0, ("cpu",), None, [Share(0, 8, 0)]),
        (8, 0, 0, ("cpu",), 3, [Share(0, 3, 0), Share(3, 3, 0)]),
        (8, 0, 0, ("cpu",), 9, []),
        (0, 0, 0, ("cpu",), None, []),
        (8, 2, 2, ("cuda",), None, [Share(0, 4, 1), Share(4, 4, 1)]),
        (8, 2, 2, ("cpu", "cuda"), None, [Share(0, 8, 1)]),
        (8, 4, 4, ("cuda", "cuda:1"), None, [Share(0, 4, 2), Share(4, 4, 2)]),
        (8, 0, 2, ("cpu", "cuda"), None, []),  # waits for the node that has GPUs
        (8, 0, 0, ("cpu", "cuda"), None, [Share(0, 8, 0)]),  # none has: skipped, with a reason
        (8, 1, 1, ("cpu", "cuda"), 2, [Share(0, 2, 1)]),
    ],
)
def test_what_a_group_takes_of_a_node(cpus, gpus, most_gpus, devices, limit, expected):
    matrix = make_matrix(devices=devices)
    matrix = replace(matrix, limits=replace(matrix.limits, cpus=limit))
    assert shares(cpus, gpus, most_gpus, matrix) == expected


class TestAgent:
    @pytest.fixture
    def plan(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(agents.tempfile, "tempdir", None)
        return planned(tmp_path / "results", make_matrix(seeds=(0,)))

    def test_executes_a_group_as_this_machine_would(self, plan, tmp_path, monkeypatch):
        started: list[tuple[Any, Path]] = []

        def launch(spec: Any, log: Path, *rest: Any) -> FakeWorker:
            log.write_text("from afar")
            started.append((spec, log))
            return FakeWorker(spec)

        monkeypatch.setattr(runner, "LocalWorker", launch)
        monkeypatch.setattr(agents.data, "placed", lambda dataset, fetch, cache: replace(dataset, root=str(cache)))
        agent, cores = Agent(), os.sched_getaffinity(0)
        where = agent.ready(Share(0, 1, 0), "H200", plan, [None])
        assert isinstance(where, Environment)
        assert (where.cores, where.details["accelerators"]) == (len(cores), "H200")
        assert where.commit == plan.manifest.environment.commit  # not of the folder that Ray was started in
        told = [*agent.run(plan.groups[0], frozenset())]
        assert [type(one.record) for one in told] == [Session, Trial, Trial]
        assert [(one.log, one.samples) for one in told] == [(None, None), *[(b"from afar", None)] * 2]
        for spec, log in started:
            assert spec.data.root == str(tmp_path / "cache" / "mnist_bench")
            assert spec.variant.threads == 1
            assert Path(spec.samples_path).parents[1] == log.parents[1]
            assert not log.parents[1].exists()

    def test_a_node_that_cannot_have_the_data_set_or_is_full_says_so(self, plan, monkeypatch):
        monkeypatch.setattr(agents.data, "placed", Mock(side_effect=DataError("others")))
        agent = Agent()
        assert agent.ready(Share(0, 1, 0), "", plan, [None]) == "cannot have the data set: others"
        monkeypatch.setattr(agents.data, "placed", lambda dataset, fetch, cache: dataset)
        agent.ready(Share(0, 1, 0), "", plan, [None])
        monkeypatch.setattr(agents.tempfile, "TemporaryDirectory", Mock(side_effect=OSError(28, "No space left")))
        assert [*agent.run(plan.groups[0], frozenset())] == ["[Errno 28] No space left"]


def test_what_a_killed_agent_left_goes_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    groups = tmp_path / "mnist_bench" / "groups"
    (groups / "left" / "logs").mkdir(parents=True)
    with agents.own_folder() as one, agents.own_folder() as two:
        assert {*groups.iterdir()} == {one, two}
    assert [*groups.iterdir()] == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ray-address", "head:6379"], "--ray-address: only with --executor ray"),
        (["--executor", "ray"], "Ray is not installed"),
        (["--executor", "ray", "--rendezvous", "here:1"], "--rendezvous: a group of a Ray cluster stays on one node"),
        (["--rendezvous", "here"], "rendezvous: 'here' is not HOST:PORT (as in 192.0.2.7:29400)"),
        (["--rendezvous", "here:65536"], "rendezvous: 'here:65536' is not HOST:PORT"),
    ],
)
def test_what_cannot_be_had_is_refused_before_a_run_is_made(tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--models", "mlp", *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:port", "ray://127.0.0.1:1"])
def test_an_address_where_no_head_answers_is_refused_without_asking_ray(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "ray", Mock(init=Mock(side_effect=AssertionError)))
    with pytest.raises(
        UsageError, match="HOST:6379" if "ray:" in address else f"no cluster at {address}: .*\n.*ray start"
    ):
        fleet.connect(address)


class RayError(Exception):
    pass


@pytest.mark.parametrize("fault", ["head", "store"])
def test_what_a_cluster_cannot_is_told_and_the_run_is_kept(tmp_path, monkeypatch, fault):
    ray = MagicMock(exceptions=Namespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {})))
    ray.get_runtime_context.return_value.gcs_address = "127.0.0.1:1"
    ray.put.side_effect = RayError("at 127.0.0.1\nLocal disk is full") if fault == "store" else None
    words = {
        "head": "the head of the cluster, 127.0.0.1:1, no longer answers: .* refused",
        "store": "Local disk is full",
    }
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(fleet.data, "contents", lambda dataset: {})
    plan = planned(tmp_path)
    with pytest.raises(BenchError, match=f"{words[fault]}; 0 of 16 trials are kept: --resume"):
        runner.execute(plan, Observer(), {}, executor=partial(cluster.executor, fleet.connect(None)))
    assert plan.folder.manifest().status == "stopped"


def test_a_run_goes_on_where_it_began(tmp_path, capsys):
    plan = planned(tmp_path, make_matrix(variants=(BUILTIN_VARIANTS["eager"],), seeds=(0, 1)))
    stop = Mock(finished=lambda trial: os.kill(os.getpid(), signal.SIGINT))
    execute(plan, FakeFleet({"one": PLAIN}), stop)
    assert main(["run", "--resume", "latest", "-o", str(tmp_path)]) == 2
    assert "began on a Ray cluster and goes on there: --executor ray" in capsys.readouterr().err
