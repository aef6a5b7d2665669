"""What packages each side declares that it needs, and an environment of its own that holds them.

Both sides of a check share the environment that runs it: a change of what is required would not be measured at all.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.running.process import Interrupts
from mnist_bench.table import listed, plain

PROJECT = "pyproject.toml"
LOCKS = ("uv.lock", "poetry.lock")
FILES = (PROJECT, "requirements*.txt", "constraints*.txt", *LOCKS)
OWN_SOURCES = ("editable", "virtual", "directory")  # of a lock's entry: the project itself, or a part of it
MOST_NAMED = 4
LAST_LINES = 3

Files = Mapping[PurePosixPath, str]


def differences(a: Files, b: Files) -> str:
    """Which files require other packages on each side, and what only one of them requires; empty: none does."""
    sides = [{path: declared(path.name, text) for path, text in files.items()} for files in (a, b)]
    apart = [path for path in sorted({*a, *b}) if len({each.get(path, frozenset()) for each in sides}) > 1]
    if not apart:
        return ""
    before, after = ({item for path in apart for item in each.get(path, ())} for each in sides)
    named = ((name, sorted(map(plain, only))) for name, only in (("A", before - after), ("B", after - before)))
    words = "; ".join(f"{name} alone requires {listed(only, MOST_NAMED)}" for name, only in named if only)
    return f"{listed([plain(str(path)) for path in apart])}: the sides require other packages ({words or 'moved'})"


def declared(name: str, text: str) -> frozenset[str]:
    """What a file of that name requires, each in one spelling; a file that cannot be read, its text."""
    try:
        found = _of_toml(name, tomllib.loads(text)) if name == PROJECT or name in LOCKS else _of_lines(text)
        return frozenset(found)
    except (ValueError, TypeError, AttributeError, KeyError):
        return frozenset([text])


def _of_toml(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    if name != PROJECT:
        for one in found.get("package", ()):
            if not set(OWN_SOURCES) & set(one.get("source", ())):
                yield f"{one['name']}=={one.get('version', 'unknown')}"
        return
    project = found.get("project", {})
    yield from map(_spelt, project.get("dependencies", ()))
    for kind in (project.get("optional-dependencies", {}), found.get("dependency-groups", {})):
        for group, items in kind.items():
            yield from (f"{_spelt(item) if isinstance(item, str) else item} [{group}]" for item in items)


def _of_lines(text: str) -> Iterator[str]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in re.sub(r"\\\r?\n", " ", text).splitlines())
    yield from (_spelt(line) for line in lines if line)


def _spelt(text: str) -> str:
    """A requirement in one spelling; what is none (``-r base.txt``) stays."""
    try:
        one = Requirement(text)
    except InvalidRequirement:
        return " ".join(text.split())
    one.name = canonicalize_name(one.name)
    return str(one)


# ── an environment of a side's own ───────────────────────────────────────────────────────────────────────────────────


def build(label: str, folders: Sequence[Path], place: Path, environ: Mapping[str, str], interrupts: Interrupts) -> None:
    """Makes the environment ``place`` with what a tree requires, but not the project itself.

    With uv, of the ``uv.lock`` of the tree's root where there is one; else of the dependencies of ``pyproject.toml``
    and of ``requirements.txt``, within ``constraints.txt``, of each of the folders.

    Args:
        label: what the user calls the side.
        folders: of its tree, the root first.

    Raises:
        UsageError: a broken ``pyproject.toml``.
        BenchError: a package cannot be had; the message ends in the last lines that the tool printed.
        Interrupted: the user wants to stop.
    """
    root, *_ = folders
    python, uv = str(python_of(place)), shutil.which("uv", path=environ.get("PATH"))
    venv = [uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    wanted = [*_wanted(folders)]
    commands = [[*venv, str(place)], [*install, *wanted]]
    if uv and (root / "uv.lock").is_file():
        commands[1] = [uv, "sync", "--frozen", "--no-install-project"]
    for command in commands[: 1 + bool(wanted)]:
        done = subprocess.run(
            command,
            cwd=root,
            env={**environ, "UV_PROJECT_ENVIRONMENT": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if interrupts.requested:
            raise Interrupted("interrupted")
        if done.returncode:
            said = [plain(line) for line in done.stdout.splitlines() if line.strip()][-LAST_LINES:]
            tool = " ".join([Path(command[0]).name, *command[1:3]])
            words = "\n".join(f"  {line}" for line in said)
            raise BenchError(
                f"{label}: its packages cannot be installed, {tool} exited with {done.returncode}:\n{words}"
            )


def python_of(place: Path) -> Path:
    """The interpreter of an environment."""
    return place / "bin" / "python"


def installed(a: Path, b: Path) -> Iterator[str]:
    """The packages whose versions differ between two environments, in words."""
    before, after = ({one.name: one.version for one in distributions(path=_site(place))} for place in (a, b))
    for name in sorted({*before, *after}, key=str.lower):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'not')} in A, {after.get(name, 'not')} in B"


def _site(place: Path) -> list[str]:
    return [str(path) for path in place.glob("lib/python*/site-packages")]


def _wanted(folders: Sequence[Path]) -> Iterator[str]:
    """The words that name it all to ``pip install``."""
    for folder in folders:
        if (project := folder / PROJECT).is_file():
            try:
                found = tomllib.loads(project.read_text("utf-8"))
            except ValueError as error:
                raise UsageError(f"{project}: {error}") from error
            yield from found.get("project", {}).get("dependencies", ())
        for flag, name in (("-r", "requirements.txt"), ("-c", "constraints.txt")):
            if (folder / name).is_file():
                yield from (flag, str(folder / name))
