"""A run on a real Ray cluster of two nodes, which are on this machine: its results, and what is left when parts die."""

import os
import shutil
import signal
import tempfile
from typing import Any

import pytest
from fault_kit import Bench, finish, wait_until
from test_kills import SLOW, check_complete, check_nothing_lost

pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]  # warnings: Ray's own

FIXED = "[{{name: fixed, threads: 1, deterministic: true{}}}, {{name: other, threads: 1, channels_last: true{}}}]"


class Machines:
    """A head without CPUs, and nodes with one each, on a core of its own where there are two."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
        )
        self.nodes = [self.add(), self.add()]

    def add(self) -> Any:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[len(self.cluster.worker_nodes) % len(cores)]})
        try:
            return self.cluster.add_node(num_cpus=1)
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
def machines(bench, monkeypatch):
    for name, value in bench.environ().items():
        monkeypatch.setenv(name, value)
    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the paths of its sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", place)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    made = Machines()
    yield made
    made.cluster.shutdown()
    shutil.rmtree(place, ignore_errors=True)


def workers(bench: Bench) -> list[str]:
    """The processes of its trials: two each, a guardian and a worker."""
    return [process for process in bench.alive() if "mnist_bench.worker" in process]


def hashes(bench: Bench, run: Any) -> dict[str, str]:
    return {trial["id"]: trial["outcome"]["predictions_sha256"] for trial in bench.trials(run)}


def test_interrupted_killed_and_a_node_lost_it_has_the_results_of_one_machine(bench, machines):
    more = "def third(): return good()\ndef fourth(): return good()"
    variants = "[{name: fixed, threads: 1, deterministic: true}]"
    bench.write(SLOW + more, ["good", "slow", "third", "fourth"], variants=variants)
    process = bench.start(*machines.flags)
    assert wait_until(lambda: len(workers(bench)) >= 4), finish(process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done
    assert f"--resume {bench.manifest()['run_id']}" in done.stderr
    assert " ".join(machines.flags) in done.stderr
    assert workers(bench) == []
    assert [name for name in bench.left_in_temp() if name.startswith("mnist-bench")] == []

    process = bench.start("--resume", "latest", *machines.flags)
    assert wait_until(lambda: bench.trials() and workers(bench)), finish(process)
    process.kill()
    finish(process)
    assert wait_until(lambda: workers(bench) == [], 60.0)
    kept = check_nothing_lost(bench, {})

    process = bench.start("--resume", "latest", *machines.flags)
    assert wait_until(lambda: len(workers(bench)) >= 4), finish(process)
    machines.lose(machines.nodes[0])
    done = finish(process)
    assert done.returncode == 0, done
    check_nothing_lost(bench, kept)
    check_complete(bench)
    (run,) = bench.runs()
    moved = [trial for trial in bench.trials() if trial["outcome"]["marks"]]
    assert ["begun again here: node " in mark for trial in moved for mark in trial["outcome"]["marks"]] == [True]
    assert len(bench.manifest()["nodes"]) == 2
    assert all((run / "logs").joinpath(f"{trial['id'].replace('/', '+')}.log").exists() for trial in bench.trials())
    assert len([*(run / "samples").iterdir()]) == 4

    here = bench.run("--filter", "model=faulty.good,model=faulty.slow")
    assert here.returncode == 0, here
    assert hashes(bench, bench.runs()[-1]).items() <= hashes(bench, run).items()
