"""Plots of how fast: throughput, CPU against GPU, eager against compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mnist_bench import figures
from mnist_bench.analysis.answers import Crossover
from mnist_bench.analysis.compare import BREAK_EVENS, FOOTNOTES, Line
from mnist_bench.cells import variants_of
from mnist_bench.figures import Row
from mnist_bench.report import specs
from mnist_bench.report.material import (
    MOST_PANELS,
    Material,
    Panel,
    Plot,
    Value,
    batch,
    grouped,
    keys,
    left_out,
    titled,
)
from mnist_bench.stats import Interval
from mnist_bench.table import Table, joined, listed, plain

# Signs of the plots beside those of the tables, where the status has a column of its own.
PARTIAL = "¶"
NOTES = {**FOOTNOTES, PARTIAL: "partial: not every seed is ok; this is what the others say, which are no fair sample"}


def throughput(material: Material) -> Plot:
    """Training samples per second by batch size; a panel for each model, all of its devices in it."""
    rows = [row for row in material.measured if row["train_samples_per_s"] is not None]
    series = tuple(dict.fromkeys(_series(row) for row in rows))
    groups = list(grouped(rows, lambda row: (row.cell.model,)))
    panels = [
        Panel(title=titled(*names), values=[_rate_value(row) for row in own], caption=_rate_caption(own))
        for names, own in groups[:MOST_PANELS]
    ]
    return Plot(
        id="throughput",
        title="Throughput by batch size",
        lead="Training samples per second over whole epochs; higher is better. Both axes are logarithmic. Bars are "
        "95 % intervals over seeds, where there are three or more.",
        spec=specs.throughput(series, material.batch_sizes),
        panels=panels,
        legend=keys(series, series),
        missing="" if panels else "No cell has a throughput.",
        notes=(*figures.footnotes(map(rate_marks, rows), NOTES), *left_out("panels", len(panels), len(groups))),
    )


def by_device(material: Material) -> Plot:
    """Speed-up of each other device over the CPU by batch size; a panel for each model and device."""
    crossovers = dict(grouped(material.by_device.crossovers, lambda one: (one.model, one.device)))
    return _ratios(
        material,
        "devices",
        "CPU against GPU",
        "How many times faster a training step is than on the CPU, both timed together in one session; above the "
        "dashed line the GPU is faster. Bars are 95 % intervals.",
        [one for one in material.by_device.lines if one.speed_up is not None],
        lambda names: crossover_words(crossovers.get(names, ())),
        _why_no_device(material),
    )


def compiled(material: Material) -> Plot:
    """Speed-up of each compiled variant over the reference variant, and when compiling has paid for itself."""
    names = {v.name for v in variants_of(material.run.manifest.matrix) if v.execution == "compile"}
    every = [one for one in material.by_variant.lines if one.cell.variant in names]
    paid = dict(grouped(material.by_variant.break_evens, lambda one: (one.cell.model, one.cell.device)))

    def soonest(panel: tuple[str, ...]) -> str:
        known = [(one.epochs.estimate, one) for one in paid.get(panel, ()) if one.epochs]
        if not known:
            return "Compiling is not shown to pay for itself."
        _, first = min(known, key=lambda pair: pair[0])
        where = f"{plain(first.cell.variant)} at {batch(first.cell.batch_size)}"
        return f"Pays for itself soonest: {where}, {first.words}."

    return _ratios(
        material,
        "compiled",
        "Eager against compiled",
        "How many times faster a compiled training step is than the eager one, both timed together in one session; "
        "above the dashed line compiling makes steps faster. Whether it pays depends on how long you train: the table "
        "below says when the time of compiling is earned back.",
        [one for one in every if one.speed_up is not None],
        soonest,
        _why_not_compiled(names, every),
        Table("When compiling has paid for itself", BREAK_EVENS, material.by_variant.break_evens),
    )


def crossover_words(crossovers: Sequence[Crossover]) -> str:
    """``eager, compile: faster than the CPU from batch size 180 on [120, 260].``, variants that agree together."""
    same: dict[str, list[str]] = {}
    for one in crossovers:
        same.setdefault(_crossover_words(one), []).append(plain(one.variant))
    return " ".join(f"{', '.join(names)}: {words}." for words, names in same.items())


def _crossover_words(one: Crossover) -> str:
    match one.estimate.where:
        case "at":
            low, high = one.words(one.low), one.words(one.high)
            interval = "" if "unknown" in (low, high) else f"[{low}, {high}]"
            return joined(f"faster than the CPU from batch size {one.words(one.estimate)} on", interval)
        case "below":
            return "faster than the CPU at every batch size measured"
        case "above":
            return "slower than the CPU at every batch size measured"
        case _:
            return f"crossover unknown ({plain(one.reason)})"


def _ratios(
    material: Material,
    id_: str,
    title: str,
    lead: str,
    lines: Sequence[Line],
    more: Callable[[tuple[str, ...]], str],
    missing: str,
    table: Table[Any] | None = None,
) -> Plot:
    """A plot of ratios by batch size, a panel for each model and device; ``more`` adds to a panel's caption."""
    groups = list(grouped(lines, lambda one: (one.cell.model, one.cell.device)))
    panels = [
        Panel(title=titled(*names), values=list(map(_ratio_value, own)), caption=joined(_highest(own), more(names)))
        for names, own in groups[:MOST_PANELS]
    ]
    ratios = [one.speed_up.interval.estimate for one in lines if one.speed_up is not None]
    return Plot(
        id=id_,
        title=title,
        lead=lead,
        spec=specs.speed_up(material.variants, material.batch_sizes, ratios),
        panels=panels,
        legend=material.legend({one.cell.variant for one in lines}),
        missing="" if lines else missing,
        notes=(*figures.footnotes(map(ratio_marks, lines), NOTES), *left_out("panels", len(panels), len(groups))),
        table=table if lines else None,
    )


