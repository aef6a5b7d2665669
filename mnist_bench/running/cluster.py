"""Groups of a run on the nodes of a cluster: each whole on one node, by the workers that a run on one machine has.

``conduct`` gives groups out and keeps what comes back; ``RayFleet`` is what it needs of a cluster. An actor of Ray's,
``Agent``, holds CPUs and GPUs of a node and executes one group at a time there (docs/scale.md).
"""

import contextlib
import fcntl
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

from msgspec import structs

from mnist_bench import cells, data
from mnist_bench.analysis.keys import Kind, environment_of, kind
from mnist_bench.analysis.results import machine
from mnist_bench.disk.files import locked, open_regular, remove
from mnist_bench.disk.folder import FOLDERS, RunFolder
from mnist_bench.errors import BenchError, Interrupted, UsageError, WorkerError
from mnist_bench.machine import environment
from mnist_bench.records import Environment, Group, Matrix, Measurement, Session, Trial, TrialSpec
from mnist_bench.running import runner
from mnist_bench.running.group import Line, Observer
from mnist_bench.running.process import Interrupts
from mnist_bench.running.runner import Executor, Lines, RunPlan, Work

MOST_LOST = 3  # nodes that a group may lose: it may be what ends them
WAIT_S = 1.0  # for news: an interrupt is heard, and a new node is seen, so late
CONNECT_S = 5.0  # that the head may take to answer
STOP_S = 30.0  # that agents may take to end their workers
GROUPS = "groups"  # in the program's cache folder
INSTALL = "pip install 'mnist-bench[ray]'"
START = "`ray start --head` starts one on this machine, `ray start --address HEAD:6379` joins another to it"


class Place(NamedTuple):
    """Room for one group at a time on a node."""

    node: str
    number: int


class Told(NamedTuple):
    """A result, and what is in the files of the run's folder that belong to it: a trial's log and samples."""

    record: Line
    log: bytes | None = None
    samples: bytes | None = None


# Of a place: it is ready, on such a node; a result; its group is at its end; it is lost, and why.
News = tuple[Place, Environment | Told | str | None]


# ── who gets what ────────────────────────────────────────────────────────────────────────────────────────────────────


class Queue:
    """The groups that wait, by model in the run's order.

    All of one model go to nodes of one kind, for a run compares cells of one model; to another kind only where none of
    the first is left.
    """

    def __init__(self, groups: Sequence[Group], homes: Mapping[str, Kind]) -> None:
        self._waiting: dict[str, list[tuple[int, Group]]] = {}  # the next one last
        for number, group in reversed([*enumerate(groups)]):
            self._waiting.setdefault(_model(group), []).append((number, group))
        self._homes, self._lost = {**homes}, dict[str, list[str]]()
        self._strays: set[str] = set()  # models that have been measured on several kinds
        self.given_up: list[str] = []

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def take(self, own: Kind, living: Collection[Kind], *, settled: bool) -> Group | None:
        """The next group for a node of the kind ``own``; None: all wait for nodes of other kinds.

        Args:
            living: the kinds of all nodes.
            settled: no node is about to come.
        """
        gone = {model for model, home in self._homes.items() if settled and home not in living}
        open_to = [model for model in self._waiting if self._homes.get(model, own) == own or model in gone]
        heads = [(self._waiting[model][-1][0], model) for model in open_to if self._waiting[model]]
        if not heads:
            return None
        _, model = min(heads)
        if self._homes.setdefault(model, own) != own:
            self._homes[model] = own
            self._strays.add(model)
        return self._waiting[model].pop()[1]

    def back(self, group: Group, node: str) -> None:
        """A group's node is lost: what is left of it comes first again, unless it has lost too many."""
        nodes = self._lost.setdefault(group.id, [])
        nodes.append(node)
        if group.specs and len(nodes) < MOST_LOST:
            self._waiting[_model(group)].append((-1, group))
        elif group.specs:
            self.given_up.append(f"{group.id}: lost its node {MOST_LOST} times ({', '.join(nodes)})")

    def marks(self, group: Group) -> Iterator[str]:
        """What the trials of a group have to say of where they are measured."""
        yield from (f"begun again here: node {node} was lost" for node in self._lost.get(group.id, ()))
        if _model(group) in self._strays:
            yield "measured on another kind of machine than trials of this model before: none of that is left"


def _model(group: Group) -> str:
    return group.specs[0].cell.model


