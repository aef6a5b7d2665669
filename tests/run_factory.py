"""Whole runs on disk for tests: figures drawn from a small model of time, so that they look like measured ones."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record_factory import make_manifest, make_matrix, make_measurement, make_session, make_trial

from mnist_bench.disk.folder import SAMPLES, SESSION, WARMUP, RunFolder
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Cell,
    Epochs,
    Failure,
    Matrix,
    Measurement,
    ModelEntry,
    Outcome,
    Session,
    Skip,
    Trial,
    Variant,
    encode,
    group_id,
    trial_id,
)

BF16 = Variant(name="bf16", precision="bf16")
# ms of a step: at once, and per image.
COST_MS = {"cpu": (0.35, 0.011), "cuda": (1.1, 0.00035)}
WEIGHT = {"mlp": 1.0, "lenet5": 6.0, "cnn": 19.0}
PACE = {"eager": 1.0, "compile": 0.78, "bf16": 0.9}
FINAL = {"mlp": 0.955, "lenet5": 0.988, "cnn": 0.991}
NOISE = "other processes used 9.1 % of the cores' time"


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
    seed: int = 0


def write_run(results: Path, plan: Plan | None = None, run_id: str = "20261123T101500Z-a1b2c3") -> RunFolder:
    """A run folder as the runner would have left it, without tables."""
    plan = plan or Plan()
    rng = random.Random(plan.seed)
    trials = [_trial(cell, seed, plan, rng) for seed in plan.seeds for cell in _cells(plan)]
    manifest = make_manifest(
        trials, run_id=run_id, matrix=_matrix(plan), ended_at="2026-11-23T11:02:00Z", order=tuple(_groups(trials))
    )
    folder = RunFolder.create(results, manifest)
    sessions = [_session(members, plan, rng) for members in _groups(trials).values()]
    _write_lines(folder.path / "trials.jsonl", trials)
    _write_lines(folder.path / "sessions.jsonl", [one for one in sessions if one is not None])
    _write_samples(folder, trials, plan)
    return folder


def _matrix(plan: Plan) -> Matrix:
    return make_matrix(
        name="factory",
        epochs=plan.epochs,
        seeds=plan.seeds,
        models=tuple(ModelEntry(name=name, model=name) for name in plan.models),
        devices=plan.devices,
        batch_sizes=plan.batch_sizes,
        variants=plan.variants,
    )


def _cells(plan: Plan) -> list[Cell]:
    return [
        Cell(model=model, device=device, batch_size=size, variant=variant.name)
        for model in plan.models
        for device in plan.devices
        for size in plan.batch_sizes
        for variant in plan.variants
    ]


def _groups(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(group_id(trial.cell, trial.seed), []).append(trial)
    return found


def step_ms(cell: Cell) -> float:
    once, each = COST_MS[cell.device]
    pace = PACE.get(cell.variant, 0.95) if cell.device == "cuda" or cell.variant != "bf16" else 1.6
    return (once + each * WEIGHT.get(cell.model, 3.0) * cell.batch_size) * pace


def _trial(cell: Cell, seed: int, plan: Plan, rng: random.Random) -> Trial:
    return make_trial(cell, seed, _outcome(cell, seed, plan, rng))


def _outcome(cell: Cell, seed: int, plan: Plan, rng: random.Random) -> Outcome:
    if plan.mishaps and cell.model == "cnn" and cell.device == "cuda":
        if cell.batch_size == 10000:
            return Failure(kind="oom", reason="the device ran out of memory: take a smaller batch size")
        if cell.variant == "compile":
            return Skip(reason="no C++ compiler was found: install g++")
    if plan.mishaps and cell == Cell(model="mlp", device="cpu", batch_size=100, variant="compile") and seed == 2:
        return Failure(kind="crashed", reason="the worker was killed by signal 9: look into its log")
    return _measurement(cell, seed, plan, rng)


def _measurement(cell: Cell, seed: int, plan: Plan, rng: random.Random) -> Measurement:
    train_s = 60_000 / cell.batch_size * step_ms(cell) / 1000
    level = FINAL.get(cell.model, 0.97) - 0.012 * math.log10(cell.batch_size / 100)
    learner = random.Random(f"{cell.model}/{cell.batch_size}/{seed}")  # the same for all variants and devices
    accuracy = [min(1.0, level - 0.09 * math.exp(-1.1 * n) + learner.gauss(0, 0.0015)) for n in range(plan.epochs)]
    epochs = Epochs(
        train_s=tuple(train_s * rng.uniform(0.97, 1.04) for _ in accuracy),
        loader_s=tuple(0.01 * train_s for _ in accuracy),
        loss=tuple(0.5 / (n + 1) for n in range(plan.epochs)),
        eval_s=tuple(0.1 * train_s for _ in accuracy),
        accuracy=tuple(accuracy),
    )
    compile_s = rng.uniform(9, 14) if cell.variant == "compile" else None
    phases = _phases(epochs, compile_s)
    return make_measurement(
        epochs=epochs,
        class_="B" if cell.variant == "bf16" else "A",
        phases=phases,
        awake_s=sum(phases.values()) + 0.05,
        compile_s=compile_s,
        host_peak_bytes=int((380 + 0.02 * cell.batch_size + 60 * (compile_s is not None)) * 2**20),
        device_peak_bytes=int((20 + 0.09 * cell.batch_size) * 2**20) if cell.device == "cuda" else None,
        device_name="NVIDIA L4" if cell.device == "cuda" else "AMD EPYC",
        noisy=(NOISE,) if plan.mishaps and (cell.model, cell.batch_size, seed) == ("lenet5", 1000, 1) else (),
    )


def _phases(epochs: Epochs, compile_s: float | None) -> dict[str, float]:
    phases = {"import": 1.9, "device": 0.05, "data": 0.35, "transfer": 0.02, "build": 0.04}
    if compile_s is not None:
        phases["compile"] = compile_s
    phases |= {"warm-up": 0.6, "check": 0.2, "session": 4.0, "loader wait": sum(epochs.loader_s)}
    phases |= {"train step": sum(epochs.train_s) - sum(epochs.loader_s), "evaluation": sum(epochs.eval_s)}
    return phases | {"audit": 0.08, "teardown": 0.04}


def _session(trials: Sequence[Trial], plan: Plan, rng: random.Random) -> Session | None:
    members = [trial for trial in trials if isinstance(trial.outcome, Measurement)]
    if not members:
        return None
    rounds = []
    for _ in range(plan.rounds):
        drift = rng.uniform(0.9, 1.2)
        rounds.append([step_ms(member.cell) * drift * rng.gauss(1, 0.015) for member in members])
    group = group_id(trials[0].cell, trials[0].seed)
    return make_session(members, rounds, group=group, stopped=rng.choice(("precise", "budget")))


def _write_lines(path: Path, lines: Sequence[Trial | Session]) -> None:
    path.write_bytes(b"".join(map(encode, lines)))


def _write_samples(folder: RunFolder, trials: Sequence[Trial], plan: Plan) -> None:
    rng = np.random.default_rng(plan.seed)
    for trial in trials:
        if not isinstance(trial.outcome, Measurement):
            continue
        rows = np.zeros(20 + plan.session_steps, dtype=SAMPLES)
        rows["phase"][:20], rows["phase"][20:] = WARMUP, SESSION
        wobble = rng.lognormal(0, 0.06, rows.size) * np.where(rng.random(rows.size) < 0.03, 1.6, 1.0)
        rows["done_ns"] = step_ms(trial.cell) * 1e6 * wobble
        path = folder.samples_path(trial_id(trial.cell, trial.seed))
        path.parent.mkdir(exist_ok=True)
        np.save(path, rows)