def _series(row: Row) -> str:
    return titled(row.cell.device, row.cell.variant)


def _rate_value(row: Row) -> Mapping[str, Value]:
    low, high = row["train_samples_per_s_low"], row["train_samples_per_s_high"]
    interval = Interval(row["train_samples_per_s"], low, high)
    return _value(_series(row), row.cell.batch_size, interval, figures.significant, rate_marks(row), "needs 3 seeds")


def _ratio_value(one: Line) -> Mapping[str, Value]:
    assert one.speed_up is not None
    variant, size = plain(one.cell.variant), one.cell.batch_size
    return _value(variant, size, one.speed_up.interval, figures.ratio, ratio_marks(one), "unknown")


def _value(
    series: str, size: int, interval: Interval, text: Callable[[float | None], str], marks: str, unknown: str
) -> Mapping[str, Value]:
    """A point with its bar: an unknown interval is one of no length, which is not seen.

    A logarithmic axis has no 0: an interval that reaches it is drawn from a hundredth of the figure.
    """
    rate, low, high = interval.estimate, interval.low, interval.high
    known = low is not None and high is not None
    return {
        "variant": series,
        "batch_size": size,
        "batch_text": f"{size:,}",
        "rate": rate,
        "low": max(low, rate / 100) if known and low is not None else rate,
        "high": high if known else rate,
        "rate_text": text(rate),
        "interval": figures.bounds(low, high, text) or unknown,
        "marks": marks,
        "note": ", ".join(NOTES[mark].partition(":")[0] for mark in marks) or "none",
    }


def rate_marks(row: Row) -> str:
    """The signs of a throughput: those of the table, and that of a cell of which some seeds are not ok."""
    return figures.signs(row).replace("*", "") + ("" if row.status == "ok" else PARTIAL)


def ratio_marks(one: Line) -> str:
    """The signs of a ratio: those of the comparison, and that of a cell of which some seeds are not ok."""
    return one.marks + (PARTIAL if one.partial else "")


def _rate_caption(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: row["train_samples_per_s"])
    least = min(rows, key=lambda row: row["train_samples_per_s"])
    text = f"Highest: {_rate_words(best)}."
    return text if best is least else f"{text} Lowest: {_rate_words(least)}."


def _rate_words(row: Row) -> str:
    rate = figures.significant(row["train_samples_per_s"])
    return joined(f"{_series(row)} at {batch(row.cell.batch_size)}, {rate} samples/s", rate_marks(row))


def _highest(lines: Sequence[Line]) -> str:
    found = [(one.speed_up.interval, one) for one in lines if one.speed_up is not None]
    interval, best = max(found, key=lambda pair: pair[0].estimate)
    bounds = figures.bounds(interval.low, interval.high)
    ratio = joined(figures.ratio(interval.estimate), bounds, ratio_marks(best))
    return f"Highest: {plain(best.cell.variant)} at {batch(best.cell.batch_size)}, {ratio}."


def _why_no_device(material: Material) -> str:
    others = [row for row in material.rows if row.cell.device != "cpu"]
    if not others:
        return "The matrix has no device but the CPU: name one under devices."
    if not any(row.cell.device == "cpu" for row in material.rows):
        return "The CPU was not measured, so there is nothing to compare with: add cpu to devices."
    if not any(row.seeds for row in others):
        return f"No cell of another device was measured: {_reasons(row.reason for row in others)}."
    return f"No cell was timed on both: {_reasons(one.reason for one in material.by_device.lines)}."


def _why_not_compiled(names: Iterable[str], every: Sequence[Line]) -> str:
    if not names:
        return "The matrix has no compiled variant: name compile under variants."
    return f"No compiled cell could be compared: {_reasons(one.reason for one in every) or 'none has finished'}."


def _reasons(found: Iterable[str]) -> str:
    return listed(list(dict.fromkeys(plain(reason) for reason in found if reason)))
