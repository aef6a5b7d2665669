"""Whole runs for tests: figures drawn from a small model of time, so that they look like measured ones."""

import random
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from record_factory import keep, make_epochs, make_manifest, make_matrix, make_measurement, make_session, make_trial

from mnist_bench import cells
from mnist_bench.analysis.summary import Run
from mnist_bench.catalogue import MODELS
from mnist_bench.cells import GroupTrials
from mnist_bench.disk.folder import SAMPLES, SESSION, RunFolder
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Cell,
    Extras,
    Failure,
    Manifest,
    Matrix,
    Measurement,
    ModelEntry,
    Session,
    Skip,
    StepTimes,
    Trial,
    Variant,
)

Trouble = Mapping[str, Sequence[str]]  # by cell id (all its seeds) or trial id: status, reason
Records = tuple[list[Trial], list[Session]]
BF16 = Variant(name="bf16", precision="bf16")
NOISE = ("other processes used 9.1 % of the cores' time",)
# Of a cell without noise: milliseconds of a step at once and per image, of a model's work, of a variant's pace.
LAUNCH_MS, IMAGE_MS = {"cpu": 0.1, "cuda": 4.0}, {"cpu": 0.01, "cuda": 0.001}
WORK, PACE = {"mlp": 1.0, "lenet5": 4.0, "cnn": 12.0}, {"eager": 1.0, "compile": 0.78, "bf16": 0.93}
LEVEL = {"mlp": 0.955, "lenet5": 0.978, "cnn": 0.985}
MISHAPS: Trouble = {
    **{f"cnn/cuda/b10000/{name}": ("oom", "take a smaller batch size") for name in PACE},
    **{f"cnn/cuda/b{size}/compile": ("skipped", "no C++ compiler: install g++") for size in (10, 50, 100, 500, 1000)},
    "mlp/cpu/b100/compile/s2": ("crashed", "the worker was killed by signal 9: look into its log"),
}


