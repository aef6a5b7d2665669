"""What the tables of a run are made of: one frozen record per line. A figure that was not measured is None."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from mnist_bench.records import Cell, Recipe, Status, VariantClass

# How a ratio was measured: in one session (``within``), in several (``between``), or never together.
Paired = Literal["within", "between", "unpaired"]
Figure = Literal["test_accuracy", "train_samples_per_s"]
FloorVerdict = Literal["held", "missed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One cell of a run: a line of ``results.csv``. Up to ``recipe`` the columns are those of the contract."""

    model: str
    device: str
    batch_size: int
    variant: str
    status: Status
    reason: str
    seeds: int
    test_accuracy: float | None = None
    test_accuracy_std: float | None = None
    train_samples_per_s: float | None = None
    train_samples_per_s_low: float | None = None
    train_samples_per_s_high: float | None = None
    step_ms_p50: float | None = None
    step_ms_p95: float | None = None
    step_ms_p99: float | None = None
    epoch_s: float | None = None
    eval_samples_per_s: float | None = None
    compile_s: float | None = None
    time_to_first_step_s: float | None = None
    total_s: float | None = None
    loader_share: float | None = None
    host_peak_mib: float | None = None
    device_peak_mib: float | None = None
    speedup_vs_eager: float | None = None
    speedup_vs_eager_low: float | None = None
    speedup_vs_eager_high: float | None = None
    speedup_vs_cpu: float | None = None
    speedup_vs_cpu_low: float | None = None
    speedup_vs_cpu_high: float | None = None
    paired: Paired | None = None
    noisy: bool | None = None
    class_: VariantClass | None = None
    dataset: str
    recipe: Recipe
    dataset_sha256: str
    parameters: int | None = None
    train_loss: float | None = None
    time_to_accuracy_s: float | None = None
    device_name: str | None = None
    threads: int | None = None
    noisy_trials: int | None = None
    doubts: str | None = None

    @property
    def cell(self) -> Cell:
        return Cell(model=self.model, device=self.device, batch_size=self.batch_size, variant=self.variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One epoch of one trial: a line of ``epochs.csv``. ``epoch`` counts from 1."""

    trial: str
    model: str
    device: str
    batch_size: int
    variant: str
    seed: int
    epoch: int
    train_s: float
    train_samples_per_s: float | None
    loader_s: float
    loss: float
    eval_s: float
    accuracy: float
    dataset: str
    dataset_sha256: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorResult:
    """One figure of one cell against one floor of ``expect``. A cell that was skipped has nothing to hold."""

    cell: Cell
    figure: Figure
    floor: float
    value: float | None
    verdict: FloorVerdict
    message: str


def columns(row_type: type[Row] | type[EpochRow]) -> tuple[str, ...]:
    """The names of a table's columns (``class_`` is called ``class`` outside of Python)."""
    return tuple(field.name.rstrip("_") for field in fields(row_type))
