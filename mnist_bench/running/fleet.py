"""The places of a Ray cluster: in each an actor, ``Agent``, that holds CPUs and GPUs of its node (docs/scale.md)."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

from mnist_bench import data
from mnist_bench.errors import UsageError, WorkerError
from mnist_bench.running.agent import Agent, Share, shares
from mnist_bench.running.cluster import Fleet, Fleets, News, Place
from mnist_bench.running.runner import RunPlan

WAIT_S = 1.0  # for news: an interrupt is heard, and a new node is seen, so late
CONNECT_S = 5.0  # that the head may take to answer
STOP_S = 30.0  # that agents may take to end their workers
INSTALL = "pip install 'mnist-bench[ray]'"
START = "`ray start --head` starts one on this machine, `ray start --address HEAD:6379` joins another to it"


class RayFleet:
    """The places of a Ray cluster, which this process is connected to. Nodes that join later are used too.

    Args:
        agent: what is in each place.
        more: what it is told besides.
    """

    def __init__(self, ray: Any, plan: RunPlan, agent: type[Agent] = Agent, *more: object) -> None:
        manifest = plan.manifest
        lean = replace(plan, groups=(), manifest=replace(manifest, order=(), trials=(), nodes={}))
        self._ray, self._matrix, self._count = ray, manifest.matrix, 0
        self._head: str = ray.get_runtime_context().gcs_address
        self._told = ray.put(lean), [ray.put(data.contents(manifest.dataset))], *map(ray.put, more)
        # Nothing is tried again unseen: who comes back, and where, is ours to say.
        self._agent = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(agent)
        self._known: set[tuple[str, Share]] = set()
        self._agents: dict[Place, tuple[Any, tuple[str, Share]]] = {}
        self._starts, self._streams = dict[Any, Place](), dict[Any, Place]()

    @property
    def starting(self) -> int:
        """Places that may become ready."""
        return len(self._starts)

    def give(self, place: Place, *work: object) -> None:
        """Has something executed, as the agent's ``run`` takes it."""
        agent, _ = self._agents[place]
        self._streams[agent.run.options(num_returns="streaming").remote(*work)] = place

    def news(self) -> list[News]:
        """What has come, waited for a moment."""
        self._look()
        if awaited := [*self._starts, *self._streams]:
            ready, _ = self._ray.wait(awaited, timeout=WAIT_S)
            return [self._begun(one) if one in self._starts else self._heard(one) for one in ready]
        sleep(WAIT_S)
        return []

    def _look(self) -> None:
        """Starts an agent in every place that has none."""
        try:
            _reach(self._head)  # Ray would wait for it for a minute, and then end this process
        except OSError as error:
            raise WorkerError(f"the head of the cluster, {self._head}, no longer answers: {error}") from error
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        most_gpus = max((int(node["Resources"].get("GPU", 0)) for node in nodes), default=0)
        for node in nodes:
            id_, has = node["NodeID"], node["Resources"]
            accelerators = " ".join(sorted(name.partition(":")[2] for name in has if name.startswith("accelerator_")))
            wanted = shares(int(has.get("CPU", 0)), int(has.get("GPU", 0)), most_gpus, self._matrix)
            for share in [share for share in wanted if (id_, share) not in self._known]:
                self._known.add((id_, share))
                self._count += 1
                place = Place(f"{node['NodeManagerHostname']}-{id_[:4]}", self._count)
                needs = {"num_cpus": share.cpus, "num_gpus": share.gpus}
                strategy = NodeAffinitySchedulingStrategy(id_, soft=False)
                agent = self._agent.options(**needs, scheduling_strategy=strategy).remote()
                self._agents[place] = agent, (id_, share)
                self._starts[agent.ready.remote(share, accelerators, *self._told)] = place

    def _begun(self, start: Any) -> News:
        place = self._starts.pop(start)
        try:
            said = self._ray.get(start)
        except self._ray.exceptions.RayError as error:
            said = f"cannot be used: {_last_line(error)}"
        return place, self._barred(place, said)

    def _heard(self, stream: Any) -> News:
        place = self._streams.pop(stream)
        try:
            said = self._ray.get(next(stream))
        except StopIteration:
            return place, None
        except self._ray.exceptions.RayTaskError:
            raise  # a bug of ours
        except self._ray.exceptions.RayError:
            self._known.discard(self._agents.pop(place)[1])  # where the node lives, it gets another agent
            return place, "is lost"
        self._streams |= {} if isinstance(said, str) else {stream: place}
        return place, self._barred(place, said)

    def _barred(self, place: Place, said: Any) -> Any:
        """What an agent has said; where that is why it cannot go on, nothing more is given to it."""
        if isinstance(said, str):
            self._ray.kill(self._agents.pop(place)[0])
        return said

    def close(self) -> None:
        """Ends what goes on."""
        starting = {*self._starts.values()}  # they would end first what they begin with
        if stops := [agent.stop.remote() for place, (agent, _) in self._agents.items() if place not in starting]:
            self._ray.wait(stops, num_returns=len(stops), timeout=STOP_S)
        self._ray.shutdown()


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _reach(head: str) -> None:
    """Raises OSError, OverflowError or ValueError where nobody listens at ``HOST:PORT``."""
    host, _, port = head.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()


def connect(address: str | None) -> Fleets:
    """Makes a fleet of a Ray cluster, as ``RayFleet``. To be called before signals are ours: Ray takes some of them.

    Args:
        address: of its head, ``HOST:6379``; None: ``RAY_ADDRESS``, else what ``ray start`` has begun on this machine.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--executor ray: Ray is not installed ({error}): {INSTALL}") from error
    named = address or os.environ.get("RAY_ADDRESS", "")
    if named.startswith("ray://"):
        raise UsageError("--ray-address: ray:// is for Ray Client, which cannot: name the head as HOST:6379")
    package = str(Path(__file__).parents[1])  # so that nodes execute the very same program
    # Left to itself Ray kills guardians before they have ended what their workers started, and swept.
    apart = {"RAY_kill_child_processes_on_worker_exit": "false"}
    settings = {"runtime_env": {"py_modules": [package], "env_vars": apart}, "log_to_driver": False}
    try:
        if ":" in named:  # Ray itself tries for minutes
            _reach(named)
        ray.init(address or "auto", logging_level=logging.ERROR, **settings)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        where = f"at {named}" if named else "to be found"
        raise UsageError(f"--executor ray: no cluster {where}: {error}\n{START}") from error

    @contextlib.contextmanager
    def fleet(plan: RunPlan, agent: type[Agent] = Agent, *more: object) -> Iterator[Fleet]:
        try:
            with contextlib.closing(RayFleet(ray, plan, agent, *more)) as made:
                yield made
        except ray.exceptions.RayTaskError:
            raise  # a bug of ours
        except ray.exceptions.RayError as error:
            raise WorkerError(f"the cluster: {_last_line(error)}") from error

    return fleet
