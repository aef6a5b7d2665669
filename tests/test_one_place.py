"""One change, one place: one of each kind of thing is added to a scratch copy of the package; then they are everywhere.

To add a kind: an ``Addition`` in ``ADDITIONS``, and in ``SEEN`` the words that commands then print.
"""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import mnist_bench


class Addition(NamedTuple):
    """``code`` goes to the end of ``place``; ``entry`` below ``line`` of ``file``, ``above`` over that line."""

    line: str
    entry: str
    file: str = "catalogue.py"
    place: str = "__init__.py"
    code: str = ""
    above: str = ""


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
MOON = """
    def moon(material):
        return Plot(title="By the moon", lead="", spec={}, panels=[], missing="It was not seen.")
"""
TIDE = """
    def tide(facts):
        yield info("the tide is high")
"""
FIGURE = """Figure("first_s", "made up s", "s", "lower", lambda one: 1.5, rank=4, slug="made-up"),"""
MODEL = """"linear": Model("models:linear", "one layer", parameters=7_850, flops=(4e4, 2e4)),"""

ADDITIONS = [
    Addition("MODELS = {", MODEL, place="worker/models.py", code=LINEAR),
    Addition("DEVICES = {", '"npu": Device("devices:Npu", "a made-up NPU"),', place="worker/devices.py", code=NPU),
    Addition(
        "EXECUTIONS = {", '"traced": Execution("executions:traced", ""),', place="worker/executions.py", code=TRACED
    ),
    Addition(
        "PIPELINES = {", '"copied": Pipeline("pipelines:copied", "twice"),', place="worker/pipelines.py", code=COPIED
    ),
    Addition("SETS = {", '"letters": replace(_MNIST, title="made-up letters", folder="Letters"),'),
    Addition("FIGURES: tuple[Figure, ...] = (", FIGURE, "figures.py"),
    Addition("PLOTS: Mapping[str, Callable[[Material], Plot]] = {", '"moon": moon,', "report/page.py", above=MOON),
    Addition("CHECKS: Mapping[str, Sequence[Check]] = {", '"sea": (tide,),', "labs/doctor.py", above=TIDE),
]
MATRIX = {"version": 1, "dataset": "synthetic", "epochs": 1, "seeds": 1, "timing": {"budget_seconds": 0}}
MATRIX |= {"models": ["linear"], "devices": ["npu"], "batch_sizes": [20_000]}
MATRIX |= {"variants": [{"name": "one", "execution": "traced"}, {"name": "other", "pipeline": "copied"}]}
SEEN = {
    "list models": ("linear", "7850", "one layer"),
    "list devices": ("npu", "a made-up NPU"),
    "list datasets": ("letters", "made-up letters"),
    "plan matrix.yaml": ("linear", " npu ", " one ", " other "),
    "run matrix.yaml --offline -o results --strict-devices": ("linear", " npu ", " one ", " other ", "made up s"),
    "export --format csv": ("first_s",),
    "export --format bmf": ('"made-up"',),
    "report --output /dev/stdout": ("made up s", "By the moon", "It was not seen."),
    "history --metric first_s": ("made up s", "1.50"),
    "doctor": ("sea\n", "the tide is high"),
}


def test_one_change_one_place(tmp_path, bench_environ):
    copy = tmp_path / "scratch" / "mnist_bench"
    shutil.copytree(Path(mnist_bench.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for addition in ADDITIONS:
        place, file = copy / addition.place, copy / addition.file
        place.write_text(place.read_text() + textwrap.dedent(addition.code))
        before, line = file.read_text(), f"\n{addition.line}\n"
        assert before.count(line) == 1
        file.write_text(before.replace(line, f"\n{textwrap.dedent(addition.above)}{line}    {addition.entry}\n"))
    (tmp_path / "matrix.yaml").write_text(json.dumps(MATRIX))
    environ = bench_environ("one") | {"PYTHONPATH": str(copy.parent), "COLUMNS": "160"}
    for command, words in SEEN.items():
        call = [sys.executable, "-P", "-m", "mnist_bench", *command.split()]
        done = subprocess.run(call, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for word in words:
            assert word in done.stdout, (command, word, done.stdout)