def conduct(fleet: "RayFleet", work: Work) -> Lines:
    """The ``Executor`` that is a cluster, once it is given its fleet.

    Raises:
        Interrupted: by the user.
        WorkerError: no node is left, or one group has lost several; what could be executed was.
    """
    folder, observer = work.plan.folder, work.observer
    queue, timed = Queue(work.left, _homes(folder)), {*runner.timed_in(folder)}
    known, at_work = dict[Place, Environment](), dict[Place, Group]()
    with contextlib.closing(fleet):
        while queue or at_work:
            if work.interrupts.requested:
                raise Interrupted("interrupted")
            kinds = {kind(one) for one in known.values()}
            for place in sorted(known.keys() - at_work.keys()):
                if group := queue.take(kind(known[place]), kinds, settled=not fleet.starting):
                    at_work[place] = group
                    fleet.give(place, group, frozenset(timed.intersection(spec.id for spec in group.specs)))
                    observer.placed([(place.node, group.id) for place, group in at_work.items()])
            for place, news in fleet.news():
                match news:
                    case Environment():
                        known[place] = news
                        _describe(folder, place.node, news, observer)
                    case Told(Trial() as trial):
                        yield _kept(folder, place.node, trial, news, queue.marks(at_work[place]))
                    case Told(Session() as record):
                        timed.update(record.members)
                        yield record
                    case None:
                        del at_work[place]
                    case reason:
                        observer.notice(f"node {place.node}: {reason}", warning=True)
                        known.pop(place, None)
                        if lost := at_work.pop(place, None):
                            rest = tuple(spec for spec in lost.specs if spec.id not in work.done)
                            queue.back(replace(lost, specs=rest), place.node)
            if not (known or fleet.starting):
                raise WorkerError("no node of the cluster is left that has what a group takes (limits.cpus, a GPU)")
    if queue.given_up:
        raise WorkerError("; ".join(queue.given_up))


def _homes(folder: RunFolder) -> dict[str, Kind]:
    """The kind of machine of each model that has finished trials."""
    nodes = folder.manifest().nodes
    return {trial.cell.model: kind(nodes[trial.node]) for trial in folder.trials() if trial.node in nodes}


def _describe(folder: RunFolder, node: str, where: Environment, observer: Observer) -> None:
    """Keeps what a node is in the manifest, and tells it."""
    manifest = folder.manifest()
    nodes = {**manifest.nodes, node: where}
    folder.update_manifest(nodes=nodes, environment=environment_of(replace(manifest, nodes=nodes), nodes))
    before = {kind(one) for name, one in manifest.nodes.items() if name != node}
    other = bool(before) and kind(where) not in before
    words = "; another kind of machine than others: the groups of a model stay on one" * other
    observer.notice(f"node {node}: {', '.join(machine(where))}{words}", warning=other)


def _kept(folder: RunFolder, node: str, trial: Trial, told: Told, marks: Iterator[str]) -> Trial:
    """A trial with where it was measured; its files are written (a log goes on where an earlier attempt's ends)."""
    files = (folder.log_path, os.O_APPEND, told.log), (folder.samples_path, os.O_TRUNC, told.samples)
    for place, flag, content in files:
        if content is not None:
            with os.fdopen(open_regular(place(trial.id), os.O_WRONLY | os.O_CREAT | flag), "wb") as file:
                file.write(content)
    outcome = trial.outcome
    if isinstance(outcome, Measurement):
        outcome = structs.replace(outcome, marks=(*outcome.marks, *marks))
    return replace(trial, node=node, outcome=outcome)


# ── Ray ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Share(NamedTuple):
    """What a place has of its node. ``first``: of its CPUs."""

    first: int
    cpus: int
    gpus: int


