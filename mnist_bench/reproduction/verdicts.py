"""Is the published figure one that this program's seeds could have given? Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_bench import stats
from mnist_bench.models import training_of
from mnist_bench.records import TRAIN_IMAGES, Measurement, ModelEntry, Trial
from mnist_bench.reproduction.published import Published

ONE_SEED_PP = 1.0  # of one seed, which shows no spread: this near is near
WIDE_PP = 10.0  # an interval so wide agrees with models that have little in common
MOST_OUTSIDE = 0.1  # of the epochs, for a column to fit: a 95 % interval is left now and then


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFigures:
    """One epoch: published, and measured by each seed (percent). ``low`` and ``high`` bound what would agree."""

    epoch: int
    published: float
    measured: tuple[float, ...]
    low: float
    high: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.measured)

    @property
    def difference(self) -> float:
        """Measured less published (pp)."""
        return self.mean - self.published

    @property
    def inside(self) -> bool:
        return self.low <= self.published <= self.high

    @property
    def wide(self) -> bool:
        """Whether so much would agree that agreement says little."""
        return self.high - self.low > WIDE_PP


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """One entry (``name``) beside the published column of ``model``. ``epochs`` is not empty."""

    name: str
    model: str
    lr: float
    seeds: tuple[int, ...]
    epochs: tuple[EpochFigures, ...]

    @property
    def final(self) -> EpochFigures:
        return self.epochs[-1]

    @property
    def outside(self) -> int:
        """How many epochs' published figures lie outside."""
        return sum(not each.inside for each in self.epochs)

    @property
    def rms(self) -> float:
        """The root mean square, over epochs, of measured less published (pp)."""
        return math.sqrt(statistics.fmean(each.difference**2 for each in self.epochs))

    @property
    def verdict(self) -> str:
        """On the last epoch."""
        if len(self.seeds) > 1:
            return "within the seeds' spread" if self.final.inside else "outside the seeds' spread"
        return "within 1 pp (one seed)" if self.final.inside else "over 1 pp off (one seed)"

    @property
    def fits(self) -> bool:
        """Whether the whole column agrees: the last epoch does, and of all at most one in ten does not."""
        return self.final.inside and self.outside <= MOST_OUTSIDE * len(self.epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateAnswer:
    """Which of erratum 4's rates the published ``cnn`` column fits. ``fits`` are names of entries, none to all."""

    fits: tuple[str, ...]
    closest: str
    text: str


def model_figures(entry: ModelEntry, trials: Sequence[Trial], published: Published) -> ModelFigures | None:
    """An entry's seeds that went well beside its published column, as far as both go; None where no seed did.

    Args:
        entry: of the matrix.
        trials: of the run with the recipe ``tutorial``.
        published: the tutorial's columns.
    """
    ok = [(t.seed, t.outcome) for t in trials if t.cell.model == entry.name and isinstance(t.outcome, Measurement)]
    if not ok:
        return None
    by_epoch = zip(*(outcome.epochs.accuracy for _, outcome in ok), strict=True)
    pairs = zip(published[entry.model], by_epoch, strict=False)  # a short look has fewer epochs than the tutorial
    return ModelFigures(
        name=entry.name,
        model=entry.model,
        lr=training_of(entry, "tutorial").lr,
        seeds=tuple(sorted(seed for seed, _ in ok)),
        epochs=tuple(_epoch(number, figure, accuracies) for number, (figure, accuracies) in enumerate(pairs)),
    )


def _epoch(number: int, published: float, accuracies: Sequence[float]) -> EpochFigures:
    measured = tuple(100 * accuracy for accuracy in accuracies)
    low, high = agreeing(accuracies)
    return EpochFigures(epoch=number, published=published, measured=measured, low=low, high=high)


def agreeing(accuracies: Sequence[float]) -> tuple[float, float]:
    """Which published figures (percent) agree with the seeds' accuracies (fractions).

    With several seeds the 95 % prediction interval of one more seed: mean +- t s sqrt(1 + 1/n). The standard deviation
    s is at least the binomial one of the 60,000 images that are scored: seeds that happen to agree are not a narrow
    interval. With one seed, ``ONE_SEED_PP`` either side. No accuracy lies outside 0 and 100.
    """
    if len(accuracies) == 1:
        low, high = accuracies[0] - ONE_SEED_PP / 100, accuracies[0] + ONE_SEED_PP / 100
    else:
        mean = statistics.fmean(accuracies)
        low, high = stats.prediction_interval(accuracies, variance_floor=mean * (1 - mean) / TRAIN_IMAGES)
    return max(0.0, 100 * low), min(100.0, 100 * high)


def rate_answer(rates: Sequence[ModelFigures]) -> RateAnswer | None:
    """Answers erratum 4, with the evidence; None while not both rates were measured.

    Args:
        rates: the entries of ``cnn``, one per rate.
    """
    if len(rates) < 2:
        return None
    fitting = [each for each in rates if each.fits]
    closest = min(rates, key=lambda each: each.rms)
    match [f"lr {each.lr:g}" for each in fitting]:
        case []:
            words = f"The published cnn column fits neither rate; lr {closest.lr:g} is the closer."
        case [one] if fitting[0].final.wide:
            others = " and ".join(f"lr {each.lr:g}" for each in rates if not each.fits)
            words = f"The published cnn column does not fit {others}, and does not contradict {one}: "
            words += _why_wide(fitting[0])
        case [one]:
            words = f"The published cnn column fits {one}, and not the other rate."
        case names:
            words = f"The published cnn column fits {' and '.join(names)}; lr {closest.lr:g} is the closer."
            words += "".join(f" Of lr {each.lr:g}: {_why_wide(each)}" for each in fitting if each.final.wide)
    evidence = " ".join(_evidence(each) for each in rates)
    return RateAnswer(fits=tuple(each.name for each in fitting), closest=closest.name, text=f"{words} {evidence}")


def _why_wide(rate: ModelFigures) -> str:
    final = rate.final
    return (
        f"its seeds lie so far apart that anything from {final.low:.1f} to {final.high:.1f} % would agree after epoch "
        f"{final.epoch}, which confirms little."
    )


def signed(points: float) -> str:
    """A difference in percentage points, as ``+0.30``; what rounds to nothing is ``+0.00``, never ``-0.00``."""
    return f"{round(points, 2) + 0.0:+.2f}"


def _evidence(rate: ModelFigures) -> str:
    final, count = rate.final, len(rate.epochs)
    return (
        f"lr {rate.lr:g}: rms difference {rate.rms:.2f} pp; inside at {count - rate.outside} of {count} epochs; after "
        f"epoch {final.epoch} {final.mean:.2f} % measured, {final.published:.2f} % published, {rate.verdict}."
    )
