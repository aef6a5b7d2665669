"""Cells of a run against each other, and two runs cell by cell: pure arithmetic on what the runs' files say.

No ratio is computed from a cell that is not ``ok``, unless those of its other seeds are asked for: such a cell keeps
its line, with status and reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mnist_bench import figures, stats
from mnist_bench.accuracy import compare_accuracy
from mnist_bench.cells import reference_variant
from mnist_bench.comparisons import (
    ACCURACY_MARKS,
    BreakEven,
    By,
    ComparedCell,
    Comparison,
    Crossover,
    GeometricMean,
    MatchedCell,
    Run,
)
from mnist_bench.crossover import break_even, crossover
from mnist_bench.records import Cell, Measurement, VariantClass
from mnist_bench.rows import Row
from mnist_bench.speedups import (
    SessionIndex,
    SpeedUp,
    index_sessions,
    speed_up,
)

BY: tuple[By, ...] = ("device", "variant", "batch_size")

Pair = tuple[Measurement, Measurement]
Choice = Callable[[Cell], bool]  # the cells that a comparison is about; their references need not be among them


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A run with its rows and measurements at hand, by cell id. ``partial``: see ``compare_cells``."""

    run: Run
    rows: Mapping[str, Row]
    measured: Mapping[str, Mapping[int, tuple[str, Measurement]]]  # of each cell, by seed: trial id, measurement
    sessions: SessionIndex
    partial: bool = False

    def comparable(self, row: Row) -> bool:
        """Whether a ratio may be computed from this cell."""
        return row.seeds > 0 if self.partial else row.status == "ok"


def index(run: Run, *, partial: bool = False) -> Indexed:
    """The run, ready for look-ups."""
    measured: dict[str, dict[int, tuple[str, Measurement]]] = {row.cell.id: {} for row in run.rows}
    for trial in run.trials:
        if isinstance(trial.outcome, Measurement):
            measured.setdefault(trial.cell.id, {})[trial.seed] = (trial.id, trial.outcome)
    return Indexed(
        run=run,
        rows={row.cell.id: row for row in run.rows},
        measured=measured,
        sessions=index_sessions(run.sessions),
        partial=partial,
    )


def default_by(rows: Iterable[Row], chosen: Choice | None = None) -> By:
    """What a run is best compared by: devices where a chosen cell has the CPU to be held against, else variants where
    several are chosen, else batch sizes. Of the cells that were measured."""
    measured = [row for row in rows if row.status == "ok"]
    wanted = [row for row in measured if chosen is None or chosen(row.cell)]
    if any(row.device == "cpu" for row in measured) and any(row.device != "cpu" for row in wanted):
        return "device"
    return "variant" if len({row.variant for row in wanted}) > 1 else "batch_size"


def compare_cells(run: Run, by: By, chosen: Choice | None = None, *, partial: bool = False) -> Comparison:
    """Every cell of a run against its reference.

    Args:
        by: ``device``: against the CPU; ``variant``: against the reference variant (``cells.reference_variant``);
            ``batch_size``: against the smallest batch size that is ok. Batch sizes never share a session: those ratios
            are of samples per second, unpaired, seed by seed.
        chosen: the cells to list; None: all.
        partial: a cell of which some seeds are ok is compared by these, as in ``results.csv``, and so marked; seeds
            that survive are no fair sample, so it must be asked for.

    Returns:
        A line for each cell that has a reference, and for each that is not ok.
    """
    indexed = index(run, partial=partial)
    reference_of = _references(indexed, by)
    rows = [row for row in run.rows if chosen is None or chosen(row.cell)]
    pairs = [(row, reference_of(row)) for row in rows]
    if by != "batch_size":
        indexed.sessions.measure(_trials(pairs, indexed))
    compared = (_compared(row, reference, by, indexed) for row, reference in pairs)
    cells = tuple(one for one in compared if one is not None)
    return Comparison(
        run_id=run.manifest.run_id,
        by=by,
        reference=_reference_words(run, by),
        cells=cells,
        means=_means(cells, by),
        crossovers=_crossovers(cells) if by == "device" else (),
        break_evens=_break_evens(cells, indexed) if by == "variant" else (),
    )


