"""Cells of a run against each other, and two runs cell by cell: arithmetic on what their files say.

No ratio is computed from a cell that is not ``ok``, unless those of its other seeds are asked for: such a cell keeps
its line, with status and reason. Ratios are above 1 where *this* cell (or run B) is faster than its reference (run A).
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, get_args

from mnist_bench import figures, stats
from mnist_bench.analysis import answers
from mnist_bench.analysis.answers import AccuracyDifference, BreakEven, Crossover, compare_accuracy
from mnist_bench.analysis.conclusions import conclude
from mnist_bench.analysis.keys import Difference, differences, key_of, ranked
from mnist_bench.analysis.ratios import PROCESS_SD, SpeedUp, speed_up
from mnist_bench.analysis.summary import Run, common
from mnist_bench.cells import reference_variant, variant_of
from mnist_bench.errors import UsageError, unknown
from mnist_bench.figures import Measured, cell_columns, interval_columns, significant
from mnist_bench.records import Cell, VariantClass
from mnist_bench.stats import Interval
from mnist_bench.table import Column, Document, Table, at, by_reason, for_programs, grouped, joined, texts

By = Literal["device", "variant", "batch_size", "model"]
BY: tuple[By, ...] = get_args(By)
Choice = Callable[[Cell], bool]  # the cells that a comparison is about; their references need not be among them

FOOTNOTES = {**figures.FOOTNOTES, **answers.FOOTNOTES}
UNPROVEN = "Not shown to pay off: the interval of the ratio holds 1."
ACROSS = "Across machines: what the ratios hold beside the code, what moves speed most first"
MOST_LINES = 100  # that people are shown: of more, the slowest and the fastest
DRIFT = "The two runs lie apart in time: what the machine did meanwhile is in every ratio, and in no interval."


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One cell against its reference: a cell of the same run, or the same cell of run A.

    Args:
        reference: None where it would be the cell itself, or is not there.
        reason: the cell's own; an ``ok`` cell has one too where no ratio could be computed.
        speed_up: of seconds per step (by batch size or model, of samples per second).
        sides: what was measured of the cell, and of its reference where it is held against it; the worse one speaks.
        differs: in what the comparability keys of two runs differ.
    """

    cell: Cell
    reference: Cell | None
    status: str
    reason: str
    sides: Sequence[Measured]
    speed_up: SpeedUp | None = None
    accuracy: AccuracyDifference | None = None
    differs: tuple[Difference, ...] = ()

    @property
    def noisy(self) -> bool:
        return any(side.noisy for side in self.sides)

    @property
    def class_(self) -> VariantClass | None:
        return max((side.class_ for side in self.sides if side.class_), default=None)

    @property
    def partial(self) -> bool:
        """A seed of either side is not ok; the ratio is of the others."""
        return self.speed_up is not None and any(side.worst.status != "ok" for side in self.sides)

    @property
    def marks(self) -> str:
        """What a reader must know before believing the ratio, as signs of ``FOOTNOTES``; empty without a ratio."""
        if self.speed_up is None:
            return ""
        marks = figures.marks(noisy=self.noisy, unpaired=self.speed_up.paired == "unpaired", class_=self.class_)
        return marks + (self.accuracy.mark if self.accuracy else "")

    @property
    def shown(self) -> str:
        """The verdict in words: is this one faster?"""
        return "" if self.speed_up is None else self.speed_up.shown or "not told apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Cells against a reference each; ``runs`` are the ids of one run or of two (A, B)."""

    runs: tuple[str, ...]
    by: str
    reference: str
    lines: Sequence[Line]
    crossovers: tuple[Crossover, ...] = ()  # by device
    break_evens: tuple[BreakEven, ...] = ()  # by variant
    differences: tuple[Difference, ...] = ()  # of two runs, what matters most first
    across_machines: bool = False
    more_seeds: bool = False  # would tell more: not between two runs, whose drift stays, nor of a race, which times one

    @property
    def comparable(self) -> bool:
        return any(line.speed_up for line in self.lines)


