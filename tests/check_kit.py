"""Repositories made for a test, and a check whose measurements are made up."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_epochs, make_manifest, make_measurement, make_session, make_trial

from mnist_bench import config
from mnist_bench.cells import expand
from mnist_bench.disk.folder import RunFolder
from mnist_bench.gate import conduct
from mnist_bench.gate.conduct import measure
from mnist_bench.gate.evidence import CellEvidence, Check
from mnist_bench.gate.judge import judge
from mnist_bench.gate.sides import CheckObserver, Found, Side
from mnist_bench.records import Cell, DataSet, Failure, Matrix, Outcome, Peaks, Session, Sides, Tree, Trial
from mnist_bench.running.protocol import PROTOCOL_VERSION

MATRIX = """\
version: 1
epochs: 1
seeds: 2
models: [mlp, lenet5]
devices: [cpu]
batch_sizes: [100]
variants: [eager]
"""
IDENTITY = {
    **{f"GIT_{who}_{what}": "a@tester" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "file",  # a submodule of a test is a folder
}


def clean_environ(**more: str) -> dict[str, str]:
    """The environment without what a hook of git, or a user's settings, would put into it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, **IDENTITY, **more}


def put(root: Path, name: str, text: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(folder: Path, name: str, script: str) -> None:
    """A stand-in for a program, for who has the folder ``bin`` on the path."""
    put(folder, f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)


def package(root: Path, **texts: str) -> Path:
    """A package of the tree's own, which only says what it must; ``texts`` by module."""
    usual = {"__init__": "", "run/__init__": "", "run_protocol": f"PROTOCOL_VERSION = {PROTOCOL_VERSION}", "worker": ""}
    for name, text in {**usual, **texts}.items():
        put(root, f"mnist_bench/{name.replace('run_', 'run/')}.py", text + "\n")
    return root


class Repo:
    """A git repository, and whatever is put into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str) -> str:
        command, environ = ["git", *words], clean_environ()
        done = subprocess.run(command, cwd=self.root, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def put(self, name: str, text: str = "") -> Path:
        return put(self.root, name, text)

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a change")
        return self.git("rev-parse", "HEAD")

    def worktrees(self) -> list[str]:
        listed = self.git("worktree", "list", "--porcelain").splitlines()
        return [line.removeprefix("worktree ") for line in listed if line.startswith("worktree ")]


# ── a check whose measurements are made up ───────────────────────────────────────────────────────────────────────────

CRASH = Failure(kind="crashed", reason="it fell over")
DATA = DataSet(name="mnist", root="/nowhere", sha256="0" * 64)


def parse(text: str = MATRIX) -> Matrix:
    return config.parse(text, source="m.yaml", allow_plugins=True)


def side(name: str, matrix: Matrix | None, root: Path = Path("/nowhere"), **environ: str) -> Side:
    return Side(
        name=name, label=name, root=root, matrix_path=root / "m.yaml", matrix=matrix, environ=environ, data=DATA
    )


def trial(which: Cell, seed: int, name: str, found: Outcome | float = 0.95) -> Trial:
    """``found``: the outcome, or the accuracy of one."""
    if isinstance(found, float):
        predictions = hashlib.sha256(str(found).encode()).hexdigest()
        found = make_measurement(epochs=make_epochs([1.0], [found]), awake_s=5.0, predictions_sha256=predictions)
    return make_trial(which, seed, found, id=f"{which.id}/s{seed}@{name}", side=name)


@dataclass(kw_only=True)
class FakeBench:
    """A pair takes 10 s of a clock of its own, a training 5; what is found is what the test says.

    Args:
        slower: ln of B's seconds / A's of a pair; or an outcome of B, or an error.
        accuracy: of a side's training; or an outcome.
        grown: B's peak memory / A's of a pair.
        together: so many pairs may live at once; how many were asked for at once is in ``batches``.
    """

    pair_s: float = 10.0
    train_s: float = 5.0
    now: float = 0.0
    folder: Any = None
    observer: Any = None
    together: int = 1
    lanes: int = 1
    node: str = ""
    done: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    slower: Callable[[Cell, int], float | Outcome | BaseException] = lambda which, number: 0.0
    grown: Callable[[Cell, int], float] = lambda which, number: 1.0
    accuracy: Callable[[Cell, int, str], float | Outcome] = lambda which, seed, side: 0.95

    def clock(self) -> float:
        return self.now

    def abreast(self) -> int:
        return self.together

    def pairs(self, asked: Sequence[tuple[Cell, int]]) -> Found:
        self.batches.append(len(asked))
        for place, (which, number) in enumerate(asked):
            yield place, self.pair(which, number)

    def trainings(
        self, asked: Sequence[tuple[Cell, int]], names: Sequence[str], within_s: Callable[[], float]
    ) -> Found:
        for place, (which, seed) in enumerate(asked):
            yield place, self.train(which, seed, names, within_s())

    def pair(self, which: Cell, number: int) -> list[Session | Trial]:
        self._spend(f"{which.model} pair {number}", self.pair_s)
        found = self.slower(which, number)
        if isinstance(found, BaseException):
            raise found
        if not isinstance(found, float):
            return [trial(which, number, "B", found)]
        ratio = 2.718281828 ** (found + 0.001 * number * (-1) ** number)  # no two alike
        ids = [f"{which.id}/p{number}@{name}" for name in "AB"]
        sizes = zip(ids, (1.0, self.grown(which, number) + 0.001 * number), strict=True)
        peaks = {name: Peaks(host_bytes=int(size * 2**29), device_bytes=None) for name, size in sizes}
        return [make_session(ids, [[10.0, 10.0 * ratio]], group=which.id, seconds=self.pair_s, peaks=peaks)]

    def train(self, which: Cell, seed: int, names: Sequence[str], within_s: float) -> list[Session | Trial]:
        takes_s = self.train_s * len(names)
        self._spend(f"{which.model} {'seed' if len(names) > 1 else 'solo'} {seed}", min(takes_s, within_s))
        if takes_s > within_s:
            return []
        return [trial(which, seed, name, self.accuracy(which, seed, name)) for name in names]

    def _spend(self, what: str, seconds: float) -> None:
        self.now += seconds
        self.done.append(what)

    def count(self, what: str) -> int:
        return sum(what in line for line in self.done)


class Told(CheckObserver):
    """What was told, as tuples: its kind and its words."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def notice(self, text: str, *, warning: bool = False) -> None:
        self._events.append(("warning" if warning else "info", text))

    def working(self, now: str, left_s: float, budget_s: float) -> None:
        self._events.append(("working", now))


class Scene:
    """A check of two matrices in a folder; its cells cost what ``FakeBench`` says, and are guessed to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, before: str | None = MATRIX, after: str = MATRIX):
        self.bench, self.events = FakeBench(), []  # type: FakeBench, list[Any]
        self.guess = 1.0  # of the true seconds
        self.a, self.b = None if before is None else parse(before), parse(after)
        cells = dict.fromkeys((*expand(self.b), *(expand(self.a) if self.a else ())))
        tree = Tree(label="main", commit="a" * 40)
        check = Sides(a=tree, b=tree, matrix=self.a, cells=tuple(cells), budget_s=0.0)
        manifest = make_manifest(matrix=self.b, order=(), check=check, status="running", dataset=DATA)
        self.folder = RunFolder.create(folder / f"checks{len(list(folder.iterdir()))}", manifest)
        monkeypatch.setattr(conduct, "trial_s", self._guessed)

    def _guessed(self, which: Cell, matrix: Matrix, epochs: int, cores: int, data: DataSet) -> float:
        true_s = self.bench.train_s if epochs else (self.bench.pair_s - 2 * conduct.PAIR_TOKEN_S) / 1.5
        return self.guess * true_s

    def run(self, budget_s: float = 10_000.0) -> Check:
        self.events.clear()
        self.bench.folder, self.bench.observer = self.folder, Told(self.events)
        return measure(self.bench, budget_s, self.bench.now)

    @property
    def said(self) -> list[str]:
        return [text for kind, text, *_ in self.events if kind in ("info", "warning")]


def by_model(check: Check) -> dict[str, CellEvidence]:
    return {one.cell.model: one for one in check.cells}


def kinds(check: Check) -> dict[str, str]:
    return {verdict.cell.model: verdict.kind for verdict in judge(check)}
