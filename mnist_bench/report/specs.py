"""Vega-Lite specifications, one for each kind of plot, built with Altair, and the colours and type of all of them.

Specifications hold no data (they come in by the name ``DATA``) and no colour: one is on the screen, another on paper.
The hues are Okabe and Ito's (2008, *Color Universal Design*), told apart with any kind of colour vision; darker on a
light ground, lighter on a dark one, so that each has a contrast of 3:1. Shapes repeat what colours say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

DATA = "panel"  # the name under which a specification expects its panel's values
HEIGHT = 210
# Of ratios that lie close together, and of others.
FINE_TICKS = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2, 2.5, 3]
COARSE_TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
FINE_SPREAD = 3.0  # the largest ratio over the smallest

Spec = dict[str, Any]
Shape = Literal["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "bar", "line"]

LIGHT = ("#0a5c8f", "#c8500a", "#00805b", "#a8477f", "#8f6a00", "#3d94d1", "#6b6f76", "#4a3fa8")
DARK = ("#4fa9e2", "#f28a45", "#2fc79b", "#e391bf", "#e3b43c", "#9bd3f5", "#a3a8b0", "#a79cf2")
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


def throughput(variants: Sequence[str], batch_sizes: Sequence[int]) -> Spec:
    """Training samples per second by batch size, both logarithmic, with intervals; a line a variant."""
    return _lines(variants, batch_sizes, "samples/s", alt.Axis(format="~s", tickCount=4))


def speed_up(variants: Sequence[str], batch_sizes: Sequence[int], ratios: Sequence[float]) -> Spec:
    """A ratio by batch size, both logarithmic, with intervals; the line at 1 is the reference."""
    spread = max([1.0, *ratios]) / min([1.0, *ratios])
    ticks = FINE_TICKS if spread < FINE_SPREAD else COARSE_TICKS
    axis = alt.Axis(values=ticks, format="~g", grid=True, labelExpr="datum.label + 'x'", labelOverlap=True)
    equal = alt.Chart(_data()).mark_rule(strokeDash=[4, 4]).encode(y=alt.YDatum(1).axis(axis).title("speed-up"))
    return _lines(variants, batch_sizes, "speed-up", axis, equal)


def accuracy_by_epoch(variants: Sequence[str]) -> Spec:
    """Mean accuracy after each epoch, the band from the lowest seed to the highest."""
    x = alt.X("epoch:Q").scale(padding=10, nice=False, zero=False).axis(format="d", tickMinStep=1, grid=False)
    base = alt.Chart(_data()).encode(
        x=x.title("epoch"),
        color=_colour("variant:N", variants),
        tooltip=_tooltips(("variant", "variant"), ("epoch_text", "epoch"), ("accuracy_text", "accuracy")),
    )
    scale, axis = alt.Scale(zero=False, padding=8), alt.Axis(format=".2~%", tickCount=5)
    low = alt.Y("low:Q").scale(scale).axis(axis).title("test accuracy")
    y = alt.Y("accuracy:Q").scale(scale).axis(axis).title("test accuracy")
    band = base.mark_area(opacity=0.18).encode(y=low, y2="high:Q")
    ends = base.mark_rule(opacity=0.5).encode(y=low, y2="high:Q")  # of a single epoch there is no band
    line = base.mark_line(strokeWidth=2).encode(y=y)
    points = _points(base, "variant:N", variants).encode(y=y)
    return _finished(alt.layer(band, ends, line, points), HEIGHT)


def accuracy_by_time(variants: Sequence[str], batches: Sequence[str]) -> Spec:
    """Mean accuracy against the seconds of training so far; a line a cell, its batch size told by a shape."""
    x = alt.X("seconds:Q").scale(alt.Scale(type="log", padding=12, nice=False))
    x = x.axis(format="~g", tickCount=4, grid=False)
    base = alt.Chart(_data()).encode(
        x=x.title("seconds of training"),
        color=_colour("variant:N", variants),
        tooltip=_tooltips(
            ("cell", "cell"), ("epoch_text", "epoch"), ("seconds_text", "seconds"), ("accuracy_text", "accuracy")
        ),
    )
    y = alt.Y("accuracy:Q").scale(zero=False, padding=8).axis(format=".2~%", tickCount=5).title("test accuracy")
    line = base.mark_line(strokeWidth=1.5).encode(y=y, detail="cell:N")
    points = _points(base, "batch:N", batches).encode(y=y)
    return _finished(alt.layer(line, points), HEIGHT)


def step_times(variants: Sequence[str]) -> Spec:
    """The share of single steps by their duration (logarithmic), an outline a variant; the rule is the median."""
    axis = alt.Axis(format="~g", tickCount=5, grid=False)
    x = alt.X("ms:Q").scale(type="log", nice=False).axis(axis).title("ms per step")
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
    return _finished(alt.layer(bars), HEIGHT)


def memory(places: Sequence[str]) -> Spec:
    """Peak memory of each cell: the host's a broad bar, the device's a narrow one before it."""
    bars = (
        alt.Chart(_data())
        .mark_bar()
        .encode(
            x=alt.X("mib:Q").axis(format=",d", tickCount=5).title("peak, MiB").stack(None),
            y=alt.Y("cell:N").sort(None).title(None),
            color=alt.Color("place:N").scale(domain=list(places), range="category").title(None),
            size=alt.Size("breadth:Q").scale(None).legend(None),
            tooltip=_tooltips(("cell", "cell"), ("place", "memory"), ("mib_text", "MiB")),
        )
    )
    return _finished(alt.layer(bars), HEIGHT)


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
    points = _points(measured, "series:N", series).encode(y=y)
    # Not filtered: a scale of no data at all would be warned of in the browser's console.
    missing = base.mark_text().encode(text="mark:N", y=alt.value(HEIGHT - 8))
    return _finished(alt.layer(line, points, missing), HEIGHT)


def _lines(variants: Sequence[str], batch_sizes: Sequence[int], title: str, axis: alt.Axis, *behind: alt.Chart) -> Spec:
    """A figure by batch size: interval, line, points, and the signs that a reader must see beside them."""
    # A panel with a single batch size has an axis of no length: all others would be labelled at that one's place.
    ticks = f"domain('x')[1] > 1.000001 * domain('x')[0] ? {sorted(set(batch_sizes))} : [domain('x')[0]]"
    sizes = alt.Axis(values=alt.ExprRef(ticks), format=",d", grid=False, labelOverlap="greedy")
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
    points = _points(base, "variant:N", variants).encode(y=y)
    signs = plain.mark_text(dx=9, dy=-9).encode(y=y, text="marks:N")
    return _finished(alt.layer(*behind, interval, line, points, signs), HEIGHT)


def _points(base: alt.Chart, field: str, names: Sequence[str]) -> alt.Chart:
    shapes = [shape_of(number) for number in range(1, len(names) + 1)]
    shape = alt.Shape(field).scale(domain=list(names), range=shapes).title(None)
    points: alt.Chart = base.mark_point(filled=True, size=55, opacity=1).encode(shape=shape)
    return points


def _colour(field: str, names: Sequence[str]) -> alt.Color:
    return alt.Color(field).scale(domain=list(names), range="category").title(None)


def _tooltips(*fields: tuple[str, str]) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:N").title(title) for field, title in fields]


def _data() -> alt.NamedData:
    return alt.NamedData(name=DATA)


def _finished(chart: alt.LayerChart | alt.FacetChart, height: int) -> Spec:
    fitted = chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )
    spec: Spec = fitted.to_dict()
    return {key: value for key, value in spec.items() if key != "config"}


def colour_of(number: int) -> int:
    """The place in the palette of the ``number``-th name, both counted from 1: after the last comes the first."""
    return (number - 1) % len(LIGHT) + 1


def shape_of(number: int) -> Shape:
    return SHAPES[(number - 1) % len(SHAPES)]


def style() -> str:
    """The palette as variables and classes of the page's style sheet, a pair of colours for the two themes."""
    pairs = list(enumerate(zip(LIGHT, DARK, strict=True), start=1))
    variables = "".join(f"--c{number}:light-dark({light},{dark});" for number, (light, dark) in pairs)
    classes = "".join(f".fill{number}{{fill:var(--c{number})}}" for number, _ in pairs) + ".fill0{fill:var(--muted)}"
    return f":root{{{variables}}}{classes}\n"


