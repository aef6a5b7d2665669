"""``make gpu``: where there is none it says so; its page, of made-up answers, and of a CPU in a GPU's place."""

import importlib
import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mnist_bench import config
from mnist_bench.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("gpu")


def machine(missing: str | None) -> str:
    cuda = {"name": "cuda:0", "missing": missing, "description": "NVIDIA L4"}
    torch = {"devices": [{"name": "cpu", "missing": None}, cuda], "version": "2.13.0", "cuda": "13.0"}
    environment = dict.fromkeys(("commit", "cpu", "cores", "platform", "python"), "known")
    return json.dumps({"torch": torch, "environment": environment | {"details": {"nvidia_driver": "580.1"}}})


def test_without_a_gpu_nothing_is_written(gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "call", lambda *_: CompletedProcess([], 0, machine("torch sees no GPU")))
    assert gpu.main(["--output", str(tmp_path / "page.md")]) == 2
    assert capsys.readouterr().err == "make gpu: cuda cannot be used here: torch sees no GPU\n"
    assert [*tmp_path.iterdir()] == []


def test_a_page_has_every_part_and_says_what_failed(gpu, monkeypatch, tmp_path):
    called: list[str] = []

    def call(code: str, words: Any) -> Any:
        called.append(" ".join([*(["slowed"] if code == gpu.SLOWING else []), words[0]]))
        return CompletedProcess(
            [], int(words[0] == "race"), machine(None) if words[0] == "doctor" else "# Of it\n\n| a |"
        )

    monkeypatch.setattr(gpu, "call", call)
    assert gpu.main(["--output", str(tmp_path / "page.md")]) == 1
    assert called == ["doctor", "pytest", "run", "race", "slowed selftest", *["profile"] * 3]
    page = (tmp_path / "page.md").read_text("utf-8")
    for words in ("| device | cuda: NVIDIA L4 |", "| driver | 580.1 |", "| CUDA | 13.0 |", "| date | 20"):
        assert words in page
    assert page.count("### Of it\n") == 6
    assert page.count("It ended with exit code 1.") == 1
    assert "`mnist-bench profile lenet5/cuda/b100/eager benchmarks.yaml --devices cuda -o results --format md`" in page


def test_its_commands_are_those_of_the_program(gpu, monkeypatch):
    args = gpu.options([])
    for _, code, words in gpu.steps(args, config.load(ROOT / args.matrix, allow_plugins=False)):
        if code:
            build_parser(words[0]).parse_args(words)
    assert gpu.call(gpu.SLOWING, ["selftest", "--help"]).returncode == 0


def test_a_cpu_in_its_place_fills_a_page(gpu, monkeypatch, tmp_path, bench_environ):
    text = "version: 1\nepochs: 1\nseeds: 1\ntiming: {budget_seconds: 0}\nmodels: [mlp]\ndevices: [cpu]\n"
    (tmp_path / "tiny.yaml").write_text(text + "batch_sizes: [10000]\nvariants: [eager]\n")
    for name, value in bench_environ().items():
        monkeypatch.setenv(name, value)
    own = ["--device", "cpu", "--matrix", str(tmp_path / "tiny.yaml"), "--steps", "run,profile"]
    assert gpu.main([*own, "--output", str(tmp_path / "page.md"), "-o", str(tmp_path / "results")]) == 0
    page = (tmp_path / "page.md").read_text("utf-8")
    assert "\n| mlp | cpu | " in page
    assert "### Profile of mlp/cpu/b10000/eager\n" in page
