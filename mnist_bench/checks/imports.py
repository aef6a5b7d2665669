"""What a side's workers import: asked of a process that is started as they are, before anything is measured.

The protocol's number cannot be asked of a worker (one that speaks another refuses), and an editable install can hand a
worker the other side's code without a word.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mnist_bench.checks.sides import PACKAGE, Side, of_python, plugin_modules
from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.figures import plain
from mnist_bench.interrupts import Interrupts
from mnist_bench.protocol import PROTOCOL_VERSION

SECONDS = 300.0  # a cold disk takes its time over torch
LAST_LINES = 3
SIGN, LOADED = "mnist-bench imports: ", "mnist-bench loaded: "
# Runs under the reference's code: it may name nothing that an older commit lacks.
PROGRAM = f"""
import importlib, importlib.util, json, os, sys

def say(sign, found):
    print()
    print(sign + json.dumps(found), flush=True)

package = importlib.import_module("{PACKAGE}")
protocol = importlib.import_module("{PACKAGE}.protocol")
importlib.import_module("{PACKAGE}.worker")
if importlib.util.find_spec("{PACKAGE}.serving"):
    importlib.import_module("{PACKAGE}.serving")
sys.path.insert(0, sys.argv[1])
places = {{"{PACKAGE}": package.__file__}}
for name in sys.argv[2:]:
    try:
        places[name] = importlib.util.find_spec(name).origin
    except Exception:
        pass  # the model's own failure: its cell will tell
say("{SIGN}", {{"protocol": getattr(protocol, "PROTOCOL_VERSION", None), "places": places}})
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except BaseException:
        pass
loaded = {{}}
for name, module in list(sys.modules.items()):
    try:
        if "." not in name:
            loaded[name] = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    except Exception:
        pass  # an object that is no usual module
say("{LOADED}", {{name: place for name, place in loaded.items() if isinstance(place, str)}})
os._exit(0)  # whatever threads a model's modules have started
"""


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
    command = [sys.executable, "-c", PROGRAM, str(side.matrix_path.parent), *plugin_modules(side.matrix)]
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
    for line in printed:
        if line.startswith(LOADED):  # missing where a plug-in ended the process: its cell will tell
            for name, place in json.loads(line.removeprefix(LOADED)).items():
                places.setdefault(name, place)
    return Imports(protocol=protocol if isinstance(protocol, int) else None, places=places)


def refuse_the_others_code(side: Side, other: Side, found: Imports) -> None:
    """A side must import its own tree's code, never the other's.

    Raises:
        BenchError: the package comes from elsewhere, though the tree has one.
        UsageError: a module comes from the other side's tree (an editable install, mostly).
    """
    for name, place in found.places.items():
        if _is_the_others(Path(place).resolve(), side.root.resolve(), other.root.resolve()):
            raise UsageError(
                f"{side.label} would import {name} from the other side ({place}): an editable install or a "
                f"PYTHONPATH leads there; put its source folder on PYTHONPATH, as in PYTHONPATH=src, which is then "
                "moved into each side's tree"
            )
    package = Path(found.places[PACKAGE]).resolve()
    if side.has_package and not package.is_relative_to(side.root.resolve()):
        raise BenchError(f"{side.label} has a {PACKAGE}/ of its own, but would import {package}")


def _is_the_others(place: Path, own: Path, other: Path) -> bool:
    """Whether a file is of the other's tree: the Python that runs us, or the own tree, may lie in that."""
    nested = own.is_relative_to(other) and place.is_relative_to(own)
    return place.is_relative_to(other) and not nested and not of_python(place, other)


def protocol_difference(a: Imports, b: Imports) -> str | None:
    """Why workers of these sides cannot be paired; None: they can.

    Raises:
        UsageError: this program cannot speak with the working tree's own worker.
    """
    if b.protocol != PROTOCOL_VERSION:
        raise UsageError(
            f"the working tree's worker speaks protocol {_number(b.protocol)}, the program that was started "
            f"{PROTOCOL_VERSION}: start the working tree's own, `python -m mnist_bench check` in its root"
        )
    if a.protocol == b.protocol:
        return None
    return f"protocol version: {_number(a.protocol)} in A, {_number(b.protocol)} in B: their workers cannot be paired"


def _number(protocol: int | None) -> str:
    return "unknown" if protocol is None else str(protocol)
