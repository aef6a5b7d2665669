"""Whole runs for the tests of comparisons: several models, devices, batch sizes, variants; failed and skipped cells."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import groupby, product
from pathlib import Path
from typing import Any

import record_factory
from record_factory import (
    RUN_ID,
    keep,
    make_epochs,
    make_failed,
    make_manifest,
    make_measurement,
    make_session,
    make_trial,
)

from mnist_bench.analysis.summary import Run
from mnist_bench.cells import expand
from mnist_bench.disk.folder import RunFolder
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Cell,
    Manifest,
    Matrix,
    ModelEntry,
    Session,
    Skip,
    Trial,
    Variant,
    group_id,
)
from mnist_bench.stats import Interval

Trouble = Mapping[str, tuple[str, str]]

VARIANTS = (BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"], Variant(name="tf32", precision="tf32"))
# What goes wrong, by cell id (all its seeds) or trial id: (status, reason).
TROUBLE: Trouble = {
    "lenet5/cuda/b1000/compile": ("oom", "8.1 GiB were asked for, 4 GiB are free: take a smaller batch"),
    "mlp/cuda/b100/compile/s1": ("crashed", "signal 11: see its log"),
    "lenet5/cpu/b1000/eager": ("timeout", "over 1800 s: raise limits.timeout_seconds"),
    **{
        f"{model}/cpu/{size}/tf32": ("skipped", "tf32 needs an NVIDIA GPU")
        for model in ("mlp", "lenet5")
        for size in ("b100", "b1000")
    },
}


def make_matrix(**changes: Any) -> Matrix:
    models = tuple(ModelEntry(name=name, model=name) for name in ("mlp", "lenet5"))
    own = {"models": models, "devices": ("cpu", "cuda"), "batch_sizes": (100, 1000), "variants": VARIANTS}
    return record_factory.make_matrix(**{**own, **changes})


def records(
    matrix: Matrix | None = None, trouble: Trouble = TROUBLE, *, factor: float = 1.0, salt: int = 0
) -> tuple[Manifest, list[Trial], list[Session]]:
    """The records of a run.

    Args:
        factor: on every step and epoch: the seconds of a slower machine.
        salt: another one, other noise.
    """
    matrix, rng = matrix or make_matrix(), random.Random(salt)
    trials = [_trial(cell, seed, trouble, factor, rng) for cell, seed in product(expand(matrix), matrix.seeds)]
    manifest = make_manifest(trials, matrix=matrix)
    return manifest, trials, _sessions(trials, factor, rng)


def make_run(*args: Any, **kwargs: Any) -> Run:
    """``records`` as a ``Run``."""
    manifest, trials, sessions = records(*args, **kwargs)
    return as_run(manifest, trials, sessions)


def as_run(manifest: Manifest, trials: Sequence[Trial], sessions: Sequence[Session]) -> Run:
    return Run(manifest=manifest, trials=tuple(trials), sessions=tuple(sessions))


def run_of(trials: Sequence[Trial], sessions: Sequence[Session] = (), **changes: Any) -> Run:
    """A run of these records; its matrix has their cells, and ``changes``."""
    return as_run(make_manifest(trials, matrix=record_factory.make_matrix(**changes)), trials, sessions)


def write(
    output_dir: Path, manifest: Manifest, trials: Sequence[Trial], sessions: Sequence[Session], run_id: str = RUN_ID
) -> RunFolder:
    return keep(output_dir, replace(manifest, run_id=run_id), trials, sessions)


def step_ms(cell: Cell) -> float:
    """A step of a cell without noise: the GPU overtakes the CPU between the two batch sizes, compile is faster."""
    work = {"mlp": 1.0, "lenet5": 4.0}[cell.model] * cell.batch_size / 100
    launch = {"cpu": 0.1, "cuda": 4.0}[cell.device]
    speed = {"cpu": 1.0, "cuda": 10.0}[cell.device]
    return launch + work / speed / {"eager": 1.0, "compile": 1.3, "tf32": 1.5}[cell.variant]


def _trial(cell: Cell, seed: int, trouble: Trouble, factor: float, rng: random.Random) -> Trial:
    status, reason = trouble.get(cell.id, trouble.get(f"{cell.id}/s{seed}", ("ok", "")))
    if status == "skipped":
        return make_trial(cell, seed, Skip(reason=reason))
    if status != "ok":
        return make_failed(cell, seed, kind=status, reason=reason)
    epoch_s = 60_000 / cell.batch_size * step_ms(cell) / 1000 * factor
    accuracy = round(0.97 + 0.002 * seed + {"eager": 0.0, "compile": 0.0001 * seed, "tf32": -0.02}[cell.variant], 4)
    measurement = make_measurement(
        epochs=make_epochs(train_s=[epoch_s * rng.uniform(0.98, 1.02) for _ in range(2)], accuracy=(0.9, accuracy)),
        predictions_sha256=sha256(f"{cell.model} {cell.device if seed else ''} {accuracy}".encode()).hexdigest(),
        compile_s=rng.uniform(9.0, 11.0) if cell.variant == "compile" else None,
        class_="B" if cell.variant == "tf32" else "A",
        device_name={"cpu": "AMD EPYC", "cuda": "NVIDIA H100"}[cell.device],
    )
    return make_trial(cell, seed, measurement)


def _sessions(trials: Sequence[Trial], factor: float, rng: random.Random) -> list[Session]:
    """One of every group that has two members at least which are ok."""
    found = []
    ordered = sorted(trials, key=lambda trial: group_id(trial.cell, trial.seed))
    for group, together in groupby(ordered, key=lambda trial: group_id(trial.cell, trial.seed)):
        members = [trial for trial in together if trial.status == "ok"]
        rows = [[step_ms(m.cell) * factor * rng.lognormvariate(0.0, 0.02) for m in members] for _ in range(16)]
        if len(members) > 1:
            found.append(make_session(members, rows, group=group))
    return found


def numbers(interval: Interval | None) -> tuple[float | None, ...]:
    assert interval is not None
    return interval.estimate, interval.low, interval.high
