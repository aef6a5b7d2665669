"""Plots of how fast: throughput, CPU against GPU, eager against compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mnist_bench import figures
from mnist_bench.analysis.answers import BatchPoint, BreakEven, Crossover
from mnist_bench.analysis.compare import Line
from mnist_bench.cells import variants_of
from mnist_bench.figures import Row
from mnist_bench.records import Cell
from mnist_bench.report import specs
from mnist_bench.report.material import Material, batch, grouped, left_out, titled, variant_keys
from mnist_bench.report.panels import MOST_PANELS, Panel, Plot, SmallTable, Value
from mnist_bench.table import joined, listed, plain

# Signs of the plots beside those of the tables, where the status and the accuracy have columns of their own.
NOTES = figures.FOOTNOTES | {
    "¶": "partial: not every seed is ok; this is what the others say, which are no fair sample",
    "↓": "accuracy worse than the reference's",
    "?": "accuracy not shown equal to the reference's",
}


def throughput(material: Material) -> Plot:
    """Training samples per second by batch size; a panel for each model and device."""
    rows = [row for row in material.measured if row["train_samples_per_s"] is not None]
    groups = list(grouped(rows, lambda row: (row.cell.model, row.cell.device)))
    panels = [
        Panel(title=titled(*names), values=tuple(map(_rate_value, own)), caption=_rate_caption(own))
        for names, own in groups[:MOST_PANELS]
    ]
    return Plot(
        id="throughput",
        short="Throughput",
        title="Throughput by batch size",
        lead="Training samples per second over whole epochs; higher is better. Both axes are logarithmic. Bars are "
        "95 % intervals over seeds, where there are three or more.",
        spec=specs.throughput(material.variants, material.batch_sizes),
        panels=tuple(panels),
        legend=variant_keys(material, {row.cell.variant for row in rows}),
        missing="" if panels else "No cell has a throughput.",
        notes=(*_mark_notes(map(rate_marks, rows)), *left_out("panels", len(panels), len(groups))),
    )


def by_device(material: Material) -> Plot:
    """Speed-up of each other device over the CPU by batch size; a panel for each model and device."""
    cells = [one for one in material.by_device.lines if one.speed_up is not None]
    crossovers = dict(grouped(material.by_device.crossovers, lambda one: (one.model, one.device)))
    plot = Plot(
        id="devices",
        short="CPU or GPU",
        title="CPU against GPU",
        lead="How many times faster a training step is than on the CPU, both timed together in one session; above the "
        "dashed line the GPU is faster. Bars are 95 % intervals.",
        spec={},
        panels=(),
        missing="" if cells else _why_no_device(material),
    )
    return _with_ratios(plot, material, cells, lambda names, _: crossover_words(crossovers.get(names, ())))


def compiled(material: Material) -> Plot:
    """Speed-up of each compiled variant over the reference variant, and when compiling has paid for itself."""
    names = {v.name for v in variants_of(material.run.manifest.matrix) if v.execution == "compile"}
    every = [one for one in material.by_variant.lines if one.cell.variant in names]
    cells = [one for one in every if one.speed_up is not None]
    breaks = {one.cell: one for one in material.by_variant.break_evens}
    plot = Plot(
        id="compiled",
        short="Compiled",
        title="Eager against compiled",
        lead="How many times faster a compiled training step is than the eager one, both timed together in one "
        "session; above the dashed line compiling makes steps faster. Whether it pays depends on how long you train: "
        "the table below says when the time of compiling is earned back.",
        spec={},
        panels=(),
        missing="" if cells else _why_not_compiled(names, every),
        table=_break_even_table(material, cells, breaks) if cells else None,
    )
    return _with_ratios(plot, material, cells, lambda _, own: _soonest(own, breaks))


def crossover_words(crossovers: Sequence[Crossover]) -> str:
    """``eager, compile: faster than the CPU from batch size 180 on [120, 260].``, variants that agree together."""
    same: dict[str, list[str]] = {}
    for one in crossovers:
        same.setdefault(_crossover_words(one), []).append(plain(one.variant))
    return " ".join(f"{', '.join(names)}: {words}." for words, names in same.items())


def _crossover_words(one: Crossover) -> str:
    match one.estimate.where:
        case "at":
            sizes = [_batch_words(point) for point in (one.low, one.high)]
            interval = f" [{sizes[0]}, {sizes[1]}]" if all(sizes) else ""
            return f"faster than the CPU from batch size {_batch_words(one.estimate)} on{interval}"
        case "below":
            return "faster than the CPU at every batch size measured"
        case "above":
            return "slower than the CPU at every batch size measured"
        case _:
            return f"crossover unknown ({plain(one.reason)})"


def break_even_words(one: BreakEven | None) -> str:
    """``after 12 epochs [9.1, 17]``, or why not."""
    if one is None or one.epochs is None:
        return "unknown" if one is None else one.words
    epochs = one.epochs
    return joined(one.words, figures.bounds(epochs.low, epochs.high, lambda value: figures.significant(value, 2)))


def _with_ratios(
    plot: Plot,
    material: Material,
    cells: Sequence[Line],
    more: Callable[[tuple[str, ...], Sequence[Line]], str],
) -> Plot:
    """The plot with a panel for each model and device; ``more`` adds to a panel's caption."""
    groups = list(grouped(cells, lambda one: (one.cell.model, one.cell.device)))
    panels = [
        Panel(
            title=titled(*names),
            values=tuple(map(_ratio_value, own)),
            caption=joined(_ratio_caption(own), more(names, own)),
        )
        for names, own in groups[:MOST_PANELS]
    ]
    ratios = [one.speed_up.interval.estimate for one in cells if one.speed_up is not None]
    return replace(
        plot,
        spec=specs.speed_up(material.variants, material.batch_sizes, ratios),
        panels=tuple(panels),
        legend=variant_keys(material, {one.cell.variant for one in cells}),
        notes=(*_mark_notes(map(compared_marks, cells)), *left_out("panels", len(panels), len(groups))),
    )


