"""Runs of the real program in folders of their own, each process marked, and what is left behind when they end."""

import contextlib
import json
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from mnist_bench.disk.folder import RunFolder

STATUS = {"measurement": "ok", "skip": "skipped"}
MARK = "MNIST_BENCH_TEST_MARK"
PATIENCE_S = 600.0  # what takes longer hangs, however busy the machine is

GOOD = """
from torch import nn

def good():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""

MATRIX = """
version: 1
dataset: auto
epochs: 1
seeds: 1
models: {models}
devices: [cpu]
batch_sizes: [20000]
variants: {variants}
timing: {{budget_seconds: 0.5}}
limits: {{timeout_seconds: 300, memory_gib: 2}}
{more}
"""


class Bench:
    """A matrix with its plug-ins, and the results of the runs of it. ``environ``: what makes a named environment."""

    def __init__(self, folder: Path, environ: Callable[[str], dict[str, str]]) -> None:
        self.folder, self.results = folder, folder / "results"
        self._environ = environ
        self.mark = uuid.uuid4().hex
        self._started: list[subprocess.Popen[str]] = []

    def write(self, plugin: str, models: list[str], *, variants: str = "[eager]", more: str = "") -> None:
        (self.folder / "faulty.py").write_text(textwrap.dedent(GOOD) + textwrap.dedent(plugin))
        names = "[" + ", ".join(f'"faulty:{name}"' for name in models) + "]"
        text = MATRIX.format(models=names, variants=variants, more=textwrap.dedent(more))
        (self.folder / "matrix.yaml").write_text(text)

    def environ(self, name: str = "one", **more: str) -> dict[str, str]:
        return {**self._environ(name), MARK: self.mark, "COLUMNS": "200", **more}

    def start(self, *flags: str, environ: dict[str, str] | None = None, command: str = "run") -> subprocess.Popen[str]:
        """Starts a command, ``run`` or ``check``, with ``flags`` on this matrix (``--resume``: on its own)."""
        matrix = [] if "--resume" in flags else [str(self.folder / "matrix.yaml")]
        common = ["--allow-plugins", "--offline", "-o", str(self.results)]
        words = [sys.executable, "-m", "mnist_bench", command, *matrix, *common, *flags]
        place = {"cwd": self.folder, "env": environ or self.environ(), "start_new_session": True}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(words, **place, **pipes)
        self._started.append(process)
        return process

    def run(self, *flags: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return finish(self.start(*flags, environ=environ))

    def end(self) -> None:
        """Whatever a failed test has left; the workers end with their runners."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    # ── what stands on disk ──────────────────────────────────────────────────────────────────────────────────────

    def runs(self) -> list[Path]:
        found = [path.parent for path in self.results.glob("[!.]*/manifest.json")]
        return sorted(path for path in found if not path.is_symlink())

    def manifest(self) -> dict[str, Any]:
        (run,) = self.runs()
        return json.loads((run / "manifest.json").read_text())

    def trials(self, run: Path | None = None) -> list[dict[str, Any]]:
        """Every line of ``trials.jsonl`` with its status; a torn last line (no newline) is left out, as readers do."""
        return [
            {**trial, "status": STATUS.get(trial["outcome"]["type"]) or trial["outcome"]["kind"]}
            for trial in lines((run or self.runs()[-1]) / "trials.jsonl")
        ]

    def log(self, trial: dict[str, Any]) -> str:
        """What the worker of a trial printed."""
        return RunFolder(self.runs()[0]).log_path(trial["id"]).read_text(errors="replace")

    def by_model(self) -> dict[str, dict[str, Any]]:
        """Trials by model, or model/variant where the variant is not eager."""
        found = {}
        for trial in self.trials():
            variant = trial["cell"]["variant"]
            name = trial["cell"]["model"].removeprefix("faulty.") + ("" if variant == "eager" else f"/{variant}")
            assert name not in found, f"{name} is there twice"
            found[name] = trial
        return found

    def left_in_temp(self) -> list[str]:
        return sorted(path.name for path in Path(self._environ("one")["TMPDIR"]).iterdir())

    def left_in_results(self) -> list[str]:
        """Half-written files in the runs."""
        return [str(path) for run in self.runs() for path in run.rglob("*.tmp")]

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────

    def alive(self) -> list[str]:
        """The processes that carry this bench's mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        return found

    def all_gone(self) -> bool:
        return wait_until(lambda: not self.alive(), 60.0)  # far less than a worker lives of itself


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
