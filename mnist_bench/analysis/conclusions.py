"""What was asked, in a sentence or two a model: does compiling pay, which batch size, which device. Pure.

Of a ratio it is shown that a cell is faster, or slower, or as fast but for a difference that does not matter; or it
cannot be told, and then about how many seeds would tell (``answers.seeds_to_tell``).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from mnist_bench.analysis.answers import MOST_SEEDS, SAME, seeds_to_tell
from mnist_bench.figures import accuracy, significant
from mnist_bench.records import Cell
from mnist_bench.stats import NORMAL_QUANTILE
from mnist_bench.table import grouped, joined, listed

if TYPE_CHECKING:
    from mnist_bench.analysis.compare import Comparison, Line
    from mnist_bench.analysis.ratios import SpeedUp

# Two processes with the same code, one after the other, differ by this much (standard deviation of the log of their
# ratio; docs/measurement.md, "Why it needs care"): what a ratio must exceed that was timed apart and has no interval.
DRIFT_SD = 0.2
MOST_SENTENCES = 2  # of a model and a comparison, what is compiled first: a matrix may have dozens of variants
Told = Literal["faster", "slower", "same", "untold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is said of a model; without one, of the whole run.

    Args:
        seeds: about how many would tell what of ``untold`` (the cells and their references) cannot be told.
    """

    model: str
    text: str
    seeds: int | None = None
    untold: tuple[Cell, ...] = ()

    def __str__(self) -> str:
        return f"{self.model}: {self.text}" if self.model else self.text


@dataclass(frozen=True, slots=True)
class _Held:
    """A line with a ratio; ``seeds``: about how many would tell what cannot be told, None where it is too many."""

    line: "Line"
    cell: Cell
    reference: Cell
    speed: "SpeedUp"
    told: Told
    seeds: int | None


def conclude(comparisons: Iterable["Comparison"]) -> list[Answer]:
    """An answer for each model of which a comparison has a ratio."""
    texts: dict[str, list[str]] = {}
    untold: dict[str, list[_Held]] = {}
    for comparison in comparisons:
        for model, own in grouped(_held(comparison), attrgetter("cell.model")).items():
            subjects = _subjects(comparison, own)
            said = [_sentence(comparison, *subject) for subject in subjects[:MOST_SENTENCES]]
            more = dict.fromkeys(_name(comparison.by, lines[0].cell) for _, lines in subjects[MOST_SENTENCES:])
            texts.setdefault(model, []).extend(said + [f"In the table: {listed([*more])}."] * bool(more))
            untold.setdefault(model, []).extend(
                one for _, lines in subjects[:MOST_SENTENCES] for one in lines if one.told == "untold" and one.seeds
            )
    return [
        Answer(
            model=model,
            text=" ".join(said),
            seeds=max((one.seeds or 0 for one in untold[model]), default=None),
            untold=tuple(dict.fromkeys(cell for one in untold[model] for cell in (one.reference, one.cell))),
        )
        for model, said in texts.items()
    ]


def _held(comparison: "Comparison") -> Iterator[_Held]:
    """What was compared. Between two runs no number of seeds is named: drift between them does not average out."""
    for line in comparison.lines:
        if line.reference is not None and (speed := line.speed_up) is not None:
            done = line.accuracy.seeds if line.accuracy else 1
            seeds = None if comparison.by == "run" else seeds_to_tell(speed, done)
            yield _Held(line, line.cell, line.reference, speed, told(speed, noisy=line.noisy), seeds)


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
    """What a sentence is about, and its lines: what is compiled first; one variant by devices and batch sizes."""
    by, compiled = comparison.by, {one.cell for one in comparison.break_evens}
    if by in ("device", "batch_size"):
        held = [one for one in held if one.cell.variant == held[0].cell.variant]
    if by == "batch_size":  # the best one
        by_device = grouped(held, attrgetter("cell.device")).values()
        held = [max(own, key=attrgetter("speed.interval.estimate")) for own in by_device]
    several = by in ("variant", "batch_size") and len({one.cell.device for one in held}) > 1
    found = grouped(held, lambda one: joined(_name(by, one.cell), f"on {one.cell.device}" if several else ""))
    return sorted(found.items(), key=lambda item: not any(one.cell in compiled for one in item[1]))


def _name(by: str, cell: Cell, run: str = "B") -> str:
    """What a line is about, or what it is held against."""
    return run if by == "run" else f"batch {cell.batch_size:,}" if by == "batch_size" else str(getattr(cell, by))


