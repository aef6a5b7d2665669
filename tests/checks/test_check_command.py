"""``check --against`` as a user runs it, and a check by real workers of two trees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from check_kit import Repo, by_model, clean_environ, package

from mnist_bench import data
from mnist_bench.gate import conduct, plan, samples, sides
from mnist_bench.gate.evidence import SideEvidence
from mnist_bench.gate.sides import CheckObserver
from mnist_bench.records import RunOptions
from mnist_bench.run.protocol import PROTOCOL_VERSION
from mnist_bench.run.runner import Options
from tests.faults import fault_kit
from tests.faults.fault_kit import finish, wait_until

ROOT = Path(__file__).resolve().parents[2]
# One thread: on a machine with other work on it, threads that wait for each other take ten times as long.
PLUGIN_MATRIX = """\
version: 1
epochs: 1
seeds: 1
models: ["parts.net:good", "parts.net:fragile"]
devices: [cpu]
batch_sizes: [2000]
variants: [{name: single, threads: 1}]
"""
# ``factor`` is the work of a step: visible in the time of a step, not in what is computed.
MODEL = """\
import os
from torch import nn
from parts import FACTOR, FRAGILE

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        for _ in range(FACTOR - 1):
            logits = self.linear(images.flatten(1))
        return logits

def good():
    return Net()

def fragile():
    if FRAGILE:
        os._exit(7)
    return Net()
