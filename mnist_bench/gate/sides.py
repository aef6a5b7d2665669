"""The two sides of a check: a tree each with its own matrix, and workers that are proven to import their tree's code.

The proof asks a process that is started as the workers are, before anything is measured: the protocol's number cannot
be asked of a worker (one that speaks another refuses), and an editable install can hand a worker the other side's code
without a word.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from mnist_bench.catalogue import ENTRY_POINT_GROUP, MODELS
from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.records import DataSet, Matrix
from mnist_bench.records import Side as SideName
from mnist_bench.run.process import Interrupts, uninstalled_package
from mnist_bench.run.protocol import PROTOCOL_VERSION
from mnist_bench.table import plain

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
import importlib, importlib.util, json, os, sys

def say(places):
    found = {{"protocol": getattr(protocol, "PROTOCOL_VERSION", None), "places": places}}
    print()
    print("{SIGN}" + json.dumps(found), flush=True)

package = importlib.import_module("mnist_bench")
protocol = importlib.import_module("mnist_bench.run.protocol")
worker = importlib.import_module("mnist_bench.worker")
if hasattr(worker, "__path__"):
    importlib.import_module("mnist_bench.worker.server")
sys.path.insert(0, sys.argv[1])
places = {{"mnist_bench": package.__file__}}
say(places)  # a plug-in may end the process, or not import: its cell will tell
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except BaseException:
        pass
here = os.getcwd() + os.sep
for name, module in list(sys.modules.items()):
    try:
        place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        if "." not in name or place.startswith(here):
            places[name] = place
    except Exception:
        pass  # an object that is no usual module
say(places)
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
    """

    name: SideName
    label: str
    root: Path
    matrix_path: Path
    matrix: Matrix | None
    environ: Mapping[str, str]
    data: DataSet


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
    named = [_absolute(entry, here) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    added = [path for entry in search if entry and (path := _absolute(entry, here)) != here]
    installed = [path for path in added if _inside(path, repository) is not None]
    standing = [here] if here.is_relative_to(repository) else []
    places = [root, *(_moved(entry, repository, root) for entry in [*standing, *named, *installed])]
    if not (root / PACKAGE).is_dir():
        places += map(Path, uninstalled_package())
    return {
        **environ,
        **{variable: str(caches / name) for variable, name in CACHES.items()},
        "PYTHONDONTWRITEBYTECODE": "",  # with a fresh folder for it, each worker would compile all of torch
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(map(str, places))),
    }


def _absolute(entry: str, here: Path) -> Path:
    return Path(os.path.normpath(here / entry))


def _moved(entry: Path, repository: Path, root: Path) -> Path:
    found = _inside(entry, repository)
    return entry if found is None else root / found


def _inside(entry: Path, repository: Path) -> Path | None:
    """An entry from the repository's root, if it lies there as it is named or as its links lead; None: it does not."""
    for known in (entry, entry.resolve()):
        if known.is_relative_to(repository) and not of_python(known, repository):
            return known.relative_to(repository)
    return None


def of_python(path: Path, repository: Path) -> bool:
    """Whether a place in the repository is part of the Python that runs us, not of what is being checked."""
    prefix = Path(sys.prefix).resolve()
    return prefix.is_relative_to(repository) and prefix != repository and path.resolve().is_relative_to(prefix)


# ── the proof ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Imports:
    """``protocol``: the number that the side's worker speaks (None: it names none); ``places``: module -> file.

    Modules are the package, the plug-ins, and whatever was loaded with them: a plug-in of a side's own may import a
    package that an editable install takes from the other's tree.
    """

    protocol: int | None
    places: dict[str, str]


def ask(side: Side, interrupts: Interrupts) -> Imports:
    """Imports a side's package as its workers will.

    Raises:
        BenchError: it cannot be imported; the message ends in the last lines that Python printed.
        Interrupted: the user wants to stop.
    """
    command = [sys.executable, "-c", PROGRAM, str(side.matrix_path.parent), *_plugin_modules(side.matrix)]
    try:
        done = subprocess.run(
            command,
            cwd=side.root,
            env=dict(side.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{side.label}: its package did not import within {SECONDS:g} s") from error
    if interrupts.requested:
        raise Interrupted("interrupted")
    printed = done.stdout.decode("utf-8", "replace").splitlines()
    answers = [json.loads(line.removeprefix(SIGN)) for line in printed if line.startswith(SIGN)]
    if not answers:
        said = [plain(line) for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        words = "\n".join(f"  {line}" for line in said[-LAST_LINES:]) or f"  exited with {done.returncode}"
        raise BenchError(f"{side.label} does not import, so nothing was measured:\n{words}")
    protocol = answers[-1]["protocol"]
    places = {name: place for name, place in answers[-1]["places"].items() if isinstance(place, str)}
    return Imports(protocol=protocol if isinstance(protocol, int) else None, places=places)


def _plugin_modules(matrix: Matrix | None) -> tuple[str, ...]:
    """The modules that the models of a matrix come from, those of entry points too."""
    targets = [] if matrix is None else [entry.model for entry in matrix.models if entry.model not in MODELS]
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)} if targets else {}
    found = (target if ":" in target else installed.get(target, "") for target in targets)
    return tuple(dict.fromkeys(module for module in (each.partition(":")[0] for each in found) if module))


def refuse_the_others_code(side: Side, other: Side, found: Imports) -> None:
    """A side must import its own tree's code, never the other's.

    Raises:
        BenchError: the package comes from elsewhere, though the tree has one.
        UsageError: a module comes from the other side's tree (an editable install, mostly).
    """
    root = side.root.resolve()
    for name, place in found.places.items():
        if _is_the_others(Path(place).resolve(), root, other.root.resolve()):
            raise UsageError(
                f"{side.label} would import {name} from the other side ({place}): an editable install or a "
                f"PYTHONPATH leads there; put its source folder on PYTHONPATH, as in PYTHONPATH=src, which is then "
                "moved into each side's tree"
            )
    package = Path(found.places[PACKAGE]).resolve()
    if (root / PACKAGE / "__init__.py").is_file() and not package.is_relative_to(root):
        raise BenchError(f"{side.label} has a {PACKAGE}/ of its own, but would import {package}")


def _is_the_others(place: Path, own: Path, other: Path) -> bool:
    """Whether a file is of the other's tree: the Python that runs us, or the own tree, may lie in that."""
    nested = own.is_relative_to(other) and place.is_relative_to(own)
    return place.is_relative_to(other) and not nested and not of_python(place, other)


def protocol_difference(a: Imports, b: Imports) -> str:
    """Why workers of these sides cannot be paired; empty: they can.

    Raises:
        UsageError: this program cannot speak with the working tree's own worker.
    """
    if b.protocol != PROTOCOL_VERSION:
        raise UsageError(
            f"the working tree's worker speaks protocol {_number(b.protocol)}, the program that was started "
            f"{PROTOCOL_VERSION}: start the working tree's own, `python -m mnist_bench check` in its root"
        )
    if a.protocol == b.protocol:
        return ""
    return f"protocol version: {_number(a.protocol)} in A, {_number(b.protocol)} in B: their workers cannot be paired"


def _number(protocol: int | None) -> str:
    return "unknown" if protocol is None else str(protocol)
