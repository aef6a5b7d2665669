"""A run on a real Ray cluster of two nodes, which are on this machine: its results, and what is left when parts die."""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from check_kit import Repo, clean_environ
from fault_kit import Bench, finish, lines, wait_until
from test_kills import SLOW, check_complete, check_nothing_lost

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(1800)]  # warnings: Ray's own

STORE = 80 << 20  # bytes: about the least that Ray takes
FIXED = "[{name: fixed, threads: 1, deterministic: true}]"
TWO = "[{name: fixed, threads: 1, deterministic: true}, {name: last, threads: 1, channels_last: true}]"
FOUR = SLOW + "def third(): return good()\ndef fourth(): return good()"
# Tells in a file of each of its stages which node it is on, and takes its time.
STAGED = """
import os, pathlib, time, traceback
class Staged(nn.Linear):
    def forward(self, images):
        for stage in {{frame.f_code.co_name for frame, _ in traceback.walk_stack(None)}} & {{"{stage}"}}:
            pathlib.Path("{folder}", stage).write_text(os.environ["RAY_RAYLET_PID"])
        time.sleep(0.1)
        return super().forward(images.flatten(1))
def staged(): return Staged(784, 10)
"""
# Python's clocks on a node are an hour ahead.
AHEAD = """
import datetime, time
real, clock = time.time, datetime.datetime
time.time = lambda: real() + 3600
class Ahead(clock):
    now = classmethod(lambda cls, tz=None: clock.now(tz) + datetime.timedelta(hours=1))
datetime.datetime = Ahead
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


def agents(machines: Machines) -> list[str]:
    children = (child for node in machines.nodes for child in psutil.Process(raylet(node)).children())
    return [str(child.pid) for child in children if "ray::Agent" in " ".join(child.cmdline())]


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
    bench.write(STAGED.format(folder=bench.folder, stage=stage), ["staged", "good"], variants=FIXED)
    process, where = bench.start(*machines.flags), bench.folder / stage
    assert wait_until(lambda: where.exists() and where.read_text()), finish(process)
    machines.lose(next(node for node in machines.nodes if raylet(node) == int(where.read_text())))
    done = finish(process)
    assert done.returncode == 0, done
    assert "is lost" in done.stderr
    check_complete(bench)
    assert len(marks(bench)) == 1
    assert left(bench) == []


@pytest.mark.bars
def test_a_check_measures_whole_pairs_on_both_nodes_and_a_lost_one_takes_its_own_alone(bench, machines):
    """B does the work of a step six times over in one of two cells."""
    repo, work = Repo(bench.folder), "class Heavy(nn.Linear):\n    def forward(self, images):\n"
    repo.put(".gitignore", "/one\n/results\n")
    plugin = work + "        for _ in range({}): logits = super().forward(images.flatten(1))\n        return logits\n"
    plugin += "def heavy(): return Heavy(784, 10)"
    bench.write(plugin.format(1), ["good", "heavy"], variants=FIXED)
    repo.commit()
    bench.write(plugin.format(6), ["good", "heavy"], variants=FIXED)
    process = bench.start(
        "--against", "main", *machines.flags, command="check", environ=clean_environ(**bench.environ())
    )
    checks = bench.results / "checks"
    assert wait_until(lambda: len([*lines(checks / "latest" / "sessions.jsonl")]) >= 4), finish(process)
    machines.lose(machines.nodes[0])
    machines.add()
    done = finish(process)
    assert done.returncode == 3, done
    sessions = lines(checks / "latest" / "sessions.jsonl")
    assert len({tuple(one["members"]) for one in sessions}) == len(sessions)
    assert len({one["node"] for one in sessions}) == 3
    assert "is lost" in done.stderr
    verdicts = {
        one["cell"]["model"]: one for one in json.loads((checks / "latest" / "check.json").read_text())["verdicts"]
    }
    assert verdicts["faulty.heavy"]["kind"] == "regression"
    assert verdicts["faulty.good"]["kind"] in ("pass", "inconclusive")
    assert workers(bench) == []
    assert wait_until(lambda: left(bench) == [], 60.0)


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
def test_the_head_lost_what_is_finished_stays_and_another_cluster_goes_on(bench, cluster):
    bench.write(FOUR, ["good", "slow", "third", "fourth"], variants=FIXED)
    first = cluster()
    first.add()
    process = bench.start(*first.flags)
    assert wait_until(lambda: bench.runs() and bench.trials() and workers(bench)), finish(process)
    first.cluster.remove_node(first.cluster.head_node, allow_graceful=False)
    done = finish(process)
    assert done.returncode == 1, done
    assert "of 4 trials are kept: --resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert bench.manifest()["status"] == "stopped"
    kept = check_nothing_lost(bench, {})
    first.cluster.shutdown()
    assert wait_until(lambda: workers(bench) == [], 60.0)
    second = cluster()
    second.add()
    assert bench.run("--resume", "latest", *second.flags).returncode == 0
    check_nothing_lost(bench, kept)
    check_complete(bench)
    assert left(bench) == []


@pytest.mark.bars
def test_a_node_with_another_torch_and_an_hour_ahead(bench, cluster):
    """It is of another kind, and that is all."""
    made, package = cluster(), bench.folder / "other" / "torch-9.9.9.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n")
    (package.parent / "sitecustomize.py").write_text(AHEAD)
    made.add()
    made.add(PYTHONPATH=str(package.parent))
    bench.write(FOUR, ["good", "third"], variants=FIXED)
    done = bench.run("--seeds", "3", *made.flags)
    assert done.returncode == 0, done
    assert "another kind of machine than others: the groups of a model stay on one" in done.stderr
    trials, manifest = bench.trials(), bench.manifest()
    assert len({trial["id"] for trial in trials}) == len(trials) == 6
    torches = {name: one["packages"]["torch"] for name, one in manifest["nodes"].items()}
    where = {(trial["cell"]["model"], torches[trial["node"]]) for trial in trials}
    assert (len(where), len({*torches.values()})) == (2, 2)
    assert {torches[trial["node"]] for trial in trials if trial["started_at"] > manifest["ended_at"]} == {"9.9.9"}
    assert marks(bench) == []


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False).returncode:
        pytest.skip("only root can make a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.bars
@pytest.mark.parametrize("when", ["at the start", "meanwhile"])
def test_a_node_whose_disk_is_full_gets_no_more_groups(when, bench, bench_data, cluster, small_disk):
    made = cluster()
    made.add()
    made.add(XDG_CACHE_HOME=str(small_disk))
    flags = at_another_place(bench, bench_data) if when == "at the start" else ()
    spoilt = f"""