def matrix_of(*models: str, **changes: Any) -> Matrix:
    """Two devices, two batch sizes, three variants; the models by their names."""
    variants = (BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"], BF16)
    own = {"models": tuple(ModelEntry(name=name, model=name) for name in models), "variants": variants}
    return make_matrix(**{**own, "devices": ("cpu", "cuda"), "batch_sizes": (100, 1000), **changes})


def figures(
    groups: Sequence[GroupTrials],
    epochs: int,
    *,
    salt: Any = 0,
    trouble: Trouble | None = None,
    pace: float = 1.0,
    changes: Mapping[str, tuple[float, float]] | None = None,
) -> Records:
    """The trials and sessions of a run's groups.

    Args:
        salt: another one, other noise.
        pace: on every step and epoch: the seconds of a slower machine.
        changes: by cell id, a factor of its times and what its accuracy changes by.
    """
    rng, trouble, changes = random.Random(salt), trouble or {}, changes or {}

    def step_ms(cell: Cell) -> float:
        work = WORK.get(cell.model, 3.0) * IMAGE_MS[cell.device] * cell.batch_size * PACE.get(cell.variant, 0.95)
        return (LAUNCH_MS[cell.device] + work) * pace * changes.get(cell.id, (1.0, 0.0))[0]

    def trial(cell: Cell, seed: int) -> Trial:
        status, reason = trouble.get(cell.id, trouble.get(f"{cell.id}/s{seed}", ("ok", "")))
        if status == "ok":
            level = LEVEL.get(cell.model, 0.97) - 0.004 * (cell.variant == "bf16")
            final = round(level + 0.002 * (seed % 5) + changes.get(cell.id, (1.0, 0.0))[1], 4)
            train_s = 60 / cell.batch_size * step_ms(cell)
            return make_trial(cell, seed, _measured(cell, seed, epochs, train_s, final, rng))
        outcome = Skip(reason=reason) if status == "skipped" else Failure(kind=status, reason=reason)
        return make_trial(cell, seed, outcome)

    trials = {group: [trial(*pair) for pair in pairs] for group, pairs in groups}
    sessions = []
    for group, of_group in trials.items():
        members = [one for one in of_group if one.status == "ok"]
        rounds = [[step_ms(one.cell) * drift * rng.gauss(1, 0.015) for one in members] for drift in (1, 1.1, 0.95) * 4]
        paired = len(members) > 1 and not group.startswith("cnn")
        words = {"stopped": "precise" if paired else "alone", "noisy": NOISE if group == "lenet5/b1000/s1" else ()}
        if members:
            sessions.append(make_session(members, rounds, group=group, paired=paired, **words))
    return [one for of_group in trials.values() for one in of_group], sessions


def _measured(cell: Cell, seed: int, epochs: int, train_s: float, final: float, rng: random.Random) -> Measurement:
    compile_s = rng.uniform(9, 14) if cell.variant == "compile" else None
    phases = {"import": 1.9, "data": 0.35, "compile": compile_s or 0.0, "session": 4.0, "train step": epochs * train_s}
    return make_measurement(
        epochs=make_epochs(
            [train_s * rng.uniform(0.98, 1.03) for _ in range(epochs)],
            [final - 0.06 * (epochs - n) for n in range(1, epochs + 1)],
        ),
        class_="B" if cell.variant == "bf16" else "A",
        predictions_sha256=sha256(f"{cell.model} {cell.device if seed else ''} {final}".encode()).hexdigest(),
        phases=phases,
        awake_s=sum(phases.values()) + 0.1,
        compile_s=compile_s,
        time_to_first_step_s=3.0 + (compile_s or 0.0),
        host_peak_bytes=(400 + cell.batch_size // 50) << 20,
        device_peak_bytes=(20 + cell.batch_size // 10) << 20 if cell.device == "cuda" else None,
        extras=None if seed else _extras(cell, train_s),
        device_name="NVIDIA L4" if cell.device == "cuda" else "AMD EPYC",
        noisy=NOISE if (cell.model, cell.batch_size, seed) == ("lenet5", 1000, 1) else (),
        marks=("the waterfall leaves 2.1 % open",) if (cell.id, seed) == ("mlp/cpu/b100/eager", 2) else (),
    )


def _extras(cell: Cell, train_s: float) -> Extras:
    """A ceiling of twice what is reached."""
    flops, images = MODELS[cell.model].flops[0] if cell.model in MODELS else None, 60_000
    compiled, ms, gpu = cell.variant == "compile", LAUNCH_MS[cell.device], cell.device == "cuda"
    return Extras(
        sample_flops=flops,
        ceiling_flops_s=flops and 2 * flops * images / train_s,
        latency=StepTimes(p50_ms=ms, p95_ms=1.2 * ms, p99_ms=1.7 * ms, count=300),
        graph_breaks=0 if compiled else None,
        recompilations=3 if compiled else None,
        kernels=31.0 if gpu else None,
        busy=0.42 if gpu else None,
    )


def records(matrix: Matrix, trouble: Trouble | None = None, **how: Any) -> tuple[Manifest, list[Trial], list[Session]]:
    """The manifest of a whole run beside its figures."""
    trials, sessions = figures(cells.planned(matrix), matrix.epochs, trouble=trouble, **how)
    return make_manifest(trials, matrix=matrix), trials, sessions


def run_of(trials: Sequence[Trial], sessions: Sequence[Session] = (), **changes: Any) -> Run:
    """A run of these records; its matrix has their cells, and ``changes``."""
    manifest = make_manifest(trials, matrix=make_matrix(**changes))
    return Run(manifest=manifest, trials=tuple(trials), sessions=tuple(sessions))


def write_samples(folder: RunFolder, trials: Sequence[Trial], salt: str) -> RunFolder:
    """Steps of each trial's session: most of about 1 ms."""
    rng = random.Random(salt)
    for trial in trials:
        steps_ms = [rng.lognormvariate(0, 0.06) * (1.6 if n % 20 == 7 else 1.0) for n in range(40)]
        rows = np.array([(SESSION, n, 0, int(1e6 * ms)) for n, ms in enumerate(steps_ms)], dtype=SAMPLES)
        np.save(folder.samples_path(trial.id), rows)
    return folder


def write_run(results: Path, *models: str, trouble: Trouble = MISHAPS, **axes: Any) -> RunFolder:
    """A run folder as the runner would have left it, without tables."""
    made = records(matrix_of(*models, **axes), trouble)
    return write_samples(keep(results, *made), made[1], "")
