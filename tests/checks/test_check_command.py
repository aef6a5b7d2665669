"""``check --against`` as a user runs it, by real workers of two trees."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from check_kit import Repo, by_model, clean_environ

from mnist_bench.cli import main
from mnist_bench.gate import conduct, outputs, samples, sides
from mnist_bench.gate.evidence import SideEvidence
from mnist_bench.running.process import LocalWorker
from tests.faults import fault_kit

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

class Net(nn.Linear):
    def forward(self, images):
        for _ in range(FACTOR):
            logits = super().forward(images.flatten(1))
        return logits

def good():
    return Net(784, 10)

def fragile():
    if FRAGILE:
        os._exit(7)
    return good()
"""


class Bench(fault_kit.Bench):
    """A repository with a model of its own in ``source files/``, which PYTHONPATH names."""

    def __init__(self, folder: Path, environ: Callable[[str], dict[str, str]]) -> None:
        super().__init__(folder, environ)
        self.repo = Repo(folder / "the project")
        self.repo.put("m.yaml", PLUGIN_MATRIX)
        self.repo.put("source files/parts/net.py", MODEL)
        self.set(factor=1)
        path = os.pathsep.join([str(self.repo.root / "source files"), str(ROOT)])
        self.own = clean_environ(**self.environ(PYTHONPATH=path))

    def set(self, *, factor: int, fragile: bool = False) -> None:
        self.repo.put("source files/parts/__init__.py", f"FACTOR = {factor}\nFRAGILE = {fragile}\n")

    def tidy(self) -> None:
        assert self.alive() == []
        assert self.repo.worktrees() == [str(self.repo.root)]
        trees = Path(self.own["XDG_CACHE_HOME"]) / "mnist_bench" / "worktrees"
        assert not trees.exists() or list(trees.iterdir()) == []


@pytest.fixture
def bench(tmp_path, bench_environ, monkeypatch):
    """One pair is the only look, which decides nothing."""
    made = Bench(tmp_path, bench_environ)
    for name, value in made.own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(made.repo.root)
    monkeypatch.setattr(sides, "PAIR_TOKEN_S", 0.5)
    for module in (conduct, samples):
        monkeypatch.setattr(module, "looks", lambda cells, margins: {1: 0.001})
    monkeypatch.setattr(conduct, "detectable", lambda *_: 0.1)
    yield made
    made.end()
    made.tidy()


class InterruptedWorker(LocalWorker):
    """The user presses Ctrl-C when B's has started."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.spec.side == "B":
            os.kill(os.getpid(), signal.SIGINT)


def test_two_trees_are_measured_each_by_its_own_code_over_two_sittings(bench, monkeypatch, capsys):
    """B does the work of a step many times over, and crashes in its second cell; A does neither."""

    def check(*words: str) -> tuple[int, str]:
        return main(["check", "--offline", "--no-progress", *words]), capsys.readouterr().err

    bench.repo.commit()
    bench.set(factor=6, fragile=True)
    code, err = check("m.yaml", "--against", "main")
    assert (code, "m.yaml:4:10: models[0]: " in err) == (2, True)
    results = bench.repo.root / "results" / "checks"
    assert not results.exists()
    with monkeypatch.context() as patch:
        patch.setattr(sides, "LocalWorker", InterruptedWorker)
        code, err = check("m.yaml", "--against", "main", "--allow-plugins")
    latest = (results / "latest").resolve()
    assert (code, f"mnist-bench check --resume {latest.name} --allow-plugins" in err) == (130, True)
    bench.tidy()
    assert check("--resume", "latest", "--allow-plugins")[0] == 3
    found, verdicts = outputs.decode((latest / "check.json").read_bytes())
    assert sorted(one.kind for one in verdicts) == ["failed", "inconclusive"]
    good, fragile = (by_model(found)[f"parts.net.{name}"] for name in ("good", "fragile"))
    (pair,), (seed,) = good.pairs, good.seeds
    assert pair.log_ratio > 0.2, pair
    (peaks,) = pair.peaks.items()
    assert (peaks[0], all(100 < peak < 4000 for peak in peaks[1])) == ("host_peak_mib", True)
    assert seed.a == seed.b
    assert seed.a.accuracy > 0.3
    log = "parts.net.fragile+cpu+b2000+single@B.log"
    failed = SideEvidence(status="crashed", reason=f"exited with 7 in prepare (log: {log})")
    assert (fragile.a, fragile.b, fragile.pairs) == (SideEvidence(), failed, ())
    assert found.b.changed == ("source files/parts/__init__.py",)
    assert log in [path.name for path in (latest / "logs").iterdir()]
