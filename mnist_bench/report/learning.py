"""Plots of how well: accuracy by epoch, and against the time that it took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from mnist_bench import figures
from mnist_bench.analysis.summary import Run
from mnist_bench.records import Cell
from mnist_bench.report import specs
from mnist_bench.report.material import MOST_PANELS, Key, Material, Panel, Plot, Value, batch, grouped, left_out, titled
from mnist_bench.report.specs import shape_of
from mnist_bench.table import plain

NOTHING = "No cell finished an epoch."


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a cell learned, epoch by epoch over its seeds (those that got that far)."""

    cell: Cell
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seconds: Sequence[float]  # of training up to the end of the epoch, mean over seeds
    seeds: int


def curves(run: Run) -> list[Curve]:
    """One for each cell that finished an epoch, in the order of the matrix."""
    found = []
    for cell, own in run.ok.items():
        seeds = [measurement.epochs for _, measurement in own.values() if measurement.epochs.accuracy]
        lasting = range(max((len(epochs.accuracy) for epochs in seeds), default=0))
        elapsed = [list(accumulate(epochs.train_s)) for epochs in seeds]
        reached = [[epochs.accuracy[e] for epochs in seeds if len(epochs.accuracy) > e] for e in lasting]
        if reached:
            found.append(
                Curve(
                    cell=cell,
                    mean=[statistics.fmean(one) for one in reached],
                    low=[min(one) for one in reached],
                    high=[max(one) for one in reached],
                    seconds=[statistics.fmean([own[e] for own in elapsed if len(own) > e]) for e in lasting],
                    seeds=len(seeds),
                )
            )
    return found


def by_epoch(material: Material) -> Plot:
    """Accuracy after each epoch; a panel for each model, device and batch size. A single epoch makes no curve."""
    every = curves(material.run)
    drawn = [one for one in every if len(one.mean) > 1]
    groups = list(grouped(drawn, lambda one: (one.cell.model, one.cell.device, batch(one.cell.batch_size))))
    panels = [
        Panel(
            title=titled(*names),
            values=[value for one in own for value in _epoch_values(one)],
            caption=_final_caption(own),
        )
        for names, own in groups[:MOST_PANELS]
    ]
    return Plot(
        id="epochs",
        title="Accuracy by epoch",
        lead="The fraction of the test images that the model gets right after each epoch: the mean over seeds; the "
        "band reaches from the lowest seed to the highest. Variants of the same mathematics should lie on each other.",
        spec=specs.accuracy_by_epoch(material.variants),
        panels=panels,
        legend=material.legend({one.cell.variant for one in drawn}),
        missing="" if panels else "One epoch was trained: its accuracy is in the table." if every else NOTHING,
        notes=left_out("panels", len(panels), len(groups)),
    )


def by_time(material: Material) -> Plot:
    """Accuracy against training time; a panel for each model and device."""
    every = curves(material.run)
    groups = list(grouped(every, lambda one: (one.cell.model, one.cell.device)))
    panels = [
        Panel(
            title=titled(*names),
            values=[value for one in own for value in _time_values(one)],
            caption=_soonest_caption(own),
        )
        for names, own in groups[:MOST_PANELS]
    ]
    return Plot(
        id="time",
        title="Accuracy against training time",
        lead="The same accuracies against the seconds of training that they took (compilation and evaluation not "
        "counted): a line a cell, a point an epoch. Further left and higher is better.",
        spec=specs.accuracy_by_time(material.variants, [batch(size) for size in material.batch_sizes]),
        panels=panels,
        legend=_time_keys(material, every),
        missing="" if panels else NOTHING,
        notes=left_out("panels", len(panels), len(groups)),
    )


def _time_keys(material: Material, every: Sequence[Curve]) -> tuple[Key, ...]:
    """Colours are variants, shapes are batch sizes."""
    named = material.legend({one.cell.variant for one in every})
    colours = [Key(label=key.label, colour=key.colour, shape="line") for key in named]
    used = {one.cell.batch_size for one in every}
    sizes = enumerate(material.batch_sizes, start=1)
    return (*colours, *(Key(label=batch(size), colour=0, shape=shape_of(n)) for n, size in sizes if size in used))


def _epoch_values(one: Curve) -> list[dict[str, Value]]:
    return [
        {
            "variant": plain(one.cell.variant),
            "epoch": number,
            "accuracy": round(mean, 5),
            "low": round(low, 5),
            "high": round(high, 5),
            "epoch_text": str(number),
            "accuracy_text": f"{mean:.4f} [{low:.4f}, {high:.4f}]" if one.seeds > 1 else f"{mean:.4f}",
        }
        for number, (mean, low, high) in enumerate(zip(one.mean, one.low, one.high, strict=True), start=1)
    ]


def _time_values(one: Curve) -> list[dict[str, Value]]:
    return [
        {
            "variant": plain(one.cell.variant),
            "cell": titled(one.cell.variant, batch(one.cell.batch_size)),
            "seconds": float(f"{seconds:.5g}"),
            "accuracy": round(mean, 5),
            "batch": batch(one.cell.batch_size),
            "epoch_text": str(number),
            "seconds_text": figures.significant(seconds),
            "accuracy_text": f"{mean:.4f}",
        }
        for number, (mean, seconds) in enumerate(zip(one.mean, one.seconds, strict=True), start=1)
        if seconds > 0  # the axis is logarithmic
    ]


def _final_caption(own: Sequence[Curve]) -> str:
    finals = [one.mean[-1] for one in own]
    after = f"After {max(len(one.mean) for one in own)} epochs"
    low, high = f"{min(finals):.4f}", f"{max(finals):.4f}"
    if low != high:
        return f"{after}: {low} to {high} over {len(own)} variants."
    return f"{after}: {low}." if len(own) == 1 else f"{after}: {low}, all {len(own)} variants alike."


def _soonest_caption(own: Sequence[Curve]) -> str:
    best = max(own, key=lambda one: one.mean[-1])
    quickest = min(own, key=lambda one: one.seconds[-1])
    words = f"Most accurate: {_curve_words(best)}."
    return words if quickest is best else f"{words} Shortest: {_curve_words(quickest)}."


def _curve_words(one: Curve) -> str:
    where = f"{plain(one.cell.variant)} at {batch(one.cell.batch_size)}"
    return f"{where}, {one.mean[-1]:.4f} after {figures.significant(one.seconds[-1])} s"
