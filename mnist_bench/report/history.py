"""``history --page``: a plot per cell over runs, as one HTML file."""

from collections.abc import Sequence

import altair as alt

from mnist_bench.analysis import history
from mnist_bench.analysis.history import METRICS, Series
from mnist_bench.figures import Figure
from mnist_bench.report.material import Drawn, Plot, Values, keys, panelled
from mnist_bench.report.page import html
from mnist_bench.report.vega import HEIGHT, coloured, curve, layered
from mnist_bench.table import joined, listed, plain

AXIS_FORMATS = {"fraction": ".2%", "samples/s": "~s"}  # by the unit of a figure; others ~g


def render_history(series: Sequence[Series], name: str, last: int, warnings: Sequence[str], bundle: str) -> str:
    """The text of a page that needs no other file.

    Args:
        series: of all cells, as ``history.gather`` has them.
        name: of the metric.
        last: how many runs of each series the table lists.
        warnings: what stands above everything.
        bundle: as of ``page.html``.
    """
    metric = METRICS[name]
    runs = {point.run.run_id: point.run.started_at[:10] for one in series for point in one.points}
    return html(
        "history.html.j2",
        {"runs": over_runs(series, metric, last)},
        bundle,
        metric=name,
        cells=len({one.cell for one in series}),
        runs=len(runs),
        span=" to ".join(sorted({min(runs.values()), max(runs.values())})),
        warnings=warnings,
        remarks=history.notes(series, metric),
    )


def over_runs(series: Sequence[Series], metric: Figure, last: int) -> Plot:
    """A panel for each cell with a figure, a line for each of its series."""
    measured = [one for one in series if one.values]
    labels = list(dict.fromkeys(one.label for one in measured))
    axis = alt.Axis(format="%Y-%m-%d", tickCount=4, grid=False, labelOverlap="greedy")
    x = alt.X("time:T").scale(alt.Scale(type="utc", padding=12, nice=False)).axis(axis).title(None)
    axis = alt.Axis(format=AXIS_FORMATS.get(metric.unit, "~g"), tickCount=5)
    y = alt.Y("value:Q").scale(zero=False).axis(axis).title(metric.title)
    told = {"figure": metric.title, "change": "change", "run": "run", "commit": "commit", "status": "status"}
    base = coloured("series", labels, **told).encode(x=x)
    measures = base.transform_filter("isValid(datum.value)").encode(y=y)
    # Not filtered: a scale of no data at all would be warned of in the browser's console.
    missing = base.mark_text().encode(text="mark:N", y=alt.value(HEIGHT - 8))

    return panelled(
        [Drawn(one.cell, _values(one, metric), f"{one.label}: {one.span(metric)}") for one in measured],
        lambda own: f"{listed([one.words for one in own])}.",
        keys("series", labels),
        by=lambda cell: (cell.id,),
        title=f"{metric.title[:1].upper()}{metric.title[1:]} over runs",
        lead=f"A point is a run; {metric.better} is better. Runs of one machine, software and setting are joined. "
        "A cross at the foot is a run in which the cell was not measured.",
        spec=layered(*curve(measures, "series", labels), missing),
        missing="No run has this figure.",
        table=history.table(measured, metric, last),
    )


def _values(series: Series, metric: Figure) -> Values:
    return [
        {
            "series": point.label,
            "time": plain(point.run.started_at),
            "value": point.row.value,
            "mark": "✕" if point.row.value is None else "",
            "figure": joined(metric.text(point.row.value), point.remark),
            "change": history.change_words(point, metric),
            "run": plain(point.run.run_id),
            "commit": plain(point.run.version),
            "status": plain(point.status),
        }
        for point in series.points
    ]
