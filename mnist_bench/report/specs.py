"""Vega-Lite specifications, one for each kind of plot, built with Altair, and the colours and type of all of them.

Specifications hold no data (they come in by the name ``DATA``) and no colour: one is on the screen, another on paper.
The hues are Okabe and Ito's (2008, *Color Universal Design*), told apart with any kind of colour vision; darker on a
light ground, lighter on a dark one, so that each has a contrast of 3:1. Shapes repeat what colours say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
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
PAPER = {"ink": "#1a1d21", "muted": "#565b63", "rule": "#d9dce1"}
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


def throughput(variants: Sequence[str], batch_sizes: Sequence[int]) -> Spec:
    """Training samples per second by batch size, both logarithmic, with intervals; a line a variant."""
    return _by_batch(variants, batch_sizes, "samples/s", alt.Axis(format="~s", tickCount=4))


def speed_up(variants: Sequence[str], batch_sizes: Sequence[int], ratios: Sequence[float]) -> Spec:
    """A ratio by batch size, both logarithmic, with intervals; the line at 1 is the reference."""
    spread = max([1.0, *ratios]) / min([1.0, *ratios])
    ticks = FINE_TICKS if spread < FINE_SPREAD else COARSE_TICKS
    axis = alt.Axis(values=ticks, format="~g", grid=True, labelExpr="datum.label + 'x'", labelOverlap=True)
    equal = alt.Chart(_data()).mark_rule(strokeDash=[4, 4]).encode(y=alt.YDatum(1))
    return _by_batch(variants, batch_sizes, "speed-up", axis, equal)


def _by_batch(
    variants: Sequence[str], batch_sizes: Sequence[int], title: str, axis: alt.Axis, *behind: alt.Chart
) -> Spec:
    """A figure by batch size: interval, line, points, and the signs that a reader must see beside them."""
    # A panel with a single batch size has an axis of no length: all others would be labelled at that one's place.
    ticks = f"domain('x')[1] > 1.000001 * domain('x')[0] ? {sorted(set(batch_sizes))} : [domain('x')[0]]"
    sizes = alt.Axis(values=alt.ExprRef(ticks), format=",d", grid=False, labelOverlap="greedy")
    x = alt.X("batch_size:Q").scale(_log(padding=24)).axis(sizes).title("batch size")
    y = alt.Y("rate:Q").scale(_log()).axis(axis).title(title)
    signs = alt.Chart(_data()).mark_text(dx=9, dy=-9).encode(x=x, y=y, text="marks:N")
    told = {"variant": "variant", "batch_text": "batch size", "rate_text": title, "interval": "95 %", "note": "note"}
    base = _coloured("variant", variants, **told)
    interval = base.mark_rule(strokeWidth=1.5).encode(x=x, y="low:Q", y2="high:Q")
    return _finished(*behind, interval, *_curve(base.encode(x=x, y=y), "variant", variants), signs)


def accuracy_by_epoch(variants: Sequence[str], title: str = "test accuracy") -> Spec:
    """Mean accuracy after each epoch, the band from the lowest seed to the highest."""
    x = alt.X("epoch:Q").scale(padding=10, nice=False, zero=False).axis(format="d", tickMinStep=1, grid=False)
    base = _coloured("variant", variants, variant="variant", epoch="epoch", accuracy_text="accuracy")
    base = base.encode(x=x.title("epoch"))
    seeds = base.encode(y="low:Q", y2="high:Q")
    # Of a single epoch there is no band: the rules at its ends are seen.
    bands = seeds.mark_area(opacity=0.18), seeds.mark_rule(opacity=0.5)
    return _finished(*bands, *_curve(base.encode(y=_accuracy(title)), "variant", variants))


def accuracy_by_time(variants: Sequence[str], batches: Sequence[str]) -> Spec:
    """Mean accuracy against the seconds of training so far; a line a cell, its batch size told by a shape."""
    x = alt.X("seconds:Q").scale(_log()).axis(format="~g", tickCount=4, grid=False).title("seconds of training")
    told = {"cell": "cell", "epoch": "epoch", "seconds_text": "seconds", "accuracy_text": "accuracy"}
    base = _coloured("variant", variants, **told).encode(x=x, y=_accuracy())
    return _finished(*_curve(base, "batch", batches, 1.5, detail="cell:N"))


def step_times(variants: Sequence[str]) -> Spec:
    """The share of single steps by their duration (logarithmic), an outline a variant; the rule is the median."""
    x = alt.X("ms:Q").scale(_log(padding=0)).axis(format="~g", tickCount=5, grid=False).title("ms per step")
    y = alt.Y("share:Q").axis(format=".0%", tickCount=3).title("share of steps").stack(None)
    base = _coloured("variant", variants, variant="variant", bin_text="step", share_text="of its steps")
    area = base.mark_area(opacity=0.25, interpolate="monotone", line={"strokeWidth": 1.5}).encode(x=x, y=y)
    base = _coloured("variant", variants, variant="variant", median_text="median")
    middle = base.mark_rule(strokeDash=[3, 2], strokeWidth=1.5).encode(x=alt.X("median:Q"))
    known = [chart.transform_filter(f"isValid(datum.{name})") for chart, name in ((area, "ms"), (middle, "median"))]
    return _finished(*known, height=150)


def waterfall(phases: Sequence[str]) -> Spec:
    """The time awake of each cell, its phases as shares that add up to 100 %."""
    x = alt.X("share:Q").scale(domain=[0, 1]).axis(format=".0%", tickCount=5).title("share of the time awake")
    told = {"cell": "cell", "phase": "phase", "parts": "made of", "share_text": "share", "seconds_text": "s"}
    bars = _coloured("phase", phases, **told).mark_bar(height={"band": 0.72})
    return _finished(bars.encode(x=x, y=_cells(), order=alt.Order("rank:Q")))


def memory(places: Sequence[str]) -> Spec:
    """Peak memory of each cell: the host's a broad bar, the device's a narrow one before it."""
    x = alt.X("mib:Q").axis(format=",d", tickCount=5).title("peak, MiB").stack(None)
    bars = _coloured("place", places, cell="cell", place="memory", mib_text="MiB").mark_bar()
    return _finished(bars.encode(x=x, y=_cells(), size=alt.Size("breadth:Q").scale(None).legend(None)))


def over_runs(series: Sequence[str], title: str, axis_format: str) -> Spec:
    """A figure by the start of the run; a line a series. A run without the figure is a cross at the foot."""
    axis = alt.Axis(format="%Y-%m-%d", tickCount=4, grid=False, labelOverlap="greedy")
    x = alt.X("time:T").scale(alt.Scale(type="utc", padding=12, nice=False)).axis(axis).title(None)
    told = {"figure": title, "change": "change", "run": "run", "commit": "commit", "status": "status"}
    base = _coloured("series", series, **told).encode(x=x)
    y = alt.Y("value:Q").scale(zero=False).axis(format=axis_format, tickCount=5).title(title)
    measured = base.transform_filter("isValid(datum.value)").encode(y=y)
    # Not filtered: a scale of no data at all would be warned of in the browser's console.
    missing = base.mark_text().encode(text="mark:N", y=alt.value(HEIGHT - 8))
    return _finished(*_curve(measured, "series", series), missing)


def _data() -> alt.NamedData:
    return alt.NamedData(name=DATA)


def _coloured(field: str, names: Sequence[str], **told: str) -> alt.Chart:
    """A chart with a colour for each name, and the tooltips ``told``: titles by field."""
    colour = alt.Color(f"{field}:N").scale(domain=list(names), range="category").title(None)
    tooltips = [alt.Tooltip(f"{name}:N").title(title) for name, title in told.items()]
    return alt.Chart(_data()).encode(color=colour, tooltip=tooltips)


def _curve(base: alt.Chart, field: str, names: Sequence[str], width: float = 2, **more: str) -> list[alt.Chart]:
    """A line and its points, with a shape for each name."""
    shapes = [shape_of(number) for number in range(1, len(names) + 1)]
    shape = alt.Shape(f"{field}:N").scale(domain=list(names), range=shapes).title(None)
    points = base.mark_point(filled=True, size=55, opacity=1).encode(shape=shape)
    return [base.mark_line(strokeWidth=width).encode(**more), points]


def _log(padding: int = 12) -> alt.Scale:
    return alt.Scale(type="log", padding=padding, nice=False)


def _accuracy(title: str = "test accuracy") -> alt.Y:
    return alt.Y("accuracy:Q").scale(zero=False, padding=8).axis(format=".2~%", tickCount=5).title(title)


def _cells() -> alt.Y:
    return alt.Y("cell:N").sort(None).title(None)


def _finished(*layers: alt.Chart, height: int = HEIGHT) -> Spec:
    size = alt.AutoSizeParams(type="fit-x", contains="padding")
    spec: Spec = alt.layer(*layers).properties(width="container", height=height, autosize=size).to_dict()
    return {key: value for key, value in spec.items() if key != "config"}


def colour_of(number: int) -> int:
    """The place in the palette of the ``number``-th name, both counted from 1: after the last comes the first."""
    return (number - 1) % len(LIGHT) + 1


def shape_of(number: int) -> Shape:
    return SHAPES[(number - 1) % len(SHAPES)]


def asset(name: str) -> str:
    """A file of the page: its templates, style, script, and the style of its plots."""
    return resources.files("mnist_bench.report").joinpath("assets", name).read_text(encoding="utf-8")


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
    return {**json.loads(asset("plots.json")), "range": {"category": variables}, "legend": {"disable": True}}


def paper() -> dict[str, Any]:
    """The config for PNG and SVG files: dark on white, with a legend."""
    text = asset("plots.json")
    for name, colour in PAPER.items():
        text = text.replace(f"var(--{name})", colour)
    return {**json.loads(text), "range": {"category": list(LIGHT)}, "background": "white", "padding": 16}
