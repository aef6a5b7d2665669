"""Every command prints and writes what is stored, over runs that are made; ``python -m tests.golden`` stores it anew.

A transcript is its own case: its lines that begin with ``$`` are called one after the other, in a folder that
``make.py`` has filled. A new case is a file with such lines.
"""

import difflib
import importlib.metadata
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from make import build
from normal import normal, page
from record_factory import make_manifest

from mnist_bench.cli import main
from mnist_bench.labs.facts import Diagnosis

STORED = Path(__file__).parent / "stored"
CALL = re.compile(r"^\$ (.*?)mnist-bench (.*)$", re.MULTILINE)
# Of the environment: some stand before a command.
SETTINGS = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "CI", "NO_COLOR", "FORCE_COLOR", "MNIST_BENCH_DATA")
INSIDE = {"manifest.json", "trials.jsonl", "sessions.jsonl", "check.json", "baseline.json"}
MOST_TWICE = 200  # characters: what is longer stands once in a transcript


VERSION = importlib.metadata.version
MACHINE = {"torch": {"version": "2.13.0"}, "noise": {"spread": 1.02}, "twins": None}
FACTS = SimpleNamespace(environment=make_manifest().environment, **MACHINE)
LONG = "slow " * 30
FOUND = [
    Diagnosis("ok", "torch 2.13.0 (no CUDA)", group="software", check="torch"),
    Diagnosis("error", "a driver is here, but torch has no CUDA", "pip install torch", group="software", check="cuda"),
    Diagnosis(
        "info", "the governor is powersave", "cpupower frequency-set -g performance", group="noise", check="governor"
    ),
    Diagnosis("warning", f"the kernel's clock is hpet: {LONG}", "boot with tsc=reliable", group="noise", check="clock"),
]


# What a machine would answer, and what takes seconds.
ANSWERS = {
    "importlib.metadata.version": lambda name: "2.13.0" if name == "torch" else VERSION(name),
    "shutil.which": lambda name, **_: f"/usr/bin/{name}",
    "mnist_bench.machine.environment.available_cores": lambda: 2,
    "mnist_bench.labs.facts.look": lambda *_, **__: FACTS,
    "mnist_bench.labs.doctor.diagnose": lambda _: FOUND,
    "mnist_bench.data.synthetic.SIZES": (40, 20),
    "mnist_bench.data.verify": lambda *_: None,
    "mnist_bench.report.making_script": lambda: nullcontext(str),
    "mnist_bench.report.vega.images": lambda *_: {"svg": b"", "png": b""},
}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return build(tmp_path_factory.mktemp("golden"))


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of all that is made, on a machine that is always the same."""
    for target, answer in ANSWERS.items():
        monkeypatch.setattr(target, answer)
    for name in (*SETTINGS, "CUDA_VISIBLE_DEVICES", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.mark.parametrize("name", sorted(path.stem for path in STORED.glob("*.txt")))
def test_every_command_prints_and_writes_what_is_stored(name, place, capsys):
    stored = STORED / f"{name}.txt"
    expected = stored.read_text()
    parts: list[str] = []
    for settings, command in CALL.findall(expected):
        for part in called(settings, command, place, capsys):
            text = normal(part, place, place.parent)
            parts.append("(as above)" if len(text) > MOST_TWICE and text in parts else text)
    found = "\n".join(line.rstrip() for line in "\n".join(parts).splitlines()) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        stored.write_text(found)
    elif found != expected:
        lines = list(difflib.unified_diff(expected.splitlines(), found.splitlines(), "stored", "now", lineterm=""))
        why = f"{len(lines)} lines of difference; on purpose? `python -m tests.golden`, and look at the diff"
        pytest.fail("\n".join([*lines[:200], why]), pytrace=False)


def called(settings: str, command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """A call and its exit code, stdout, stderr, and every file that it wrote."""
    before = stamps(place)
    with pytest.MonkeyPatch.context() as patch:
        for setting in ("COLUMNS=100", *settings.split()):
            patch.setenv(*setting.split("="))
        try:
            code: object = main(shlex.split(command))
        except SystemExit as error:  # argparse's
            code = error.code
    out, err = capsys.readouterr()
    yield f"$ {settings}mnist-bench {command}"
    yield from (out, *(["--- stderr", err] if err else []), f"--- exit code {code}")
    for path, stamp in sorted(stamps(place).items()):
        if stamp != before.get(path) and path.name not in INSIDE and path.parent.name not in ("samples", "logs"):
            yield f"--- wrote {path.relative_to(place)}"
            yield written(path)


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*") if path.is_file()}


def written(path: Path) -> str:
    match path.suffix:
        case ".png":
            return "an image"
        case "":
            return f"{path.stat().st_size} bytes"
        case ".html":
            return page(path.read_text())
        case ".parquet":
            frame = pd.read_parquet(path)
            return f"{frame.dtypes.to_csv()}\n{frame.to_csv()}"
        case _:
            return path.read_text("utf-8", "replace")