def spoilt():
    import contextlib, pathlib
    with contextlib.suppress(OSError):
        pathlib.Path("{small_disk}/filler").write_bytes(bytes(1 << 20))
    return good()
"""
    bench.write(spoilt, ["good"] if flags else ["spoilt", "good"], variants=FIXED)
    done = bench.run(*made.flags, *flags)
    print(done.stderr, *(trial["outcome"].get("reason") for trial in bench.trials()))
    assert done.returncode == 0, done
    assert "No space left" in done.stderr or "the disk is full" in done.stderr
    check_complete(bench)


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
def test_an_object_store_that_is_full_stops_nothing(bench, machines):
    """Ray then writes objects to its disk."""
    bench.write(FOUR, ["good", "slow"], variants=FIXED)
    with ray.init(machines.cluster.address, log_to_driver=False):
        held = [ray.put(bytes(8 << 20)) for _ in range(30)]
        done = bench.run(*machines.flags)
        assert (done.returncode, len(held)) == (0, 30), done
    check_complete(bench)


# ── bars of the whole ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.bars
def test_twenty_four_trials_on_two_nodes_are_those_of_one_machine(bench, machines):
    bench.write("", ["good"], variants=TWO)
    axes = "--models", "faulty:good,mlp,lenet5", "--batch-sizes", "1000,2000", "--seeds", "2"
    runs = []
    for flags in (machines.flags, ()):
        done = bench.run(*axes, *flags)
        assert done.returncode == 0, done
        runs.append(bench.runs()[-1])
    there, here = (hashes(bench, run) for run in runs)
    assert len(there) == 24
    assert there == here
    assert len({trial["node"] for trial in bench.trials(runs[0])}) == 2
    for name in ("results.csv", "epochs.csv"):
        tables = [[line.split(",") for line in (run / name).read_text().splitlines()] for run in runs]
        assert tables[0][0] == tables[1][0]
        assert sorted(line[:4] for line in tables[0]) == sorted(line[:4] for line in tables[1])


@pytest.mark.bars
def test_killed_twenty_times_at_random_nothing_is_lost_or_doubled(bench, machines):
    """A node, an agent, a worker of a trial (which is then a result: crashed), or the driver, which then resumes."""
    rng, kept, killed, process = random.SystemRandom(), dict[str, dict[str, Any]](), Counter[str](), None
    bench.write(FOUR, ["good", "slow", "third", "fourth"], variants=TWO)
    finished = list[Counter[str]]()
    while killed.total() < 20:
        process = process or bench.start(*(("--resume", "latest") if bench.runs() else ()), *machines.flags)
        if wait_until(lambda started=process: started.poll() is not None, rng.uniform(2.0, 25.0)):
            done, process = finish(process), None
            assert done.returncode in (0, 1), done  # 1: a trial has crashed, or a group has lost its node three times
            assert "Traceback" not in done.stderr, done
            kept = check_nothing_lost(bench, kept)
            if bench.manifest()["status"] == "complete":
                finished.append(check_once(bench))
                bench.results.rename(bench.folder / f"finished-{len(finished)}")
                kept = {}
            continue
        victim = rng.choice(["node", "agent", "worker", "driver"])
        if victim == "driver":
            process.kill()
            finish(process)
            process, kept = None, check_nothing_lost(bench, kept)
        elif victim == "node":
            machines.lose(rng.choice(machines.nodes))
            machines.add()
        elif found := agents(machines) if victim == "agent" else workers(bench):
            os.kill(int(rng.choice(found).split()[0]), signal.SIGKILL)
        else:
            continue
        killed[victim] += 1
    if process:
        finish(process)
    done = bench.run(*(("--resume", "latest") if bench.runs() else ()), *machines.flags)
    assert done.returncode in (0, 1), done
    check_nothing_lost(bench, kept)
    finished.append(check_once(bench))
    print(killed, finished)
    assert left(bench) == workers(bench) == []


def check_once(bench: Bench) -> Counter[str]:
    """A complete run has each of its trials once; how many of each status."""
    trials, manifest = bench.trials(), bench.manifest()
    assert manifest["status"] == "complete"
    assert sorted(trial["id"] for trial in trials) == sorted(manifest["trials"])
    statuses = Counter(trial["status"] for trial in trials)
    assert {*statuses} <= {"ok", "crashed"}
    return statuses
