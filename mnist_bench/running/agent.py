"""On a node of a cluster: what executes groups there, and what it has of the node."""

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mnist_bench import cells, data
from mnist_bench.disk.files import locked, remove
from mnist_bench.disk.folder import FOLDERS, RunFolder
from mnist_bench.errors import BenchError, WorkerError
from mnist_bench.machine import environment
from mnist_bench.records import Environment, Group, Matrix, Session, TrialSpec
from mnist_bench.running import runner
from mnist_bench.running.group import Line, Observer
from mnist_bench.running.process import Interrupts
from mnist_bench.running.runner import RunPlan

GROUPS = "groups"  # in the program's cache folder


class Told(NamedTuple):
    """A result, and what is in the files of the run's folder that belong to it: a trial's log and samples."""

    record: Line
    log: bytes | None = None
    samples: bytes | None = None


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

    def ready(self, share: Share, accelerators: str, plan: RunPlan, contents: Sequence[Any]) -> Environment | str:
        """Describes the node, once its data set is there; or says why it cannot be used.

        Args:
            contents: a reference to what ``data.contents`` returned; it is fetched only where it is needed.
        """
        cores = environment.affinity()
        _settle(cores)
        # All of them, where Ray was told that the node has more than it has.
        self._cores = cores[share.first : share.first + share.cpus] or cores
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

    def run(self, *work: Any) -> Iterator[Told | str]:
        """Executes what a node is given at once, a group; a text is why this node cannot go on."""
        self._over.clear()
        try:
            _settle(self._cores)
            with own_folder() as place:
                folder = RunFolder(place)
                for name in FOLDERS:
                    folder.own_folder(name).mkdir()
                yield from self._run(folder, *work)
        except (WorkerError, OSError) as error:
            yield str(error)
        finally:
            self._over.set()

    def _run(self, folder: RunFolder, group: Group, timed: frozenset[str]) -> Iterator[Told]:
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
def own_folder() -> Iterator[Path]:
    """A folder that goes in the end. Those of processes that were killed go now: their locks are free."""
    places = data.cache_root(os.environ) / GROUPS
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