def _rate_value(row: Row) -> dict[str, Value]:
    interval = figures.bounds(row["train_samples_per_s_low"], row["train_samples_per_s_high"], figures.significant)
    marks = rate_marks(row)
    return {
        "variant": plain(row.cell.variant),
        "batch_size": row.cell.batch_size,
        "batch_text": f"{row.cell.batch_size:,}",
        "rate": row["train_samples_per_s"],
        **_interval_value(row["train_samples_per_s"], row["train_samples_per_s_low"], row["train_samples_per_s_high"]),
        "rate_text": figures.significant(row["train_samples_per_s"]),
        "interval": interval or "needs 3 seeds",
        "marks": marks,
        "note": _note(marks),
    }


def _ratio_value(one: Line) -> dict[str, Value]:
    assert one.speed_up is not None
    marks = compared_marks(one)
    return {
        "variant": plain(one.cell.variant),
        "batch_size": one.cell.batch_size,
        "batch_text": f"{one.cell.batch_size:,}",
        "rate": one.speed_up.interval.estimate,
        **_interval_value(one.speed_up.interval.estimate, one.speed_up.interval.low, one.speed_up.interval.high),
        "rate_text": figures.ratio(one.speed_up.interval.estimate),
        "interval": figures.bounds(one.speed_up.interval.low, one.speed_up.interval.high) or "unknown",
        "marks": marks,
        "note": _note(marks),
    }


def rate_marks(row: Row) -> str:
    """The signs of a throughput: those of the table, and that of a cell of which some seeds are not ok."""
    return figures.signs(row).strip("*") + ("" if row.status == "ok" else "¶")


def compared_marks(one: Line) -> str:
    """The signs of a ratio: those of its cells, and that of their accuracies."""
    unpaired = one.speed_up is not None and one.speed_up.paired == "unpaired"
    signs = figures.marks(noisy=one.noisy, unpaired=unpaired, class_=one.class_) + ("¶" if one.partial else "")
    return signs + (one.accuracy.mark if one.accuracy is not None else "")


def _note(marks: str) -> str:
    return ", ".join(NOTES[mark].partition(":")[0] for mark in marks) or "none"


def _mark_notes(marks: Iterable[str]) -> tuple[str, ...]:
    used = frozenset("".join(marks))
    return tuple(f"{mark} {text}" for mark, text in NOTES.items() if mark in used)


