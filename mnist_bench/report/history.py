"""``history --page``: a plot per cell over runs, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mnist_bench import trends
from mnist_bench.report import specs
from mnist_bench.report.material import MOST_PANELS, Key, Panel, Plot, Value
from mnist_bench.report.page import html
from mnist_bench.report.specs import colour_of, shape_of
from mnist_bench.table import Column, Table, plain
from mnist_bench.trends import METRICS, Metric, Point, Series

Line = tuple[Series, Point, float | None]

AXIS_FORMATS = {"plain": "~s", "fraction": ".2%", "ratio": "~g"}
MOST_WORDS = 3  # series of one cell that its caption tells of


def render_history(
    series: Sequence[Series],
    name: str,
    last: int,
    warnings: Sequence[str],
    program_version: str,
    bundle: str,
) -> str:
    """The text of a page that needs no other file.

    Args:
        series: of all cells, as ``trends.gather`` has them.
        name: of the metric.
        last: how many runs of each series the table lists.
        warnings: what stands above everything.
        bundle: as of ``page.html``.
    """
    metric = METRICS[name]
    points = [point for one in series for point in one.points]
    starts = sorted(plain(point.run.started_at[:10]) for point in points)
    return html(
        "history.html.j2",
        (over_runs(series, metric, last),),
        bundle,
        metric=name,
        cells=len({one.cell.id for one in series}),
        runs=len({point.run.id for point in points}),
        span=" to ".join(dict.fromkeys((starts[0], starts[-1]))) if starts else "",
        warnings=[plain(warning) for warning in warnings],
        remarks=[remark for remark in trends.remarks(series) if remark],
        program_version=program_version,
    )


def over_runs(series: Sequence[Series], metric: Metric, last: int) -> Plot:
    """A panel for each cell with a figure, a line for each of its series."""
    measured = [one for one in series if any(point.value is not None for point in one.points)]
    labels = tuple(dict.fromkeys(plain(one.label) for one in measured))
    cells = list(dict.fromkeys(one.cell for one in measured))
    left_out = len(cells) - MOST_PANELS
    return Plot(
        id="runs",
        title=f"{metric.title[:1].upper()}{metric.title[1:]} over runs",
        lead=f"Each point is a run, at the time of its start; {metric.better} is better. Only runs of the same "
        "machine, software and settings are joined. A cross at the foot is a run in which the cell was not measured.",
        spec=specs.over_runs(labels, metric.title, AXIS_FORMATS[metric.unit]),
        panels=tuple(_panel([one for one in measured if one.cell == cell], metric) for cell in cells[:MOST_PANELS]),
        legend=tuple(
            Key(label=label, colour=colour_of(number), shape=shape_of(number))
            for number, label in enumerate(labels, start=1)
        ),
        missing="" if cells else "No run has this figure.",
        notes=(f"{left_out} cells more are in the table alone: choose cells by a pattern.",) if left_out > 0 else (),
        table=_table(series, metric, last) if cells else None,
    )


def _panel(series: Sequence[Series], metric: Metric) -> Panel:
    words = [_words(one, metric) for one in series[:MOST_WORDS]]
    more = len(series) - MOST_WORDS
    return Panel(
        title=plain(series[0].cell.id),
        values=tuple(value for one in series for value in _values(one, metric)),
        caption="; ".join([*words, f"and {more} series more"] if more > 0 else words) + ".",
    )


def _words(series: Series, metric: Metric) -> str:
    """``AMD EPYC, 2 cores: 12 runs, 10,000 to 12,500; 12,400 in the newest (2026-11-23, c0ffee1)``."""
    known = [point for point in series.points if point.value is not None]
    values = [point.value for point in known if point.value is not None]
    low, high = trends.shown(min(values), metric), trends.shown(max(values), metric)
    newest = known[-1]
    where = ", ".join(filter(None, (plain(newest.run.started_at[:10]), plain(newest.run.version))))
    runs = f"{len(known)} run{'s' if len(known) != 1 else ''}"
    span = low if low == high else f"{low} to {high}"
    return f"{plain(series.label)}: {runs}, {span}; {trends.shown(newest.value, metric)} in the newest ({where})"


def _values(series: Series, metric: Metric) -> list[dict[str, Value]]:
    timed = [(point, _milliseconds(point), change) for point, change in trends.last_points(series, metric, 0)]
    return [
        {
            "series": plain(series.label),
            "time": time,
            "value": point.value,
            "mark": "✕" if point.value is None else "",
            "figure": trends.shown(point.value, metric) + ("†" if point.noisy else ""),
            "change": trends.shown_change(change, metric),
            "run": plain(point.run.id),
            "commit": plain(point.run.version),
            "status": trends.status_words(point),
        }
        for point, time, change in timed
        if time is not None
    ]


def _milliseconds(point: Point) -> float | None:
    """Since 1970; None where the label is no time."""
    try:
        moment = datetime.fromisoformat(point.run.started_at)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _table(series: Sequence[Series], metric: Metric, last: int) -> Table[Line]:
    columns: tuple[Column[Line], ...] = (
        Column("cell", lambda line: line[0].cell.id, right=False),
        Column("machine and settings", lambda line: line[0].label, right=False),
        Column("run", lambda line: line[1].run.id, right=False),
        Column("date", lambda line: line[1].run.started_at[:10], right=False),
        Column("commit", lambda line: line[1].run.version, right=False),
        Column("status", lambda line: trends.status_words(line[1]), right=False),
        Column(metric.title, lambda line: trends.shown(line[1].value, metric) + ("†" if line[1].noisy else "")),
        Column("change", lambda line: trends.shown_change(line[2], metric)),
    )
    lines = [
        (one, point, change) for one in series for point, change in reversed(trends.last_points(one, metric, last))
    ]
    return Table(f"The last {last} run{'s' if last != 1 else ''} of each", columns, lines)
