"""Plots of how fast: throughput, CPU against GPU, eager against compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mnist_bench import figures
from mnist_bench.analysis.answers import Crossover
from mnist_bench.analysis.compare import BREAK_EVENS, FOOTNOTES, Line
from mnist_bench.cells import variants_of
from mnist_bench.figures import Row
from mnist_bench.records import Cell
from mnist_bench.report import specs
from mnist_bench.report.material import (
    Drawn,
    Material,
    Plot,
    Value,
    batch,
    keys,
    model_and_device,
    titled,
    where,
)
from mnist_bench.stats import Interval
from mnist_bench.table import Table, grouped, joined, listed, plain

# Signs of the plots beside those of the tables, where the status has a column of its own.
PARTIAL = "¶"
NOTES = {**FOOTNOTES, PARTIAL: "partial: not every seed is ok; this is what the others say, which are no fair sample"}


def throughput(material: Material) -> Plot:
    """Training samples per second by batch size; a panel for each model, all of its devices in it."""
    rows = [row for row in material.measured if row["train_samples_per_s"] is not None]
    series = list(dict.fromkeys(map(_series, rows)))
    return material.plot(
        rows,
        _rates,
        by=lambda cell: (cell.model,),
        id="throughput",
        title="Throughput by batch size",
        lead="Training samples per second over whole epochs; higher is better. Both axes are logarithmic. Bars are "
        "95 % intervals over seeds, where there are three or more.",
        spec=specs.throughput(series, material.batch_sizes),
        legend=keys(series, series),
        missing="No cell has a throughput.",
        notes=figures.footnotes(map(rate_marks, rows), NOTES),
    )


def _rates(rows: Sequence[Row]) -> Drawn:
    values, key = [], "train_samples_per_s"
    for row in rows:
        interval = Interval(row[key], row[f"{key}_low"], row[f"{key}_high"])
        words = figures.significant, rate_marks(row), "needs 3 seeds"
        values.append(_value(_series(row), row.cell.batch_size, interval, *words))
    best, least = (most(rows, key=lambda row: row[key]) for most in (max, min))
    text = f"Highest: {_rate_words(best)}."
    return values, text if best is least else f"{text} Lowest: {_rate_words(least)}."


def _rate_words(row: Row) -> str:
    rate = figures.significant(row["train_samples_per_s"])
    return joined(f"{_series(row)} at {batch(row.cell.batch_size)}, {rate} samples/s", rate_marks(row))


def _series(row: Row) -> str:
    return titled(row.cell.device, row.cell.variant)


def by_device(material: Material) -> Plot:
    """Speed-up of each other device over the CPU by batch size; a panel for each model and device."""
    crossovers = grouped(material.by_device.crossovers, lambda one: (one.model, one.device))
    return _ratios(
        material,
        material.by_device.lines,
        lambda cell: crossover_words(crossovers.get((cell.model, cell.device), ())),
        id="devices",
        title="CPU against GPU",
        lead="How many times faster a training step is than on the CPU, both timed together in one session; above the "
        "dashed line the GPU is faster. Bars are 95 % intervals.",
        missing=_why_no_device(material),
    )


def compiled(material: Material) -> Plot:
    """Speed-up of each compiled variant over the reference variant, and when compiling has paid for itself."""
    names = {v.name for v in variants_of(material.run.manifest.matrix) if v.execution == "compile"}
    every = [one for one in material.by_variant.lines if one.cell.variant in names]
    paid = grouped(material.by_variant.break_evens, lambda one: model_and_device(one.cell))

    def soonest(cell: Cell) -> str:
        known = [(one.epochs.estimate, one) for one in paid.get(model_and_device(cell), ()) if one.epochs]
        if not known:
            return "Compiling is not shown to pay for itself."
        _, first = min(known, key=lambda pair: pair[0])
        return f"Pays for itself soonest: {where(first.cell)}, {first.words}."

    missing = "The matrix has no compiled variant: name compile under variants."
    if names:
        missing = f"No compiled cell could be compared: {_reasons(every) or 'none has finished'}."
    return _ratios(
        material,
        every,
        soonest,
        id="compiled",
        title="Eager against compiled",
        lead="How many times faster a compiled training step is than the eager one, both timed together in one "
        "session; above the dashed line compiling makes steps faster. Whether it pays depends on how long you train: "
        "the table below says when the time of compiling is earned back.",
        missing=missing,
        table=Table("When compiling has paid for itself", BREAK_EVENS, material.by_variant.break_evens),
    )


def _ratios(material: Material, lines: Sequence[Line], more: Callable[[Cell], str], **words: Any) -> Plot:
    """A plot of ratios by batch size, a panel for each model and device; ``more`` adds to a panel's caption."""
    known = {one.cell: (one, one.speed_up.interval) for one in lines if one.speed_up is not None}

    def draw(own: Sequence[Line]) -> Drawn:
        of_panel = [known[one.cell] for one in own]
        values = [
            _value(plain(one.cell.variant), one.cell.batch_size, interval, figures.ratio, ratio_marks(one), "unknown")
            for one, interval in of_panel
        ]
        best, interval = max(of_panel, key=lambda pair: pair[1].estimate)
        bounds = figures.bounds(interval.low, interval.high)
        ratio = joined(figures.ratio(interval.estimate), bounds, ratio_marks(best))
        return values, joined(f"Highest: {where(best.cell)}, {ratio}.", more(best.cell))

    estimates = [interval.estimate for _, interval in known.values()]
    return material.plot(
        [one for one, _ in known.values()],
        draw,
        spec=specs.speed_up(material.variants, material.batch_sizes, estimates),
        notes=figures.footnotes((ratio_marks(one) for one, _ in known.values()), NOTES),
        **words,
    )


