"""The two sides of a check: a tree each with its own matrix, proven to import its own code, and measured by workers.

The proof asks a process that is started as the workers are, before anything is measured: the protocol's number cannot
be asked of a worker (one that speaks another refuses), and an editable install can hand a worker the other side's code
without a word.
"""

import itertools
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path

import psutil

from mnist_bench.catalogue import ENTRY_POINT_GROUP, MODELS
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.machine import environment
from mnist_bench.records import Cell, DataSet, Group, Matrix, RunOptions, Session, Trial, TrialSpec
from mnist_bench.records import Side as SideName
from mnist_bench.running.group import Observer, Settings, run_group, run_pairs
from mnist_bench.running.process import Interrupts, LocalWorker, uninstalled_package
from mnist_bench.running.protocol import PROTOCOL_VERSION
from mnist_bench.running.runner import WORKER_BYTES, trial_spec
from mnist_bench.table import plain

NAMES: tuple[SideName, SideName] = ("A", "B")
PAIR_TOKEN_S = 1.0  # of each side of a process pair: rounds of blocks (docs/decisions/0031)
PACKAGE = "mnist_bench"
# What is kept from one process to the next, and is not told apart by the code that it was made from: a folder each.
CACHES = {
    "PYTHONPYCACHEPREFIX": "bytecode",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TORCH_HOME": "checkpoints",
    "NUMBA_CACHE_DIR": "numba",
}
SECONDS = 300.0  # a cold disk takes its time over torch
LAST_LINES = 3
SIGN = "mnist-bench imports: "
# Runs under the reference's code: it may name nothing that an older commit lacks.
PROGRAM = f"""
import importlib.util, json, os, sys

def say():
    print()
    print("{SIGN}" + json.dumps([getattr(protocol, "PROTOCOL_VERSION", "unknown"), places]), flush=True)

package = importlib.import_module("mnist_bench")
room = "running" if importlib.util.find_spec("mnist_bench.running") else "run"  # its name until version 0.1.0
protocol = importlib.import_module(f"mnist_bench.{{room}}.protocol")
worker = importlib.import_module("mnist_bench.worker")
if hasattr(worker, "__path__"):
    importlib.import_module("mnist_bench.worker.server")
sys.path.insert(0, sys.argv[1])
places = {{"mnist_bench": package.__file__}}
say()  # a plug-in may end the process, or not import: its cell will tell
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except BaseException:
        pass
here = os.getcwd() + os.sep
for name, module in list(sys.modules.items()):
    try:
        place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        if isinstance(place, str) and ("." not in name or place.startswith(here)):
            places[name] = place
    except Exception:
        pass  # an object that is no usual module
say()
os._exit(0)  # whatever threads a model's modules have started
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Where the code of one side is, and how its workers are started.

    Args:
        label: what the user calls it.
        root: of its tree; workers start there.
        matrix_path: in the tree.
        matrix: its own copy, as resolved; None: its tree has none.
        environ: of its workers.
        data: verified; the same for both sides of a check.
        own: the virtual environment that is this side's own; None: it runs in that of this process.
    """

    name: SideName
    label: str
    root: Path
    matrix_path: Path
    matrix: Matrix | None
    environ: Mapping[str, str]
    data: DataSet
    own: Path | None = None

    @property
    def python(self) -> str:
        """The interpreter of its workers."""
        return str(self.own / "bin" / "python") if self.own else sys.executable


def environment_of(
    environ: Mapping[str, str], *, root: Path, repository: Path, here: Path, search: Sequence[str], caches: Path
) -> dict[str, str]:
    """The environment of a tree's workers: what pointed into the user's working tree points into their own.

    ``PYTHONPATH`` begins with the tree's root: to start there is not enough where ``PYTHONSAFEPATH`` is set. Then comes
    the current folder's counterpart: of a run, workers start in it. Its other entries, and those that editable installs
    have added to the path, are moved into the tree where they lie in the repository. Those of the Python installation
    stay (a virtual environment may lie in the repository).

    Args:
        environ: the parent's.
        root: of the tree.
        repository: the root of the user's working tree.
        here: the current folder, which relative entries are meant from.
        search: the parent's ``sys.path``.
        caches: a fresh folder of this side's own: bytecode that looks as new as an edited file is not taken for it.
    """

    def inside(entry: Path) -> Path | None:
        """An entry in the tree, if it lies in the repository as it is named or as its links lead."""
        for known in (entry, entry.resolve()):
            if known.is_relative_to(repository) and not of_python(known, repository):
                return root / known.relative_to(repository)
        return None

    named, added = (
        [Path(os.path.normpath(here / entry)) for entry in entries]
        for entries in (environ.get("PYTHONPATH", "").split(os.pathsep), search)
    )
    places = [root, inside(here), *(inside(entry) or entry for entry in named), *map(inside, added)]
    if not (root / PACKAGE).is_dir():
        places += map(Path, uninstalled_package())
    return {
        **environ,
        **{variable: str(caches / name) for variable, name in CACHES.items()},
        "PYTHONDONTWRITEBYTECODE": "",  # with a fresh folder for it, each worker would compile all of torch
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(str(place) for place in places if place)),
    }