def screen() -> dict[str, Any]:
    """Vega-Lite's config for the page: every colour is a variable of its style sheet, so that themes need no script."""
    variables = [f"var(--c{number})" for number in range(1, len(LIGHT) + 1)]
    # The page has legends of its own, which wrap.
    return {**_config("var(--ink)", "var(--muted)", "var(--rule)", variables), "legend": {"disable": True}}


def paper() -> dict[str, Any]:
    """The config for PNG and SVG files: dark on white, with a legend."""
    config = _config("#1a1d21", "#565b63", "#d9dce1", list(LIGHT))
    config["legend"] = {
        "orient": "bottom",
        "direction": "horizontal",
        "columns": 4,
        "symbolLimit": 60,
        "symbolOpacity": 1,
    }
    config["legend"] |= {"labelFont": FONT, "titleFont": FONT, "labelLimit": 240, "title": None}
    config["title"] = {
        "font": FONT,
        "fontSize": 14,
        "anchor": "start",
        "subtitleFont": FONT,
        "subtitleColor": "#565b63",
    }
    return {**config, "background": "white", "padding": 16}


def _config(ink: str, muted: str, rule: str, colours: list[str]) -> dict[str, Any]:
    return {
        "aria": False,  # the page puts each plot under a label of its own
        "font": FONT,
        "background": None,
        "view": {"stroke": None},
        "axis": {
            "labelColor": muted,
            "titleColor": muted,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelLimit": 190,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "labelSeparation": 8,
            "gridColor": rule,
            "gridWidth": 1,
        },
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": muted},
        "range": {"category": colours, "ordinal": colours, "symbol": list(SHAPES)},
    }
