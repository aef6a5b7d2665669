"""Is the accuracy of two cells the same? A difference over common seeds, its interval, and a verdict. Pure.

Sources: the spread of one training's accuracy about its mean is sqrt(err / 2n) (n scored images, error rate err) where
an ensemble of trainings is calibrated: Jordan, *On the Variance of Neural Network Training with respect to Test Sets
and Distributions* (2023), arXiv:2304.01910. Equivalence by an interval within a margin: Schuirmann (1987), J.
Pharmacokinet. Biopharm. 15, 657-680 (two one-sided tests).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mnist_bench import stats
from mnist_bench.records import Measurement

# ``identical``: the same predictions, image by image. ``equivalent``: the difference's interval lies within the margin,
# of ``ENOUGH_SEEDS``. ``better``, ``worse``: it lies on one side of 0 and reaches beyond the margin. ``unproven``: any
# other. ``incomparable``: the two were not scored on the same images.
Verdict = Literal["identical", "equivalent", "better", "worse", "unproven", "incomparable"]

MARGIN = 0.003  # of accuracy: a difference below it does not matter here
# Trainings that start on a plateau are two-humped, not normal. Where half of them are stuck, n seeds hold none of these
# with probability 2^-n: from 6 on below 2.5 %.
ENOUGH_SEEDS = 6
MARKS: dict[Verdict, str] = {"worse": "↓", "better": "?", "unproven": "?", "incomparable": "?"}
FOOTNOTES = {
    "↓": f"accuracy shown to be worse than the reference's, and not shown to be within {100 * MARGIN:.2f} pp of it",
    "?": f"accuracy not shown to be equivalent (within {100 * MARGIN:.2f} pp, over {ENOUGH_SEEDS} seeds or more): "
    "judge the speed-up together with it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyDifference:
    """The accuracies of two cells over their common seeds (``seeds`` of them); ``difference`` is this - reference."""

    reference: float
    this: float
    difference: stats.Interval
    seeds: int
    verdict: Verdict

    @property
    def mark(self) -> str:
        """The sign that a ratio beside this difference carries; empty where the accuracy was shown equivalent."""
        return MARKS.get(self.verdict, "")


def compare_accuracy(
    pairs: Sequence[tuple[Measurement, Measurement]], *, same_images: bool = True
) -> AccuracyDifference | None:
    """The final accuracies of two cells over their common seeds.

    The interval (95 %) is Student's over the seeds' differences; their standard deviation is at least sqrt(err / 2n),
    so that seeds which happen to agree prove little. Below 3 seeds there is none, and nothing is proven by it: one seed
    in four shows a difference where half of either side's trainings are stuck. Equal predictions in every seed need no
    statistics. To call the accuracies equivalent, the whole interval must lie within ``MARGIN``, two one-sided tests at
    2.5 % each, and the seeds must be enough to have met a training that is stuck.

    Args:
        pairs: (reference, this) of one seed each.
        same_images: both were scored on the same images; if not, nothing is concluded.

    Returns:
        None where nothing was scored in a common seed.
    """
    scored = [(one, other) for one, other in pairs if one.epochs.accuracy and other.epochs.accuracy]
    if not scored:
        return None
    before = [reference.epochs.accuracy[-1] for reference, _ in scored]
    after = [this.epochs.accuracy[-1] for _, this in scored]
    changes = [b - a for a, b in zip(before, after, strict=True)]
    identical = same_images and all(one.predictions_sha256 == other.predictions_sha256 for one, other in scored)
    interval = (
        stats.Interval(0.0, 0.0, 0.0) if identical else stats.t_interval(changes, variance_floor=_seed_variance(scored))
    )
    return AccuracyDifference(
        reference=statistics.fmean(before),
        this=statistics.fmean(after),
        difference=interval,
        seeds=len(scored),
        verdict="identical" if identical else _verdict(interval, len(scored)) if same_images else "incomparable",
    )


def _seed_variance(pairs: Sequence[tuple[Measurement, Measurement]]) -> float:
    """Variance of the accuracy of one training: err / 2n, with one error at least (none at all proves no certainty)."""
    accuracies = [m.epochs.accuracy[-1] for pair in pairs for m in pair]
    images = min(m.eval_samples / len(m.epochs.accuracy) for pair in pairs for m in pair)
    error = max(1 - statistics.fmean(accuracies), 1 / images)
    return error / (2 * images)


def _verdict(interval: stats.Interval, seeds: int) -> Verdict:
    if interval.low is None or interval.high is None:
        return "unproven"
    if interval.low > -MARGIN and interval.high < MARGIN:
        return "equivalent" if seeds >= ENOUGH_SEEDS else "unproven"
    if interval.high < 0:
        return "worse"
    return "better" if interval.low > 0 else "unproven"
