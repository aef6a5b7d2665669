"""Plots of how well: accuracy by epoch, and against the time that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mnist_bench import figures
from mnist_bench.report import specs
from mnist_bench.report.curves import Curve
from mnist_bench.report.material import Material, batch, grouped, left_out, titled, variant_keys
from mnist_bench.report.palette import shape_of
from mnist_bench.report.panels import MOST_PANELS, Key, Panel, Plot, Value
from mnist_bench.table import plain

NOTHING = "No cell finished an epoch."


def by_epoch(material: Material) -> Plot:
    """Accuracy after each epoch; a panel for each model, device and batch size."""
    every = material.curves
    groups = list(grouped(every, lambda one: (one.cell.model, one.cell.device, batch(one.cell.batch_size))))
    panels = [
        Panel(
            title=titled(*names),
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
    every = material.curves
    groups = list(grouped(every, lambda one: (one.cell.model, one.cell.device)))
    batches = [batch(size) for size in material.batch_sizes]
    panels = [
        Panel(
            title=titled(*names),
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
        f"{plain(one.cell.variant)} at {batch(one.cell.batch_size)}, {one.mean[-1]:.4f} after "
        f"{figures.significant(one.seconds[-1])} s"
    )
