"""Plots of how fast, by batch size: throughput, CPU against GPU, eager against compiled."""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import altair as alt

from mnist_bench import figures
from mnist_bench.analysis.answers import Crossover
from mnist_bench.analysis.compare import BREAK_EVENS, FOOTNOTES, Line, compare_cells
from mnist_bench.cells import variants_of
from mnist_bench.records import Cell
from mnist_bench.report.material import Drawn, Material, Plot, batch, keys, panelled, series, titled
from mnist_bench.report.vega import blank, coloured, curve, layered, logarithmic, rule_at
from mnist_bench.stats import Interval
from mnist_bench.table import Table, grouped, joined, listed, plain

# Signs of the plots beside those of the tables, where the status has a column of its own.
PARTIAL = "¶"
NOTES = {**FOOTNOTES, PARTIAL: "partial: not every seed is ok; this is what the others say, which are no fair sample"}
HOLES = "A point with a hole: one or more of these apply."
# Of a panel whose ratios lie close together, and of others.
FINE_TICKS = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2, 2.5, 3]
COARSE_TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
FINE_SPREAD = 3.0  # the highest that its axis shows over the lowest


def throughput(material: Material) -> Plot:
    """Training samples per second; a panel for each model, all of its devices in it."""
    key = "train_samples_per_s"
    points = [
        _point(
            row.cell,
            Interval(row[key], row[f"{key}_low"], row[f"{key}_high"]),
            figures.signs(row).replace("*", "") + PARTIAL * (row.status != "ok"),
            "samples/s",
        )
        for row in material.measured
        if row[key] is not None
    ]
    return _by_batch_size(
        points,
        material.series,
        unit="samples/s",
        title="Throughput",
        lead="Training samples per second over whole epochs; higher is better. Bars are 95 % intervals over seeds.",
        missing="No cell has a throughput.",
    )


def by_device(material: Material) -> Plot:
    """Speed-up of each other device over the CPU; a panel for each model."""
    comparison = compare_cells(material.run, "device", partial=True)
    crossovers = grouped(comparison.crossovers, attrgetter("model"))
    why = _reasons(one for one in comparison.lines if one.cell.device != "cpu")
    return _by_batch_size(
        _speed_ups(comparison.lines),
        material.series,
        more=lambda cell: _crossover_words(crossovers.get(cell.model, ())),
        title="CPU against GPU",
        lead="How many times faster a training step is than on the CPU, both timed together. Bars are 95 % intervals.",
        missing=f"No cell was timed both on the CPU and on another device: {why or 'name both under devices'}.",
    )


def compiled(material: Material) -> Plot:
    """Speed-up of each compiled variant over the reference variant, and when compiling has paid for itself."""
    comparison = compare_cells(material.run, "variant", partial=True)
    names = {v.name for v in variants_of(material.run.manifest.matrix) if v.execution == "compile"}
    lines = [one for one in comparison.lines if one.cell.variant in names]

    missing = f"No compiled cell could be compared: {_reasons(lines) or 'none has finished'}."
    return _by_batch_size(
        _speed_ups(lines),
        material.series,
        title="Eager against compiled",
        lead="How many times faster a compiled training step is than the eager one, both timed together. Bars are 95 % "
        "intervals. The table below says after how much training the time of compiling is earned back.",
        missing=missing if names else "The matrix has no compiled variant: name compile under variants.",
        table=Table("When compiling has paid for itself", BREAK_EVENS, comparison.break_evens),
    )


def _speed_ups(lines: Iterable[Line]) -> list[Drawn]:
    return [
        _point(one.cell, one.speed_up.interval, one.marks + PARTIAL * one.partial)
        for one in lines
        if one.speed_up is not None
    ]


