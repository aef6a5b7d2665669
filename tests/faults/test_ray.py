"""A run on a real Ray cluster of two nodes, which are on this machine: its results, and what is left when parts die."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_kit import Bench, finish, wait_until
from test_kills import SLOW, check_complete, check_nothing_lost

from mnist_bench.records import CELL_VARIABLE

pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(1800)]  # warnings: Ray's own

STORE = 80 << 20  # bytes: about the least that Ray takes
FIXED = "[{name: fixed, threads: 1, deterministic: true}]"
TWO = "[{name: fixed, threads: 1, deterministic: true}, {name: last, threads: 1, channels_last: true}]"
FOUR = SLOW + "def third(): return good()\ndef fourth(): return good()"
# Tells by a file which of its stages it is in, and takes its time in each.
STAGED = """
import pathlib, time, traceback

class Staged(nn.Linear):
    def forward(self, images):
        names = {{frame.f_code.co_name for frame, _ in traceback.walk_stack(None)}}
        for stage in names & {{"prepare", "block", "train_epoch"}}:
            pathlib.Path("{folder}", stage).touch()
        time.sleep(0.1)
        return super().forward(images.flatten(1))

def staged():
    return Staged(784, 10)
"""
# Python's clocks on a node are an hour ahead.
AHEAD = """
import datetime, time
real, clock = time.time, datetime.datetime
time.time = lambda: real() + 3600
class Ahead(clock):
    @classmethod
    def now(cls, tz=None):
        return clock.now(tz) + datetime.timedelta(hours=1)
