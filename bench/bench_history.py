"""``history`` over 1,000 runs of 24 cells: 0.5 s for the whole command on a quiet machine. ``make bench``."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.bench_harness import make_manifest, make_matrix, make_session, make_trial
from mnist_bench import cells as matrices
from mnist_bench.analysis.results import files
from mnist_bench.analysis.summary import Run
from mnist_bench.disk.folder import RunFolder
from mnist_bench.records import ModelEntry, encode

RUNS = 1000
MATRIX = replace(
    make_matrix(batch_sizes=6, variants=4, seeds=1),
    models=(ModelEntry(name="lenet5", model="lenet5"),),
    devices=("cpu",),
)


def write_run(folder: Path, number: int, rng: random.Random) -> None:
    """A finished run, its lines written at one go (each by itself would be synced to the disk)."""
    groups = matrices.groups(matrices.expand(MATRIX), MATRIX.seeds)
    trials = [make_trial(cell, seed, rng) for _, members in groups for cell, seed in members]
    manifest = replace(
        make_manifest(MATRIX, [trial.id for trial in trials]),
        run_id=folder.name,
        status="complete",
        started_at=f"20{number // 336:02}-{number // 28 % 12 + 1:02}-{number % 28 + 1:02}T00:00:00Z",
    )
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(encode(manifest, indent=2))
    (folder / "trials.jsonl").write_bytes(b"".join(map(encode, trials)))
    (folder / "sessions.jsonl").write_bytes(b"".join(encode(make_session(group, rng)) for group in groups))
    RunFolder(folder).write_tables(files(Run.read(RunFolder(folder))))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("results"), random.Random(0)
    for number in range(RUNS):
        write_run(folder / f"20260101T{number:06}Z-aaaaaa", number, rng)
    return folder


@pytest.mark.parametrize(
    "words",
    [(), ("--filter", "model=lenet5,batch_size=1,variant=eager"), ("--json",)],
    ids=["every cell", "one cell", "json"],
)
def test_history_of_1000_runs(benchmark: Any, results: Path, words: tuple[str, ...]) -> None:
    """From process start to exit."""
    command = [sys.executable, "-m", "mnist_bench", "history", "-o", str(results), *words]

    def query() -> str:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    assert "lenet5" in benchmark.pedantic(query, rounds=10, iterations=1)
