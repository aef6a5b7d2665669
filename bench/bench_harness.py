"""The harness's own work at scale: planning, summarising, storing, estimating. pytest-benchmark; ``make bench``."""

import dataclasses
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import record_factory
from group_kit import FakeWorker

from mnist_bench import cells as matrices
from mnist_bench import stats
from mnist_bench.analysis.summary import Run
from mnist_bench.disk.folder import SCHEMA_VERSION, RunFolder
from mnist_bench.figures import Row
from mnist_bench.machine import noise
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Cell,
    Manifest,
    Matrix,
    ModelEntry,
    RunOptions,
    Session,
    Timing,
    Trial,
    Variant,
    encode,
    trial_id,
)
from mnist_bench.running import runner
from mnist_bench.running.group import Observer


def make_matrix(batch_sizes: int, variants: int, seeds: int) -> Matrix:
    """2 models x 2 devices x batch sizes x variants (the first is eager)."""
    names = ("eager", *(f"v{number}" for number in range(1, variants)))
    return Matrix(
        models=tuple(ModelEntry(name=name, model=name) for name in ("mlp", "lenet5")),
        devices=("cpu", "cuda"),
        batch_sizes=tuple(range(1, batch_sizes + 1)),
        variants=tuple(Variant(name=name) for name in names),
        seeds=tuple(range(seeds)),
    )


def make_trial(cell: Cell, seed: int, rng: random.Random) -> Trial:
    """Ten epochs."""
    epochs = record_factory.make_epochs((rng.uniform(2.0, 3.0),) * 10, (0.98,) * 10)
    return record_factory.make_trial(cell, seed, record_factory.make_measurement(epochs=epochs))


def make_session(group: matrices.GroupTrials, rng: random.Random, rounds: int = 12) -> Session:
    members = [trial_id(cell, seed) for cell, seed in group[1]]
    ms_per_step = [[rng.uniform(3.0, 3.6) for _ in members] for _ in range(rounds)]
    return record_factory.make_session(members, ms_per_step, group=group[0])


def make_manifest(matrix: Matrix, trials: Sequence[str]) -> Manifest:
    return record_factory.make_manifest(
        trials, schema_version=SCHEMA_VERSION, status="running", matrix=matrix, order=()
    )


def write_run(output_dir: Path, matrix: Matrix, rounds: int) -> RunFolder:
    """A finished run of every cell, its lines written at one go (each by itself would be synced to the disk)."""
    rng = random.Random(0)
    groups = matrices.groups(matrices.expand(matrix), matrix.seeds)
    trials = [make_trial(cell, seed, rng) for _, members in groups for cell, seed in members]
    folder = RunFolder.create(output_dir, make_manifest(matrix, [trial.id for trial in trials]))
    lines = {
        "trials.jsonl": trials,
        "sessions.jsonl": [make_session(group, rng, rounds) for group in groups],
    }
    for name, records in lines.items():
        (folder.path / name).write_bytes(b"".join(map(encode, records)))
    return folder


def test_plan_10000_cells(benchmark: Any, sized: Callable[[int], int]) -> None:
    matrix = make_matrix(batch_sizes=sized(250), variants=10, seeds=3)

    def plan() -> tuple[matrices.GroupTrials, ...]:
        cells = matrices.expand(matrix)
        return matrices.order(matrices.groups(cells, matrix.seeds), random.Random(0))

    planned = benchmark(plan)
    assert sum(len(trials) for _, trials in planned) == sized(250) * 120


def test_summarise_10000_trials(benchmark: Any, sized: Callable[[int], int]) -> None:
    """1,000 cells of 10 seeds, 2,500 groups, each with its session of 12 rounds."""
    matrix, rng = make_matrix(batch_sizes=sized(125), variants=2, seeds=10), random.Random(0)
    groups = matrices.groups(matrices.expand(matrix), matrix.seeds)
    trials = [make_trial(cell, seed, rng) for _, members in groups for cell, seed in members]
    sessions = [make_session(group, rng) for group in groups]
    manifest = make_manifest(matrix, [trial.id for trial in trials])
    assert len(trials) == sized(125) * 80

    def rows_of() -> Sequence[Row]:
        return Run(manifest=manifest, trials=trials, sessions=sessions).rows

    rows = benchmark.pedantic(rows_of, rounds=3, iterations=1)
    assert len(rows) == sized(125) * 8


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory, sized: Callable[[int], int]) -> RunFolder:
    """10,000 trials: 2,500 cells of 4 seeds; 1,000 sessions of 10 members and 20 rounds."""
    matrix = make_matrix(batch_sizes=sized(125), variants=5, seeds=4)
    return write_run(tmp_path_factory.mktemp("results"), matrix, rounds=20)


