"""``history --page``: a plot per cell over runs, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mnist_bench.analysis import history
from mnist_bench.analysis.history import METRICS, Point, RunRecord, Series
from mnist_bench.figures import Figure
from mnist_bench.report import specs
from mnist_bench.report.material import MOST_PANELS, Panel, Plot, Value, keys
from mnist_bench.report.page import html
from mnist_bench.table import joined, plain

AXIS_FORMATS = {"fraction": ".2%", "": "~g"}  # by the unit of a figure; others ~s
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
        series: of all cells, as ``history.gather`` has them.
        name: of the metric.
        last: how many runs of each series the table lists.
        warnings: what stands above everything.
        bundle: as of ``page.html``.
    """
    metric = METRICS[name]
    runs = {point.run.run_id: plain(point.run.started_at[:10]) for one in series for point in one.points}
    return html(
        "history.html.j2",
        (over_runs(series, metric, last),),
        bundle,
        metric=name,
        cells=len({one.cell for one in series}),
        runs=len(runs),
        span=" to ".join(dict.fromkeys((min(runs.values()), max(runs.values())))) if runs else "",
        warnings=[plain(warning) for warning in warnings],
        remarks=history.notes(series, metric),
        program_version=program_version,
    )


def over_runs(series: Sequence[Series], metric: Figure, last: int) -> Plot:
    """A panel for each cell with a figure, a line for each of its series."""
    measured = [one for one in series if one.values]
    labels = tuple(dict.fromkeys(one.label for one in measured))
    cells = list(dict.fromkeys(one.cell for one in measured))
    left_out = len(cells) - MOST_PANELS
    return Plot(
        id="runs",
        title=f"{metric.title[:1].upper()}{metric.title[1:]} over runs",
        lead=f"Each point is a run, at the time of its start; {metric.better} is better. Only runs of the same "
        "machine, software and settings are joined. A cross at the foot is a run in which the cell was not measured.",
        spec=specs.over_runs(labels, metric.title, AXIS_FORMATS.get(metric.unit, "~s")),
        panels=tuple(_panel([one for one in measured if one.cell == cell], metric) for cell in cells[:MOST_PANELS]),
        legend=keys(labels, labels),
        missing="" if cells else "No run has this figure.",
        notes=(f"{left_out} cells more are in the table alone: choose cells by a pattern.",) if left_out > 0 else (),
        table=history.table(measured, metric, last) if cells else None,
    )


def _panel(series: Sequence[Series], metric: Figure) -> Panel:
    more = f"; and {len(series) - MOST_WORDS} series more" * (len(series) > MOST_WORDS)
    timed = [(point, _milliseconds(point.run)) for one in series for point in one.points]
    return Panel(
        title=plain(series[0].cell.id),
        values=tuple(_value(point, time, metric) for point, time in timed if time is not None),
        caption="; ".join(_words(one, metric) for one in series[:MOST_WORDS]) + f"{more}.",
    )


def _words(series: Series, metric: Figure) -> str:
    """``AMD EPYC, 2 cores: 12 runs, 10,000 to 12,500; 12,400 in the newest (2026-11-23 c0ffee1)``."""
    newest = next(point for point in reversed(series.points) if point.row.value is not None)
    runs = f"{len(series.values)} run{'s' * (len(series.values) != 1)}"
    where = plain(joined(newest.run.started_at[:10], newest.run.version))
    return f"{series.label}: {runs}, {series.span(metric)}; {metric.text(newest.row.value)} in the newest ({where})"


def _value(point: Point, time: float, metric: Figure) -> dict[str, Value]:
    return {
        "series": point.label,
        "time": time,
        "value": point.row.value,
        "mark": "✕" if point.row.value is None else "",
        "figure": joined(metric.text(point.row.value), point.remark),
        "change": history.change_words(point, metric),
        "run": plain(point.run.run_id),
        "commit": plain(point.run.version),
        "status": plain(point.status),
    }


def _milliseconds(run: RunRecord) -> float | None:
    """Since 1970; None where the label is no time."""
    try:
        moment = datetime.fromisoformat(run.started_at)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
