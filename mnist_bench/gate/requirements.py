"""What packages each side declares that it needs, and an environment of its own that holds them.

Both sides of a check share the environment that runs it: a change of what is required would not be measured at all.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mnist_bench.errors import BenchError, UsageError
from mnist_bench.gate.sides import Side, executed
from mnist_bench.running.process import Interrupts
from mnist_bench.table import listed, plain

PROJECT = "pyproject.toml"
FILES = (PROJECT, "requirements*.txt", "constraints*.txt", "uv.lock", "poetry.lock")
OWN_SOURCES = {"editable", "virtual", "directory"}  # of a lock's entry: the project itself, or a part of it
MOST_NAMED = 4


class Project(msgspec.Struct, rename="kebab"):
    """The table ``[project]``."""

    dependencies: list[str] = []
    optional_dependencies: dict[str, list[str]] = {}


class Locked(msgspec.Struct):
    """What a lock file says of one package."""

    name: str
    version: str = "unknown"
    source: dict[str, Any] = {}


class Declared(msgspec.Struct, rename="kebab"):
    """What ``pyproject.toml`` and lock files say of packages."""

    project: Project = msgspec.field(default_factory=Project)
    dependency_groups: dict[str, list[Any]] = {}
    package: list[Locked] = []


def differences(a: Mapping[PurePosixPath, str], b: Mapping[PurePosixPath, str]) -> str:
    """What the files of only one side require, and which files; empty: the sides require the same."""
    before, after = ({f"{one} ({path})" for path, text in files.items() for one in _items(text)} for files in (a, b))
    return f"the sides require other packages: {found}" if (found := _apart(before, after, "requires")) else ""


def _apart(a: set[str], b: set[str], verb: str) -> str:
    named = ((name, sorted(map(plain, only))) for name, only in (("A", a - b), ("B", b - a)))
    return "; ".join(f"{name} alone {verb} {listed(only, MOST_NAMED)}" for name, only in named if only)


def _items(text: str) -> Iterator[str]:
    """What a file requires, each in one spelling; of one that is no TOML, that is each line."""
    try:
        found = msgspec.toml.decode(text, type=Declared)
    except ValueError:
        lines = re.sub(r"\\\n|(^|\s)#.*", " ", text).splitlines()
        yield from (_spelt(line) for line in lines if line.strip())
        return
    yield from map(_spelt, found.project.dependencies)
    for group, items in (*found.project.optional_dependencies.items(), *found.dependency_groups.items()):
        yield from (f"{_spelt(str(item))} [{group}]" for item in items)
    yield from (f"{one.name}=={one.version}" for one in found.package if not OWN_SOURCES & set(one.source))


def _spelt(text: str) -> str:
    """A requirement in one spelling; what is none (``-r base.txt``) stays."""
    try:
        one = Requirement(text)
    except InvalidRequirement:
        return " ".join(text.split())
    one.name = canonicalize_name(one.name)
    return str(one)


# ── an environment of a side's own ───────────────────────────────────────────────────────────────────────────────────


def with_own(
    side: Side, folders: Sequence[PurePosixPath], place: Path, environ: Mapping[str, str], interrupts: Interrupts
) -> Side:
    """The side with an environment of its own, ``place``, of what its tree requires, but not the project itself.

    With uv, of the ``uv.lock`` of the tree's root where there is one; else of the dependencies of ``pyproject.toml``
    and of ``requirements.txt``, within ``constraints.txt``, of each of the folders.

    Raises:
        UsageError: a broken ``pyproject.toml``.
        BenchError: a package cannot be had; the message ends in the last lines that the tool printed.
        Interrupted: the user wants to stop.
    """
    side, uv = replace(side, own=place), shutil.which("uv", path=environ.get("PATH"))
    pip = [sys.executable, "-m", "pip", "--python", side.python, "install"]
    venv = [uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv", "--without-pip"]
    install = [uv, "pip", "install", "--python", side.python] if uv else pip
    install += [word for folder in folders for word in _wanted(side.root / folder)]
    if uv and (side.root / "uv.lock").is_file():
        install = [uv, "sync", "--frozen", "--no-install-project"]
    for command in ([*venv, str(place)], install):
        done, said = executed(command, side.root, {**environ, "UV_PROJECT_ENVIRONMENT": str(place)}, interrupts)
        if done.returncode:
            raise BenchError(f"{side.label}: its packages cannot be installed, by {' '.join(command[:3])} ...:\n{said}")
    return side


def _wanted(folder: Path) -> Iterator[str]:
    """The words that name what a folder wants to ``pip install``."""
    if (project := folder / PROJECT).is_file():
        try:
            yield from msgspec.toml.decode(project.read_bytes(), type=Declared).project.dependencies
        except ValueError as error:
            raise UsageError(f"{project}: {error}") from error
    for flag, name in (("-r", "requirements.txt"), ("-c", "constraints.txt")):
        if (folder / name).is_file():
            yield from (flag, str(folder / name))


def installed(a: Path | None, b: Path | None) -> str:
    """The packages that only one of two environments has."""
    sites = ([str(path) for path in place.glob("lib/python*/site-packages")] for place in (a, b) if place)
    before, after = ({f"{one.name}=={one.version}" for one in distributions(path=site)} for site in sites)
    return _apart(before, after, "has") or "the same versions in both"