def of_python(path: Path, repository: Path) -> bool:
    """Whether a place in the repository is part of the Python that runs us, not of what is being checked."""
    prefix = Path(sys.prefix).resolve()
    return prefix.is_relative_to(repository) and prefix != repository and path.resolve().is_relative_to(prefix)


# ── the proof ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Imports:
    """``protocol``: the number that the side's worker speaks (or ``unknown``); ``places``: module -> file.

    Modules are the package, the plug-ins, and whatever was loaded with them: a plug-in of a side's own may import a
    package that an editable install takes from the other's tree.
    """

    protocol: int | str
    places: dict[str, str]


def ask(side: Side, interrupts: Interrupts) -> Imports:
    """Imports a side's package as its workers will.

    Raises:
        BenchError: it cannot be imported; the message ends in the last lines that Python printed.
        Interrupted: the user wants to stop.
    """
    command = [side.python, "-c", PROGRAM, str(side.matrix_path.parent), *_plugin_modules(side.matrix)]
    try:
        done, said = executed(command, side.root, side.environ, interrupts, SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{side.label}: its package did not import within {SECONDS:g} s") from error
    answers = [line.removeprefix(SIGN) for line in done.stdout.splitlines() if line.startswith(SIGN)]
    if not answers:
        raise BenchError(f"{side.label} does not import, so nothing was measured:\n{said}")
    return Imports(*json.loads(answers[-1]))


def executed(
    command: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    interrupts: Interrupts,
    limit_s: float | None = None,
) -> tuple[subprocess.CompletedProcess[str], str]:
    """A program that has ended, and the last lines that it printed, for an error.

    Raises:
        subprocess.TimeoutExpired: it has not ended in time.
        Interrupted: the user wants to stop.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=limit_s,
        check=False,
    )
    if interrupts.requested:
        raise Interrupted("interrupted")
    said = [plain(line) for line in (done.stderr.strip() or done.stdout).splitlines() if line.strip()]
    return done, "\n".join(f"  {line}" for line in said[-LAST_LINES:]) or f"  exited with {done.returncode}"


def prove(a: Side, b: Side, interrupts: Interrupts) -> tuple[str, list[Path]]:
    """Proves that each side's workers can start, with its own code.

    Returns:
        Why their workers cannot be paired, if so; and the files that B loads.

    Raises:
        UsageError: this program cannot speak with the working tree's own worker.
    """
    with ThreadPoolExecutor() as pool:  # both compile all of torch to their own bytecode
        before, after = pool.map(lambda side: ask(side, interrupts), (a, b))
    refuse_the_others_code(a, b, before)
    refuse_the_others_code(b, a, after)
    if after.protocol != PROTOCOL_VERSION:
        raise UsageError(
            f"the working tree's worker speaks protocol {after.protocol}, this program {PROTOCOL_VERSION}: start "
            "`python -m mnist_bench check` in its root"
        )
    apart = f"protocol version: {before.protocol} in A, {after.protocol} in B: their workers cannot be paired"
    return apart * (before.protocol != after.protocol), [Path(place) for place in after.places.values()]


def _plugin_modules(matrix: Matrix | None) -> tuple[str, ...]:
    """The modules that the models and the data set of a matrix come from, those of entry points too."""
    targets = [] if matrix is None else [entry.model for entry in matrix.models if entry.model not in MODELS]
    targets += [matrix.dataset] if matrix and ":" in matrix.dataset else []
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)} if targets else {}
    found = (target if ":" in target else installed.get(target, "") for target in targets)
    return tuple(dict.fromkeys(module for module in (each.partition(":")[0] for each in found) if module))


def refuse_the_others_code(side: Side, other: Side, found: Imports) -> None:
    """A side must import its own tree's code, never the other's.

    The Python that runs us may lie in the other's tree, and so may the side's own.

    Raises:
        BenchError: the package comes from elsewhere, though the tree has one.
        UsageError: a module comes from the other side's tree (an editable install, mostly).
    """
    own, others = side.root.resolve(), other.root.resolve()
    for name, place in found.places.items():
        file = Path(place).resolve()
        nested = own.is_relative_to(others) and file.is_relative_to(own)
        nested = nested or bool(side.own and Path(place).is_relative_to(side.own))
        if file.is_relative_to(others) and not nested and not of_python(file, others):
            raise UsageError(
                f"{side.label} would import {name} from the other side ({place}), by an editable install or PYTHONPATH:"
                " put its source folder on PYTHONPATH, as in PYTHONPATH=src, which each side maps into its own tree"
            )
    package = Path(found.places[PACKAGE]).resolve()
    if (own / PACKAGE / "__init__.py").is_file() and not package.is_relative_to(own):
        raise BenchError(f"{side.label} has a {PACKAGE}/ of its own, but would import {package}")


# ── the bench ────────────────────────────────────────────────────────────────────────────────────────────────────────


Found = Generator[tuple[int, list[Session | Trial]], None, None]  # of what was asked for, by its place there


class CheckObserver(Observer):
    """Hears what a run tells, and what is measured of two sides."""

    def working(self, now: str, left_s: float, budget_s: float) -> None:
        """What is measured now, and how much of the budget is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Two trees on this machine, measured by real workers. What a side cannot do is a line, and is not raised.

    Args:
        folder: where logs go.
        clock: seconds.
    """

    folder: RunFolder
    a: Side
    b: Side
    clock: Callable[[], float]
    interrupts: Interrupts
    observer: CheckObserver
    allow_plugins: bool = False

    def abreast(self) -> int:
        """How many pairs may live together: a core for each worker's start, and memory for all of them."""
        free = min(psutil.virtual_memory().available, environment.available_memory_bytes())
        return max(1, min(environment.available_cores(), free // WORKER_BYTES) // 2)

    @property
    def lanes(self) -> int:
        """What can be measured at a time."""
        return 1

    def pairs(self, asked: Sequence[tuple[Cell, int]]) -> Found:
        """Of each cell and number one fresh process of each side; which of them starts first alternates (docs/log.md).

        All of them import and open their data side by side; then pair after pair is prepared, timed and ended.

        Yields:
            The place of a pair in ``asked``; and its session, the members in the order A, B, or the trials that failed.
        """
        return self._pairs([(*each, NAMES if each[1] % 2 else NAMES[::-1]) for each in asked])

    def pair(self, cell: Cell, number: int, names: Sequence[SideName]) -> list[Session | Trial]:
        """One pair alone; ``names``: who starts first."""
        ((_, found),) = self._pairs([(cell, number, names)])
        return found

    def _pairs(self, asked: Sequence[tuple[Cell, int, Sequence[SideName]]]) -> Found:
        def group(cell: Cell, number: int, names: Sequence[SideName]) -> Group:
            return Group(id=cell.id, specs=tuple(self._spec(name, cell, number, "p") for name in names))

        groups, settings = list(itertools.starmap(group, asked)), self._settings(PAIR_TOKEN_S, math.inf)
        rng = random.Random(f"{self.folder.run_id}/{groups[0].specs[0].id}")
        for place, found in enumerate(run_pairs(groups, settings=settings, rng=rng)):
            yield place, [line for line in found if isinstance(line, Trial)] or found

    def trainings(
        self, asked: Sequence[tuple[Cell, int]], names: Sequence[SideName], within_s: Callable[[], float]
    ) -> Found:
        """Sides trained as by ``train``, of each cell and seed; ``within_s``: what is left for one that begins now."""
        for place, (cell, seed) in enumerate(asked):
            yield place, self.train(cell, seed, names, within_s())

    def train(self, cell: Cell, seed: int, names: Sequence[SideName], within_s: float) -> list[Session | Trial]:
        """Sides trained one after the other, in random order, in deterministic mode.

        One that fails does not keep the other from it: whether the reference fails too is part of the verdict, and so
        are B's floors.

        Args:
            within_s: after so many seconds a training is given up.

        Returns:
            The trials, A's first; empty: given up. A side that failed in time is there, whatever became of the other.
        """
        end_s, known = self.clock() + within_s, []
        for name in random.Random(f"{self.folder.run_id}/{cell.id}/s{seed}").sample(names, len(names)):
            if self.clock() < end_s:
                spec = self._spec(name, cell, seed, "s")
                alike = replace(spec.variant, deterministic=True)
                spec = replace(spec, variant=alike, deterministic_if_possible=not spec.variant.deterministic)
                settings, rng = self._settings(0.0, end_s), random.Random()
                group = Group(id=spec.cell.id, specs=(spec,))
                (trial,) = (one for one in run_group(group, settings=settings, rng=rng) if isinstance(one, Trial))
                if trial.status != "timeout" or self.clock() < end_s:
                    known.append(trial)
        known.sort(key=lambda trial: trial.id)
        return [trial for trial in known if len(known) == len(names) or trial.status != "ok"]

    def _side(self, name: SideName | None) -> Side:
        return self.a if name == "A" else self.b

    def _spec(self, name: SideName, cell: Cell, number: int, kind: str) -> TrialSpec:
        side = self._side(name)
        assert side.matrix is not None
        options = RunOptions(plugin_path=str(side.matrix_path.parent), allow_plugins=self.allow_plugins)
        spec = trial_spec(side.matrix, side.data, options, cell, number)
        return replace(spec, id=f"{cell.id}/{kind}{number}@{name}", side=name, steps_only=kind == "p")

    def _settings(self, budget_s: float, end_s: float) -> Settings:
        """Of a session with so much token time, or of a training (0) that ends at ``end_s`` of the clock."""

        def launch(spec: TrialSpec) -> LocalWorker:
            side = self._side(spec.side)
            assert side.matrix is not None
            timeout_s = min(side.matrix.limits.timeout_seconds, end_s - self.clock())
            log = self.folder.log_path(f"{spec.cell.id}@{side.name}")
            return LocalWorker(spec, log.resolve(), side.environ, timeout_s, self.interrupts, side.root, side.python)

        # A pair ends by its budget alone: to stop at a lucky look would be a choice.
        return Settings(precision=0.0, budget_s=budget_s, launch=launch, observer=self.observer)