datetime.datetime = Ahead
"""
FILL = """
import ray, sys
ray.init(sys.argv[1], log_to_driver=False)
held = [ray.put(bytes(8 << 20)) for _ in range(30)]
print("full", flush=True)
sys.stdin.read()
"""


class Machines:
    """A head, and nodes that are added to it: each with one CPU, on a core of its own where there are two."""

    def __init__(self, cpus: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster, self.nodes = Cluster(), list[Any]()
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
        self._add(num_cpus=cpus, include_dashboard=False, object_store_memory=STORE, _system_config=quick)

    def add(self, **environ: str) -> None:
        self.nodes.append(self._add(num_cpus=1, object_store_memory=STORE, env_vars=environ))

    def _add(self, **settings: Any) -> Any:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[len(self.nodes) % len(cores)]})
        try:
            return self.cluster.add_node(**settings)
        finally:
            os.sched_setaffinity(0, cores)

    def lose(self, node: Any) -> None:
        """As a machine does that loses its power."""
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def at(self, model: str) -> Any:
        """The node that executes cells of a model."""
        for process in psutil.process_iter():
            try:
                if model in process.environ().get(CELL_VARIABLE, ""):
                    above = {one.pid for one in process.parents()}
                    return next(one for one in self.nodes if raylet(one) in above)
            except (psutil.Error, StopIteration):
                continue
        raise AssertionError(f"{model} is executed nowhere")

    @property
    def flags(self) -> tuple[str, ...]:
        return "--executor", "ray", "--ray-address", self.cluster.address


@pytest.fixture
def cluster(bench, monkeypatch):
    """Makes clusters without nodes. Afterwards nothing of them is left."""
    for name, value in bench.environ().items():
        monkeypatch.setenv(name, value)
    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the paths of its sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", place)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    made: list[Machines] = []

    def make(cpus: int = 0) -> Machines:
        made.append(Machines(cpus))
        return made[-1]

    yield make
    for one in made:
        one.cluster.shutdown()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def machines(cluster):
    made = cluster()
    made.add()
    made.add()
    return made


def raylet(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


def workers(bench: Bench) -> list[str]:
    """The processes of its trials: two each, a guardian and a worker."""
    return [process for process in bench.alive() if "mnist_bench.worker" in process]


def agents(machines: Machines) -> list[int]:
    children = (child for node in machines.nodes for child in psutil.Process(raylet(node)).children())
    return [child.pid for child in children if "ray::Agent" in " ".join(child.cmdline())]


def marks(bench: Bench) -> list[str]:
    return [mark for trial in bench.trials() for mark in trial["outcome"]["marks"]]


def hashes(bench: Bench, run: Path) -> dict[str, str]:
    return {trial["id"]: trial["outcome"]["predictions_sha256"] for trial in bench.trials(run)}


def left(bench: Bench) -> list[str]:
    """What is left of groups on the nodes."""
    groups = Path(bench.environ()["XDG_CACHE_HOME"], "mnist_bench", "groups")
    return [name for name in bench.left_in_temp() if name.startswith("mnist-bench")] + [*map(str, groups.glob("*"))]


def test_a_node_is_lost_and_its_group_goes_to_another(bench, cluster):
    made = cluster(cpus=1)
    made.add()
    bench.write("def third(): return good()", ["good", "third"], variants=FIXED)
    process = bench.start(*made.flags)
    assert wait_until(lambda: len(workers(bench)) >= 4), finish(process)
    made.lose(made.nodes[0])
    done = finish(process)
    assert done.returncode == 0, done
    check_complete(bench)
    (run,) = bench.runs()
    (mark,) = marks(bench)
    assert mark.startswith("begun again here: node ")
    assert mark.endswith(" was lost")
    assert len(bench.manifest()["nodes"]) == 2
    assert len({*hashes(bench, run).values()}) == 1  # the very same model, with the same seed
    assert all((run / "logs").joinpath(f"{trial['id'].replace('/', '+')}.log").exists() for trial in bench.trials())
    assert len([*(run / "samples").iterdir()]) == 2
    assert left(bench) == []


# ── each fault, by hand ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.bars
@pytest.mark.parametrize("stage", ["prepare", "block", "train_epoch"])
def test_a_node_lost_at_any_stage(stage, bench, machines):
    bench.write(STAGED.format(folder=bench.folder), ["staged", "good"], variants=FIXED)
    process = bench.start(*machines.flags)
    assert wait_until((bench.folder / stage).exists), finish(process)
    machines.lose(machines.at("staged"))
    done = finish(process)
    assert done.returncode == 0, done
    assert "is lost" in done.stderr
    check_complete(bench)
    assert len(marks(bench)) == 1
    assert left(bench) == []


@pytest.mark.bars
def test_interrupted_and_killed_it_goes_on(bench, machines):
    bench.write(FOUR, ["good", "slow", "third", "fourth"], variants=FIXED)
    process = bench.start(*machines.flags)
    assert wait_until(lambda: len(workers(bench)) >= 4), finish(process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done
    assert f"--resume {bench.manifest()['run_id']}" in done.stderr
    assert " ".join(machines.flags) in done.stderr
    assert workers(bench) == left(bench) == []

    process = bench.start("--resume", "latest", *machines.flags)
    assert wait_until(lambda: bench.trials() and workers(bench)), finish(process)
    process.kill()
    finish(process)
    assert wait_until(lambda: workers(bench) == [], 60.0)
    kept = check_nothing_lost(bench, {})
    assert bench.run("--resume", "latest", *machines.flags).returncode == 0
    check_nothing_lost(bench, kept)
    check_complete(bench)
    assert left(bench) == []  # an agent that was killed leaves its folder to the next one


@pytest.mark.bars
def test_a_node_with_another_torch_is_of_another_kind(bench, cluster):
    made, package = cluster(), bench.folder / "other" / "torch-9.9.9.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n")
    made.add()
    made.add(PYTHONPATH=str(package.parent))
    bench.write(FOUR, ["good", "third"], variants=FIXED)
    done = bench.run("--seeds", "3", *made.flags)
    assert done.returncode == 0, done
    assert "another kind of machine than others: the groups of a model stay on one" in done.stderr
    assert len({trial["id"] for trial in bench.trials()}) == len(bench.trials()) == 6
    torches = {name: one["packages"]["torch"] for name, one in bench.manifest()["nodes"].items()}
    where = {(trial["cell"]["model"], torches[trial["node"]]) for trial in bench.trials()}
    assert (len(where), len({*torches.values()})) == (2, 2)


def at_another_place(bench: Bench, bench_data: dict[str, str]) -> tuple[str, ...]:
    """The data set under a path that means another folder to each process: nodes have nothing there."""
    (bench.folder / "set").symlink_to(bench_data.get("synthetic") or bench_data["MNIST_BENCH_DATA"])
    return "--data-dir", "/proc/self/cwd/set"


@pytest.mark.bars
def test_a_node_without_the_data_set_or_with_another_one_gets_it(bench, bench_data, cluster):
    made = cluster()
    for name in "ab":
        made.add(XDG_CACHE_HOME=str(bench.folder / name))
    bench.write(FOUR, ["good", "slow"], variants=FIXED)
    flags = *made.flags, *at_another_place(bench, bench_data)
    assert bench.run(*flags).returncode == 0
    files = sorted(bench.folder.glob("[ab]/mnist_bench/placed-*/*/raw/*"))
    before = [file.read_bytes() for file in files]
    assert len(files) == 8
    files[-1].write_bytes(b"another")
    done = bench.run(*flags)
    assert done.returncode == 0, done
    assert [file.read_bytes() for file in files] == before
    assert len({trial["node"] for trial in bench.trials()}) == 2


@pytest.mark.bars
def test_a_clock_that_is_an_hour_off_moves_labels_alone(bench, cluster):
    (bench.folder / "ahead").mkdir()
    (bench.folder / "ahead" / "sitecustomize.py").write_text(AHEAD)
    made = cluster()
    made.add()
    made.add(PYTHONPATH=str(bench.folder / "ahead"))
    bench.write(FOUR, ["good", "slow"], variants=FIXED)
    done = bench.run(*made.flags)
    assert done.returncode == 0, done
    check_complete(bench)
    assert marks(bench) == []
    ended = {trial["node"]: trial["ended_at"] for trial in bench.trials()}
    assert len(ended) == 2
    assert max(ended.values()) > bench.manifest()["ended_at"] >= min(ended.values())


@pytest.mark.bars
def test_an_object_store_that_is_full_stops_nothing(bench, machines):
    """Ray then writes objects to its disk."""
    bench.write(FOUR, ["good", "slow"], variants=FIXED)
    command = [sys.executable, "-c", FILL, machines.cluster.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"full\n"
        done = bench.run(*machines.flags)
        other.communicate(b"")
    assert done.returncode == 0, done
    check_complete(bench)