def default_by(run: Run, chosen: Choice | None = None) -> By:
    """What a run is best compared by: devices where a chosen cell has the CPU to be held against, else variants where
    several are chosen, else batch sizes. Of the cells that were measured."""
    measured = [cell for cell, one in run.cells.items() if one.worst.status == "ok"]
    wanted = [cell for cell in measured if chosen is None or chosen(cell)]
    if any(cell.device == "cpu" for cell in measured) and any(cell.device != "cpu" for cell in wanted):
        return "device"
    return "variant" if len({cell.variant for cell in wanted}) > 1 else "batch_size"


def compare_as_asked(
    a: Run, b: Run | None, by: By | None, reference: str | None, *, across_machines: bool, chosen: Choice | None = None
) -> Comparison:
    """``compare_cells``, or of two runs ``compare_runs``.

    Args:
        by: None: ``default_by``.
        reference: a variant by its name.

    Raises:
        UsageError: nothing of the kind can be asked of one run, or of two.
    """
    if b is not None:
        if by or reference:
            raise UsageError("--by, --reference: of the cells of one run; two runs are compared cell by cell")
        return compare_runs(a, b, across_machines=across_machines, chosen=chosen)
    if across_machines:
        raise UsageError("--across-machines: compares two runs; name a second one")
    if by and by not in BY:
        raise UsageError(f"--by: {unknown('key', by, BY)}")
    variant = reference and variant_of(a.manifest.matrix, reference).name
    return compare_cells(a, by or default_by(a, chosen), chosen, reference=variant)


def compare_cells(
    run: Run, by: By, chosen: Choice | None = None, *, reference: str | None = None, partial: bool = False
) -> Comparison:
    """Every cell of a run against its reference.

    Args:
        by: ``device``: against the CPU; ``variant``: against the reference variant (``cells.reference_variant``, or
            ``reference``); ``batch_size``: against the smallest that is ok; ``model``: against the matrix's first.
            Batch sizes and models never share a session: their ratios are of samples per second, unpaired.
        chosen: the cells to list; None: all.
        partial: a cell of which some seeds are ok is compared by these, as in ``results.csv``, and so marked; seeds
            that survive are no fair sample, so it must be asked for.

    Returns:
        A line for each cell that has a reference, and for each that is not ok.
    """
    usable = {cell for cell, one in run.cells.items() if (one.ok if partial else one.worst.status == "ok")}
    words, held = _references(run, by, usable, reference or reference_variant(run.manifest.matrix))
    others = {cell: held(cell) for cell in run.cells if chosen is None or chosen(cell)}
    found: list[Line | None] = []
    for _, some in groupby(others, attrgetter("model", "batch_size")):
        cells = [*some]
        run.index.measure(pair for cell in cells if cell in usable for pair in run.pairs(others[cell], cell))
        found += [_line(run, cell, others[cell] if others[cell] != cell else None, usable) for cell in cells]
        run.index.forget()
    lines = [line for line in found if line is not None]
    return Comparison(
        runs=(run.manifest.run_id,),
        by=by,
        reference=words,
        lines=lines,
        crossovers=_crossovers(lines) if by == "device" else (),
        break_evens=tuple(_break_evens(run, lines)) if by == "variant" else (),
        more_seeds=run.manifest.options.race is None,
    )


def _references(run: Run, by: By, usable: Iterable[Cell], variant: str | None) -> tuple[str, Callable[[Cell], Cell]]:
    """What cells are held against, in words, and the one of a cell: itself, where it is a reference or has none."""
    first = run.manifest.matrix.models[0].name if by == "model" else ""
    largest_first = sorted(usable, key=lambda cell: -cell.batch_size)
    smallest = {replace(cell, batch_size=0): cell for cell in largest_first}  # the last one stays
    named = f"the variant {variant}" if variant else "no reference: no variant has eager's settings (--reference)"
    found: dict[By, tuple[str, Callable[[Cell], Cell]]] = {
        "device": ("the same cell on the CPU", lambda cell: replace(cell, device="cpu")),
        "variant": (named, lambda cell: replace(cell, variant=variant or cell.variant)),
        "model": (f"the model {first}", lambda cell: replace(cell, model=first)),
        "batch_size": (
            "the smallest batch size that was measured",
            lambda cell: smallest.get(replace(cell, batch_size=0), cell),
        ),
    }
    return found[by]


