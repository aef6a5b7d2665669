"""A cell's figures over runs: points to series, sparklines and changes, as text and as flat rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mnist_bench import figures
from mnist_bench.table import plain

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"  # a run without the figure
ROOMY = 100  # columns of a terminal from which two spaces stand between those of the table

Style = Literal["", "bold", "dim", "red", "yellow"]
Line = tuple[tuple[str, Style], ...]  # pieces of text with their styles


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that can be followed over runs. ``better`` says which way is better."""

    title: str
    better: Literal["higher", "lower"]
    unit: Literal["plain", "fraction", "ratio"] = "plain"


# Each is a column of results.csv.
METRICS: dict[str, Metric] = {
    "train_samples_per_s": Metric("samples/s", "higher"),
    "test_accuracy": Metric("accuracy", "higher", "fraction"),
    "step_ms_p50": Metric("step ms", "lower"),
    "step_ms_p95": Metric("step ms p95", "lower"),
    "step_ms_p99": Metric("step ms p99", "lower"),
    "epoch_s": Metric("epoch s", "lower"),
    "eval_samples_per_s": Metric("eval/s", "higher"),
    "compile_s": Metric("compile s", "lower"),
    "time_to_first_step_s": Metric("1st step s", "lower"),
    "time_to_accuracy_s": Metric("s to 0.97", "lower"),
    "total_s": Metric("total s", "lower"),
    "host_peak_mib": Metric("host MiB", "lower"),
    "device_peak_mib": Metric("device MiB", "lower"),
    "speedup_vs_eager": Metric("vs eager", "higher", "ratio"),
    "speedup_vs_cpu": Metric("vs cpu", "higher", "ratio"),
}


class CellName(NamedTuple):
    """The names of a cell (``records.Cell``, whose room takes longer to load than a query may)."""

    model: str
    device: str
    batch_size: int
    variant: str

    @property
    def id(self) -> str:
        return f"{self.model}/{self.device}/b{self.batch_size}/{self.variant}"


class Place(NamedTuple):
    """What a cell of a run may be compared with.

    ``series`` is equal for points that may be joined by a line: same cell, machine, software and settings; empty where
    nothing was measured, so that not all of them are known. ``base`` is equal where those agree that are known always.
    ``machine`` and ``setup`` say the same for people, as short as they can.
    """

    series: str
    base: str
    machine: str
    setup: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLabel:
    """What a reader asks of a run first."""

    id: str
    started_at: str
    status: str
    commit: str | None
    dirty: bool

    @property
    def version(self) -> str:
        """The commit, short, with ``+`` where tracked files differed from it."""
        return f"{self.commit[:7]}{'+' if self.dirty else ''}" if self.commit else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One cell in one run: the figure that was asked for, and what a reader must know to judge it."""

    run: RunLabel
    cell: CellName
    place: Place
    status: str
    reason: str
    seeds: int
    noisy: bool
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The points of one cell that may be compared with each other, oldest first. ``label``: what sets them apart."""

    cell: CellName
    id: str
    label: str
    points: tuple[Point, ...]


def gather(points: Sequence[Point]) -> tuple[Series, ...]:
    """Points (oldest first) to series: cells by name, and of one cell the series with the newest point first.

    A point without a measurement goes with the series of its ``base`` before it (else the first after it).
    """
    home: dict[tuple[str, str], str] = {}
    for point in reversed(points):
        if point.place.series:
            home[point.cell.id, point.place.base] = point.place.series
    by_cell: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        place = (point.cell.id, point.place.base)
        if point.place.series:
            home[place] = point.place.series
        by_cell.setdefault(point.cell.id, {}).setdefault(home.get(place, point.place.base), []).append(point)
    order = sorted(by_cell.values(), key=lambda groups: next(iter(groups.values()))[0].cell)
    return tuple(series for groups in order for series in _series(groups))


def sparkline(values: Sequence[float | None]) -> str:
    """A character per value from the lowest to the highest of them; what was not measured is a dot.

    >>> sparkline([1.0, 2.0, None, 8.0])
    '▁▂·█'
    >>> sparkline([3.0, 3.0])
    '▄▄'
    """
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)

    def bar(value: float | None) -> str:
        if value is None:
            return GAP
        if high <= low:
            return BARS[3]
        return BARS[min(int((value - low) / (high - low) * len(BARS)), len(BARS) - 1)]

    return "".join(map(bar, values))


def changes(points: Sequence[Point], metric: Metric) -> tuple[float | None, ...]:
    """Of each point against the one before it that has the figure: a relative change; of fractions, the difference."""
    found: list[float | None] = []
    before: float | None = None
    for point in points:
        found.append(_change(before, point.value, metric))
        before = before if point.value is None else point.value
    return tuple(found)


def rows(series: Sequence[Series], name: str, last: int) -> list[dict[str, object]]:
    """Flat rows, the last points of each series, as CSV and JSON want them."""
    return [
        {
            "model": point.cell.model,
            "device": point.cell.device,
            "batch_size": point.cell.batch_size,
            "variant": point.cell.variant,
            "machine": one.label,
            "series": one.id,
            "run_id": point.run.id,
            "started_at": point.run.started_at,
            "commit": point.run.commit,
            "dirty": point.run.dirty,
            "run_status": point.run.status,
            "status": point.status,
            "reason": point.reason,
            "seeds": point.seeds,
            "noisy": point.noisy,
            "metric": name,
            "value": point.value,
            "change": change,
        }
        for one in series
        for point, change in last_points(one, METRICS[name], last)
    ]


