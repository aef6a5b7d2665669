"""A profile: the verdict over made-up shares; the command; and real workers whose bound is built in."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from group_kit import CALM, FakeWorker, answers
from record_factory import make_cell, make_matrix

from mnist_bench.cli import main
from mnist_bench.errors import UsageError
from mnist_bench.labs import profile
from mnist_bench.records import Variant
from mnist_bench.running import runner
from mnist_bench.running.protocol import Failed, Operator, Prepare, Profile, Profiled, Share, Unavailable

PARTS = {"loader": 0.01, "launch": 0.2, "compute": 0.5, "memory": 0.1}
COMMAND = ["profile", "--models", "mlp,lenet5", "--devices", "cpu,cuda", "--batch-sizes", "100", "--variants", "eager"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Profiles with a made-up worker: the exit code, and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runner, "find_data", lambda *_: runner.MNIST)
    monkeypatch.setattr(profile.noise, "read", lambda pids: CALM)

    def call(*words: str, reply: Any = None, at: type = Profile, **parts: float | None) -> tuple[int, str, str]:
        shares = tuple(Share(bound, share, f"so {bound}") for bound, share in (PARTS | parts).items())
        operators = (Operator("aten::mm", 2.0, 1.5, None), Operator("=1+1", 1.0, 1.0, None))
        script = answers(at, reply or Profiled(step_s=0.01, shares=shares, operators=operators))
        monkeypatch.setattr(profile, "LocalWorker", lambda spec, *_: FakeWorker(spec, script))
        code = main([*COMMAND, "--color", "never", *words])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "compute-bound: products take the time, and they are fast (50 % of a step).\ntry: precision: bf16 or"),
        ({"loader": 0.9}, "loader-bound: steps wait for their batches (90 % of a step).\ntry: pipeline: resident"),
        ({"launch": 0.55}, "whatever the batch (55 % of a step; close behind: compute, 50 %).\ntry: a larger batch"),
        (
            {"compute": 0.29},
            "no verdict: nothing that was measured explains more than 29 % of a step; the operator with the most",
        ),
        ({"compute": None, "memory": 0.3}, "memory-bound: bytes move nearly as fast as in a copy (30 % of a step)."),
    ],
)
def test_the_largest_share_is_the_verdict_if_it_is_large(command, parts, words):
    code, out, _ = command("mlp/cpu", **parts)
    assert code == 0
    assert " ".join(words.split()) in " ".join(out.split())  # whatever the width


def test_compilation_is_held_against_the_training_that_the_matrix_asks_for(command):
    assert profile.compilation(None, 10.0) == Share("compile", None, "nothing is compiled")
    assert profile.compilation(30.0, 10.0) == Share("compile", 0.75, "30.0 s, before 10 s of training")
    shares = [profile.compilation(30.0, 10.0), Share("launch", 0.65, "")]
    verdict = profile.Result(make_cell(), 1.0, shares, (), "", ()).verdict
    assert verdict.endswith("(75 % of compilation and training; close behind: launch, 65 %)")


def test_the_answer_in_every_format(command):
    _, out, _ = command("mlp/cpu/b100/eager")
    assert out.startswith("Profile of mlp/cpu/b100/eager\n")
    assert "\ntrace: results/profiles/mlp+cpu+b100+eager.json (open it in ui.perfetto.dev)\n" in out
    assert json.loads(command("mlp/cpu", "--json")[1])["shares"][0] == {
        "bound": "compute", "share": 0.5, "evidence": "so compute"}  # fmt: skip
    csv = command("model=mlp,device=cpu", "--format", "csv")[1].splitlines()
    assert csv == ["operator,calls,host_ms,device_ms", "aten::mm,2,1.5,", "'=1+1,1,1,"]
    assert "| aten::mm | 2 | 1.50 |" in command("mlp/cpu", "--format", "md")[1]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("lenet/cpu", "CELL: unknown cell 'lenet/cpu' (known: mlp/cpu/b100/eager, mlp/cuda/b100/eager, lenet5/cpu/"),
        ("lenet5", "CELL: 'lenet5' means 2: name one of lenet5/cpu/b100/eager, lenet5/cuda/b100/eager"),
        ("model=lenet", "CELL: unknown cell 'model=lenet' (known: mlp/cpu/b100/eager"),
    ],
)
def test_what_is_no_cell_or_several_is_refused(command, cell, words):
    code, out, err = command(cell)
    assert (code, out) == (2, "")
    assert words in err


def test_what_cannot_be_had_and_what_fails(command):
    told, where = "\nmnist-bench: mlp/cpu/b100/eager: ", " (log: results/profiles)\n"
    missing = Unavailable(scope="device", reason="torch sees no GPU")
    code, out, err = command("mlp/cpu", reply=missing, at=Prepare)
    assert (code, out, err.endswith(f"{told}torch sees no GPU{where}")) == (5, "", True)
    failed = Failed(kind="oom", reason="take fewer images")
    code, out, err = command("mlp/cpu", reply=failed)
    assert (code, out, err.endswith(f"{told}take fewer images{where}")) == (1, "", True)


# ── real workers ─────────────────────────────────────────────────────────────────────────────────────────────────────

MODELS = """
    from torch import nn

    class calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, 10)

        def forward(self, images):
            logits = self.linear(images.flatten(1))
            for _ in range(600):
                logits = logits * 1.001
            return logits

    def linear():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def products():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.Linear(2048, 10))
"""
MATRIX = {"version": 1, "epochs": 1, "seeds": 1, "devices": ["cpu"], "batch_sizes": [256]}
MATRIX |= {"models": ["built:linear", "built:calls", {"model": "built:products", "optimizer": "sgd"}]}
ONE = {"name": "one-thread", "threads": 1}  # two would wait for each other wherever the machine is busy
MATRIX |= {"variants": [ONE, {**ONE, "name": "image-by-image", "pipeline": "torchvision"}]}


@pytest.mark.parametrize(
    ("cell", "bound"),
    [
        ("built.linear/image-by-image", "loader"),
        ("built.calls/one-thread", "launch"),
        ("built.products/one-thread", "compute"),
    ],
)
def test_the_bound_that_is_built_in_is_named(cell, bound, tmp_path, bench_environ):
    (tmp_path / "built.py").write_text(textwrap.dedent(MODELS))
    (tmp_path / "matrix.yaml").write_text(json.dumps(MATRIX))
    words = ["-m", "mnist_bench", "profile", cell, "matrix.yaml", "--allow-plugins", "--offline", "--json"]
    root, environ = str(Path(__file__).parents[2]), bench_environ()
    environ["PYTHONPATH"] = os.pathsep.join([root, environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["bound"] == bound, found["shares"]
    assert json.loads(Path(tmp_path, found["trace"]).read_text("utf-8"))["traceEvents"]


def test_several_processes_are_not_profiled():
    two = make_matrix(variants=(Variant(name="two", processes=2),))
    with pytest.raises(UsageError, match="has several processes, whose steps wait for each other: profile it in one"):
        profile.carry_out(two, make_cell(variant="two"), *(None,) * 3)