def _line(run: Run, cell: Cell, reference: Cell | None, usable: Collection[Cell]) -> Line | None:
    """A line of the comparison; None for a cell that is ok and has nothing to be held against."""
    one = run.cells[cell]
    if one.worst.status == "ok" and reference is None:
        return None
    line = Line(cell=cell, reference=reference, status=one.worst.status, reason=one.worst.reason, sides=[one])
    if reference is None or cell not in usable:
        return line
    if reference not in run.cells:
        return replace(line, reason=f"its reference {reference.id} is not in this run, or not finished")
    other = run.cells[reference]
    if reference not in usable:
        why = f"{other.worst.status}: {other.worst.reason}"
        return replace(line, reason=f"its reference {reference.id} is not ok: {why}")
    pairs = common(run.ok[reference], run.ok[cell])
    speed = speed_up([(theirs, this) for (theirs, _), (this, _) in pairs], run.index)
    untimed = f"this cell or {reference.id} was never timed: no session of it is on record"
    return replace(
        line,
        # of steps of other sizes, that of samples per second
        speed_up=speed and replace(speed, interval=speed.interval.scaled(cell.batch_size / reference.batch_size)),
        reason=line.reason if speed else untimed if pairs else f"no seed in common with {reference.id}",
        accuracy=compare_accuracy([(theirs, this) for (_, theirs), (_, this) in pairs]),
        sides=[one, other],
    )


def _crossovers(lines: Iterable[Line]) -> tuple[Crossover, ...]:
    """One for each model, device and variant that has a line."""
    held = [line for line in lines if line.reference is not None]
    together = grouped(held, lambda line: (line.cell.model, line.cell.device, line.cell.variant))
    return tuple(
        answers.crossover(*names, [(line.cell.batch_size, line.speed_up) for line in own if line.speed_up is not None])
        for names, own in together.items()
    )


def _break_evens(run: Run, lines: Iterable[Line]) -> Iterator[BreakEven]:
    """One for each cell with a ratio that was compiled."""
    held = ((line.cell, line.reference, line.speed_up) for line in lines)
    found = (run.break_even(cell, other, speed) for cell, other, speed in held if other and speed)
    yield from (one for one in found if one)


def compare_runs(a: Run, b: Run, *, across_machines: bool = False, chosen: Choice | None = None) -> Comparison:
    """Every cell of two runs, matched by its id. The two lie apart in time, so nothing in it is paired.

    Ratios are of means over seeds on the log scale. Their intervals are Welch's where both have 3 seeds; below, they
    are what differs between processes (``ratios.PROCESS_SD``).

    Args:
        across_machines: compute ratios also where the comparability keys differ.
        chosen: the cells to list; None: all.

    Returns:
        A line for each cell of either, those of A first. ``differences`` are those of all cells that are ok in both.
    """
    cells = [cell for cell in dict.fromkeys([*a.cells, *b.cells]) if chosen is None or chosen(cell)]
    lines = [_matched(cell, a, b, across_machines) for cell in cells]
    return Comparison(
        runs=(a.manifest.run_id, b.manifest.run_id),
        by="run",
        reference=f"run {a.manifest.run_id} (A)",
        lines=lines,
        differences=ranked(difference for one in lines for difference in one.differs),
        across_machines=across_machines,
    )


def _matched(cell: Cell, a: Run, b: Run, across_machines: bool) -> Line:
    in_a, in_b = a.cells.get(cell), b.cells.get(cell)
    status, reason = _both(in_a, in_b)
    sides = [side for side in (in_a, in_b) if side is not None]
    line = Line(cell=cell, reference=cell if in_a else None, status=status, reason=reason, sides=sides)
    if line.reason:
        return line
    keys = [key_of(run.manifest_of(cell), cell, run.cells[cell].ok[0]) for run in (a, b)]
    line = replace(line, differs=differences(*keys))
    if line.differs and not across_machines:
        return replace(line, reason=f"not comparable: {', '.join(found.name for found in line.differs)}")
    speed = _unpaired(b.log_step_s(cell), a.log_step_s(cell))
    same_images = len({(run.manifest.dataset.sha256, run.manifest.matrix.recipe) for run in (a, b)}) == 1
    seeds = [(one, this) for (_, one), (_, this) in common(a.ok[cell], b.ok[cell])]
    return replace(
        line,
        speed_up=speed,
        reason="" if speed else "one of the runs never timed it",
        accuracy=compare_accuracy(seeds, same_images=same_images),
    )


