"""About how long a trial takes: from earlier runs of the same cell, else from a coarse model. Good to a factor of two.

The model: start-up, compilation, floating-point work (reference/tutorial.md) at an assumed rate, and what a loader
adds to every image. Its constants were measured on a shared 2-core machine; a GPU's work is hidden by its launches.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mnist_bench.records import TEST_IMAGES, TRAIN_IMAGES, Cell, Matrix, ModelEntry, Variant

STARTUP_S = 5.0  # interpreter, torch, data, warm-up
ACCELERATOR_STARTUP_S = 5.0  # on top
COMPILE_S = 25.0
FLOPS_PER_CORE = 15e9
CPU_STEP_S = 0.0003  # launching the operators of a step
ACCELERATOR_STEP_S = 0.001
MAX_RUNS = 20  # the newest; a plan must not read a year of runs

# Per sample: training (forward and backward), evaluation (forward). A plug-in is taken for the heaviest of them.
MODEL_FLOPS: dict[str, tuple[float, float]] = {
    "mlp": (2.506e6, 1.245e6),
    "cnn": (6.390e6, 2.261e6),
    "lenet5": (2.264e6, 0.833e6),
}
# Seconds that one image costs the loader, without workers.
LOADER_S = {"resident": 0.0, "tensors": 2e-5, "torchvision": 2.5e-4, "tutorial": 2.5e-4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """An earlier trial that went well: its epochs, its seconds with the token, and those of one epoch among them."""

    epochs: int
    token_s: float
    epoch_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds that a cell takes with all its seeds, timing included."""

    seconds: float
    source: Literal["earlier runs", "model"]


def estimate(
    cell: Cell, model: ModelEntry, variant: Variant, matrix: Matrix, seeds: int, *, cores: int, past: tuple[Past, ...]
) -> Estimate:
    """About how long a cell takes.

    Args:
        cell: of the matrix.
        model: the one that the cell names.
        variant: the one that the cell names.
        matrix: for epochs, recipe and the timing budget.
        seeds: how many trials of the cell there will be.
        cores: of this machine.
        past: earlier trials of the cell; the median is taken.
    """
    if past:
        again = [max(0.0, p.token_s + (matrix.epochs - p.epochs) * p.epoch_s) for p in past]
        return Estimate(seconds=seeds * statistics.median(again), source="earlier runs")
    tutorial = matrix.recipe == "tutorial"
    evaluated = TRAIN_IMAGES if tutorial else TEST_IMAGES
    trial = _startup_s(cell, variant) + matrix.epochs * _epoch_s(cell, model, variant, evaluated, cores)
    return Estimate(seconds=seeds * trial + matrix.timing.budget_seconds, source="model")


def _startup_s(cell: Cell, variant: Variant) -> float:
    compilation = COMPILE_S if variant.execution == "compile" else 0.0
    return STARTUP_S + compilation + (0.0 if cell.device == "cpu" else ACCELERATOR_STARTUP_S)


def _epoch_s(cell: Cell, model: ModelEntry, variant: Variant, evaluated: int, cores: int) -> float:
    steps = TRAIN_IMAGES / cell.batch_size
    loading = (TRAIN_IMAGES + evaluated) * LOADER_S[variant.pipeline] / max(1, variant.workers)
    if cell.device != "cpu":
        return steps * ACCELERATOR_STEP_S + loading
    train_flops, eval_flops = MODEL_FLOPS.get(model.model, MODEL_FLOPS["cnn"])
    rate = FLOPS_PER_CORE * min(cores, variant.threads or cores)
    return (TRAIN_IMAGES * train_flops + evaluated * eval_flops) / rate + steps * CPU_STEP_S + loading


def earlier_trials(output_dir: Path, recipe: str) -> Mapping[Cell, tuple[Past, ...]]:
    """The trials that went well in the newest runs of a results folder, by cell. What cannot be read is left out.

    Args:
        output_dir: may be missing.
        recipe: trials of another one scored another number of images.
    """
    files = sorted((p for p in output_dir.glob("*/trials.jsonl") if not p.parent.is_symlink()), reverse=True)
    found: dict[Cell, list[Past]] = {}
    for file in files[:MAX_RUNS]:
        for record in _records(file):
            try:
                if record["recipe"] == recipe and record["status"] == "ok":
                    found.setdefault(Cell(**record["cell"]), []).append(_past(record["outcome"]))
            except (KeyError, TypeError, ValueError, AttributeError):
                continue  # another version's line, or a torn one: an estimate can do without
    return {cell: tuple(trials) for cell, trials in found.items()}


def _records(file: Path) -> Iterator[Any]:
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _past(outcome: Any) -> Past:
    epochs = outcome["epochs"]
    count = len(epochs["train_s"])
    token_s, epoch_s = float(outcome["token_s"]), (sum(epochs["train_s"]) + sum(epochs["eval_s"])) / max(1, count)
    if not (0 < token_s < 1e9 and 0 <= epoch_s < 1e9):
        raise ValueError("not a duration")
    return Past(epochs=count, token_s=token_s, epoch_s=epoch_s)