def _point(cell: Cell, interval: Interval, marks: str, unit: str = "") -> Drawn:
    """A point of a line with its bar: an unknown interval is one of no length, which is not seen.

    A logarithmic axis has no 0: an interval that reaches it is drawn from a hundredth of the figure.
    """
    text = figures.TEXTS.get(unit, figures.significant)
    rate, low, high = interval.estimate, interval.low, interval.high
    bounds = figures.bounds(low, high, text)
    value = {
        "series": series(cell),
        "batch_size": cell.batch_size,
        "rate": rate,
        "low": rate if low is None else max(low, rate / 100),
        "high": rate if high is None else high,
        "rate_text": text(rate),
        "interval": bounds or "unknown",
        "marks": marks,
        "note": ", ".join(NOTES[mark].partition(":")[0] for mark in marks) or "none",
    }
    at = f"{series(cell)} at {batch(cell.batch_size)},"
    return Drawn(cell, [value], joined(at, text(rate), bounds, unit, marks))


def _by_batch_size(
    points: Sequence[Drawn],
    names: Sequence[str],
    unit: str = "",
    more: Callable[[Cell], str] = lambda cell: "",
    **words: Any,
) -> Plot:
    """A plot of a figure, in ``unit``, or of a ratio; ``more`` adds to the caption of the panel that a cell is in."""

    def caption(own: Sequence[Drawn]) -> str:
        ranked = sorted(own, key=lambda point: float(point.values[0]["rate"]))
        lowest = f"Lowest: {ranked[0].words}." if len(ranked) > 1 else ""
        return joined(f"Highest: {ranked[-1].words}.", lowest, more(own[0].cell))

    sizes = sorted({point.cell.batch_size for point in points})
    # A panel with a single batch size has an axis of no length: all others would be labelled at that one's place.
    ticks = f"domain('x')[1] > 1.000001 * domain('x')[0] ? {sizes} : [domain('x')[0]]"
    axis = alt.Axis(values=alt.ExprRef(ticks), format=",d", grid=False, labelOverlap="greedy")
    x = alt.X("batch_size:Q").scale(logarithmic(24)).axis(axis).title("batch size")
    # By an expression: given a format, a logarithmic axis leaves out the labels that are far from a power of ten.
    spoken = alt.Axis(tickCount=4, labelExpr="format(datum.value, '~s')", labelOverlap=True)
    axis = spoken if unit else _ratio_axis()
    y = alt.Y("rate:Q").scale(logarithmic()).axis(axis).title(unit or "speed-up")
    told = {"batch_size": "batch size|,d", "rate_text": unit or "speed-up", "interval": "95 %", "note": "note"}
    base = coloured("series", names, series="of", **told).encode(x=x)
    interval = base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q")
    equal = [] if unit else [rule_at(1)]
    # Not filtered: a scale of no data at all would be warned of in the browser's console.
    seen = alt.condition("datum.marks != ''", alt.value(1), alt.value(0))
    doubtful = blank().mark_point(style="hole").encode(x=x, y=y, opacity=seen, tooltip=base.encoding.tooltip)
    notes = figures.footnotes((point.values[0]["marks"] for point in points), NOTES)
    return panelled(
        points,
        caption,
        keys("series", names),
        spec=layered(*equal, interval, *curve(base.encode(y=y), "series", names), doubtful),
        notes=[HOLES] * (len(notes) > 0) + notes,
        **words,
    )


def _ratio_axis() -> alt.Axis:
    ticks = f"domain('y')[1] < {FINE_SPREAD} * domain('y')[0] ? {FINE_TICKS} : {COARSE_TICKS}"
    return alt.Axis(values=alt.ExprRef(ticks), format="~g", grid=True, labelExpr="datum.label + 'x'", labelOverlap=True)


def _crossover_words(crossovers: Sequence[Crossover]) -> str:
    """``cuda · eager: faster than the CPU from batch size 180 on [120, 260].``, those that agree together."""
    same = grouped(crossovers, attrgetter("words")).items()
    return " ".join(f"{', '.join(titled(one.device, one.variant) for one in own)}: {words}." for words, own in same)


def _reasons(found: Iterable[Line]) -> str:
    return listed(list(dict.fromkeys(plain(one.reason) for one in found if one.reason)))