def _both(in_a: Measured | None, in_b: Measured | None) -> tuple[str, str]:
    """The status of both (``ok``, ``only in B``, or ``oom, ok`` where they differ), and why there is no ratio."""
    if in_a is None or in_b is None:
        only = f"only in run {'A' if in_b is None else 'B'}"
        return only, only
    sides = {"A": in_a.worst, "B": in_b.worst}
    bad = [f"run {name}: {one.status}: {one.reason}" for name, one in sides.items() if one.status != "ok"]
    return ", ".join(dict.fromkeys(one.status for one in sides.values())), "; ".join(bad)


def _unpaired(denominator: list[float], numerator: list[float]) -> SpeedUp | None:
    """Of two runs; what differs between processes is taken as known where there are too few seeds to show it."""
    if not denominator or not numerator:
        return None
    log = stats.welch_interval(denominator, numerator)
    if log.low is None:
        half = stats.NORMAL_QUANTILE * PROCESS_SD * math.sqrt(1 / len(denominator) + 1 / len(numerator))
        log = Interval(log.estimate, log.estimate - half, log.estimate + half)
    return SpeedUp(log.exp(), "unpaired")


def document(comparison: Comparison) -> Document:
    """The comparison for people; of very many cells its two ends, and how many lie between."""
    runs = comparison.by == "run"
    what = "samples per second" if comparison.by in ("batch_size", "model") else "seconds per step"
    title = f"Run {comparison.runs[-1]}{' (B)' if runs else ': each cell'} against {comparison.reference}"
    shown, counted = _ends([line for line in comparison.lines if line.status != "skipped"])
    reasons = by_reason((line.cell.id, _why(line)) for line in comparison.lines)
    listed = {line.cell for line in shown}
    pays = tuple(one for one in comparison.break_evens if one.cell in listed)
    differences = comparison.differences if comparison.across_machines else ()
    return Document(
        title=title,
        facts=(
            f"Ratios of {what}, with 95 % intervals; above 1, {'B' if runs else 'the cell'} is faster.",
            *([DRIFT] if runs else []),
            *counted,
        ),
        answers=tuple(map(str, conclude([comparison]))),
        tables=tuple(_tables(replace(comparison, lines=shown, differences=differences, break_evens=pays)).values()),
        notes=(
            *figures.footnotes((line.marks for line in comparison.lines), FOOTNOTES),
            *reasons[:MOST_LINES],
            *([f"{more:,} more reasons are in csv and json"] if (more := len(reasons) - MOST_LINES) > 0 else []),
            *([UNPROVEN] if any(one.verdict == "unproven" for one in pays) else []),
        ),
    )


def _ends(lines: Sequence[Line]) -> tuple[Sequence[Line], list[str]]:
    """As many lines as people are shown, the slowest first where these are not all; then what all come to, in words."""
    if len(lines) <= MOST_LINES:
        return lines, []
    ranked = sorted(lines, key=lambda line: line.speed_up.interval.estimate if line.speed_up else math.inf)
    counts = Counter(line.shown or "without a ratio" for line in ranked)
    known, half = len(lines) - counts["without a ratio"], MOST_LINES // 2
    shown = ranked[:half] + ranked[max(half, known - half) : known]
    said = ", ".join(f"{counts[word]:,} {word}" for word in ("slower", "not told apart", "faster", "without a ratio"))
    more = f"Listed are the {half} slowest and the {half} fastest; --filter chooses, csv and json have all."
    return shown, [f"{len(lines):,} cells: {said}. {more}"]


