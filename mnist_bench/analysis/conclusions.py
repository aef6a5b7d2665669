"""What was asked, in a sentence or two a model: does compiling pay, which batch size, which device. Pure.

Of a ratio it is shown that a cell is faster, or slower, or as fast but for a difference that does not matter; or it
cannot be told, and then about how many seeds would tell (``answers.seeds_to_tell``).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from mnist_bench.analysis.answers import MARGIN, MOST_SEEDS, SAME, AccuracyDifference, seeds_to_tell
from mnist_bench.figures import accuracy, bounds, ratio, significant
from mnist_bench.records import Cell
from mnist_bench.stats import NORMAL_QUANTILE
from mnist_bench.table import grouped, joined, listed, span

if TYPE_CHECKING:
    from mnist_bench.analysis.compare import Comparison
    from mnist_bench.analysis.ratios import SpeedUp

# Two processes with the same code, one after the other, differ by this much (standard deviation of the log of their
# ratio; docs/measurement.md, "Why it needs care"): what a ratio must exceed that was timed apart and has no interval.
DRIFT_SD = 0.2
MOST_SENTENCES = 2  # of a model and a comparison, what is compiled first: a matrix may have dozens of variants
Told = Literal["faster", "slower", "same", "untold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is said of a model.

    Args:
        seeds: about how many would tell what of ``untold`` (the cells and their references) cannot be told.
    """

    model: str
    text: str
    seeds: int | None = None
    untold: tuple[Cell, ...] = ()

    def __str__(self) -> str:
        return f"{self.model}: {self.text}"


class _Held(NamedTuple):
    """A line with a ratio; ``seeds``: about how many would tell what cannot be told, None where it is too many."""

    cell: Cell
    reference: Cell
    speed: "SpeedUp"
    accuracy: AccuracyDifference | None
    told: Told
    seeds: int | None


def conclude(comparisons: Iterable["Comparison"]) -> list[Answer]:
    """An answer for each model of which a comparison has a ratio."""
    found: dict[str, list[tuple[str, list[_Held]]]] = {}
    for comparison in comparisons:
        for model, own in grouped(_held(comparison), attrgetter("cell.model")).items():
            subjects = _subjects(comparison, own)[:MOST_SENTENCES]
            found.setdefault(model, []).extend((_sentence(comparison, *one), one[1]) for one in subjects)
    return [_answer(model, said) for model, said in found.items()]


def _answer(model: str, said: Sequence[tuple[str, Sequence[_Held]]]) -> Answer:
    untold = [one for _, own in said for one in own if one.told == "untold" and one.seeds]
    return Answer(
        model=model,
        text=" ".join(sentence for sentence, _ in said),
        seeds=max((one.seeds or 0 for one in untold), default=None),
        untold=tuple(dict.fromkeys(cell for one in untold for cell in (one.reference, one.cell))),
    )


def _held(comparison: "Comparison") -> Iterator[_Held]:
    """What was compared."""
    for line in comparison.lines:
        if line.reference is not None and (speed := line.speed_up) is not None:
            done = line.accuracy.seeds if line.accuracy else 1
            seeds = seeds_to_tell(speed, done) if comparison.more_seeds else None
            yield _Held(line.cell, line.reference, speed, line.accuracy, told(speed, noisy=line.noisy), seeds)


def told(speed: "SpeedUp", *, noisy: bool = False) -> Told:
    """What a ratio shows.

    One without an interval that was timed apart must be larger than drift makes it, and undisturbed.
    """
    one = speed.interval
    if speed.shown:
        return speed.shown
    if one.low is not None and one.high is not None and one.low * (1 + SAME) > 1 and one.high < 1 + SAME:
        return "same"
    apart = speed.paired == "unpaired" and not noisy
    if one.low is None and apart and abs(math.log(one.estimate)) > NORMAL_QUANTILE * DRIFT_SD:
        return "faster" if one.estimate > 1 else "slower"
    return "untold"


