"""One change, one place: each kind of thing is added to a scratch copy of the package, and then it is everywhere.

A row says what is written and what must then be seen: to add one, an ``Addition`` in ``ADDITIONS``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import mnist_bench

MATRIX = {"version": 1, "dataset": "synthetic", "epochs": 1, "seeds": 1, "timing": {"budget_seconds": 0}}
MATRIX |= {"models": ["mlp"], "devices": ["cpu"], "batch_sizes": [20_000], "variants": ["eager"]}
RUN = ("run", "matrix.yaml", "--offline", "-o", "results", "--strict-devices")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What is written into the package, and what its commands then print.

    Args:
        file: that of the entry. line: the line that the entry follows.
        code: added to a file's end. above: code that the entry's line follows.
        matrix: what changes in the matrix that the commands are given.
        seen: a command, words of what it prints.
    """

    file: str = "catalogue.py"
    line: str
    entry: str
    code: tuple[str, str] = ("__init__.py", "")
    above: str = ""
    matrix: dict[str, object] = field(default_factory=dict)
    seen: dict[tuple[str, ...], tuple[str, ...]]


NPU = """
    class Npu(Cpu):
        def describe(self) -> str:
            return "made-up NPU"
"""
LINEAR = """
    def linear() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""
TRACED = """
    def traced(model, optimizer, variant, device):
        return eager(model, optimizer, variant, device)
"""
COPIED = """
    def copied(spec, training, device):
        return resident(spec, training, device)
"""
FIGURE = """Figure("first_s", "made up s", "s", "lower", lambda one: 1.5, rank=4, slug="made-up"),"""
MOON = """
    def moon(material):
        return Plot(title="By the moon", lead="", spec={}, panels=[], missing="It was not seen.")
"""
TIDE = """
    def tide(facts):
        yield info("the tide is high")
"""
PLAN, SCHEMA = ("plan", "matrix.yaml"), ("schema",)

MINE = {"variants": [{"name": "mine", "execution": "traced"}]}, {"variants": [{"name": "mine", "pipeline": "copied"}]}
LIST_MODELS, LIST_DEVICES, PAGE = ("list", "models"), ("list", "devices"), ("report", "--output", "/dev/stdout")

ADDITIONS = {
    "model": Addition(
        code=("worker/models.py", LINEAR),
        line="MODELS = {",
        entry='"linear": Model("models:linear", "one layer", parameters=7_850, flops=(4e4, 2e4)),',
        matrix={"models": ["linear"]},
        seen={
            LIST_MODELS: ("linear", "7850", "one layer"),
            SCHEMA: ('"linear"',),
            PLAN: ("linear",),
            RUN: ("linear",),
        },
    ),
    "device": Addition(
        code=("worker/devices.py", NPU),
        line="DEVICES = {",
        entry='"npu": Device("devices:Npu", "a made-up NPU"),',
        matrix={"devices": ["npu"]},
        seen={LIST_DEVICES: ("npu", "a made-up NPU"), SCHEMA: ("npu|cpu",), PLAN: (" npu ",), RUN: (" npu ",)},
    ),
    "execution": Addition(
        code=("worker/executions.py", TRACED),
        line="EXECUTIONS = {",
        entry='"traced": Execution("executions:traced", "made up"),',
        matrix=MINE[0],
        seen={SCHEMA: ('"traced"',), PLAN: (" mine ",), RUN: (" mine ",)},
    ),
    "pipeline": Addition(
        code=("worker/pipelines.py", COPIED),
        line="PIPELINES = {",
        entry='"copied": Pipeline("pipelines:copied", "made up"),',
        matrix=MINE[1],
        seen={SCHEMA: ("made up", '"copied"'), PLAN: (" mine ",), RUN: (" mine ",)},
    ),
    "figure": Addition(
        file="figures.py",
        line="FIGURES: tuple[Figure, ...] = (",
        entry=FIGURE,
        seen={
            RUN: ("made up s",),
            ("export", "--format", "csv"): ("first_s",),
            ("export", "--format", "bmf"): ('"made-up"',),
            PAGE: ("made up s",),
            ("history", "--metric", "first_s"): ("made up s", "1.50"),
        },
    ),
    "plot": Addition(
        file="report/page.py",
        above=MOON,
        line="PLOTS: Mapping[str, Callable[[Material], Plot]] = {",
        entry='"moon": moon,',
        seen={RUN: ("mlp ",), PAGE: ("By the moon", "It was not seen.")},
    ),
    "check of doctor": Addition(
        file="labs/doctor.py",
        above=TIDE,
        line="CHECKS: Mapping[str, Sequence[Check]] = {",
        entry='"sea": (tide,),',
        seen={("doctor",): ("sea\n", "the tide is high")},
    ),
}


def added(before: str, addition: Addition) -> str:
    assert before.count(f"\n{addition.line}\n") == 1
    above = textwrap.dedent(addition.above)
    return before.replace(f"\n{addition.line}\n", f"\n{above}{addition.line}\n    {addition.entry}\n")


@pytest.mark.parametrize("kind", ADDITIONS)
def test_one_change_one_place(kind: str, tmp_path: Path, bench_environ: Callable[[str], dict[str, str]]) -> None:
    addition, copy = ADDITIONS[kind], tmp_path / "scratch" / "mnist_bench"
    shutil.copytree(Path(mnist_bench.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    name, code = addition.code
    for file, text in (
        (copy / name, (copy / name).read_text() + textwrap.dedent(code)),
        (copy / addition.file, added((copy / addition.file).read_text(), addition)),
    ):
        file.write_text(text)
    (tmp_path / "matrix.yaml").write_text(json.dumps(MATRIX | addition.matrix))
    environ = bench_environ("one") | {"PYTHONPATH": str(copy.parent), "COLUMNS": "160"}
    for command, words in addition.seen.items():
        call = [sys.executable, "-P", "-m", "mnist_bench", *command]
        done = subprocess.run(call, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for word in words:
            assert word in done.stdout, (command, word, done.stdout)