def lines(series: Sequence[Series], name: str, last: int, width: int = 80) -> Iterator[Line]:
    """What a terminal of ``width`` columns (at least 80) shows: per series a sparkline and its last runs."""
    metric = METRICS[name]
    cell = ""
    for one in series:
        if one.cell.id != cell:
            if cell:
                yield ()
            cell = one.cell.id
            yield ((plain(cell), "bold"),)
        yield ((f"  {plain(one.label)}", "dim"),)
        yield (("  " + _over_time(one, metric, width - 2), ""),)
        if any(point.value is not None for point in one.points):
            yield from _table(last_points(one, metric, last), metric, "  " if width >= ROOMY else " ")


def last_points(series: Series, metric: Metric, last: int) -> list[tuple[Point, float | None]]:
    """The newest points of a series (0: all), oldest of them first, each with its change."""
    return list(zip(series.points, changes(series.points, metric), strict=True))[-last:]


def status_words(point: Point) -> str:
    """The cell's where it is not ok, else the run's where it has not ended well."""
    if point.status != "ok":
        return plain(point.status)
    return "ok" if point.run.status == "complete" else plain(point.run.status)


def shown(value: float | None, metric: Metric) -> str:
    """A figure as people read it."""
    if value is None:
        return ""
    match metric.unit:
        case "fraction":
            return f"{value:.4f}"
        case "ratio":
            return figures.ratio(value)
        case "plain":
            return figures.significant(value)


def shown_change(change: float | None, metric: Metric) -> str:
    """``+3.2 %``; of accuracies the difference, ``+0.12 pp``."""
    if change is None:
        return ""
    return f"{change * 100:+.2f} pp" if metric.unit == "fraction" else f"{change * 100:+,.1f} %"


def remarks(series: Sequence[Series]) -> list[str]:
    """What a reader of these lines must know, where it applies."""
    points = [point for one in series for point in one.points]
    found = []
    if any(len(one.points) > 1 for one in series):
        found.append(
            "change: against the run before it in the same list; between two runs the machine drifts, and nothing was "
            "timed together: `compare` gives intervals"
        )
    if any(point.noisy for point in points):
        found.append(f"† {figures.FOOTNOTES['†']}")
    if any(point.run.status == "running" for point in points):
        found.append("running: has not ended, or was killed and can go on with --resume; figures of what is finished")
    return [""] * bool(found) + found


def _series(groups: Mapping[str, Sequence[Point]]) -> list[Series]:
    """The series of one cell, each with a label that no other of them has."""
    newest_first = sorted(groups.items(), key=lambda group: group[1][-1].run.started_at, reverse=True)
    labels = [_label(points) for _, points in newest_first]
    return [
        Series(
            cell=points[-1].cell,
            id=series,
            # The words do not tell everything that the digest knows (a model's rate, a variant's setting).
            label=label if labels.count(label) == 1 else f"{label} · {series[:6]}",
            points=tuple(points),
        )
        for label, (series, points) in zip(labels, newest_first, strict=True)
    ]


def _label(points: Sequence[Point]) -> str:
    told = next((point for point in reversed(points) if point.place.series), points[-1])  # it knows the GPU
    return f"{told.place.machine} · {told.place.setup}"


def _change(before: float | None, now: float | None, metric: Metric) -> float | None:
    if before is None or now is None:
        return None
    if metric.unit == "fraction":
        return now - before
    return now / before - 1 if before > 0 else None


def _over_time(series: Series, metric: Metric, width: int) -> str:
    """The sparkline, from what to what it goes, and over how many runs it does."""
    known = [point.value for point in series.points if point.value is not None]
    runs = f"{len(series.points):,} run{'s' if len(series.points) != 1 else ''}"
    if not known:
        newest = series.points[-1]
        why = plain(f"{newest.status}: {newest.reason}" if newest.reason else newest.status)
        return f"{metric.title}: not measured in {runs}; the last one: {why}"
    low, high = shown(min(known), metric), shown(max(known), metric)
    words = f"  {low if low == high else f'{low} to {high}'} {metric.title}, {runs}"
    room = max(width - len(words), 8)
    return sparkline([point.value for point in series.points[-room:]]) + words


def _table(listed: Sequence[tuple[Point, float | None]], metric: Metric, gap: str) -> Iterator[Line]:
    header = ("run", "date", "commit", "status", metric.title, "change")
    body = [
        (
            plain(point.run.id),
            plain(point.run.started_at[:10]),
            plain(point.run.version),
            status_words(point),
            shown(point.value, metric) + ("†" if point.noisy and point.value is not None else " "),
            shown_change(change, metric),
        )
        for point, change in listed
    ]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    widths[4] = max(widths[4], len(header[4]) + 1)  # the header stands over the digits, not over the mark
    for cells, point in zip((header, *body), (None, *(point for point, _ in listed)), strict=True):
        right = cells[4] if point else f"{cells[4]} "
        pieces = [text.ljust(size) for text, size in zip(cells[:4], widths, strict=False)]
        pieces += [right.rjust(widths[4]), cells[5].rjust(widths[5])]
        if point is None:
            yield ((("  " + gap.join(pieces)).rstrip(), "dim"),)
        else:
            before, after = "  " + gap.join(pieces[:3]) + gap, gap + gap.join(pieces[4:])
            yield ((before, ""), (pieces[3], _style(point)), (after.rstrip(), ""))


def _style(point: Point) -> Style:
    if point.status not in ("ok", "skipped"):
        return "red"
    return "" if (point.status, point.run.status) == ("ok", "complete") else "yellow"
