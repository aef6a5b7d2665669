"""The long proofs on real training: run by hand with ``make bars``, on a quiet machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from race_kit import rates

pytestmark = [pytest.mark.bars, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
needs_mnist = pytest.mark.skipif(
    not os.environ.get("MNIST_BENCH_DATA"), reason="set MNIST_BENCH_DATA to a folder with the real MNIST"
)


MATRIX = {"version": 1, "devices": ["cpu"], "batch_sizes": [100], "variants": ["eager"], "seeds": 1}


def rows_of(folder: Path, *flags: str, **changes: Any) -> list[dict[str, Any]]:
    """Runs a matrix through the command line; the rows of its JSON document, by what is seen of all that train."""
    file = folder / "matrix.yaml"
    file.write_text(json.dumps(MATRIX | changes))
    command = [sys.executable, "-m", "mnist_bench", "run", str(file), "-o", str(folder / "results"), "--json", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    for row in rows:
        assert row["status"] == "ok", row["reason"]
    return rows


@needs_mnist
@pytest.mark.parametrize(
    ("recipe", "seeds", "accuracies"),
    [
        ("standard", 3, {"mlp": (0.88, 1), "cnn": (0.975, 1), "lenet5": (0.975, 1)}),
        ("tutorial", 1, {"lenet5": (0.92, 0.94)}),
    ],
)
def test_a_recipe_learns_what_it_should(recipe, seeds, accuracies, tmp_path):
    asked = {"dataset": "mnist", "recipe": recipe, "epochs": 2, "seeds": seeds, "models": list(accuracies)}
    rows = rows_of(tmp_path, **asked, timing={"budget_seconds": 3})
    print({row["model"]: row["test_accuracy"] for row in rows})
    assert len(rows) == len(accuracies)
    for row in rows:
        low, high = accuracies[row["model"]]
        assert low <= row["test_accuracy"] <= high
        assert (row["recipe"], row["seeds"]) == (recipe, seeds)
        assert row["epoch_s"] * row["train_samples_per_s"] == pytest.approx(60_000, rel=0.01)


@needs_mnist
@pytest.mark.timeout(5400)
def test_the_tutorial_is_reproduced_within_an_hour_interrupted_once(tmp_path):
    """Three seeds, all models, both cnn rates: final accuracies within 1 pp of the published for mlp and lenet5."""
    command = [sys.executable, "-m", "mnist_bench", "reproduce", "-o", str(tmp_path / "results"), "--json"]
    began = time.monotonic()
    words = [*command, "--seeds", "3"]
    first = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        first.send_signal(signal.SIGINT)
    first.communicate()
    assert first.returncode == 130
    resumed = [*command, "--resume", "latest"]
    done = subprocess.run(resumed, cwd=ROOT, capture_output=True, text=True, check=False)
    minutes = (time.monotonic() - began) / 60
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(f"{minutes:.1f} min", json.dumps(result["verdicts"], indent=1), result["cnn_rate"], sep="\n")
    assert minutes < 60
    assert all(verdict["seeds"] == 3 for verdict in result["verdicts"])
    off = {verdict["model"]: abs(verdict["difference_pp"]) for verdict in result["verdicts"]}
    assert off["mlp"] <= 1.0
    assert off["lenet5"] <= 1.0
    assert result["cnn_rate"]
    assert len(result["errata"]) == 4


def test_ragged_tails_compile_before_they_are_timed(tmp_path):
    """Batch sizes 64 and 512: a recompilation inside a timed span would fail the trial; traces equal eager's."""
    every = {
        "models": ["mlp", "cnn", "lenet5"],
        "batch_sizes": [64, 512],
        "variants": ["eager", "compile", "compile-step"],
    }
    rows = rows_of(tmp_path, "--offline", **every, epochs=1, timing={"budget_seconds": 2})
    assert len(rows) == 18
    for row in rows:
        assert row["class"] == "A", row["doubts"]
        assert (row["compile_s"] is not None) == (row["variant"] != "eager")


@pytest.mark.parametrize("mnist", [False, True], ids=["synthetic", "mnist"])
def test_two_commands_do_everything_in_a_fresh_clone(tmp_path, mnist):
    """``make run`` from nothing: every CPU cell ok, every CUDA cell skipped with a reason (where there is no GPU)."""
    if mnist and not os.environ.get("MNIST_BENCH_DATA"):
        pytest.skip("set MNIST_BENCH_DATA to a folder with the real MNIST")
    clone = tmp_path / "mnist_bench"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environ = {k: v for k, v in os.environ.items() if k not in ("MNIST_BENCH_DATA", "VIRTUAL_ENV", "PYTHONPATH")}
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    flags = [f"ARGS=--data-dir {os.environ['MNIST_BENCH_DATA']}"] if mnist else []
    done = subprocess.run(["make", "run", *flags], cwd=clone, env=environ, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    document = json.loads((clone / "results" / "latest" / "results.json").read_text())
    assert document["dataset"]["name"] == ("mnist" if mnist else "synthetic")
    assert len(document["rows"]) == 24
    for row in document["rows"]:
        if row["device"] == "cpu":
            assert row["status"] == "ok", row
        else:
            assert row["status"] in ("ok", "skipped")
            assert row["status"] == "ok" or row["reason"]


@pytest.mark.parametrize("sd", [0.015, 0.025, 0.04])
def test_the_rates_of_a_race(sd):
    """4,000 draws of nine cells (docs/measurement.md, "A race")."""
    found = rates(sd, 4000)
    print(sd, found)
    assert found.kept >= 0.95
    assert found.dropped >= 0.95
    assert found.time <= 0.6
