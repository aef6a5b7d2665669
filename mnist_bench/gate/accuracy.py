"""Is a cell less accurate? Equal predictions first; for the seeds that differ, t tests at a few looks. Pure.

Two trainings of one recipe spread: one accuracy has the standard deviation sqrt(err / 2n) about its mean (n scored
images, error rate err), where an ensemble of trainings is calibrated (Jordan, *On the Variance of Neural Network
Training with respect to Test Sets and Distributions*, 2023, arXiv:2304.01910). The difference of two independent
trainings then has the variance err_a / 2n + err_b / 2n. It is the least variance that is believed: seeds that happen to
agree prove little. Sides that share a seed may differ by less; the tests are then careful, not wrong.

Trainings that start on a plateau are not normal: they end in one of two humps, far apart. That every seed of A ends in
the upper and every one of B in the lower has the chance (p (1 - p))^n <= 4^-n though nothing has changed, and Student's
t, which sees hardly any spread then, would call it a drop: nothing fails before 4^-n is below the level of its test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import accumulate

from mnist_bench import stats
from mnist_bench.gate.evidence import Margins, Record, SeedPair, Training
from mnist_bench.gate.speed import DEFAULT, Decision

# Numbers of seeds that differ at which a cell is tested, each half as many again. Below 4, Student's quantile at these
# levels is so large that only a wreck would show. At 10 % errors and 20 cells, 72 find a drop of 0.30 pp in 98 of 100.
LOOKS = (4, 6, 9, 14, 21, 32, 48, 72)
FEW_SEEDS = 3  # below, a spread over seeds says nothing


class AccuracyFinding(Record, frozen=True, kw_only=True):
    """What the seeds say. ``change`` is the mean of B - A over the seeds that differ, with its 95 % interval.

    ``identical`` counts the seeds with equal predictions, ``seeds`` all of them.
    """

    decision: Decision
    a: float
    b: float
    change: stats.Interval
    seeds: int
    identical: int
    more_seeds: int = 0  # how many more are needed for a decision, about; 0: decided, or no look is left


def find_accuracy(seeds: Sequence[SeedPair], cells: int, margins: Margins = DEFAULT) -> AccuracyFinding | None:
    """What the seeds of one cell say.

    ``pass`` where the predictions of every seed are equal. Else the seeds that differ are tested alone, so that equal
    ones neither dilute a drop nor vouch for it. At each look that they have reached, in order: ``fail`` if a drop <=
    ``drop`` is rejected, else ``pass`` if a drop >= ``drop_detect`` is. The first look that decides stands; seeds
    beyond it are not used.

    A test that fails has the level drop_alpha / (looks K): false alarms are counted over all cells and looks. A test
    that passes has drop_alpha / looks: each real drop is certified away with at most that chance, over its looks.

    Args:
        seeds: of one cell, in the order in which they were trained.
        cells: K, how many the check compares.
        margins: what is tolerated, and how often this may be wrong.

    Returns:
        None without a seed. The interval of ``change`` is Student's, below 3 seeds the normal one with the floored
        standard deviation.
    """
    if not seeds:
        return None
    counts = list(accumulate(0 if identical(seed) else 1 for seed in seeds))  # of those that differ, so far
    if not counts[-1]:
        return _finding(seeds, "pass")
    for number in LOOKS:
        if number > counts[-1]:
            break
        looked = seeds[: counts.index(number) + 1]
        decision = _test(_changes(looked), _sd(looked), number, cells, margins)
        if decision != "undecided":
            return _finding(looked, decision)
    return _finding(seeds, "undecided", _more_seeds(seeds, cells, margins))


def identical(seed: SeedPair) -> bool:
    """Whether both sides predict the same: the exact tier."""
    a, b = seed.a, seed.b
    same = a.predictions_sha256 == b.predictions_sha256 != ""
    return same and (a.accuracy, a.images) == (b.accuracy, b.images)


def fail_level(cells: int, margins: Margins = DEFAULT) -> float:
    """Of one test for a drop, of one cell at one look."""
    return margins.drop_alpha / (len(LOOKS) * cells)


def pass_level(margins: Margins = DEFAULT) -> float:
    """Of one test against a drop, at one look."""
    return margins.drop_alpha / len(LOOKS)


def floor_variance(a: Sequence[Training], b: Sequence[Training]) -> float:
    """The least variance of one difference B - A that is believed: err_a / 2n + err_b / 2n.

    With one error at least a side: none at all proves no certainty.
    """
    return sum(_training_variance(side) for side in (a, b))


def _training_variance(side: Sequence[Training]) -> float:
    images = min(one.images for one in side)
    error = max(1 - statistics.fmean(one.accuracy for one in side), 1 / images)
    return error / (2 * images)


def _test(changes: Sequence[float], sd: float, number: int, cells: int, margins: Margins) -> Decision:
    """The decision if ``number`` seeds had the mean of ``changes`` and the standard deviation ``sd``."""
    mean, error, alpha = statistics.fmean(changes), sd / math.sqrt(number), fail_level(cells, margins)
    if 0.25**number <= alpha and -mean - margins.drop >= _quantile(alpha, number - 1) * error:
        return "fail"
    if margins.drop_detect + mean >= _quantile(pass_level(margins), number - 1) * error:
        return "pass"
    return "undecided"


def _quantile(one_sided_level: float, freedom: int) -> float:
    return stats.student_quantile(freedom, 1 - 2 * one_sided_level)


def _differing(seeds: Sequence[SeedPair]) -> list[SeedPair]:
    return [seed for seed in seeds if not identical(seed)]


def _changes(seeds: Sequence[SeedPair]) -> list[float]:
    """B - A of the seeds that differ."""
    return [seed.b.accuracy - seed.a.accuracy for seed in _differing(seeds)]


def _sd(seeds: Sequence[SeedPair]) -> float:
    """Of one difference, over the seeds that differ; at least the floor."""
    differing, changes = _differing(seeds), _changes(seeds)
    own = statistics.variance(changes) if len(changes) > 1 else 0.0
    return math.sqrt(max(own, floor_variance([s.a for s in differing], [s.b for s in differing])))


def _more_seeds(seeds: Sequence[SeedPair], cells: int, margins: Margins) -> int:
    """About how many more until a look decides, if mean and spread stay as they are; 0: no look is left.

    Where no look would, those up to the last one. Seeds with equal predictions, in the share seen so far, are counted
    in: they bring no look nearer.
    """
    changes, sd = _changes(seeds), _sd(seeds)
    left = [look for look in LOOKS if look > len(changes)]
    if not left:
        return 0
    deciding = (look for look in left if _test(changes, sd, look, cells, margins) != "undecided")
    return math.ceil((next(deciding, left[-1]) - len(changes)) * len(seeds) / len(changes))


def _finding(seeds: Sequence[SeedPair], decision: Decision, more_seeds: int = 0) -> AccuracyFinding:
    return AccuracyFinding(
        decision=decision,
        a=statistics.fmean(seed.a.accuracy for seed in seeds),
        b=statistics.fmean(seed.b.accuracy for seed in seeds),
        change=_interval(seeds),
        seeds=len(seeds),
        identical=sum(identical(seed) for seed in seeds),
        more_seeds=more_seeds,
    )


def _interval(seeds: Sequence[SeedPair]) -> stats.Interval:
    changes = _changes(seeds)
    if not changes:
        return stats.Interval(0.0, 0.0, 0.0)
    mean, few = statistics.fmean(changes), len(changes) < FEW_SEEDS
    quantile = stats.NORMAL_QUANTILE if few else stats.student_quantile(len(changes) - 1)
    half = quantile * _sd(seeds) / math.sqrt(len(changes))
    return stats.Interval(mean, mean - half, mean + half)
