"""Repositories made for a test, and a check whose measurements are made up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mnist_bench.checks.events import CheckEvent, OutOfTime
from mnist_bench.checks.rules import Rules
from mnist_bench.gate.records import (
    AccuracyFinding,
    CellEvidence,
    Decision,
    ProcessPair,
    SeedPair,
    SideFault,
    Solo,
    SpeedFinding,
    Training,
)
from mnist_bench.records import Cell, Failure, Round
from mnist_bench.stats import Interval

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
    "GIT_AUTHOR_NAME": "A Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "A Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "protocol.file.allow",  # a submodule of a test is a folder
    "GIT_CONFIG_VALUE_0": "always",
}


def clean_environ(**more: str) -> dict[str, str]:
    """The environment without what a hook of git, or a user's settings, would put into it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, **IDENTITY, **more}


class Repo:
    """A git repository with a matrix in it, and whatever else is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.root, env=clean_environ(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, **files: str) -> None:
        """Files by name; ``__`` stands for a slash, a name without a dot is a Python file."""
        for name, text in files.items():
            path = self.root / name.replace("__", "/")
            path = path if "." in path.name else path.with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def put(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, words: str = "a change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", words)
        return self.git("rev-parse", "HEAD")

    def worktrees(self) -> list[str]:
        listed = self.git("worktree", "list", "--porcelain").splitlines()
        return [line.removeprefix("worktree ") for line in listed if line.startswith("worktree ")]


# ── a check whose measurements are made up ───────────────────────────────────────────────────────────────────────────


def cell(model: str = "mlp") -> Cell:
    return Cell(model=model, device="cpu", batch_size=100, variant="eager")


def process_pair(number: int, log_ratio: float = 0.0) -> ProcessPair:
    one = Round(order=(0, 1), steps=(10, 10), seconds=(0.1, 0.1))
    return ProcessPair(number=number, log_ratio=log_ratio, rounds=(one,))


def training(accuracy: float = 0.95, predictions: str = "f" * 64) -> Training:
    return Training(
        accuracy=accuracy,
        images=10_000,
        predictions_sha256=predictions,
        device_name="a CPU",
        compile_s=None,
        time_to_first_step_s=1.0,
        train_samples_per_s=1000.0,
        eval_samples_per_s=2000.0,
        host_peak_bytes=1 << 30,
        device_peak_bytes=None,
    )


def seed_pair(seed: int, *, same: bool = True) -> SeedPair:
    return SeedPair(seed=seed, a=training(), b=training(predictions=("f" if same else "e") * 64))


CRASH = SideFault(side="B", outcome=Failure(kind="crashed", reason="it fell over"))


@dataclass(kw_only=True)
class FakeBench:
    """Everything takes ``seconds`` of a clock of its own; what is found is what the test says (None: the usual)."""

    seconds: float = 10.0
    now: float = 0.0
    done: list[str] = field(default_factory=list)
    pairs: Callable[[Cell, int], ProcessPair | tuple[SideFault, ...] | BaseException | None] = lambda cell, number: None
    seeds: Callable[[Cell, int], SeedPair | tuple[SideFault | Solo, ...] | None] = lambda cell, seed: None
    solos: Callable[[Cell, int], tuple[SideFault | Solo, ...] | None] = lambda cell, seed: None
    trains_s: float | None = None  # None: as ``seconds``

    def clock(self) -> float:
        return self.now

    def pair(self, cell: Cell, number: int) -> ProcessPair | tuple[SideFault, ...]:
        self._spend(f"{cell.model} pair {number}")
        found = self.pairs(cell, number)
        if isinstance(found, BaseException):
            raise found
        return process_pair(number) if found is None else found

    def seed(self, cell: Cell, seed: int, within_s: float) -> SeedPair | tuple[SideFault | Solo, ...] | OutOfTime:
        if not self._train(f"{cell.model} seed {seed}", within_s):
            return OutOfTime()
        found = self.seeds(cell, seed)
        return seed_pair(seed) if found is None else found

    def solo(self, cell: Cell, seed: int, within_s: float) -> tuple[SideFault | Solo, ...] | OutOfTime:
        if not self._train(f"{cell.model} solo {seed}", within_s):
            return OutOfTime()
        found = self.solos(cell, seed)
        return (Solo(seed=seed, b=training()),) if found is None else found

    def _train(self, what: str, within_s: float) -> bool:
        takes_s = self.seconds if self.trains_s is None else self.trains_s
        self._spend(what, min(takes_s, within_s))
        return takes_s <= within_s

    def _spend(self, what: str, seconds: float | None = None) -> None:
        self.now += self.seconds if seconds is None else seconds
        self.done.append(what)

    def count(self, what: str) -> int:
        return sum(what in line for line in self.done)


def speed_finding(decision: Decision, pairs: int, next_look: int | None) -> SpeedFinding:
    return SpeedFinding(
        decision=decision,
        ratio=Interval(1.0),
        pairs=pairs,
        p_slower=1.0,
        p_within=1.0,
        alpha=0.01,
        next_look=next_look,
    )


def made_up_rules(
    looks: tuple[int, ...] = (3, 5, 8),
    *,
    decisions: Mapping[int, Decision] | None = None,
    detectable: Callable[[int, float], float] = lambda pairs, sd: 0.08,
) -> Rules:
    """Judges that decide at a look what ``decisions`` says of it; a pair above 0.5 fails, equal seeds pass.

    Four seeds that differ pass, or fail where all of them are worse by 0.01.
    """
    known = {looks[0]: "pass"} if decisions is None else decisions

    def speed(pairs: Sequence[ProcessPair]) -> SpeedFinding | None:
        if not pairs:
            return None
        reached = [look for look in looks if look <= len(pairs)]
        for look in reached:
            slow = any(pair.log_ratio > 0.5 for pair in pairs[:look])
            decision: Decision = "fail" if slow else known.get(look, "undecided")  # type: ignore[assignment]
            if decision != "undecided":
                return speed_finding(decision, look, None)
        return speed_finding("undecided", len(pairs), next((look for look in looks if look > len(pairs)), None))

    def accuracy(seeds: Sequence[SeedPair], floor: float | None) -> AccuracyFinding | None:
        if not seeds:
            return None
        identical = sum(seed.a.predictions_sha256 == seed.b.predictions_sha256 for seed in seeds)
        worse = all(seed.a.accuracy - seed.b.accuracy > 0.01 for seed in seeds)
        failed = (floor is not None and seeds[-1].b.accuracy < floor) or (worse and len(seeds) >= 4)
        passed = identical == len(seeds) or len(seeds) >= 4
        return AccuracyFinding(
            decision="fail" if failed else "pass" if passed else "undecided",
            a=0.95,
            b=0.95,
            change=Interval(-0.02, -0.03, -0.01) if worse else Interval(0.0),
            seeds=len(seeds),
            identical=identical,
            more_seeds=0 if failed or passed else 4 - len(seeds),
        )

    return Rules(looks=looks, speed=speed, accuracy=accuracy, detectable=detectable)


def evidence(*models: str, **changes: object) -> tuple[CellEvidence, ...]:
    return tuple(CellEvidence(cell=cell(model), **changes) for model in models)  # type: ignore[arg-type]


def of_kind(events: Sequence[CheckEvent], kind: type) -> list[CheckEvent]:
    return [event for event in events if isinstance(event, kind)]
