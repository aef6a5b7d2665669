"""The tour is walked: every command of docs/tour.md, in order, in a bash of its own on a terminal of its own.

Nothing is installed: a ``.venv`` gets a handful of scripts that lead to the Python of these tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from test_docs import Command, commands

ROOT = Path(__file__).resolve().parent.parent
TOUR = (ROOT / "docs" / "tour.md").read_text("utf-8")
ADDRESS = "https://ADDRESS"
LONG = "make run"
FIRST = "mnist-bench run --models lenet5 --batch-sizes 100 --devices cpu --epochs 1"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PROMPT = r"\[(\d+)\]tour> "
FINISHED_TRIAL = r"ok +(\x1b\[[0-9;]*m)*my_model"
COMMAND_TIMEOUT_S = 240
LONG_TIMEOUT_S = 3600
# Nothing is downloaded: what is not here is drawn.
OFFLINE = {"MNIST_BENCH_MIRROR": "http://127.0.0.1:9/", "NO_PROXY": "127.0.0.1"}
TERMINAL = {"GIT_CONFIG_COUNT": "1", "PS1": "[$?]tour> ", "PS2": "", "TERM": "xterm", "NO_COLOR": "1"}
# What one machine's screen shows and another's does not: processor, noise, data set, columns that do not fit.
NOISE = {"noisy", "the", "machine", "was", "disturbed", "while", "this", "measured"}
COMES_AND_GOES = NOISE | {"amd", "epyc", "core", "cores", "mnist", "synthetic", "data", "step", "epoch"}
needs_terminal = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("git") is None or not (ROOT / ".git").exists(),
    reason="needs bash, git and a checkout",
)
pytestmark = [needs_terminal, pytest.mark.usefixtures("one_core")]


@pytest.fixture
def walker(tmp_path, bench_environ):
    walker = Walker(tmp_path, bench_environ("tour"))
    yield walker
    walker.bash.close(force=True)


class Walker:
    """A bash in ``folder`` for which ``https://ADDRESS`` is the working tree as it stands, committed."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        origin = commit_of_working_tree(folder / "origin")
        address = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{origin}.insteadOf",
            "GIT_CONFIG_VALUE_0": ADDRESS,
        }
        self.bash = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile", "--noediting", "-i"],
            cwd=str(folder),
            env={**environ, **OFFLINE, **address, **TERMINAL},
            dimensions=(40, 100),
            encoding="utf-8",
        )
        self.bash.expect(PROMPT)

    def walk(self, command: Command) -> tuple[int, str]:
        """Types a command, and Ctrl-C after the first finished trial where the tour does; its exit code and screen."""
        if command.text.startswith("pip install"):  # tests/test_install.py does
            lay_program(self._folder / ".venv" / "bin", "mnist-bench", "-m mnist_bench")
            return 0, ""
        self.bash.timeout = LONG_TIMEOUT_S if command.text == LONG else COMMAND_TIMEOUT_S
        self.bash.sendline(command.text)
        before = ""
        if command.interrupted:
            self.bash.expect(FINISHED_TRIAL)
            before = self.bash.before + self.bash.after
            self.bash.sendintr()
        self.bash.expect(PROMPT)
        if command.text.startswith("git clone"):
            lay_venv(self._folder / "mnist_bench")
        return int(self.bash.match[1]), ESCAPES.sub("", before + self.bash.before)


def commit_of_working_tree(target: Path) -> Path:
    """A repository that holds the files of the working tree, changed and new ones too."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    own = ["-c", "user.name=tour", "-c", "user.email=tour@localhost", "-c", "core.hooksPath=/dev/null"]
    for words in (["init", "--quiet"], ["add", "--all"], [*own, "commit", "--quiet", "-m", "the working tree"]):
        subprocess.run(["git", *words], cwd=target, check=True, capture_output=True)
    return target


def lay_venv(clone: Path) -> None:
    """What ``make run`` would have installed; younger than pyproject.toml, so that make installs nothing."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    lay_program(clone / ".venv" / "bin", "python", "")
    (clone / ".venv" / "installed").touch()


def lay_program(folder: Path, name: str, words: str) -> None:
    """A script that leads to the Python of these tests."""
    (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
    (folder / name).chmod(0o755)


def exit_code(step: int, walked: list[Command]) -> int:
    """0, unless the tour goes on with ``echo $?`` and shows another."""
    after = walked[step + 1] if step + 1 < len(walked) else None
    return int(after.screen[0]) if after is not None and after.text == "echo $?" else 0


def words(text: str) -> set[str]:
    """Words that are the same on every machine: no figures, answers, ids of runs, nothing that the terminal cut off."""
    text = re.sub(r"^[\w.]+: (dataloader|batch)\b.*(\n  \S.*)*", "", text.replace("\r", ""), flags=re.MULTILINE)
    return set(re.findall(r"(?<![\w…])[a-z][a-z_-]{2,}(?![\w…])", text.lower())) - COMES_AND_GOES


def walk(walker: Walker, walked: list[Command]) -> dict[str, str]:
    screens: dict[str, str] = {}
    for number, command in enumerate(walked):
        code, screen = walker.walk(command)
        assert code == exit_code(number, walked), f"{command.text}: {screen}"
        if not command.interrupted and command.text != LONG:  # which trial is the first is chance
            missing = words("\n".join(command.screen)) - words(screen)
            assert not missing, f"{command.text}: the tour shows {sorted(missing)}, the screen is {screen}"
        screens[command.text] = screen
    return screens


@pytest.mark.timeout(900)
def test_the_tour_can_be_walked(walker, tmp_path):
    screens = walk(walker, [command for command in commands(TOUR) if command.text != LONG])
    for answering in (FIRST, "mnist-bench compare"):
        assert re.search(r"^lenet5: compile: .+ eager .+ batch 100", screens[answering], re.MULTILINE)
    assert "report.html" in screens["mnist-bench report"]
    resumed = screens["mnist-bench run --resume latest --allow-plugins"]
    found = re.search(r"(\d+) trials, (\d+) of them finished before", resumed)
    assert found is not None
    assert 0 < int(found[2]) < int(found[1])
    results = tmp_path / "results"
    rows = (results / "latest" / "results.csv").read_text("utf-8").splitlines()[1:]
    assert len(rows) == int(found[1])
    assert all(",ok," in row for row in rows)


@pytest.mark.bars
@pytest.mark.timeout(7200)
def test_the_whole_tour_can_be_walked(walker):
    walk(walker, commands(TOUR))
