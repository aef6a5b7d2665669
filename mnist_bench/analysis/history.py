"""A cell's figures over all runs of a results folder, from the ``results.json`` of each.

It holds all that is asked for here, and the sizes of the files that it was made of: where it is missing, of another
form, or made of other files than those that are there, the run is read from its lines. Nothing is imported at the top
that is slow to load: to look at the history of a thousand runs must not take a second.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from statistics import median_high
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from rich.text import Text

from mnist_bench import figures
from mnist_bench.disk.folder import RESULTS, SCHEMA_VERSION, RunFolder, known_runs, no_garbage
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.figures import FIGURES, Figure
from mnist_bench.records import Cell, Count, Environment, Status
from mnist_bench.records import Figure as Number
from mnist_bench.table import Column, Table, at, by_reason, for_programs, grouped, joined, plain, span, wrapped

if TYPE_CHECKING:
    from pathlib import Path

# What can be followed: every figure of which one direction is the better one.
METRICS: Mapping[str, Figure] = {figure.key: figure for figure in FIGURES if figure.better}
BARS, GAP = "▁▂▃▄▅▆▇█", "·"  # of a sparkline; a run without the figure
LIMIT = 64 << 20  # bytes of a results.json
# A step: so many standard deviations off the median of at most STEADY runs before it; of two like runs in a series of 8
# less than 1 in 100 is called one (tests/test_history.py), in a longer one fewer.
STEP_SDS, STEADY, LEAST_RUNS = 4.0, 10, 8
SDS_PER_MEDIAN = 1.4826 / math.sqrt(2)  # from the median difference of two neighbours to the spread of one, if normal


Step = Literal["better", "worse"]


class CellRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of ``results.json``. ``series`` and ``base``: ``keys.places``; ``value``: the figure that is followed."""

    model: str
    device: str
    batch_size: Count
    variant: str
    status: Status
    reason: str
    seeds: Count
    noisy: bool | None
    device_name: str | None
    series: str | None
    base: str
    value: Number | None


class _DataSet(msgspec.Struct, frozen=True):
    name: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its ``results.json`` has it."""

    schema_version: int
    run_id: str
    status: str
    started_at: str
    planned: Count
    finished: Count
    merged_from: tuple[str, ...]
    made_of: dict[str, int]
    dataset: _DataSet
    recipe: str
    epochs: Count
    environment: Environment
    rows: tuple[CellRecord, ...]

    @property
    def version(self) -> str:
        """The commit, short, with ``+`` where tracked files differed from it."""
        commit = self.environment.commit
        return f"{commit[:7]}{'+' if self.environment.dirty else ''}" if commit else ""


class Point(NamedTuple):
    """A cell in a run.

    Args:
        series, label: what it may be compared with: a digest, and words that no other series of the cell has.
        change: since the run before that has the figure, relative; of a fraction, the difference.
        step: whether the figure stands off the runs before it, and which way.
    """

    run: RunRecord
    row: CellRecord
    cell: Cell
    series: str
    label: str
    change: float | None
    step: Step | None

    @property
    def status(self) -> str:
        """The cell's where it is not ok, else the run's where it has not ended well."""
        return self.row.status if self.row.status != "ok" or self.run.status == "complete" else self.run.status

    @property
    def remark(self) -> str:
        """What a reader must know of the figure."""
        return joined("†" * (self.row.noisy is True), f"step: {self.step}" if self.step else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The points of one cell that may be compared with each other, oldest first."""

    cell: Cell
    label: str
    points: tuple[Point, ...]

    @property
    def values(self) -> list[float]:
        """The figures that are known."""
        return [point.row.value for point in self.points if point.row.value is not None]

    def span(self, metric: Figure) -> str:
        """``88,549 to 89,702``."""
        return span(self.values, metric.text)


def read(output_dir: "Path", metric: str, notify: Callable[[str], None]) -> tuple[list[RunRecord], list[str]]:
    """All runs of a results folder with one figure (a key of ``METRICS``), and what is wrong with some.

    Args:
        notify: told, in a line, that some have to be read from their lines.

    Returns:
        The runs, oldest first (those that were merged stand in the merged run alone); warnings.
    """
    decoder = _decoder(metric)
    with no_garbage():
        found = {name: _indexed(output_dir / name, decoder) for name in known_runs(output_dir)}
    if missing := [name for name, run in found.items() if run is None]:
        count = f"{len(missing)} run{'s' * (len(missing) > 1)}"
        notify(f"reading the lines of {count}, whose results.json is missing or older")
    warnings = []
    for name in missing:
        try:
            found[name] = _from_lines(output_dir / name, decoder)
        # A line of sound form may hold figures that no arithmetic can take.
        except (BenchError, OSError, ValueError, ArithmeticError, LookupError) as error:
            warnings.append(f"run {name} is left out: {error}")
    runs = [msgspec.structs.replace(run, run_id=name) for name, run in found.items() if run is not None]
    sources = {source for run in runs for source in run.merged_from}
    warnings += [
        f"run {run.run_id} is running: {run.finished} of {run.planned} trials are finished"
        for run in runs
        if run.status == "running"
    ]
    kept = [run for run in runs if run.run_id not in sources]
    return sorted(kept, key=lambda run: (run.started_at, run.run_id)), warnings


