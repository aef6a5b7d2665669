"""Vega-Lite specifications, one for each kind of plot, built with Altair. They hold no data and no colour.

The data come in by the name ``panels.DATA``; the colours by a config (``palette.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from mnist_bench.report.palette import shape_of
from mnist_bench.report.panels import DATA

HEIGHT = 210
BAR_STEP = 24
RATIO_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)

Spec = dict[str, Any]


def throughput(variants: Sequence[str], batch_sizes: Sequence[int]) -> Spec:
    """Training samples per second by batch size, both logarithmic, with intervals; a line a variant."""
    return _lines(variants, batch_sizes, "samples/s", alt.Axis(format="~s", tickCount=4))


def speed_up(variants: Sequence[str], batch_sizes: Sequence[int]) -> Spec:
    """A ratio by batch size, both logarithmic, with intervals; the line at 1 is the reference."""
    axis = alt.Axis(values=list(RATIO_TICKS), format="~g", labelExpr="datum.label + 'x'")
    equal = alt.Chart(_data()).mark_rule(strokeDash=[4, 4]).encode(y=alt.datum(1))
    return _lines(variants, batch_sizes, "speed-up", axis, equal)


def accuracy_by_epoch(variants: Sequence[str]) -> Spec:
    """Mean accuracy after each epoch, the band from the lowest seed to the highest."""
    x = alt.X("epoch:Q").scale(padding=10, nice=False, zero=False).axis(format="d", tickMinStep=1, grid=False)
    base = alt.Chart(_data()).encode(
        x=x.title("epoch"),
        color=_colour("variant:N", variants),
        tooltip=_tooltips(("variant", "variant"), ("epoch_text", "epoch"), ("accuracy_text", "accuracy")),
    )
    y = alt.Y("accuracy:Q").scale(zero=False).axis(format=".1%", tickCount=5).title("test accuracy")
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q").scale(zero=False).title("test accuracy"), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=y)
    points = _points(base, variants).encode(y=y)
    return _finished(alt.layer(band, line, points), HEIGHT)


def accuracy_by_time(variants: Sequence[str]) -> Spec:
    """Mean accuracy against the seconds of training so far; a line a cell, labelled with its batch size."""
    x = alt.X("seconds:Q").scale(alt.Scale(type="log", padding=18, nice=False))
    x = x.axis(format="~s", tickCount=4, grid=False)
    plain = alt.Chart(_data()).encode(x=x.title("seconds of training"))
    base = plain.encode(
        color=_colour("variant:N", variants),
        tooltip=_tooltips(
            ("cell", "cell"), ("epoch_text", "epoch"), ("seconds_text", "seconds"), ("accuracy_text", "accuracy")
        ),
    )
    y = alt.Y("accuracy:Q").scale(zero=False).axis(format=".1%", tickCount=5).title("test accuracy")
    line = base.mark_line(strokeWidth=2).encode(y=y, detail="cell:N")
    points = _points(base, variants).encode(y=y)
    ends = plain.mark_text(dy=-9).encode(y=y, text="label:N")
    return _finished(alt.layer(line, points, ends), HEIGHT)


def step_times(variants: Sequence[str]) -> Spec:
    """The share of single steps by their duration (logarithmic), an outline a variant; the rule is the median."""
    axis = alt.Axis(format="~g", tickCount=5, grid=False)
    x = alt.X("ms:Q").scale(type="log", nice=False, zero=False).axis(axis).title("ms per step")
    colour = _colour("variant:N", variants)
    tooltips = _tooltips(("variant", "variant"), ("bin_text", "step"), ("share_text", "of its steps"))
    y = alt.Y("share:Q").axis(format=".0%", tickCount=3).title("share of steps").stack(None)
    area = (
        alt.Chart(_data())
        .transform_filter("isValid(datum.ms)")
        .mark_area(opacity=0.25, interpolate="monotone", line={"strokeWidth": 1.5})
        .encode(x=x, y=y, color=colour, tooltip=tooltips)
    )
    middle = (
        alt.Chart(_data())
        .transform_filter("isValid(datum.median)")
        .mark_rule(strokeDash=[3, 2], strokeWidth=1.5)
        .encode(x=alt.X("median:Q"), color=colour, tooltip=_tooltips(("variant", "variant"), ("median_text", "median")))
    )
    return _finished(alt.layer(area, middle), 150)


def waterfall(phases: Sequence[str]) -> Spec:
    """The time awake of each cell, its phases as shares that add up to 100 %."""
    bars = (
        alt.Chart(_data())
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X("share:Q").scale(domain=[0, 1]).axis(format=".0%", tickCount=5).title("share of the time awake"),
            y=alt.Y("cell:N").sort(None).title(None),
            color=alt.Color("phase:N").scale(domain=list(phases), range="ordinal").title(None),
            order=alt.Order("rank:Q"),
            tooltip=_tooltips(
                ("cell", "cell"),
                ("phase", "phase"),
                ("parts", "made of"),
                ("share_text", "share"),
                ("seconds_text", "s"),
            ),
        )
    )
    return _finished(alt.layer(bars), alt.Step(BAR_STEP))


def memory(places: Sequence[str]) -> Spec:
    """Peak memory of each cell on the host and on the device."""
    base = alt.Chart(_data()).encode(
        x=alt.X("mib:Q").axis(format="~s", tickCount=5).title("peak, MiB"),
        y=alt.Y("cell:N").sort(None).title(None),
        yOffset=alt.YOffset("place:N").scale(domain=list(places)),
        color=alt.Color("place:N").scale(domain=list(places), range="category").title(None),
        tooltip=_tooltips(("cell", "cell"), ("place", "memory"), ("mib_text", "MiB")),
    )
    return _finished(alt.layer(base.mark_bar()), alt.Step(BAR_STEP if len(places) == 1 else BAR_STEP // 2 + 1))


def over_runs(series: Sequence[str], title: str, axis_format: str) -> Spec:
    """A figure by the start of the run; a line a series. A run without the figure is a cross at the foot."""
    axis = alt.Axis(format="%Y-%m-%d", tickCount=4, grid=False, labelOverlap="greedy")
    x = alt.X("time:T").scale(alt.Scale(type="utc", padding=12, nice=False)).axis(axis).title(None)
    base = alt.Chart(_data()).encode(
        x=x,
        color=_colour("series:N", series),
        tooltip=_tooltips(
            ("figure", title), ("change", "change"), ("run", "run"), ("commit", "commit"), ("status", "status")
        ),
    )
    y = alt.Y("value:Q").scale(zero=False).axis(format=axis_format, tickCount=5).title(title)
    measured = base.transform_filter("isValid(datum.value)")
    line = measured.mark_line(strokeWidth=2).encode(y=y)
    points = _points(measured, series, "series:N").encode(y=y)
    missing = base.transform_filter("!isValid(datum.value)").mark_text(text="✕").encode(y=alt.value(HEIGHT - 8))
    return _finished(alt.layer(line, points, missing), HEIGHT)


def _lines(variants: Sequence[str], batch_sizes: Sequence[int], title: str, axis: alt.Axis, *behind: alt.Chart) -> Spec:
    """A figure by batch size: interval, line, points, and the signs that a reader must see beside them."""
    sizes = alt.Axis(values=sorted(set(batch_sizes)), format=",d", grid=False, labelOverlap="greedy")
    scale = alt.Scale(type="log", padding=12, nice=False)
    plain = alt.Chart(_data()).encode(
        x=alt.X("batch_size:Q").scale(alt.Scale(type="log", padding=24, nice=False)).axis(sizes).title("batch size")
    )
    y = alt.Y("rate:Q").scale(scale).axis(axis).title(title)
    base = plain.encode(
        color=_colour("variant:N", variants),
        tooltip=_tooltips(
            ("variant", "variant"),
            ("batch_text", "batch size"),
            ("rate_text", title),
            ("interval", "95 %"),
            ("note", "note"),
        ),
    )
    interval = base.mark_rule(strokeWidth=1.5).encode(
        y=alt.Y("low:Q").scale(scale).axis(axis).title(title), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2).encode(y=y)
    points = _points(base, variants).encode(y=y)
    signs = plain.mark_text(dx=9, dy=-9).encode(y=y, text="marks:N")
    return _finished(alt.layer(*behind, interval, line, points, signs), HEIGHT)


def _points(base: alt.Chart, names: Sequence[str], field: str = "variant:N") -> alt.Chart:
    shapes = [shape_of(number) for number in range(1, len(names) + 1)]
    shape = alt.Shape(field).scale(domain=list(names), range=shapes).title(None)
    return base.mark_point(filled=True, size=55, opacity=1).encode(shape=shape)


def _colour(field: str, names: Sequence[str]) -> alt.Color:
    return alt.Color(field).scale(domain=list(names), range="category").title(None)


def _tooltips(*fields: tuple[str, str]) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:N").title(title) for field, title in fields]


def _data() -> alt.NamedData:
    return alt.NamedData(name=DATA)


def _finished(chart: alt.LayerChart, height: int | alt.Step) -> Spec:
    fitted = chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )
    spec: Spec = fitted.to_dict()
    return {key: value for key, value in spec.items() if key != "config"}
