"""What a comparison is made of: frozen records, each line with what a reader must know before believing it.

Ratios are above 1 where *this* cell (or run B) is faster than its reference (or run A). Accuracies and their
differences are fractions; a figure that is not known is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mnist_bench.comparability import Difference
from mnist_bench.records import Cell, Manifest, Session, Status, Trial, VariantClass
from mnist_bench.rows import Row
from mnist_bench.speedups import SpeedUp

By = Literal["device", "variant", "batch_size"]
# ``identical``: the same predictions, image by image. ``equivalent``: the difference's interval lies within the margin.
# ``better``, ``worse``: it lies on one side of 0 and reaches beyond the margin. ``unproven``: any other.
# ``incomparable``: the two were not scored on the same images.
AccuracyVerdict = Literal["identical", "equivalent", "better", "worse", "unproven", "incomparable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as its folder tells it; ``rows`` are those of ``summary.summarise``, or of its ``outline``."""

    manifest: Manifest
    trials: tuple[Trial, ...]
    sessions: tuple[Session, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyDifference:
    """The accuracies of two cells over their common seeds (``seeds`` of them); ``difference`` is this - reference."""

    reference: float
    this: float
    difference: float
    low: float | None
    high: float | None
    seeds: int
    verdict: AccuracyVerdict

    @property
    def mark(self) -> str:
        """The sign that a ratio beside this difference carries; empty where the accuracy was shown equivalent."""
        return ACCURACY_MARKS.get(self.verdict, "")


ACCURACY_MARKS: dict[AccuracyVerdict, str] = {"worse": "↓", "better": "?", "unproven": "?", "incomparable": "?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCell:
    """One cell against its reference of the same run.

    ``status`` and ``reason`` are the cell's own; an ``ok`` cell has a reason too where no ratio could be computed (its
    reference failed, the two share no seed, ...). ``reference`` is None where it would be the cell itself or is not
    in the run. ``speed_up`` is of seconds per step; ``by`` batch size, of samples per second. ``noisy`` and ``class_``
    are those of the worse side. ``partial``: a seed of either side is not ok, and the ratio is that of the others.
    """

    cell: Cell
    reference: Cell | None
    status: Status
    reason: str
    speed_up: SpeedUp | None
    accuracy: AccuracyDifference | None
    noisy: bool
    class_: VariantClass | None
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMean:
    """The geometric mean of the ratios of ``cells`` cells that have ``of`` and the class in common.

    ``marks`` are the signs that any of these cells carries: a ratio whose accuracy is not shown equal is in it, marked.
    """

    of: str
    class_: VariantClass | None
    cells: int
    ratio: float
    low: float | None
    high: float | None
    marks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPoint:
    """Where on the axis of batch sizes: ``at`` one, ``below`` the smallest or ``above`` the largest measured."""

    where: Literal["at", "below", "above", "unknown"]
    batch_size: float | None = None  # of ``at``


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """From which batch size on ``device`` is faster than the CPU; ``low`` and ``high`` bound its 95 % interval."""

    model: str
    device: str
    variant: str
    smallest: int | None  # measured on both
    largest: int | None
    estimate: BatchPoint
    low: BatchPoint
    high: BatchPoint
    reason: str  # why something is unknown; empty where nothing is


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """After how much training a cell's compilation is earned back by its faster step.

    ``seconds`` is what the reference trains in that number of steps. ``never``: the step is not faster. ``unproven``:
    the ratio's interval holds 1, so that it is not shown to be. The interval is the ratio's; ``compile_s`` and the
    reference's step are taken as known.
    """

    cell: Cell
    reference: Cell
    compile_s: float
    verdict: Literal["after", "never", "unproven"]
    steps: float | None = None
    steps_low: float | None = None
    steps_high: float | None = None
    epochs: float | None = None
    epochs_low: float | None = None
    epochs_high: float | None = None
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The cells of one run against a reference each; ``reference`` says which in words."""

    run_id: str
    by: By
    reference: str
    cells: tuple[ComparedCell, ...]
    means: tuple[GeometricMean, ...]
    crossovers: tuple[Crossover, ...]  # by device
    break_evens: tuple[BreakEven, ...]  # by variant

    @property
    def comparable(self) -> bool:
        return any(cell.speed_up is not None for cell in self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedCell:
    """One cell of two runs; a status is None where the run has no such cell. ``reason``: why there is no ratio.

    ``throughput`` is of training samples per second, ``step`` of the sessions' seconds per step; both unpaired.
    """

    cell: Cell
    status_a: Status | None
    status_b: Status | None
    reason: str
    throughput: SpeedUp | None
    step: SpeedUp | None
    accuracy: AccuracyDifference | None
    noisy: bool
    class_: VariantClass | None
    differences: tuple[Difference, ...]  # of the comparability keys


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Run B against run A, cell by cell. ``differences``: in what their keys differ, what matters most first."""

    run_a: str
    run_b: str
    across_machines: bool
    differences: tuple[Difference, ...]
    cells: tuple[MatchedCell, ...]
    throughput_means: tuple[GeometricMean, ...]
    step_means: tuple[GeometricMean, ...]

    @property
    def comparable(self) -> bool:
        return any(cell.throughput is not None or cell.step is not None for cell in self.cells)