def marks(cell: ComparedCell | MatchedCell) -> str:
    """What a reader must know before believing the ratio, as signs that are told below the table; empty without one."""
    ratio = cell.speed_up if isinstance(cell, ComparedCell) else cell.throughput or cell.step
    if ratio is None:
        return ""
    signs = figures.signs(noisy=cell.noisy, unpaired=ratio.paired == "unpaired", class_=cell.class_)
    return signs + (cell.accuracy.mark if cell.accuracy else "")


def geometric_means(found: Iterable[tuple[str, VariantClass | None, SpeedUp, str]]) -> tuple[GeometricMean, ...]:
    """The geometric mean of each name's ratios, classes apart (``stats.mean_of_intervals`` says what is assumed).

    Args:
        found: (name, class, ratio, ``marks``) of each cell.
    """
    together: dict[tuple[str, VariantClass | None], list[tuple[SpeedUp, str]]] = {}
    for of, class_, speed, signs in found:
        together.setdefault((of, class_), []).append((speed, signs))
    return tuple(_mean(of, class_, cells) for (of, class_), cells in together.items())


def worse_class(*classes: VariantClass | None) -> VariantClass | None:
    """The class that is least alike the reference's mathematics."""
    return max((class_ for class_ in classes if class_ is not None), default=None)


def common_seeds(
    one: Mapping[int, tuple[str, Measurement]], other: Mapping[int, tuple[str, Measurement]]
) -> tuple[tuple[tuple[str, str], Pair], ...]:
    """((trial id, trial id), (measurement, measurement)) of the seeds that both have."""
    return tuple(
        ((one[seed][0], other[seed][0]), (one[seed][1], other[seed][1])) for seed in sorted(one.keys() & other.keys())
    )


def _references(indexed: Indexed, by: By) -> Callable[[Row], Cell | None]:
    """The cell that a row is held against; None: it is itself a reference, or there can be none."""
    if by == "device":
        return lambda row: None if row.device == "cpu" else replace(row.cell, device="cpu")
    if by == "variant":
        plain = reference_variant(indexed.run.manifest.matrix)
        return lambda row: None if plain is None or row.variant == plain else replace(row.cell, variant=plain)
    smallest: dict[Cell, int] = {}
    for row in indexed.rows.values():
        if indexed.comparable(row):
            line = replace(row.cell, batch_size=0)
            smallest[line] = min(row.batch_size, smallest.get(line, row.batch_size))

    def smallest_ok(row: Row) -> Cell | None:
        size = smallest.get(replace(row.cell, batch_size=0))
        return None if size in (None, row.batch_size) else replace(row.cell, batch_size=size)

    return smallest_ok


def _trials(pairs: Iterable[tuple[Row, Cell | None]], indexed: Indexed) -> Iterator[tuple[str, str]]:
    """The trials (reference, this) of one seed each that will be held against each other."""
    for row, reference in pairs:
        if indexed.comparable(row) and reference is not None:
            common = common_seeds(indexed.measured.get(reference.id, {}), indexed.measured[row.cell.id])
            yield from (names for names, _ in common)


def _reference_words(run: Run, by: By) -> str:
    if by == "device":
        return "the same cell on the CPU"
    if by == "batch_size":
        return "the smallest batch size that was measured"
    plain = reference_variant(run.manifest.matrix)
    return "no reference: no variant has eager's settings" if plain is None else f"the variant {plain}"


def _compared(row: Row, reference: Cell | None, by: By, indexed: Indexed) -> ComparedCell | None:
    """A line of the comparison; None for a cell that is ok and has nothing to be held against."""
    if row.status == "ok" and reference is None:
        return None
    line = ComparedCell(
        cell=row.cell,
        reference=reference,
        status=row.status,
        reason=row.reason,
        speed_up=None,
        accuracy=None,
        noisy=row.noisy is True,
        class_=row.class_,
    )
    if reference is None or not indexed.comparable(row):
        return line
    other = indexed.rows.get(reference.id)
    if other is None:
        return replace(line, reason=f"its reference {reference.id} is not in this run, or not finished")
    if not indexed.comparable(other):
        return replace(line, reason=f"its reference {reference.id} is not ok: {other.status}: {other.reason}")
    return _measured(line, row, other, by, indexed)


