"""Whole runs on disk for tests: figures drawn from a small model of time, so that they look like measured ones."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from record_factory import make_epochs, make_manifest, make_matrix, make_measurement, make_session, make_trial

from mnist_bench import cells
from mnist_bench.disk.folder import SAMPLES, SESSION, WARMUP, RunFolder
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Failure, Measurement, ModelEntry, Session, Skip, Trial, Variant

BF16 = Variant(name="bf16", precision="bf16")
# ms of a step: at once, and per image.
COST_MS = {"cpu": (0.35, 0.011), "cuda": (1.1, 0.00035)}
WEIGHT = {"mlp": 1.0, "lenet5": 6.0, "cnn": 19.0}
PACE = {"eager": 1.0, "compile": 0.78, "bf16": 0.9}
FINAL = {"mlp": 0.955, "lenet5": 0.988, "cnn": 0.991}
NOISE = "other processes used 9.1 % of the cores' time"
OOM = Failure(kind="oom", reason="the device ran out of memory: take a smaller batch size")
NO_COMPILER = Skip(reason="no C++ compiler was found: install g++")
MISHAPS = {  # by the beginning of the trial's id
    "cnn/cuda/b10000/": OOM,
    **{f"cnn/cuda/b{size}/compile/": NO_COMPILER for size in (10, 50, 100, 500, 1000)},
    "mlp/cpu/b100/compile/s2": Failure(kind="crashed", reason="the worker was killed by signal 9: look into its log"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is to hold."""

    models: tuple[str, ...] = ("mlp", "lenet5", "cnn")
    devices: tuple[str, ...] = ("cpu", "cuda")
    batch_sizes: tuple[int, ...] = (100, 1000, 10000)
    variants: tuple[Variant, ...] = (BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"], BF16)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 5
    rounds: int = 20
    session_steps: int = 600
    mishaps: bool = True  # some cells fail, some are skipped, some trials are noisy


def write_run(results: Path, plan: Plan | None = None) -> RunFolder:
    """A run folder as the runner would have left it, without tables."""
    plan, rng = plan or Plan(), random.Random(0)
    matrix = make_matrix(
        name="factory",
        epochs=plan.epochs,
        seeds=plan.seeds,
        models=tuple(ModelEntry(name=name, model=name) for name in plan.models),
        devices=plan.devices,
        batch_sizes=plan.batch_sizes,
        variants=plan.variants,
    )
    groups = {group: [_trial(*pair, plan, rng) for pair in pairs] for group, pairs in cells.planned(matrix)}
    trials = [trial for own in groups.values() for trial in own]
    folder = RunFolder.create(results, make_manifest(trials, matrix=matrix, ended_at="2026-11-23T11:02:00Z"))
    folder.write_lines(Trial, trials)
    measured = {group: [one for one in own if isinstance(one.outcome, Measurement)] for group, own in groups.items()}
    folder.write_lines(Session, (_session(group, own, plan, rng) for group, own in measured.items() if own))
    steps = np.random.default_rng(0)
    for trial in (trial for own in measured.values() for trial in own):
        rows = np.zeros(20 + plan.session_steps, dtype=SAMPLES)
        rows["phase"][:20], rows["phase"][20:] = WARMUP, SESSION
        wobble = steps.lognormal(0, 0.06, rows.size) * np.where(steps.random(rows.size) < 0.03, 1.6, 1.0)
        rows["done_ns"] = step_ms(trial.cell) * 1e6 * wobble
        np.save(folder.samples_path(trial.id), rows)
    return folder


def step_ms(cell: Cell) -> float:
    once, each = COST_MS[cell.device]
    pace = PACE.get(cell.variant, 0.95) if cell.device == "cuda" or cell.variant != "bf16" else 1.6
    return (once + each * WEIGHT.get(cell.model, 3.0) * cell.batch_size) * pace


def _trial(cell: Cell, seed: int, plan: Plan, rng: random.Random) -> Trial:
    trial = make_trial(cell, seed)
    mishap = next((found for begin, found in MISHAPS.items() if plan.mishaps and trial.id.startswith(begin)), None)
    return replace(trial, outcome=mishap or _measurement(cell, seed, plan, rng))


def _measurement(cell: Cell, seed: int, plan: Plan, rng: random.Random) -> Measurement:
    train_s = 60_000 / cell.batch_size * step_ms(cell) / 1000
    level = FINAL.get(cell.model, 0.97) - 0.012 * math.log10(cell.batch_size / 100)
    learner = random.Random(f"{cell.model}/{cell.batch_size}/{seed}")  # the same for all variants and devices
    accuracy = [min(1.0, level - 0.09 * math.exp(-1.1 * n) + learner.gauss(0, 0.0015)) for n in range(plan.epochs)]
    epochs = replace(
        make_epochs([train_s * rng.uniform(0.97, 1.04) for _ in accuracy], accuracy),
        loader_s=(0.01 * train_s,) * plan.epochs,
        eval_s=(0.1 * train_s,) * plan.epochs,
    )
    compile_s = rng.uniform(9, 14) if cell.variant == "compile" else None
    phases = {"import": 1.9, "data": 0.45, "compile": compile_s or 0.0, "warm-up": 0.8, "session": 4.0}
    phases |= {"loader wait": sum(epochs.loader_s), "train step": sum(epochs.train_s) - sum(epochs.loader_s)}
    phases |= {"evaluation": sum(epochs.eval_s), "teardown": 0.04}
    return make_measurement(
        epochs=epochs,
        class_="B" if cell.variant == "bf16" else "A",
        phases={name: seconds for name, seconds in phases.items() if seconds},
        awake_s=sum(phases.values()) + 0.05,
        compile_s=compile_s,
        host_peak_bytes=int((380 + 0.02 * cell.batch_size + 60 * (compile_s is not None)) * 2**20),
        device_peak_bytes=int((20 + 0.09 * cell.batch_size) * 2**20) if cell.device == "cuda" else None,
        device_name="NVIDIA L4" if cell.device == "cuda" else "AMD EPYC",
        noisy=(NOISE,) if plan.mishaps and (cell.model, cell.batch_size, seed) == ("lenet5", 1000, 1) else (),
    )


def _session(group: str, members: list[Trial], plan: Plan, rng: random.Random) -> Session:
    drifts = [rng.uniform(0.9, 1.2) for _ in range(plan.rounds)]
    rounds = [[step_ms(member.cell) * drift * rng.gauss(1, 0.015) for member in members] for drift in drifts]
    return make_session(members, rounds, group=group, stopped=rng.choice(("precise", "budget")))