def _sentence(comparison: "Comparison", about: str, held: Sequence[_Held]) -> str:
    """``compile: 9 % faster than eager [5, 13] at batch 100, pays after about 3 epochs (24 s of compiling)``."""
    special = {"model": "", "batch_size": f"{about.replace('batch', 'Batch', 1)}: "}
    subject = special.get(comparison.by, f"{about}: ")
    cell, than = held[0].cell, _name(comparison.by, held[0].reference, "A")
    crossing = {"faster", "slower"} <= {one.told for one in held}
    for one in comparison.crossovers if crossing else ():
        if (
            one.estimate.where == "at"
            and replace(cell, device=one.device, variant=one.variant, model=one.model) == cell
        ):
            return joined(f"{subject}faster than {than} from batch {one.estimate.words} on", one.bounds) + "."
    parts = []
    for verdict, own in grouped(held, attrgetter("told")).items():
        where = _where(comparison.by, [one.cell for one in own], len(held))
        beside = _accuracy(comparison.by, own)
        if verdict == "untold":
            against = joined("cannot be told from", than, _interval(own, _SIGNED), where)
            parts.append(against + beside + _would_tell(comparison, own))
        elif verdict == "same":
            parts.append(joined(f"as fast as {than} within {100 * SAME:.0f} %", where) + beside)
        else:
            parts.append(joined(_much(comparison.by, own, than), where) + _pays(comparison, own) + beside)
    return f"{subject}{'; '.join(parts)}."


def _where(by: str, cells: Sequence[Cell], of: int) -> str:
    if by in ("model", "run"):
        return f"in {listed([cell.id.partition('/')[2] for cell in cells])}"
    sizes = listed([f"{cell.batch_size:,}" for cell in cells])
    where = "at every batch size compared" if len(cells) == of > 1 else f"at batch {sizes}"
    return "" if by == "batch_size" else where


# How ratios are written: the number that is made of one, and its text.
_Way = tuple[Callable[[float], float], Callable[[float], str]]
_TIMES: _Way = (float, lambda value: significant(value, 2))
_PERCENT: _Way = (lambda ratio: 100 * abs(ratio - 1), lambda value: f"{value:.0f}" if value >= 1 else f"{value:.1f}")
_POINTS: _Way = (float, lambda value: f"{value:.2f}")
_SIGNED: _Way = (lambda ratio: 100 * (ratio - 1), lambda value: f"{value:+.0f}")


def _ends(ratios: Iterable[float], way: _Way) -> list[str]:
    """The least and the largest; one where they read alike."""
    number, text = way
    ordered = sorted(map(number, ratios))
    return list(dict.fromkeys((text(ordered[0]), text(ordered[-1]))))


def _much(by: str, own: Sequence[_Held], than: str) -> str:
    """``9 % faster than eager [5, 13]``; batch sizes are compared by samples per second."""
    ratios = [one.speed.interval.estimate for one in own]
    percent = all(0.5 < ratio < 2 for ratio in ratios)
    percent_words, times_words = f"% {own[0].told} than", "times as fast as"
    if by == "batch_size":
        percent_words = f"% {'more' if own[0].told == 'faster' else 'fewer'} samples/s than"
        times_words = "times the samples/s of"
    way, how = (_PERCENT, percent_words) if percent else (_TIMES, times_words)
    return joined(" to ".join(_ends(ratios, way)), how, than, _interval(own, way))


def _interval(own: Sequence[_Held], way: _Way) -> str:
    """That of the one line."""
    if len(own) > 1:
        return ""
    one = own[0].speed.interval
    if one.low is None or one.high is None:
        return "(timed apart)" if own[0].speed.paired == "unpaired" else "(too few rounds)"
    unit = " %" if way is _SIGNED else ""
    return f"[{', '.join(_ends((one.low, one.high), way))}{unit}]"


def _would_tell(comparison: "Comparison", own: Sequence[_Held]) -> str:
    """Of two runs nothing: what the machine did between them does not average out over seeds."""
    if comparison.by == "run":
        return ""
    known = [one.seeds for one in own if one.seeds is not None]
    give = "give an interval" if any(one.speed.interval.half is None for one in own) else "tell"
    return f": about {max(known)} seeds would {give}" if known else f": {MOST_SEEDS} seeds would hardly tell"


def _pays(comparison: "Comparison", own: Sequence[_Held]) -> str:
    """``, pays after about 3 epochs (24 s of compiling)``."""
    cells = [one.cell for one in own]
    pays = [one for one in comparison.break_evens if one.cell in cells and one.epochs is not None]
    if not pays:
        return ""
    epochs = _ends((one.epochs.estimate for one in pays if one.epochs), _TIMES)
    seconds = _ends((one.compile_s for one in pays), _TIMES)
    unit = "epoch" if epochs == ["1.0"] else "epochs"
    return f", pays after about {' to '.join(epochs)} {unit} ({' to '.join(seconds)} s of compiling)"


def _accuracy(by: str, own: Sequence[_Held]) -> str:
    """Where it belongs to the question, or was shown to be worse."""
    found = [one.line.accuracy for one in own if one.line.accuracy]
    if by in ("batch_size", "model"):
        both = [tuple(map(accuracy, (one.this, one.reference))) for one in found[: len(own) == 1]]
        return "".join(f", accuracy {this} and not {other}" for this, other in both if this != other)
    worse = [-100 * one.difference.estimate for one in found if one.verdict == "worse"]
    return f", accuracy worse by {' to '.join(_ends(worse, _POINTS))} points" if worse else ""
