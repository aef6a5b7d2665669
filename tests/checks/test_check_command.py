"""``check --against`` as a user runs it, and a check by real workers of two trees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from check_kit import Repo, by_model, clean_environ

from mnist_bench import data
from mnist_bench.cli import build_parser
from mnist_bench.cli import check as cli_check
from mnist_bench.gate import bench as workers
from mnist_bench.gate import conduct, plan, samples
from mnist_bench.gate.bench import CheckObserver
from mnist_bench.records import DataSet, RunOptions
from mnist_bench.run.protocol import PROTOCOL_VERSION
from mnist_bench.run.runner import Options

ROOT = Path(__file__).resolve().parents[2]
MARK = "MNIST_BENCH_TEST_MARK"
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


class Bench:
    """A repository with a model of its own in ``source files/``, which PYTHONPATH names; and runs of the program."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.repo = Repo(folder / "the project")
        self.repo.put("m.yaml", PLUGIN_MATRIX)
        self.repo.put("source files/parts/net.py", MODEL)
        self.set(factor=1)
        self.environ = clean_environ(
            **{name: value for name, value in environ.items() if name.startswith(("XDG", "TMP", "MNIST"))},
            PYTHONPATH=os.pathsep.join([str(self.repo.root / "source files"), str(ROOT)]),
            **{MARK: str(folder)},
        )
        self.cache = Path(environ["XDG_CACHE_HOME"]) / "mnist_bench"

    def set(self, *, factor: int, fragile: bool = False) -> None:
        self.repo.put("source files/parts/__init__.py", f"FACTOR = {factor}\nFRAGILE = {fragile}\n")

    def start(self, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mnist_bench", "check", "--offline", "--no-progress", *flags]
        return subprocess.Popen(
            command,
            cwd=self.repo.root,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *flags: str) -> tuple[int, str, str]:
        process = self.start(*flags)
        out, errors = process.communicate(timeout=240)
        return process.returncode, out, errors

    def alive(self) -> list[int]:
        """Processes that carry this bench's mark."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(MARK) == self.environ[MARK]
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def tidy(self) -> None:
        assert self.alive() == []
        assert self.repo.worktrees() == [str(self.repo.root)]
        trees = self.cache / "worktrees"
        assert not trees.exists() or list(trees.iterdir()) == []

    def check(self) -> Path:
        return (self.repo.root / "results" / "checks" / "latest").resolve()


@pytest.fixture
def bench(tmp_path: Path, bench_environ: Callable[[str], dict[str, str]]) -> Bench:
    return Bench(tmp_path, bench_environ("one"))


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# ── real workers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_trees_are_measured_each_by_its_own_code(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """B does the work of a step many times over, and crashes in its second cell; A does neither."""
    bench.repo.commit()
    bench.set(factor=6, fragile=True)
    monkeypatch.setattr(workers, "PAIR_TOKEN_S", 0.5)
    for module in (conduct, samples):
        monkeypatch.setattr(module, "looks", lambda cells, margins: (1,))  # which decides nothing
    monkeypatch.setattr(conduct, "detectable", lambda *_: 0.1)
    monkeypatch.setenv("PYTHONPATH", bench.environ["PYTHONPATH"])
    request = plan.Request(
        here=bench.repo.root,
        environ=bench.environ,
        against="main",
        options=Options(
            run=RunOptions(allow_plugins=True),
            matrix_path="m.yaml",
            output_dir=bench.repo.root / "results",
            data_root=data.default_root(None, bench.environ),
            offline=True,
        ),
        override=lambda matrix: matrix,
    )
    folder, check = plan.execute(plan.plan(request), CheckObserver())
    good, fragile = (by_model(check)[f"parts.net.{name}"] for name in ("good", "fragile"))
    (pair,) = good.pairs
    assert pair.log_ratio > 0.2, pair
    (seed,) = good.seeds
    assert seed.a.accuracy == seed.b.accuracy > 0.3
    assert seed.a.predictions_sha256 == seed.b.predictions_sha256
    assert fragile.b is not None
    assert (fragile.b.status, fragile.b.reason) == (
        "crashed",
        "exited with 7 in prepare (log: parts.net.fragile+cpu+b2000+single@B.log)",
    )
    assert fragile.a is not None
    assert (fragile.a.status, fragile.pairs) == ("ok", ())
    assert check.b.changed == ("source files/parts/__init__.py",)
    assert sorted(path.name for path in (folder.path / "logs").iterdir()) == sorted(
        f"parts.net.{model}+cpu+b2000+single@{side}.log" for model in ("good", "fragile") for side in "AB"
    )
    bench.tidy()


def test_interrupted_and_resumed(bench: Bench) -> None:
    """By real workers; each of the signals: test_check_plan.py."""
    bench.repo.commit()
    process = bench.start("m.yaml", "--against", "HEAD", "--allow-plugins", "--filter", "model=parts.net.good")
    logs = bench.repo.root / "results" / "checks" / "latest" / "logs"
    assert wait_for(lambda: (logs.is_dir() and any(logs.iterdir())) or process.poll() is not None)
    time.sleep(0.5)  # a worker is at work
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    begin = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert time.monotonic() - begin < 10
    assert f"mnist-bench check --resume {bench.check().name} --allow-plugins" in errors
    bench.tidy()
    code, out, errors = bench.run("--resume", "latest", "--allow-plugins", "--budget", "1s", "--json")
    assert code == 4, errors
    assert "too little for a verdict on every cell: it takes 9 pairs a cell" in errors
    (verdict,) = json.loads((bench.check() / "check.json").read_text())["verdicts"]
    assert verdict["kind"] == "inconclusive"
    assert json.loads(out)
    bench.tidy()


@pytest.mark.parametrize("where", ["its own", "another", "gone"])
def test_a_resumed_check_takes_the_data_that_it_began_with(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless another folder is asked for, or its own has gone."""
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    own.mkdir()
    dataset = DataSet(name="mnist", root=str(tmp_path / "gone" if where == "gone" else own), sha256="0")
    check, run_options = SimpleNamespace(budget_s=60.0), SimpleNamespace(allow_plugins=False)
    manifest = SimpleNamespace(options=run_options, check=check, dataset=dataset)
    monkeypatch.setattr(plan, "find_check", lambda *_: SimpleNamespace(manifest=lambda: manifest))
    monkeypatch.setattr(plan, "plan_again", lambda _folder, request: request)
    monkeypatch.setenv("MNIST_BENCH_DATA", str(elsewhere))
    asked = ["--data-dir", str(elsewhere)] if where == "another" else []
    request = cli_check._resumed(build_parser("check").parse_args(["check", "--resume", "latest", *asked]))
    assert request.options.data_root == (own if where == "its own" else elsewhere)  # type: ignore[attr-defined]
    assert request.budget_s == 60.0  # type: ignore[attr-defined]


# ── refused, or nothing to compare: no worker is started ─────────────────────────────────────────────────────────────


def own_package(bench: Bench, protocol: int, worker: str = "") -> None:
    """A package of the tree's own, which only says what it must."""
    for name, text in {
        "__init__": "",
        "run/__init__": "",
        "run/protocol": f"PROTOCOL_VERSION = {protocol}",
        "worker": worker,
    }.items():
        bench.repo.put(f"mnist_bench/{name}.py", text + "\n")


def installed(bench: Bench) -> None:
    """The program that is run is the installed one, wherever the user stands."""
    bench.environ["PYTHONSAFEPATH"] = "1"


def test_a_reference_that_does_not_import(bench: Bench) -> None:
    installed(bench)
    own_package(bench, PROTOCOL_VERSION, worker="import no_such_module")
    bench.repo.commit()
    own_package(bench, PROTOCOL_VERSION)
    code, out, errors = bench.run("m.yaml", "--against", "main", "--allow-plugins")
    assert (code, out) == (1, "")
    assert "mnist-bench: A (main) does not import, so nothing was measured:" in errors
    assert "ModuleNotFoundError: No module named 'no_such_module'" in errors
    assert not (bench.repo.root / "results").exists()
    bench.tidy()


def test_a_reference_of_another_protocol_is_not_comparable(bench: Bench) -> None:
    installed(bench)
    own_package(bench, 1)
    bench.repo.commit()
    shutil.rmtree(bench.repo.root / "mnist_bench")  # B takes the installed package
    good = ("--filter", "model=parts.net.good")
    code, out, errors = bench.run("m.yaml", "--against", "main", "--allow-plugins", "--format", "csv", *good)
    assert code == 5, errors
    assert f"protocol version: 1 in A, {PROTOCOL_VERSION} in B" in out
    assert "B alone, seed 0 parts.net.good/cpu/b2000/single B: works" in errors
    bench.tidy()


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
    for name, value in bench.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(bench.repo.root)
    assert main(["check", "--offline", *flags]) == 2
    assert REFUSED[flags] in capsys.readouterr().err
    assert not (bench.repo.root / "results").exists()