def _subjects(comparison: "Comparison", held: Sequence[_Held]) -> list[tuple[str, list[_Held]]]:
    """What a sentence is about (nothing: the model), and its lines: what is compiled first; one variant by devices and
    batch sizes, of these the best."""
    by, compiled = comparison.by, {one.cell for one in comparison.break_evens}
    if by in ("model", "run"):
        return [("", [*held])]
    if by != "variant":
        held = [one for one in held if one.cell.variant == held[0].cell.variant]
    if by == "batch_size":
        by_device = grouped(held, attrgetter("cell.device")).values()
        held = [max(own, key=attrgetter("speed.interval.estimate")) for own in by_device]
    several = by != "device" and len({one.cell.device for one in held}) > 1
    found = grouped(held, lambda one: joined(_name(by, one.cell), f"on {one.cell.device}" if several else ""))
    return sorted(found.items(), key=lambda item: not any(one.cell in compiled for one in item[1]))


def _name(by: str, cell: Cell) -> str:
    return "A" if by == "run" else f"batch {cell.batch_size:,}" if by == "batch_size" else str(getattr(cell, by))


def _sentence(comparison: "Comparison", about: str, held: Sequence[_Held]) -> str:
    """``compile: faster than eager (1.09x [1.05, 1.13]) at batch 100, pays after about 3.0 epochs.``"""
    first, crossing = held[0].cell, {"faster", "slower"} <= {one.told for one in held}
    of = (first.model, first.device, first.variant)
    own = [one for one in comparison.crossovers if (one.model, one.device, one.variant) == of]
    parts = [one.words for one in own if crossing and one.estimate.where == "at"]
    parts = parts or [_part(comparison, *one) for one in grouped(held, attrgetter("told")).items()]
    return joined(f"{about}:" if about else "", f"{'; '.join(parts)}.")


def _part(comparison: "Comparison", verdict: Told, held: Sequence[_Held]) -> str:
    """What is told alike, where, and what follows."""
    by, cells = comparison.by, [one.cell for one in held]
    how = {"same": f"within {100 * SAME:.0f} % of", "untold": "cannot be told from"}.get(verdict, f"{verdict} than")
    where = f"at batch {listed([f'{cell.batch_size:,}' for cell in cells])}" if by != "batch_size" else ""
    if by in ("model", "run"):
        where = f"in {listed([cell.id.partition('/')[2] for cell in cells])}"
    said = joined(how, _name(by, held[0].reference), _ratio(held), where)
    epochs = [one.epochs.estimate for one in comparison.break_evens if one.epochs and one.cell in cells]
    if epochs and verdict == "faster":
        said += f", pays after about {span(epochs, lambda value: significant(value, 2))} epochs"
    both = [one.accuracy for one in held if one.accuracy]
    other = [one for one in both if one.verdict == "worse" or abs(one.this - one.reference) > MARGIN]
    if found := dict.fromkeys(f"{accuracy(one.this)} and not {accuracy(one.reference)}" for one in other):
        said += f", accuracy {listed([*found])}"
    return said + (_would_tell(held) if verdict == "untold" and comparison.more_seeds else "")


def _ratio(held: Sequence[_Held]) -> str:
    """``(1.09x [1.05, 1.13])``; of several lines the least and the largest."""
    one, spanned = held[0].speed, span([one.speed.interval.estimate for one in held], ratio)
    if one.paired == "unpaired" and one.interval.half is None:
        return f"({spanned}, timed apart)"
    return f"({joined(spanned, bounds(one.interval.low, one.interval.high) if len(held) == 1 else '')})"


def _would_tell(held: Sequence[_Held]) -> str:
    known = [one.seeds for one in held if one.seeds]
    give = "tell" if all(one.speed.interval.half for one in held) else "give an interval"
    return f": about {max(known)} seeds would {give}" if known else f": {MOST_SEEDS} seeds would hardly tell"