def _measured(line: ComparedCell, row: Row, other: Row, by: By, indexed: Indexed) -> ComparedCell:
    common = common_seeds(indexed.measured[other.cell.id], indexed.measured[row.cell.id])
    ids = [names for names, _ in common]
    if by == "batch_size":
        speed = _rate_ratio(ids, row.batch_size / other.batch_size, indexed.sessions)
    else:
        speed = speed_up(ids, indexed.sessions)
    return replace(
        line,
        speed_up=speed,
        reason=row.reason if speed else _why_not_timed(bool(common), other.cell),
        accuracy=compare_accuracy([pair for _, pair in common]),
        noisy=row.noisy is True or other.noisy is True,
        class_=worse_class(row.class_, other.class_),
        partial=row.status != "ok" or other.status != "ok",
    )


def _why_not_timed(common: bool, reference: Cell) -> str:
    if not common:
        return f"no seed in common with {reference.id}"
    return f"this cell or {reference.id} was never timed: no session of it is on record"


def _rate_ratio(pairs: Sequence[tuple[str, str]], sizes: float, sessions: SessionIndex) -> SpeedUp | None:
    """Samples per second of this cell over the reference's, from sessions apart, seed by seed.

    Args:
        pairs: trial ids (reference, this) of one seed each.
        sizes: this batch size / the reference's.
    """
    known = [(sessions.log_step_s(a), sessions.log_step_s(b)) for a, b in pairs]
    logs = [math.log(sizes) + a - b for a, b in known if a is not None and b is not None]
    return SpeedUp.of(stats.t_interval(logs), "unpaired") if logs else None


def _means(cells: Iterable[ComparedCell], by: By) -> tuple[GeometricMean, ...]:
    return geometric_means(
        (str(getattr(one.cell, by)), one.class_, one.speed_up, marks(one)) for one in cells if one.speed_up is not None
    )


def _mean(of: str, class_: VariantClass | None, cells: Sequence[tuple[SpeedUp, str]]) -> GeometricMean:
    mean = stats.mean_of_intervals([ratio.log for ratio, _ in cells]).exp()
    return GeometricMean(
        of=of,
        class_=class_,
        cells=len(cells),
        ratio=mean.estimate,
        low=mean.low,
        high=mean.high,
        marks=_together(signs for _, signs in cells),
    )


def _together(signs: Iterable[str]) -> str:
    """Each sign that any of the cells carries, once, in the order of a cell's own."""
    carried = set("".join(signs))
    return "".join(sign for sign in (*figures.FOOTNOTES, *dict.fromkeys(ACCURACY_MARKS.values())) if sign in carried)


def _crossovers(cells: Iterable[ComparedCell]) -> tuple[Crossover, ...]:
    """One for each model, device and variant that has a line."""
    lines: dict[tuple[str, str, str], list[tuple[int, SpeedUp]]] = {}
    for one in cells:
        if one.reference is not None:
            points = lines.setdefault((one.cell.model, one.cell.device, one.cell.variant), [])
            points += [] if one.speed_up is None else [(one.cell.batch_size, one.speed_up)]
    return tuple(crossover(*names, points) for names, points in lines.items())


def _break_evens(cells: Iterable[ComparedCell], indexed: Indexed) -> tuple[BreakEven, ...]:
    """One for each cell with a ratio that was compiled."""
    found = (_break_even(one, one.reference, one.speed_up, indexed) for one in cells if one.reference and one.speed_up)
    return tuple(one for one in found if one is not None)


def _break_even(one: ComparedCell, reference: Cell, speed: SpeedUp, indexed: Indexed) -> BreakEven | None:
    row, other = indexed.rows[one.cell.id], indexed.rows[reference.id]
    own, theirs = indexed.measured[one.cell.id], indexed.measured[reference.id]
    logs = [indexed.sessions.log_step_s(trial) for trial, _ in theirs.values()]
    steps = [math.exp(log) for log in logs if log is not None]
    epochs = [m.train_samples / len(m.epochs.train_s) for _, m in own.values() if m.epochs.train_s]
    if row.compile_s is None or not steps or not epochs:
        return None
    return break_even(
        one.cell,
        reference,
        speed,
        compile_s=row.compile_s - (other.compile_s or 0.0),
        reference_step_s=statistics.median(steps),
        samples_per_epoch=statistics.median(epochs),
    )