def to_json(comparison: Comparison) -> str:
    """The whole comparison as one document; a figure that is not known is null."""
    head = {"runs": comparison.runs, "by": comparison.by, "reference": comparison.reference}
    said = {"answers": [{"model": one.model, "text": one.text} for one in conclude([comparison])]}
    records = {name: table.records() for name, table in _tables(comparison).items()}
    return json.dumps({**head, **said, **records}, indent=2, allow_nan=False) + "\n"


def _tables(comparison: Comparison) -> dict[str, Table[Any]]:
    """All that a comparison holds, by its name in JSON."""
    crossover_title = "Crossover: the batch size from which the device beats the CPU"
    break_even_title = "Break-even: how much training earns the compilation back"
    return {
        "differences": Table(ACROSS, _DIFFERENCES, comparison.differences),
        "cells": lines_table(comparison),
        "crossovers": Table(crossover_title, _CROSSOVERS, comparison.crossovers),
        "break_evens": Table(break_even_title, BREAK_EVENS, comparison.break_evens),
    }


def lines_table(comparison: Comparison) -> Table[Line]:
    """A line for each cell."""
    against = comparison.by == "batch_size"
    reference = "A's" if comparison.by == "run" else "reference"
    columns: tuple[Column[Line], ...] = (
        *cell_columns(),
        Column("against" if against else None, _against, 5, key="reference", value=at("reference.id")),
        *for_programs(status="status", reason="reason"),
        *interval_columns("speed-up", "speedup", "speed_up.interval"),
        Column("", rank=3, right=False, key="shown", value=at("shown")),
        *for_programs(paired="speed_up.paired"),
        Column("accuracy", _accuracy("this"), 2, key="accuracy", value=at("accuracy.this")),
        Column(reference, _accuracy("reference"), 5, key="reference_accuracy", value=at("accuracy.reference")),
        *interval_columns(
            "Δ pp", "accuracy_difference", "accuracy.difference", text=figures.points, rank=7, rank_beside=9
        ),
        Column(None, key="accuracy_seeds", value=at("accuracy.seeds")),
        Column("which is", rank=8, right=False, key="accuracy_verdict", value=at("accuracy.verdict")),
        Column("", lambda one: joined(one.marks, "" if one.status == "ok" else one.status), right=False),
        *for_programs(noisy="noisy", **{"class": "class_"}),
        Column(None, key="differs", value=lambda one: ", ".join(found.field for found in one.differs)),
    )
    return Table(f"By {comparison.by.replace('_', ' ')}", columns, comparison.lines)


def _accuracy(side: str) -> Callable[[Line], str]:
    return lambda line: figures.accuracy(at(f"accuracy.{side}")(line))


def _against(line: Line) -> str:
    return f"{line.reference.batch_size:,}" if line.reference else ""


def _why(line: Line) -> str:
    """Why there is no ratio, the status in front where it is the cell's own."""
    return line.reason if line.status in ("ok", line.reason) or not line.reason else f"{line.status}: {line.reason}"


_DIFFERENCES: tuple[Column[Difference], ...] = (
    Column("differs", at("name"), right=False, key="field", value=at("field")),
    *texts(a="run A", b="run B", affects="moves"),
)
_CROSSOVERS: tuple[Column[Crossover], ...] = (
    *texts(model="model", device="device", variant="variant"),
    Column("batch", at("estimate.words"), key="batch_size", value=lambda one: asdict(one.estimate)),
    Column("95 %", at("bounds"), rank=1, right=False),
    Column(None, key="batch_size_low", value=lambda one: asdict(one.low)),
    Column(None, key="batch_size_high", value=lambda one: asdict(one.high)),
    Column("why unknown", rank=2, right=False, key="reason", value=at("reason")),
)
BREAK_EVENS: tuple[Column[BreakEven], ...] = (
    *cell_columns(),
    Column(None, key="reference", value=at("reference.id")),
    Column("compile s", lambda one: significant(one.compile_s), 3, key="compile_s", value=at("compile_s")),
    *interval_columns("steps", "steps", "steps", text=significant, rank=4, rank_beside=6),
    Column("pays off", at("words"), right=False, key="verdict", value=at("verdict")),
    *interval_columns("epochs", "epochs", "epochs", text=significant, rank=7),
    *interval_columns("seconds", "seconds", "seconds", text=significant, rank=3, rank_beside=5),
)