def crossover_words(crossovers: Sequence[Crossover]) -> str:
    """``eager, compile: faster than the CPU from batch size 180 on [120, 260].``, variants that agree together."""
    same = grouped(crossovers, _crossover_words)
    return " ".join(f"{', '.join(plain(one.variant) for one in own)}: {words}." for words, own in same.items())


def _crossover_words(one: Crossover) -> str:
    match one.estimate.where:
        case "at":
            return joined(f"faster than the CPU from batch size {one.estimate.words} on", one.bounds)
        case "below":
            return "faster than the CPU at every batch size measured"
        case "above":
            return "slower than the CPU at every batch size measured"
        case _:
            return f"crossover unknown ({plain(one.reason)})"


def _value(
    series: str, size: int, interval: Interval, text: Callable[[float | None], str], marks: str, unknown: str
) -> Mapping[str, Value]:
    """A point with its bar: an unknown interval is one of no length, which is not seen.

    A logarithmic axis has no 0: an interval that reaches it is drawn from a hundredth of the figure.
    """
    rate, low, high = interval.estimate, interval.low, interval.high
    bar = (rate, rate) if low is None or high is None else (max(low, rate / 100), high)
    return {
        "variant": series,
        "batch_size": size,
        "batch_text": f"{size:,}",
        "rate": rate,
        "low": bar[0],
        "high": bar[1],
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


def _why_no_device(material: Material) -> str:
    others = [row for row in material.rows if row.cell.device != "cpu"]
    if not others:
        return "The matrix has no device but the CPU: name one under devices."
    if len(others) == len(material.rows):
        return "The CPU was not measured, so there is nothing to compare with: add cpu to devices."
    if not any(row.seeds for row in others):
        return f"No cell of another device was measured: {_reasons(others)}."
    return f"No cell was timed on both: {_reasons(material.by_device.lines)}."


def _reasons(found: Iterable[Row | Line]) -> str:
    return listed(list(dict.fromkeys(plain(one.reason) for one in found if one.reason)))