def _interval_value(rate: float | None, low: float | None, high: float | None) -> dict[str, Value]:
    """The ends of a bar: an unknown interval is one of no length, which is not seen."""
    if rate is None or low is None or high is None:
        return {"low": rate, "high": rate}
    # A logarithmic axis has no 0: an interval that reaches it is drawn from a hundredth of the figure.
    return {"low": max(low, rate / 100), "high": high}


def _rate_caption(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: row["train_samples_per_s"] or 0)
    least = min(rows, key=lambda row: row["train_samples_per_s"] or 0)
    text = f"Fastest: {_rate_words(best)}."
    return text if best is least else f"{text} Slowest: {_rate_words(least)}."


def _rate_words(row: Row) -> str:
    rate = figures.significant(row["train_samples_per_s"])
    return joined(f"{plain(row.cell.variant)} at {batch(row.cell.batch_size)}, {rate} samples/s", rate_marks(row))


def _ratio_caption(cells: Sequence[Line]) -> str:
    best = max(cells, key=lambda one: one.speed_up.interval.estimate if one.speed_up else 0)
    assert best.speed_up is not None
    interval = figures.bounds(best.speed_up.interval.low, best.speed_up.interval.high)
    ratio = joined(figures.ratio(best.speed_up.interval.estimate), interval, compared_marks(best))
    return f"Highest: {plain(best.cell.variant)} at {batch(best.cell.batch_size)}, {ratio}."


def _batch_words(point: BatchPoint) -> str:
    return "" if point.batch_size is None else f"{point.batch_size:,.0f}"


def _soonest(cells: Sequence[Line], breaks: Mapping[Cell, BreakEven]) -> str:
    paid = [one for cell in cells if (one := breaks.get(cell.cell)) and one.verdict == "after" and one.epochs]
    if not paid:
        return "Compiling is not shown to pay for itself."
    first = min(paid, key=lambda one: one.epochs.estimate if one.epochs else 0)
    where = f"{plain(first.cell.variant)} at {batch(first.cell.batch_size)}"
    return f"Pays for itself soonest: {where}, {break_even_words(first)}."


def _break_even_table(material: Material, cells: Sequence[Line], breaks: Mapping[Cell, BreakEven]) -> SmallTable:
    compile_s = {row.cell: row["compile_s"] for row in material.rows}
    return SmallTable(
        caption="When compiling has paid for itself",
        header=("model", "device", "batch", "variant", "speed-up", "95 %", "marks", "compile s", "pays off"),
        lines=tuple(
            (
                plain(one.cell.model),
                plain(one.cell.device),
                f"{one.cell.batch_size:,}",
                plain(one.cell.variant),
                figures.ratio(one.speed_up.interval.estimate),
                figures.bounds(one.speed_up.interval.low, one.speed_up.interval.high),
                compared_marks(one),
                figures.significant(compile_s.get(one.cell)),
                break_even_words(breaks.get(one.cell)),
            )
            for one in cells
            if one.speed_up is not None
        ),
        numeric=frozenset({2, 4, 5, 7}),
    )


def _why_no_device(material: Material) -> str:
    others = [row for row in material.rows if row.cell.device != "cpu"]
    if not others:
        return "The matrix has no device but the CPU: name one under devices."
    if not any(row.cell.device == "cpu" for row in material.rows):
        return "The CPU was not measured, so there is nothing to compare with: add cpu to devices."
    if not any(row.seeds for row in others):
        reasons = dict.fromkeys(plain(row.reason) for row in others if row.reason)
        return f"No cell of another device was measured: {listed(list(reasons))}."
    reasons = dict.fromkeys(plain(one.reason) for one in material.by_device.lines if one.reason)
    return f"No cell was timed on both: {listed(list(reasons))}."


def _why_not_compiled(names: Iterable[str], every: Sequence[Line]) -> str:
    if not names:
        return "The matrix has no compiled variant: name compile under variants."
    reasons = dict.fromkeys(plain(one.reason) for one in every if one.reason)
    return f"No compiled cell could be compared: {listed(list(reasons)) or 'no cell of them has finished'}."
