"""Groups of a run on the nodes of a cluster: each whole on one node, by the workers that a run on one machine has.

``executor`` gives groups out and keeps what comes back; a ``Fleet`` is what it needs of a cluster (docs/scale.md).
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import structs

from mnist_bench.analysis.keys import Kind, environment_of, kind
from mnist_bench.analysis.results import machine
from mnist_bench.disk.files import open_regular
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import Interrupted, WorkerError
from mnist_bench.records import Environment, Group, Measurement, Session, Trial
from mnist_bench.running import runner
from mnist_bench.running.agent import Told
from mnist_bench.running.group import Observer
from mnist_bench.running.runner import Lines, Work

MOST_LOST = 3  # nodes that a group may lose: it may be what ends them


class Place(NamedTuple):
    """Room for one group at a time on a node."""

    node: str
    number: int


# Of a place: it is ready, on such a node; a result; its group is at its end; it is lost, and why.
News = tuple[Place, Environment | Told | str | None]


class Fleet(Protocol):
    """The places of a cluster. ``starting``: those that may become ready."""

    @property
    def starting(self) -> int: ...

    def give(self, place: Place, *work: object) -> None:
        """Has something executed, as the agent's ``run`` takes it: a group, and ``timed`` as of ``run_group``."""

    def news(self) -> list[News]:
        """What has come, waited for a moment."""

    def close(self) -> None:
        """Ends what goes on."""


Fleets = Callable[
    ..., AbstractContextManager[Fleet]
]  # makes one of a plan, the class of its agents, what these are told


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


def executor(fleets: Fleets, work: Work) -> Lines:
    """The ``Executor`` that is a cluster, once it is given what makes its fleet.

    Raises:
        Interrupted: by the user.
        WorkerError: no node is left, or one group has lost several; what could be executed was.
    """
    folder, observer = work.plan.folder, work.observer
    queue, timed = Queue(work.left, _homes(folder)), {*runner.timed_in(folder)}
    known, at_work = dict[Place, Environment](), dict[Place, Group]()
    with fleets(work.plan) as fleet:
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
                        describe(folder, place.node, news, observer)
                    case Told(Trial() as trial):
                        yield _kept(folder, place.node, trial, news, queue.marks(at_work[place]))
                    case Told(Session() as record):
                        timed.update(record.members)
                        yield replace(record, node=place.node)
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


def describe(folder: RunFolder, node: str, where: Environment, observer: Observer) -> None:
    """Keeps what a node is in the manifest, and tells it."""
    manifest = folder.manifest()
    nodes = {**manifest.nodes, node: where}
    folder.update_manifest(nodes=nodes, environment=environment_of(replace(manifest, nodes=nodes), nodes))
    before = {kind(one) for name, one in manifest.nodes.items() if name != node}
    other = bool(before) and kind(where) not in before
    words = "; another kind of machine than others: the groups of a model stay on one" * other
    observer.notice(f"node {node}: {', '.join(machine(where))}{words}", warning=other)


def _kept(folder: RunFolder, node: str, trial: Trial, told: Told, marks: Iterator[str]) -> Trial:
    """A trial with where it was measured; its files are written."""
    put(folder.log_path(trial.id), told.log)
    put(folder.samples_path(trial.id), told.samples, os.O_TRUNC)
    outcome = trial.outcome
    if isinstance(outcome, Measurement):
        outcome = structs.replace(outcome, marks=(*outcome.marks, *marks))
    return replace(trial, node=node, outcome=outcome)


def put(path: Path, content: bytes | None, how: int = os.O_APPEND) -> None:
    """A file of a run's folder, from a node, if there is one; a log goes on where an earlier attempt's ends."""
    if content is not None:
        with os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | how), "wb") as file:
            file.write(content)