"""


class Bench(fault_kit.Bench):
    """A repository with a model of its own in ``source files/``, which PYTHONPATH names; and checks of it."""

    def __init__(self, folder: Path, environ: Callable[[str], dict[str, str]]) -> None:
        super().__init__(folder, environ)
        self.repo = Repo(folder / "the project")
        self.repo.put("m.yaml", PLUGIN_MATRIX)
        self.repo.put("source files/parts/net.py", MODEL)
        self.set(factor=1)
        self.path = os.pathsep.join([str(self.repo.root / "source files"), str(ROOT)])
        kept = {name: value for name, value in self.environ().items() if not name.startswith("GIT_")}
        self.own = clean_environ(**{**kept, "PYTHONPATH": self.path})

    def set(self, *, factor: int, fragile: bool = False) -> None:
        self.repo.put("source files/parts/__init__.py", f"FACTOR = {factor}\nFRAGILE = {fragile}\n")

    def check(self, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mnist_bench", "check", "--offline", "--no-progress", *flags]
        process = subprocess.Popen(
            command,
            cwd=self.repo.root,
            env=self.own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def tidy(self) -> None:
        assert self.alive() == []
        assert self.repo.worktrees() == [str(self.repo.root)]
        trees = Path(self.own["XDG_CACHE_HOME"]) / "mnist_bench" / "worktrees"
        assert not trees.exists() or list(trees.iterdir()) == []

    @property
    def latest(self) -> Path:
        return self.repo.root / "results" / "checks" / "latest"


@pytest.fixture
def bench(tmp_path: Path, bench_environ: Callable[[str], dict[str, str]]) -> Iterator[Bench]:
    made = Bench(tmp_path, bench_environ)
    yield made
    made.end()
    made.tidy()


# ── real workers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_trees_are_measured_each_by_its_own_code(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """B does the work of a step many times over, and crashes in its second cell; A does neither."""
    bench.repo.commit()
    bench.set(factor=6, fragile=True)
    monkeypatch.setattr(sides, "PAIR_TOKEN_S", 0.5)
    for module in (conduct, samples):
        monkeypatch.setattr(module, "looks", lambda cells, margins: (1,))  # which decides nothing
    monkeypatch.setattr(conduct, "detectable", lambda *_: 0.1)
    monkeypatch.setenv("PYTHONPATH", bench.path)
    request = plan.Request(
        here=bench.repo.root,
        environ=bench.own,
        against="main",
        options=Options(
            run=RunOptions(allow_plugins=True),
            matrix_path="m.yaml",
            output_dir=bench.repo.root / "results",
            data_root=data.default_root(None, bench.own),
            offline=True,
        ),
        override=lambda matrix: matrix,
    )
    folder, check = plan.Plan(request).execute(CheckObserver())
    good, fragile = (by_model(check)[f"parts.net.{name}"] for name in ("good", "fragile"))
    (pair,), (seed,) = good.pairs, good.seeds
    assert pair.log_ratio > 0.2, pair
    assert seed.a == seed.b
    assert seed.a.accuracy > 0.3
    log = "parts.net.fragile+cpu+b2000+single@B.log"
    failed = SideEvidence(status="crashed", reason=f"exited with 7 in prepare (log: {log})")
    assert (fragile.a, fragile.b, fragile.pairs) == (SideEvidence(), failed, ())
    assert check.b.changed == ("source files/parts/__init__.py",)
    assert log in [path.name for path in (folder.path / "logs").iterdir()]


def test_interrupted_and_resumed(bench: Bench) -> None:
    """By real workers; each of the signals: test_check_plan.py."""
    bench.repo.commit()
    process = bench.check("m.yaml", "--against", "HEAD", "--allow-plugins", "--filter", "model=parts.net.good")
    logs = bench.latest / "logs"
    assert wait_until(lambda: (logs.is_dir() and any(logs.iterdir())) or process.poll() is not None)
    time.sleep(0.5)  # a worker is at work
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    done = finish(process)
    assert done.returncode == 130, done
    assert f"mnist-bench check --resume {bench.latest.resolve().name} --allow-plugins" in done.stderr
    bench.tidy()
    done = finish(bench.check("--resume", "latest", "--allow-plugins", "--budget", "1s", "--json"))
    assert done.returncode == 4, done
    assert "too little for a verdict on every cell: it takes 9 pairs a cell" in done.stderr
    (verdict,) = json.loads((bench.latest / "check.json").read_text())["verdicts"]
    assert verdict["kind"] == "inconclusive"
    assert json.loads(done.stdout)


# ── refused, or nothing to compare: no worker is started ─────────────────────────────────────────────────────────────


def own_package(bench: Bench, **texts: str) -> None:
    """The tree has a package of its own; the program that is run is the installed one."""
    bench.own["PYTHONSAFEPATH"] = "1"
    package(bench.repo.root, **texts)


def test_a_reference_that_does_not_import(bench: Bench) -> None:
    own_package(bench, worker="import no_such_module")
    bench.repo.commit()
    own_package(bench)
    done = finish(bench.check("m.yaml", "--against", "main", "--allow-plugins"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "mnist-bench: A (main) does not import, so nothing was measured:" in done.stderr
    assert "ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
    assert not bench.latest.parents[1].exists()


def test_a_reference_of_another_protocol_is_not_comparable(bench: Bench) -> None:
    own_package(bench, run_protocol="PROTOCOL_VERSION = 1")
    bench.repo.commit()
    shutil.rmtree(bench.repo.root / "mnist_bench")  # B takes the installed package
    good = ("--filter", "model=parts.net.good", "--format", "csv")
    done = finish(bench.check("m.yaml", "--against", "main", "--allow-plugins", *good))
    assert done.returncode == 5, done
    assert f"protocol version: 1 in A, {PROTOCOL_VERSION} in B" in done.stdout
    assert "B alone, seed 0 parts.net.good/cpu/b2000/single B: works" in " ".join(done.stderr.split())


REFUSED = {  # without a repository: tests/golden/stored/check-refused.txt
    ("m.yaml", "--against", "nope", "--allow-plugins"): "--against nope: no commit, branch or tag of that name",
    ("m.yaml", "--against", "main"): "m.yaml:4:10: models[0]: ",
    ("nothing.yaml", "--against", "main"): "nothing.yaml:1:1: no such file",
}


@pytest.mark.parametrize("flags", REFUSED, ids=" ".join)
def test_refused(
    flags: tuple[str, ...], bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mnist_bench.cli import main

    bench.repo.commit()
    for name, value in bench.own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(bench.repo.root)
    assert main(["check", "--offline", *flags]) == 2
    assert REFUSED[flags] in capsys.readouterr().err
    assert not bench.latest.parents[1].exists()