def _decoder(metric: str) -> msgspec.json.Decoder[RunRecord]:
    """Of a ``results.json`` and this figure of each row: all that is skipped costs next to nothing."""
    value = ("value", Number | None, msgspec.field(name=metric))
    row = msgspec.defstruct("Row", [value], bases=(CellRecord,), frozen=True, kw_only=True, gc=False)
    run = msgspec.defstruct("Run", [("rows", tuple[row, ...])], bases=(RunRecord,), frozen=True, kw_only=True)  # type: ignore[valid-type]
    return msgspec.json.Decoder(run)


def _indexed(path: "Path", decoder: msgspec.json.Decoder[RunRecord]) -> RunRecord | None:
    """None: its ``results.json`` does not say what its lines do."""
    from mnist_bench.disk.files import read_regular

    try:
        run = decoder.decode(read_regular(path / RESULTS, LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    return run if run.schema_version == SCHEMA_VERSION and run.made_of == RunFolder(path).sizes() else None


def _from_lines(path: "Path", decoder: msgspec.json.Decoder[RunRecord]) -> RunRecord:
    from mnist_bench.analysis.results import to_json
    from mnist_bench.analysis.summary import Run

    run = Run.read(RunFolder(path))
    if run.manifest.check:
        raise UsageError("it is a check, not a run")
    return decoder.decode(to_json(run))


def gather(runs: Sequence[RunRecord], metric: Figure) -> tuple[Series, ...]:
    """Runs (oldest first) to series: cells by name, and of one cell the series with the newest run first.

    A point without a measurement goes with the newest series of its ``base``.
    """
    rows = ((run, row) for run in runs for row in run.rows)
    found = grouped(rows, lambda pair: (pair[1].model, pair[1].device, pair[1].batch_size, pair[1].variant))
    return tuple(one for _, own in sorted(found.items()) for one in _series(own, metric))


def _series(points: Sequence[tuple[RunRecord, CellRecord]], metric: Figure) -> Iterator[Series]:
    """The series of one cell."""
    first = points[0][1]
    cell = Cell(model=first.model, device=first.device, batch_size=first.batch_size, variant=first.variant)
    home = {row.base: row.series for _, row in points if row.series}
    found = grouped(points, lambda pair: pair[1].series or home.get(pair[1].base) or pair[1].base)
    newest_first = sorted(found.items(), key=lambda item: item[1][-1][0].started_at, reverse=True)
    labels = [_label(own) for _, own in newest_first]
    for (name, own), words in zip(newest_first, labels, strict=True):
        # The words do not tell everything that the digest knows (a model's rate, a variant's setting).
        label = words if labels.count(words) == 1 else f"{words} · {name[:6]}"
        values = [row.value for _, row in own]
        parts = zip(own, changes(values, metric), steps(values, metric), strict=True)
        own_points = tuple(Point(run, row, cell, name, label, change, step) for (run, row), change, step in parts)
        yield Series(cell=cell, label=label, points=own_points)


def _label(points: Sequence[tuple[RunRecord, CellRecord]]) -> str:
    """``AMD EPYC 9B14, 2 cores, torch 2.13.0 · mnist, standard, 2 epochs``."""
    run, row = next(((run, row) for run, row in reversed(points) if row.series), points[-1])  # it knows the GPU
    where, torch = run.environment, run.environment.packages.get("torch")
    cpu = f"{where.cpu}, {where.cores} core{'s' * (where.cores != 1)}"
    device = cpu if row.device == "cpu" else row.device_name or cpu
    setting = f"{run.dataset.name}, {run.recipe}, {run.epochs} epoch{'s' * (run.epochs != 1)}"
    return plain(f"{device}{', torch ' if torch else ''}{torch or ''} · {setting}")


def sparkline(values: Sequence[float | None]) -> str:
    """A character per value from the lowest to the highest of them; what was not measured is a dot.

    >>> sparkline([1.0, 2.0, None, 8.0])
    '▁▂·█'
    >>> sparkline([3.0, 3.0])
    '▄▄'
    """
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)

    def bar(value: float) -> str:
        share = (value - low) / (high - low) if high > low else 0.4
        return BARS[min(int(share * len(BARS)), len(BARS) - 1)]

    return "".join(GAP if value is None else bar(value) for value in values)


def changes(values: Sequence[float | None], metric: Figure) -> list[float | None]:
    """Of each value against the one before it that is known: a relative change; of fractions, the difference."""
    found: list[float | None] = []
    before: float | None = None
    for now in values:
        if before is None or now is None or (before <= 0 and metric.unit != "fraction"):
            found.append(None)
        else:
            found.append(now - before if metric.unit == "fraction" else now / before - 1)
        before = before if now is None else now
    return found


def steps(values: Sequence[float | None], metric: Figure) -> list[Step | None]:
    """Which values stand off those before them, by more than the series scatters by itself.

    The scatter is taken from the median difference of neighbours, which a step or an odd run hardly moves. What comes
    after a step is held against what came since.
    """
    known = [value for value in values if value is not None]
    if len(known) < LEAST_RUNS:
        return [None] * len(values)
    scale = math.log if metric.unit != "fraction" and min(known) > 0 else float
    scaled = [scale(value) for value in known]
    spread = SDS_PER_MEDIAN * median_high([abs(now - before) for before, now in pairwise(scaled)])
    steady, found = deque(scaled[:1], maxlen=STEADY), []
    for now in scaled:
        off = now - median_high(steady)
        stands_off = abs(off) > max(STEP_SDS * spread * math.sqrt(1 + 1 / len(steady)), 1e-9)
        better: Step = "better" if (off > 0) == (metric.better == "higher") else "worse"
        found.append(better if stands_off else None)
        if stands_off:
            steady.clear()
        steady.append(now)
    stepped = iter(found)
    return [None if value is None else next(stepped) for value in values]


def table(series: Sequence[Series], metric: Figure, last: int, *, named: bool = True) -> Table[Point]:
    """The newest runs of each series, newest first; not ``named``: cells and labels stand elsewhere."""
    points = [point for one in series for point in reversed(one.points[-last:])]
    title = f"The last {last} run{'s' * (last != 1)} of each" if named else ""
    return Table(title, (*(_NAMES if named else ()), *_columns(metric)), points, style=_style)


_NAMES: tuple[Column[Point], ...] = (
    Column("cell", at("cell.id"), right=False),
    *(replace(column, title=None) for column in figures.cell_columns()),
    Column("machine and settings", right=False, key="machine", value=at("label")),
    *for_programs(series="series"),
)


def _columns(metric: Figure) -> tuple[Column[Point], ...]:
    return (
        Column("run", right=False, key="run_id", value=at("run.run_id")),
        Column("date", lambda one: one.run.started_at[:10], 3, False, "started_at", at("run.started_at")),
        Column("commit", at("run.version"), 2, right=False, key="commit", value=at("run.environment.commit")),
        *for_programs(dirty="run.environment.dirty", run_status="run.status"),
        Column("status", at("status"), right=False, key="status", value=at("row.status")),
        *for_programs(reason="row.reason", seeds="row.seeds", noisy="row.noisy"),
        Column(None, key="metric", value=lambda one: metric.key),
        Column(metric.title, lambda one: metric.text(one.row.value), key="value", value=at("row.value")),
        Column("change", lambda one: change_words(one, metric), key="change", value=at("change")),
        Column("", at("remark"), rank=1, right=False, key="step", value=at("step")),
    )


def change_words(point: Point, metric: Figure) -> str:
    """``+3.2 %``; of accuracies the difference, ``+0.12 pp``."""
    if point.change is None:
        return ""
    return f"{point.change * 100:+.2f} pp" if metric.unit == "fraction" else f"{point.change * 100:+,.1f} %"


def _style(point: Point) -> str:
    if point.row.status not in ("ok", "skipped"):
        return "red"
    return "" if point.status == "ok" else "yellow"


def screen(series: Sequence[Series], metric: Figure, last: int, width: int) -> Iterator[Text]:
    """What a terminal shows: per series a sparkline and its last runs; what was never measured, once per reason."""
    for cell, own in groupby((one for one in series if one.values), key=lambda one: one.cell):
        yield Text(plain(cell.id), "bold")
        for one in own:
            yield from (Text(text, "dim") for text in wrapped(one.label, width))
            words = f"  {one.span(metric)} {metric.title}, {len(one.points):,} run{'s' * (len(one.points) != 1)}"
            room = max(width - len(words), 8)
            yield Text(sparkline([point.row.value for point in one.points[-room:]]) + words)
            yield from table([one], metric, last, named=False).terminal(width)
        yield Text()
    yield from (Text(text, "dim") for note in notes(series, metric) for text in wrapped(note, width))


def notes(series: Sequence[Series], metric: Figure) -> list[str]:
    """What a reader must know, where it applies; what was never measured, once per reason."""
    newest = [(one.cell.id, one.points[-1].row) for one in series if not one.values]
    why = [(cell, "" if row.status == "ok" else f", {row.status}: {row.reason}") for cell, row in newest]
    found = by_reason((cell, f"{metric.title} not measured{because}") for cell, because in why)
    points = [point for one in series for point in one.points]
    if any(point.change is not None for point in points):
        found.append("change: against the run before it; the machine drifts between runs: `compare` gives intervals")
    if any(point.step for point in points):
        found.append(f"step: off the runs before it by more than {STEP_SDS:g} standard deviations of its own series")
    found += figures.footnotes(point.remark for point in points)
    if any(point.run.status == "running" for point in points):
        found.append("running: has not ended, or was killed and can go on with --resume; figures of what is finished")
    return found