def shares(cpus: int, gpus: int, most_gpus: int, matrix: Matrix) -> list[Share]:
    """How a node is divided: one group has all of it; N CPUs, as the matrix says; of GPU cells alone one GPU.

    Args:
        cpus, gpus: of the node.
        most_gpus: of any node of the cluster: a group whose devices one of them has waits for that one.
    """
    devices = {cell.device for cell in cells.expand(matrix)}
    wanted = [int(one.partition(":")[2] or 0) + 1 for one in devices if one.startswith("cuda")]
    gpus_each = min(max(wanted, default=0), most_gpus)
    by_gpu = gpus // gpus_each if gpus_each else cpus
    alone = "cpu" in devices or not gpus_each
    count = min(by_gpu, cpus // matrix.limits.cpus if matrix.limits.cpus else 1 if alone else cpus)
    each = matrix.limits.cpus or cpus // max(count, 1)
    return [Share(number * each, each, gpus_each) for number in range(count) if each]


class Agent:
    """On a node: executes groups for the driver, one at a time, each in a folder of its own that goes with it."""

    def __init__(self) -> None:
        self._interrupts, self._over = Interrupts(), threading.Event()
        self._unavailable: dict[str, str] = {}
        self._over.set()

    def ready(self, plan: RunPlan, contents: Sequence[Any], share: Share, accelerators: str) -> Environment | str:
        """Describes the node, once its data set is there; or says why it cannot be used.

        Args:
            contents: a reference to what ``data.contents`` returned; it is fetched only where it is needed.
        """
        cores = environment.affinity()
        _settle(cores)
        self._cores = (
            cores[share.first : share.first + share.cpus] or cores
        )  # of a node that Ray was told to have more than it has, too
        cache = data.cache_root(os.environ)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(os.open(cache, os.O_RDONLY), fcntl.LOCK_EX):  # the agents of a node one after the other
                dataset = data.placed(plan.manifest.dataset, lambda: import_module("ray").get(contents[0]), cache)
        except (BenchError, OSError) as error:
            return f"cannot have the data set: {error}"
        environ = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # which is Ray's
        found, before = environment.describe(environ), plan.manifest.environment
        details = {**found.details, **({"accelerators": accelerators} if accelerators else {})}
        where = replace(found, commit=before.commit, dirty=before.dirty, details=details)  # where the user stands
        self._plan = replace(plan, manifest=replace(plan.manifest, dataset=dataset, environment=where))
        return where

    def run(self, group: Group, timed: frozenset[str]) -> Iterator[Told | str]:
        """Executes a group; a text is why this node cannot go on."""
        self._over.clear()
        try:
            _settle(self._cores)
            with _own_folder(data.cache_root(os.environ) / GROUPS) as place:
                yield from self._run(RunFolder(place), group, timed)
        except (WorkerError, OSError) as error:
            yield str(error)
        finally:
            self._over.set()

    def _run(self, folder: RunFolder, group: Group, timed: frozenset[str]) -> Iterator[Told]:
        for name in FOLDERS:
            folder.own_folder(name).mkdir()
        plan = replace(self._plan, folder=folder)
        own = replace(group, specs=tuple(self._here(folder, spec) for spec in group.specs))
        launch = partial(runner.local_worker, plan, {**os.environ}, self._interrupts)
        settings = replace(runner.settings_of(plan, [own], Observer(), launch), unavailable=self._unavailable)
        for record in runner.one_by_one(plan, [own], timed, settings, self._interrupts):
            if isinstance(record, Session):
                yield Told(record)
            else:
                paths = folder.log_path(record.id), folder.samples_path(record.id)
                yield Told(record, *(path.read_bytes() if path.is_file() else None for path in paths))

    def _here(self, folder: RunFolder, spec: TrialSpec) -> TrialSpec:
        """The trial with what depends on the node: threads, data set, where its samples go."""
        manifest, options = self._plan.manifest, self._plan.options.run
        own = runner.trial_spec(manifest.matrix, manifest.dataset, options, spec.cell, spec.seed)
        return replace(own, extras=spec.extras, samples_path=str(folder.samples_path(spec.id)))

    def stop(self) -> None:
        """Interrupts the group that goes on; returns once its workers have ended."""
        self._interrupts.request()
        self._over.wait()


@contextlib.contextmanager
def _own_folder(places: Path) -> Iterator[Path]:
    """A folder in ``places`` that goes in the end. Those of processes that were killed go now: their locks are free."""
    places.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as own:
        with locked(os.open(places, os.O_RDONLY), fcntl.LOCK_EX):  # none is between its making and its lock
            for left in places.iterdir():
                with locked(os.open(left, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB) as dead:
                    if dead:
                        remove(left)
            made = Path(own.enter_context(tempfile.TemporaryDirectory(dir=places)))
            own.enter_context(locked(os.open(made, os.O_RDONLY), fcntl.LOCK_EX))
        yield made


def _settle(cores: Sequence[int]) -> None:
    """Gives this thread, and what it will start, its cores and the usual priority, where that is allowed.

    Ray starts its processes with a lower one.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


class RayFleet:
    """The places of a Ray cluster, which this process is connected to. Nodes that join later are used too."""

    def __init__(self, ray: Any, plan: RunPlan) -> None:
        manifest = plan.manifest
        lean = replace(plan, groups=(), manifest=replace(manifest, order=(), trials=(), nodes={}))
        self._ray, self._matrix, self._count = ray, manifest.matrix, 0
        self._head: str = ray.get_runtime_context().gcs_address
        self._plan, self._contents = ray.put(lean), [ray.put(data.contents(manifest.dataset))]
        # Nothing is tried again unseen: who comes back, and where, is ours to say.
        self._agent = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(Agent)
        self._known: set[tuple[str, Share]] = set()
        self._agents: dict[Place, tuple[Any, tuple[str, Share]]] = {}
        self._starts, self._streams = dict[Any, Place](), dict[Any, Place]()

    @property
    def starting(self) -> int:
        """Places that may become ready."""
        return len(self._starts)

    def give(self, place: Place, group: Group, timed: frozenset[str]) -> None:
        """Has a group executed; ``timed`` as of ``run_group``."""
        agent, _ = self._agents[place]
        self._streams[agent.run.options(num_returns="streaming").remote(group, timed)] = place

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
                self._starts[agent.ready.remote(self._plan, self._contents, share, accelerators)] = place

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
        if stops := [self._agents[place][0].stop.remote() for place in self._streams.values()]:
            self._ray.wait(stops, num_returns=len(stops), timeout=STOP_S)
        self._ray.shutdown()


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _reach(head: str) -> None:
    """Raises OSError, OverflowError or ValueError where nobody listens at ``HOST:PORT``."""
    host, _, port = head.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()


def connect(address: str | None) -> Executor:
    """What executes groups on a Ray cluster. To be called before signals are ours: Ray takes some of them.

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

    def executor(work: Work) -> Lines:
        try:
            yield from conduct(RayFleet(ray, work.plan), work)
        except ray.exceptions.RayTaskError:
            raise  # a bug of ours
        except ray.exceptions.RayError as error:
            raise WorkerError(f"the cluster: {_last_line(error)}") from error

    return executor
