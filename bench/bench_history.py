"""``history`` over 10,000 trials: 100 runs of 25 cells and 4 seeds. pytest-benchmark; ``make bench``."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.bench_harness import make_manifest, make_matrix, make_session, make_trial
from mnist_bench import cells as matrices
from mnist_bench import history_db
from mnist_bench.records import ModelEntry, encode

RUNS = 100
MATRIX = replace(
    make_matrix(batch_sizes=5, variants=5, seeds=4),
    models=(ModelEntry(name="lenet5", model="lenet5"),),
    devices=("cpu",),
)


def write_run(folder: Path, number: int, rng: random.Random) -> None:
    """A finished run, its lines written at one go (each by itself would be synced to the disk)."""
    groups = matrices.groups(matrices.expand(MATRIX), MATRIX.seeds)
    trials = [make_trial(cell, seed, rng) for _, members in groups for cell, seed in members]
    started_at = f"2026-{number // 28 + 1:02}-{number % 28 + 1:02}T00:00:00Z"
    manifest = replace(
        make_manifest(MATRIX, [trial.id for trial in trials]),
        run_id=folder.name,
        status="complete",
        started_at=started_at,
    )
    (folder / "samples").mkdir(parents=True)
    (folder / "manifest.json").write_bytes(encode(manifest, indent=2))
    lines = {
        "trials.jsonl": trials,
        "sessions.jsonl": [make_session(group, rng) for group in groups],
    }
    for name, records in lines.items():
        (folder / name).write_bytes(b"".join(map(encode, records)))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("results"), random.Random(0)
    for number in range(RUNS):
        write_run(folder / f"20260101T{number:06}Z-aaaaaa", number, rng)
    return folder


def query(results: Path, *words: str) -> str:
    """The whole command, from process start to exit."""
    command = [sys.executable, "-m", "mnist_bench", "history", "-o", str(results), *words]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_index_10000_trials(benchmark: Any, results: Path) -> None:
    """From nothing: every run is read."""

    def forget() -> None:
        for file in results.glob(f"{history_db.INDEX}*"):
            file.unlink()

    shown = benchmark.pedantic(query, args=(results, "--json"), setup=forget, rounds=1, iterations=1)
    assert shown.count('"run_id"') == 25 * 5


@pytest.mark.parametrize("words", [(), ("b1/eager",), ("--json",)], ids=["every cell", "one cell", "json"])
def test_query_10000_trials(benchmark: Any, results: Path, words: tuple[str, ...]) -> None:
    """The index is up to date."""
    query(results)
    shown = benchmark.pedantic(query, args=(results, *words), rounds=10, iterations=1)
    assert "lenet5" in shown


def test_query_after_one_new_run(benchmark: Any, results: Path) -> None:
    query(results)
    new = results / "20270101T000000Z-aaaaaa"

    def come() -> None:
        shutil.rmtree(new, ignore_errors=True)
        write_run(new, RUNS, random.Random(1))

    benchmark.pedantic(query, args=(results,), setup=come, rounds=3, iterations=1)
    shutil.rmtree(new)
