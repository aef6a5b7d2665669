"""What a comparison answers: is the accuracy the same, where a device overtakes the CPU, when compiling pays off. Pure.

Sources: the spread of one training's accuracy about its mean is sqrt(err / 2n) (n scored images, error rate err) where
an ensemble of trainings is calibrated: Jordan, *On the Variance of Neural Network Training with respect to Test Sets
and Distributions* (2023), arXiv:2304.01910. Equivalence by an interval within a margin: Schuirmann (1987), J.
Pharmacokinet. Biopharm. 15, 657-680 (two one-sided tests).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mnist_bench import stats
from mnist_bench.analysis.ratios import SpeedUp
from mnist_bench.figures import significant
from mnist_bench.records import Cell, Measurement
from mnist_bench.stats import NORMAL_QUANTILE, Interval, student_quantile
from mnist_bench.table import joined

SAME = 0.03  # as fast as another: a difference below it does not matter here, as in the gate
MOST_SEEDS = 30  # that are advised
POWER = 0.8  # the chance that so many tell


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """Where on the axis of batch sizes: ``at`` one, ``below`` the smallest or ``above`` the largest measured."""

    where: Literal["at", "below", "above", "unknown"] = "unknown"
    batch_size: float | None = None

    @property
    def words(self) -> str:
        """``244``, ``below 100``, ``above 1,000`` or ``unknown``."""
        if self.where == "at":
            return significant(self.batch_size)
        return "unknown" if self.batch_size is None else f"{self.where} {self.batch_size:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """From which batch size on ``device`` is faster than the CPU; ``low`` and ``high`` bound its 95 % interval.

    ``reason`` says why something is unknown.
    """

    model: str
    device: str
    variant: str
    estimate: BatchPoint = BatchPoint()
    low: BatchPoint = BatchPoint()
    high: BatchPoint = BatchPoint()
    reason: str = ""

    @property
    def bounds(self) -> str:
        """``[120, above 1,000]``; empty where they are unknown."""
        low, high = self.low.words, self.high.words
        return "" if "unknown" in (low, high) else f"[{low}, {high}]"

    @property
    def words(self) -> str:
        """``faster than the CPU from batch size 180 on [120, 260]``, or why that is not known."""
        words = {
            "at": joined(f"faster than the CPU from batch size {self.estimate.words} on", self.bounds),
            "below": "faster than the CPU at every batch size measured",
            "above": "slower than the CPU at every batch size measured",
        }
        return words.get(self.estimate.where, f"crossover unknown ({self.reason})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """After how much training a cell's compilation is earned back by its faster step.

    ``never``: the step is not faster. ``unproven``: the ratio's interval holds 1, so that it is not shown to be. The
    intervals are the ratio's; ``compile_s`` and the reference's step are taken as known. ``seconds`` are what the
    reference trains in that number of steps.
    """

    cell: Cell
    reference: Cell
    compile_s: float
    verdict: Literal["after", "never", "unproven"]
    steps: Interval | None = None
    epochs: Interval | None = None
    seconds: Interval | None = None

    @property
    def words(self) -> str:
        """``after 12 epochs``, or why not."""
        if self.epochs is None:
            return "never: not faster" if self.verdict == "never" else "not shown"
        return f"after {significant(self.epochs.estimate, 2)} epochs"


def break_even(
    cell: Cell, reference: Cell, speed: SpeedUp, *, compile_s: float, step_s: float, epoch_samples: float
) -> BreakEven:
    """The steps n at which ``compile_s`` + n steps of this cell take as long as n steps of the reference.

    Args:
        speed: of this cell over the reference, in seconds per step.
        compile_s: seconds that this cell's compilation costs beyond the reference's.
        step_s: seconds per step of the reference.
        epoch_samples: images that an epoch trains on.
    """

    def steps_at(ratio: float) -> float:
        return max(compile_s, 0.0) / (step_s * (1 - 1 / ratio))

    ratio = speed.interval
    one = BreakEven(cell=cell, reference=reference, compile_s=compile_s, verdict="never")
    if ratio.half is not None and not speed.shown:
        return replace(one, verdict="unproven")
    if ratio.estimate <= 1:
        return one
    steps = Interval(*(steps_at(each) for each in (ratio.estimate, ratio.high, ratio.low) if each is not None))
    epochs, seconds = steps.scaled(cell.batch_size / epoch_samples), steps.scaled(step_s)
    return replace(one, verdict="after", steps=steps, epochs=epochs, seconds=seconds)


def crossover(model: str, device: str, variant: str, ratios: Sequence[tuple[int, SpeedUp]]) -> Crossover:
    """The batch size from which on ``device`` is faster: where ln(ratio) rises through 0.

    Between two measured batch sizes ln(ratio) is taken as linear in ln(batch size). The interval is that of the batch
    sizes at which the ratio's own interval, interpolated alike, holds 1: it covers what the ratios' intervals cover,
    not the error of the interpolation.

    Args:
        ratios: (batch size, speed-up of the device over the CPU), in any order.

    Returns:
        ``unknown`` with a reason where there is no ratio, or where the device is faster at a batch size and slower at a
        larger one; unknown ends where a ratio has no interval.
    """
    one = Crossover(model=model, device=device, variant=variant)
    if not ratios:
        return replace(one, reason="no batch size was timed on both")
    points = sorted((size, speed.interval.log()) for size, speed in ratios)
    sizes, logs = [size for size, _ in points], [log.estimate for _, log in points]
    faster = [log > 0 for log in logs]
    if faster != sorted(faster):
        return replace(one, reason="faster at a batch size, but not at a larger one: there is no one crossover")
    one = replace(one, estimate=_rise(sizes, logs, 0))
    bounds = [(log.low, log.high) for _, log in points if log.low is not None and log.high is not None]
    if len(bounds) < len(points):
        return replace(one, reason="a ratio has no interval: time more seeds")
    lows, highs = zip(*bounds, strict=True)
    return replace(one, low=_rise(sizes, highs, 0), high=_rise(sizes, lows, -1))


def seeds_to_tell(speed: SpeedUp, done: int) -> int | None:
    """About how many seeds, as long as those so far each, would tell a ratio from 1 that this one does not.

    If the ratio stays, and one seed its spread, the Student interval of so many holds 1 no more, or lies within
    ``SAME`` of it, with a chance of ``POWER``: (t(0.975) + t(0.8)) sd / sqrt(n) is at most the way to the nearer of
    both. The spread of one seed is read off the interval: half of it / the normal quantile of one session (which holds
    what differs between processes), half of it sqrt(n) / Student's of several.

    Args:
        done: seeds so far.

    Returns:
        Those so far included; 3 where there is no interval yet; None: more than ``MOST_SEEDS``.
    """
    log = speed.interval.log()
    if log.half is None:
        return max(3, done + 1)
    several = speed.paired != "within"
    samples = max(done, speed.sessions) if several else 1
    spread = log.half / (student_quantile(samples - 1) if several else NORMAL_QUANTILE) * math.sqrt(samples)
    return seeds_for(max(abs(log.estimate), math.log1p(SAME) - abs(log.estimate)), spread, done + 1)


def seeds_for(way: float, spread: float, least: int = 3) -> int | None:
    """The fewest seeds, ``least`` and 3 at least, that tell ``way`` (log scale) from 0 if one seed has this spread."""

    def half(seeds: int) -> float:
        return (student_quantile(seeds - 1) + student_quantile(seeds - 1, 2 * POWER - 1)) * spread / math.sqrt(seeds)

    return next((seeds for seeds in range(max(3, least), MOST_SEEDS + 1) if half(seeds) <= way), None)


def _rise(sizes: Sequence[int], logs: Sequence[float], end: Literal[0, -1]) -> BatchPoint:
    """Where the line goes from 0 or less to more for the first time (0), or from where on it stays there (-1)."""
    steps = zip(sizes, sizes[1:], logs, logs[1:], strict=False)
    rises = [
        BatchPoint("at", math.exp(math.log(a) + before / (before - after) * math.log(b / a)))
        for a, b, before, after in steps
        if before <= 0 < after
    ]
    outside = logs[0] > 0 if end == 0 else logs[-1] <= 0
    if rises and not outside:
        return rises[end]
    return BatchPoint("below", sizes[0]) if logs[end] > 0 else BatchPoint("above", sizes[-1])


# ``identical``: the same predictions, image by image. ``equivalent``: the difference's interval lies within the margin,
# of ``ENOUGH_SEEDS``. ``better``, ``worse``: it lies on one side of 0 and reaches beyond the margin. ``unproven``: any
# other. ``incomparable``: the two were not scored on the same images.
Verdict = Literal["identical", "equivalent", "better", "worse", "unproven", "incomparable"]

# Of accuracy. A difference below MARGIN does not matter here (docs/measurement.md, "Comparisons"); CLASS_MARGIN is what
# changed numerics may cost (the same, "The same mathematics, or said so").
MARGIN, CLASS_MARGIN = 0.003, 0.002
# Trainings that start on a plateau are two-humped, not normal. Where half of them are stuck, n seeds hold none of these
# with probability 2^-n: from 6 on below 2.5 %.
ENOUGH_SEEDS = 6
MARKS: dict[Verdict, str] = {"worse": "↓", "better": "?", "unproven": "?", "incomparable": "?"}
FOOTNOTES = {
    "↓": f"accuracy shown to be worse than the reference's, and not shown to be within {100 * MARGIN:.2f} pp of it",
    "?": f"accuracy not shown to be equivalent (within {100 * MARGIN:.2f} pp, over {ENOUGH_SEEDS} seeds or more)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyDifference:
    """The accuracies of two cells over their common seeds (``seeds`` of them); ``difference`` is this - reference."""

    reference: float
    this: float
    difference: Interval
    seeds: int
    verdict: Verdict

    @property
    def mark(self) -> str:
        """The sign that a ratio beside this difference carries; empty where the accuracy was shown equivalent."""
        return MARKS.get(self.verdict, "")


def compare_accuracy(
    pairs: Sequence[tuple[Measurement, Measurement]], *, margin: float = MARGIN, same_images: bool = True
) -> AccuracyDifference | None:
    """The final accuracies of two cells over their common seeds.

    The interval (95 %) is Student's over the seeds' differences; their standard deviation is at least sqrt(err / 2n),
    so that seeds which happen to agree prove little. Below 3 seeds there is none, and nothing is proven by it: one seed
    in four shows a difference where half of either side's trainings are stuck. Equal predictions in every seed need no
    statistics. To call the accuracies equivalent, the whole interval must lie within ``margin``, two one-sided tests at
    2.5 % each, and the seeds must be enough to have met a training that is stuck.

    Args:
        pairs: (reference, this) of one seed each.
        same_images: both were scored on the same images; if not, nothing is concluded.

    Returns:
        None without a pair.
    """
    if not pairs:
        return None
    before = [reference.epochs.accuracy[-1] for reference, _ in pairs]
    after = [this.epochs.accuracy[-1] for _, this in pairs]
    verdict: Verdict = "identical"
    interval = Interval(0.0, 0.0, 0.0)
    if not same_images or any(one.predictions_sha256 != other.predictions_sha256 for one, other in pairs):
        changes = [b - a for a, b in zip(before, after, strict=True)]
        interval = stats.t_interval(changes, variance_floor=_seed_variance(pairs))
        verdict = _verdict(interval, len(pairs), margin) if same_images else "incomparable"
    return AccuracyDifference(
        reference=statistics.fmean(before),
        this=statistics.fmean(after),
        difference=interval,
        seeds=len(pairs),
        verdict=verdict,
    )


def _seed_variance(pairs: Sequence[tuple[Measurement, Measurement]]) -> float:
    """Variance of the accuracy of one training: err / 2n, with one error at least (none at all proves no certainty)."""
    accuracies = [m.epochs.accuracy[-1] for pair in pairs for m in pair]
    images = min(m.eval_samples / len(m.epochs.accuracy) for pair in pairs for m in pair)
    error = max(1 - statistics.fmean(accuracies), 1 / images)
    return error / (2 * images)


def _verdict(interval: Interval, seeds: int, margin: float) -> Verdict:
    if interval.low is None or interval.high is None:
        return "unproven"
    if interval.low > -margin and interval.high < margin:
        return "equivalent" if seeds >= ENOUGH_SEEDS else "unproven"
    if interval.high < 0:
        return "worse"
    return "better" if interval.low > 0 else "unproven"