def test_read_10000_trials(benchmark: Any, large_run: RunFolder, sized: Callable[[int], int]) -> None:
    trials, sessions = benchmark.pedantic(lambda: (large_run.trials(), large_run.sessions()), rounds=3, iterations=1)
    assert (len(trials), len(sessions)) == (sized(125) * 80, sized(125) * 8)


def test_load_10000_trials(benchmark: Any, large_run: RunFolder) -> None:
    """The library's table, from process start to exit; the bar is 1.5 s."""
    program = f"import mnist_bench; mnist_bench.load({str(large_run.path)!r}).table()"
    benchmark.pedantic(
        subprocess.run, args=([sys.executable, "-c", program],), kwargs={"check": True}, rounds=3, iterations=1
    )


@pytest.mark.parametrize("by", ["device", "variant", "batch_size"])
def test_compare_10000_trials(benchmark: Any, large_run: RunFolder, by: str, sized: Callable[[int], int]) -> None:
    """The whole command, from process start to exit."""
    command = [sys.executable, "-m", "mnist_bench", "compare", str(large_run.path), "--by", by, "--format", "csv"]
    done = benchmark.pedantic(
        subprocess.run, args=(command,), kwargs={"capture_output": True, "check": True}, rounds=3, iterations=1
    )
    assert len(done.stdout.splitlines()) > sized(125) * 8


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder.create(tmp_path, make_manifest(make_matrix(1, 2, 1), ("mlp/cpu/b100/eager/s0",)))
    with made.lock():
        yield made


def test_append_trial(benchmark: Any, folder: RunFolder) -> None:
    """One line, fsynced: what the disk costs is in it."""
    cell = Cell(model="mlp", device="cpu", batch_size=100, variant=BUILTIN_VARIANTS["eager"].name)
    trial = make_trial(cell, 0, random.Random(0))
    stored = benchmark(folder.append, trial)
    assert stored.id == trial.id


def test_hodges_lehmann_of_200(benchmark: Any) -> None:
    values = np.random.default_rng(0).normal(0.0, 0.02, 200)
    interval = benchmark(stats.hodges_lehmann, values)
    assert interval.low < 0.0 < interval.high


def test_run_5000_trials(
    benchmark: Any, tmp_path: Path, sized: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's bookkeeping with workers made up: the last tenth of its trials costs what the first did, in less than
    10 ms each, and memory stays as it was."""
    calm = noise.Counters(at_s=0, busy_s=0, steal_s=0, own_s=0, pressure_s=0, load_1min=0, throttled=None)
    monkeypatch.setattr(noise, "read", lambda pids: calm)
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    matrix = dataclasses.replace(make_matrix(sized(125), 1, 10), timing=Timing(budget_seconds=0.01))
    asked = runner.Options(run=RunOptions(), matrix_path="m", output_dir=tmp_path, data_root=tmp_path)
    groups = runner.draft(matrix, asked.run)
    manifest = make_manifest(matrix, [trial_id(*pair) for _, pairs in groups for pair in pairs])
    manifest = dataclasses.replace(manifest, order=tuple(name for name, _ in groups))
    marks: list[tuple[float, int]] = []

    class Marks(Observer):
        def finished(self, trial: Trial) -> None:
            marks.append((time.perf_counter(), psutil.Process().memory_info().rss))

    def run() -> None:
        plan = runner.resume(RunFolder.create(tmp_path, manifest), asked)
        runner.execute(plan, Marks(), {}, lambda spec: FakeWorker(spec, lambda request, number: None, []))

    benchmark.pedantic(run, rounds=1, iterations=1)
    tenth = len(marks) // 10
    first, last = (marks[end][0] - marks[begin][0] for begin, end in ((0, tenth), (-tenth - 1, -1)))
    benchmark.extra_info.update(
        last_by_first=last / first, ms=1e3 * last / tenth, memory=marks[-1][1] / marks[tenth][1]
    )
