"""Plots of how well: accuracy by epoch, and against the time that it took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from mnist_bench import figures
from mnist_bench.records import Cell
from mnist_bench.report import specs
from mnist_bench.report.material import Material, batch, grouped, joined, left_out, variant_keys
from mnist_bench.report.palette import shape_of
from mnist_bench.report.panels import MOST_PANELS, Key, Panel, Plot, Value
from mnist_bench.rows import EpochRow

NOTHING = "No cell finished an epoch."


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a cell learned, epoch by epoch over its seeds (those that got that far)."""

    cell: Cell
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seconds: tuple[float, ...]  # of training up to the end of the epoch, mean over seeds
    seeds: int


def curves(epochs: Sequence[EpochRow]) -> tuple[Curve, ...]:
    """One for each cell that finished an epoch."""
    return tuple(_curve(rows) for _, rows in grouped(epochs, lambda row: (row.trial.rpartition("/s")[0],)))


def by_epoch(material: Material) -> Plot:
    """Accuracy after each epoch; a panel for each model, device and batch size."""
    every = _in_order(material)
    groups = list(grouped(every, lambda one: (one.cell.model, one.cell.device, batch(one.cell.batch_size))))
    panels = [
        Panel(
            title=joined(*names),
            values=tuple(value for one in own for value in _epoch_values(one)),
            caption=_final_caption(own),
        )
        for names, own in groups[:MOST_PANELS]
    ]
    return Plot(
        id="epochs",
        short="Accuracy",
        title="Accuracy by epoch",
        lead="The fraction of the test images that the model gets right after each epoch: the mean over seeds; the "
        "band reaches from the lowest seed to the highest. Variants of the same mathematics should lie on each other.",
        spec=specs.accuracy_by_epoch(material.variants),
        panels=tuple(panels),
        legend=variant_keys(material, {one.cell.variant for one in every}),
        missing="" if panels else NOTHING,
        notes=left_out("panels", len(panels), len(groups)),
    )


def by_time(material: Material) -> Plot:
    """Accuracy against training time; a panel for each model and device."""
    every = _in_order(material)
    groups = list(grouped(every, lambda one: (one.cell.model, one.cell.device)))
    batches = [batch(size) for size in material.batch_sizes]
    panels = [
        Panel(
            title=joined(*names),
            values=tuple(value for one in own for value in _time_values(one)),
            caption=_soonest_caption(own),
        )
        for names, own in groups[:MOST_PANELS]
    ]
    return Plot(
        id="time",
        short="Accuracy in time",
        title="Accuracy against training time",
        lead="The same accuracies against the seconds of training that they took (compilation and evaluation not "
        "counted): a line a cell, a point an epoch. Further left and higher is better.",
        spec=specs.accuracy_by_time(material.variants, batches),
        panels=tuple(panels),
        legend=_time_keys(material, every),
        missing="" if panels else NOTHING,
        notes=left_out("panels", len(panels), len(groups)),
    )


def _time_keys(material: Material, every: Sequence[Curve]) -> tuple[Key, ...]:
    """Colours are variants, shapes are batch sizes."""
    colours = [replace(key, shape="bar") for key in variant_keys(material, {one.cell.variant for one in every})]
    used = {one.cell.batch_size for one in every}
    sizes = enumerate(material.batch_sizes, start=1)
    return (*colours, *(Key(label=batch(size), colour=0, shape=shape_of(n)) for n, size in sizes if size in used))


def _in_order(material: Material) -> list[Curve]:
    """The curves in the order of the matrix; trials end in another."""
    place = {row.cell: number for number, row in enumerate(material.rows)}
    return sorted(curves(material.epochs), key=lambda one: place[one.cell])


def _curve(rows: Sequence[EpochRow]) -> Curve:
    first = rows[0]
    by_seed = [own for _, own in grouped(rows, lambda row: (row.trial,))]
    lasting = max(len(own) for own in by_seed)
    accuracies = [[own[e].accuracy for own in by_seed if len(own) > e] for e in range(lasting)]
    elapsed = [list(accumulate(row.train_s for row in own)) for own in by_seed]
    seconds = [[own[e] for own in elapsed if len(own) > e] for e in range(lasting)]
    return Curve(
        cell=Cell(model=first.model, device=first.device, batch_size=first.batch_size, variant=first.variant),
        mean=tuple(map(statistics.fmean, accuracies)),
        low=tuple(map(min, accuracies)),
        high=tuple(map(max, accuracies)),
        seconds=tuple(map(statistics.fmean, seconds)),
        seeds=len(by_seed),
    )


def _epoch_values(one: Curve) -> list[dict[str, Value]]:
    return [
        {
            "variant": figures.plain(one.cell.variant),
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
            "variant": figures.plain(one.cell.variant),
            "cell": joined(one.cell.variant, batch(one.cell.batch_size)),
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
    epochs = max(len(one.mean) for one in own)
    after = f"After {epochs} epoch{'s' if epochs != 1 else ''}"
    low, high = f"{min(finals):.4f}", f"{max(finals):.4f}"
    if low != high:
        return f"{after}: {low} to {high} over {len(own)} variants."
    return f"{after}: {low}." if len(own) == 1 else f"{after}: {low}, all {len(own)} variants alike."


def _soonest_caption(own: Sequence[Curve]) -> str:
    best = max(own, key=lambda one: one.mean[-1])
    quickest = min(own, key=lambda one: one.seconds[-1])
    words = [f"Most accurate: {_curve_words(best)}."]
    if quickest is not best:
        words.append(f"Shortest: {_curve_words(quickest)}.")
    return " ".join(words)


def _curve_words(one: Curve) -> str:
    return (
        f"{figures.plain(one.cell.variant)} at {batch(one.cell.batch_size)}, {one.mean[-1]:.4f} after "
        f"{figures.significant(one.seconds[-1])} s"
    )
