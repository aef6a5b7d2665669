"""The harness's own work at scale: planning, summarising, storing, estimating. pytest-benchmark; ``make bench``."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_bench import codec, stats
from mnist_bench import matrix as matrices
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Cell,
    DataSet,
    Environment,
    Epochs,
    Manifest,
    Matrix,
    Measurement,
    ModelEntry,
    Round,
    Session,
    StepTimes,
    Trial,
    Variant,
    trial_id,
)
from mnist_bench.store import SCHEMA_VERSION, RunFolder
from mnist_bench.summary import summarise

SHA = "0123456789abcdef" * 4


def make_matrix(batch_sizes: int, variants: int, seeds: int) -> Matrix:
    """2 models x 2 devices x batch sizes x variants (the first is eager)."""
    names = ("eager", *(f"v{number}" for number in range(1, variants)))
    return Matrix(
        models=tuple(ModelEntry(name=name, target=name) for name in ("mlp", "lenet5")),
        devices=("cpu", "cuda"),
        batch_sizes=tuple(range(1, batch_sizes + 1)),
        variants=tuple(Variant(name=name) for name in names),
        seeds=tuple(range(seeds)),
    )


def make_measurement(epoch_s: float) -> Measurement:
    return Measurement(
        epochs=Epochs(
            train_s=(epoch_s,) * 10, loader_s=(0.1,) * 10, loss=(0.5,) * 10, eval_s=(0.3,) * 10, accuracy=(0.98,) * 10
        ),
        train_samples=600_000,
        eval_samples=100_000,
        class_="A",
        predictions_sha256=SHA,
        order_sha256=SHA,
        loss_trace=tuple(2.3 - step / 10 for step in range(20)),
        phases={"import": 1.5, "data": 0.5, "warm-up": 1.0, "train step": 10 * epoch_s, "evaluation": 3.0},
        awake_s=30.0,
        token_s=30.1,
        total_s=25.0,
        time_to_first_step_s=3.0,
        compile_s=None,
        host_peak_bytes=512 << 20,
        device_peak_bytes=None,
        parameters=61_706,
        device_name="a processor",
        numerics={"threads": 2},
        interference={"steal": 0.0, "others": 0.01, "load_1min": 2.0},
    )


def make_trial(cell: Cell, seed: int, rng: random.Random) -> Trial:
    return Trial(
        id=trial_id(cell, seed),
        cell=cell,
        seed=seed,
        recipe="standard",
        dataset="mnist",
        dataset_sha256=SHA,
        outcome=make_measurement(rng.uniform(2.0, 3.0)),
        started_at="2026-01-01T00:00:00Z",
        ended_at="2026-01-01T00:01:00Z",
        log="logs/a.log",
    )


def make_session(group: matrices.GroupTrials, rng: random.Random, rounds: int = 12) -> Session:
    members = tuple(trial_id(cell, seed) for cell, seed in group[1])
    order = tuple(range(len(members)))
    return Session(
        group=group[0],
        members=members,
        paired=True,
        rounds=tuple(
            Round(order=order, steps=(30,) * len(members), seconds=tuple(rng.uniform(0.09, 0.11) for _ in members))
            for _ in range(rounds)
        ),
        steps={member: StepTimes(p50_ms=3.0, p95_ms=3.5, p99_ms=4.0, count=30 * rounds) for member in members},
        stopped="precise",
    )


def make_manifest(matrix: Matrix, trials: Sequence[str]) -> Manifest:
    return Manifest(
        run_id="20260101T000000Z-aaaaaa",
        schema_version=SCHEMA_VERSION,
        program_version="0",
        status="running",
        matrix=matrix,
        matrix_sha256=SHA,
        matrix_path="matrix.yaml",
        options={},
        environment=Environment(python="3", platform="p", cpu="c", cores=2, memory_bytes=1 << 34, packages={}),
        dataset=DataSet(name="mnist", root="data", sha256=SHA),
        order=(),
        trials=tuple(trials),
        started_at="2026-01-01T00:00:00Z",
    )


def write_run(output_dir: Path, matrix: Matrix, rounds: int) -> RunFolder:
    """A finished run of every cell, its lines written at one go (each by itself would be synced to the disk)."""
    rng = random.Random(0)
    groups = matrices.groups(matrices.expand(matrix), matrix.seeds)
    trials = [make_trial(cell, seed, rng) for _, members in groups for cell, seed in members]
    folder = RunFolder.create(output_dir, make_manifest(matrix, [trial.id for trial in trials]))
    lines = {
        "trials.jsonl": map(codec.encode_trial, trials),
        "sessions.jsonl": (codec.encode_session(make_session(group, rng, rounds)) for group in groups),
    }
    for name, records in lines.items():
        (folder.path / name).write_bytes(b"".join(codec.to_json(record) + b"\n" for record in records))
    return folder


def test_plan_10000_cells(benchmark: Any) -> None:
    matrix = make_matrix(batch_sizes=250, variants=10, seeds=3)

    def plan() -> tuple[matrices.GroupTrials, ...]:
        cells = matrices.expand(matrix)
        return matrices.order(matrices.groups(cells, matrix.seeds), random.Random(0))

    planned = benchmark(plan)
    assert sum(len(trials) for _, trials in planned) == 30_000


def test_summarise_10000_trials(benchmark: Any) -> None:
    """1,000 cells of 10 seeds, 2,500 groups, each with its session of 12 rounds."""
    matrix, rng = make_matrix(batch_sizes=125, variants=2, seeds=10), random.Random(0)
    groups = matrices.groups(matrices.expand(matrix), matrix.seeds)
    trials = [make_trial(cell, seed, rng) for _, members in groups for cell, seed in members]
    sessions = [make_session(group, rng) for group in groups]
    manifest = make_manifest(matrix, [trial.id for trial in trials])
    assert len(trials) == 10_000
    rows = benchmark.pedantic(summarise, args=(manifest, trials, sessions), rounds=3, iterations=1)
    assert len(rows) == 1_000


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """10,000 trials: 2,500 cells of 4 seeds; 1,000 sessions of 10 members and 20 rounds."""
    return write_run(tmp_path_factory.mktemp("results"), make_matrix(batch_sizes=125, variants=5, seeds=4), rounds=20)


def test_read_10000_trials(benchmark: Any, large_run: RunFolder) -> None:
    trials, sessions = benchmark.pedantic(lambda: (large_run.trials(), large_run.sessions()), rounds=3, iterations=1)
    assert (len(trials), len(sessions)) == (10_000, 1_000)


@pytest.mark.parametrize("by", ["device", "variant", "batch_size"])
def test_compare_10000_trials(benchmark: Any, large_run: RunFolder, by: str) -> None:
    """The whole command, from process start to exit."""
    command = [sys.executable, "-m", "mnist_bench", "compare", str(large_run.path), "--by", by, "--format", "csv"]
    done = benchmark.pedantic(
        subprocess.run, args=(command,), kwargs={"capture_output": True, "check": True}, rounds=3, iterations=1
    )
    assert len(done.stdout.splitlines()) > 1_000


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder.create(tmp_path, make_manifest(make_matrix(1, 2, 1), ()))
    with made.lock():
        yield made


def test_append_trial(benchmark: Any, folder: RunFolder) -> None:
    """One line, fsynced: what the disk costs is in it."""
    cell = Cell(model="mlp", device="cpu", batch_size=100, variant=BUILTIN_VARIANTS["eager"].name)
    trial = make_trial(cell, 0, random.Random(0))
    stored = benchmark(folder.append_trial, trial)
    assert stored.id == trial.id


def test_hodges_lehmann_of_200(benchmark: Any) -> None:
    values = np.random.default_rng(0).normal(0.0, 0.02, 200)
    interval = benchmark(stats.hodges_lehmann, values)
    assert interval.low < 0.0 < interval.high
