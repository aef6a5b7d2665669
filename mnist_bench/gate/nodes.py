"""A check on the nodes of a cluster: each has both trees and measures whole pairs (docs/decisions/0037)."""

import contextlib
import math
import os
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from mnist_bench.analysis.keys import kind
from mnist_bench.analysis.results import machine
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import BenchError, Interrupted, WorkerError
from mnist_bench.gate.sides import NAMES, Bench, CheckObserver, Found, Side, environment_of, prove
from mnist_bench.records import Cell, Environment, Session, Trial
from mnist_bench.records import Side as SideName
from mnist_bench.running import cluster
from mnist_bench.running.agent import Agent, Share, Told, own_folder
from mnist_bench.running.cluster import Fleet, Place
from mnist_bench.running.runner import RunPlan


class Trees(NamedTuple):
    """What a node must have of a check's sides.

    Args:
        a, b: as they are where the user stands.
        archives: of their files.
        repository: the root of the user's working tree; ``here``: the current folder.
    """

    a: Side
    b: Side
    archives: tuple[bytes, bytes]
    repository: Path
    here: Path
    allow_plugins: bool


class Asked(NamedTuple):
    """A pair, or a training of both sides or one. ``number``: of the pair, or the seed; ``names``: who starts first."""

    what: str
    cell: Cell
    number: int
    names: Sequence[SideName]
    within_s: float


class CheckAgent(Agent):
    """On a node: has the trees of a check for as long as it lives, and measures there what it is asked for."""

    def ready(  # type: ignore[override]
        self, share: Share, accelerators: str, plan: RunPlan, contents: Sequence[Any], trees: Trees
    ) -> Environment | str:
        """As an agent of a run; each side is proven to import its own code here, too."""
        where = super().ready(share, accelerators, plan, contents)
        if isinstance(where, str):
            return where
        self._own = contextlib.ExitStack()
        try:
            place = self._own.enter_context(own_folder())
            self._sides = [
                self._side(place, trees, side, files) for side, files in zip(trees[:2], trees.archives, strict=True)
            ]
            a, b = self._sides
            if a.matrix:
                prove(a, b, self._interrupts)
        except (BenchError, OSError) as error:
            self._own.close()
            return str(error)
        self._allow_plugins = trees.allow_plugins
        return where

    def _side(self, place: Path, trees: Trees, side: Side, files: bytes) -> Side:
        root = place / side.name / trees.repository.name
        with tarfile.open(fileobj=BytesIO(files)) as archive:
            archive.extractall(root, filter="fully_trusted")
        # What points into the user's working tree, where this node sees it too, points into the tree's own.
        places = {"repository": trees.repository, "here": trees.here, "caches": place / f"caches {side.name}"}
        environ = environment_of(os.environ, root=root, search=sys.path, **places)
        inside = side.matrix_path.relative_to(side.root)
        return replace(side, root=root, matrix_path=root / inside, environ=environ, data=self._plan.manifest.dataset)

    def _run(self, folder: RunFolder, asked: Asked) -> Generator[Told, None, None]:  # type: ignore[override]
        bench = Bench(
            folder=folder,
            a=self._sides[0],
            b=self._sides[1],
            clock=time.monotonic,
            interrupts=self._interrupts,
            observer=CheckObserver(),
            allow_plugins=self._allow_plugins,
        )
        if asked.what == "pair":
            lines = bench.pair(asked.cell, asked.number, asked.names)
        else:
            lines = bench.train(asked.cell, asked.number, asked.names, asked.within_s)
        for line in lines:
            log = folder.log_path(f"{asked.cell.id}@{line.side}") if isinstance(line, Trial) else None
            yield Told(line, log.read_bytes() if log and log.is_file() else None)

    def stop(self) -> None:
        """As of a run; the trees go too."""
        super().stop()
        self._own.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterBench(Bench):
    """The nodes of a cluster that are of one kind, that of the first. A node that is lost takes what it was at."""

    fleet: Fleet
    nodes: set[Place] = field(default_factory=set)
    begun: Counter[tuple[str, Cell]] = field(default_factory=Counter)  # pairs on each node

    @property
    def lanes(self) -> int:
        while not self.nodes:
            self._heard({}, {})
        return len(self.nodes)

    def abreast(self) -> int:
        return self.lanes

    def pairs(self, asked: Sequence[tuple[Cell, int]]) -> Found:
        return self._spread([Asked("pair", *each, NAMES, math.inf) for each in asked])

    def trainings(
        self, asked: Sequence[tuple[Cell, int]], names: Sequence[SideName], within_s: Callable[[], float]
    ) -> Found:
        return self._spread([Asked("training", *each, names, within_s()) for each in asked])

    def _spread(self, asked: Sequence[Asked]) -> Found:
        """What was found of each, as it comes; nothing, where its node is lost."""
        waiting, at_work = [*range(len(asked))], dict[Place, int]()
        told: dict[int, list[Session | Trial]] = {number: [] for number in waiting}
        while waiting or at_work:
            for place in sorted(self.nodes - at_work.keys()):
                if waiting:  # every node measures each cell about as often
                    fewest = min(waiting, key=lambda number: self.begun[place.node, asked[number].cell])
                    waiting.remove(fewest)
                    at_work[place] = fewest
                    self.fleet.give(place, self._of(place.node, asked[fewest]))
            for number in self._heard(at_work, told):
                yield number, told[number]

    def _of(self, node: str, asked: Asked) -> Asked:
        """Which side of a pair starts first alternates on each node."""
        if asked.what != "pair":
            return asked
        self.begun[node, asked.cell] += 1
        return asked._replace(names=asked.names if self.begun[node, asked.cell] % 2 else asked.names[::-1])

    def _heard(self, at_work: dict[Place, int], told: dict[int, list[Session | Trial]]) -> list[int]:
        """Takes what the nodes say; which of what was asked for is at its end."""
        ended = []
        if self.interrupts.requested:
            raise Interrupted("interrupted")
        for place, news in self.fleet.news():
            match news:
                case Environment():
                    self._join(place, news)
                case Told(record, log):
                    if isinstance(record, Trial):
                        cluster.put(self.folder.log_path(f"{record.cell.id}@{record.side}"), log)
                    told[at_work[place]].append(replace(record, node=place.node))
                case None:
                    ended.append(at_work.pop(place))
                case reason:
                    self.observer.notice(f"node {place.node}: {reason}", warning=True)
                    self.nodes.discard(place)
                    if (lost := at_work.pop(place, None)) is not None:
                        told[lost].clear()
                        ended.append(lost)
        if not (self.nodes or self.fleet.starting):
            raise WorkerError(f"no node is left that can measure both sides: --resume {self.folder.run_id} goes on")
        return ended

    def _join(self, place: Place, where: Environment) -> None:
        """Uses a node, if it is of the kind of the first: what only some machines show must not be averaged away."""
        if kind(where) == next(map(kind, self.folder.manifest().nodes.values()), kind(where)):
            cluster.describe(self.folder, place.node, where, self.observer)
            self.nodes.add(place)
        else:
            words = f"node {place.node}: {', '.join(machine(where))}; another kind of machine than the first: not used"
            self.observer.notice(words, warning=True)
