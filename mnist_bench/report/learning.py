"""Plots of how well: accuracy by epoch, and against the time that it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean

from mnist_bench import figures
from mnist_bench.analysis.summary import Run
from mnist_bench.records import Cell
from mnist_bench.report import specs
from mnist_bench.report.material import Drawn, Material, Plot, Values, batch, cell_and_size, keys, short, titled, where
from mnist_bench.table import plain

NOTHING = "No cell finished an epoch."


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a cell learned, epoch by epoch: the accuracies of its seeds, and the mean seconds of training so far."""

    cell: Cell
    reached: Sequence[Sequence[float]]
    seconds: Sequence[float]

    @property
    def mean(self) -> list[float]:
        return [fmean(seeds) for seeds in self.reached]


def curves(run: Run) -> Iterator[Curve]:
    """One for each cell that finished an epoch, in the order of the matrix."""
    for cell, own in run.ok.items():
        if seeds := [measurement.epochs for _, measurement in own.values() if measurement.epochs.accuracy]:
            reached = list(zip(*(epochs.accuracy for epochs in seeds), strict=False))
            elapsed = zip(*(accumulate(epochs.train_s) for epochs in seeds), strict=False)
            yield Curve(cell=cell, reached=reached, seconds=[fmean(sums) for sums in elapsed])


def by_epoch(material: Material) -> Plot:
    """Accuracy after each epoch; a panel for each model, device and batch size. A single epoch makes no curve."""
    every = list(curves(material.run))
    return material.plot(
        [one for one in every if len(one.reached) > 1],
        _epochs,
        by=cell_and_size,
        id="epochs",
        title="Accuracy by epoch",
        lead="The fraction of the test images that the model gets right after each epoch: the mean over seeds; the "
        "band reaches from the lowest seed to the highest. Variants of the same mathematics should lie on each other.",
        spec=specs.accuracy_by_epoch(material.variants),
        missing="One epoch was trained: its accuracy is in the table." if every else NOTHING,
    )


def _epochs(own: Sequence[Curve]) -> Drawn:
    values: Values = [
        {
            "variant": plain(one.cell.variant),
            "epoch": number,
            "accuracy": round(fmean(seeds), 5),
            "low": round(min(seeds), 5),
            "high": round(max(seeds), 5),
            "accuracy_text": f"{fmean(seeds):.4f}" + f" [{min(seeds):.4f}, {max(seeds):.4f}]" * (len(seeds) > 1),
        }
        for one in own
        for number, seeds in enumerate(one.reached, start=1)
    ]
    finals = [one.mean[-1] for one in own]
    after = f"After {max(len(one.reached) for one in own)} epochs"
    low, high = f"{min(finals):.4f}", f"{max(finals):.4f}"
    if low != high:
        return values, f"{after}: {low} to {high} over {len(own)} variants."
    return values, f"{after}: {low}." if len(own) == 1 else f"{after}: {low}, all {len(own)} variants alike."


def by_time(material: Material) -> Plot:
    """Accuracy against training time; a panel for each model and device. Colours are variants, shapes batch sizes."""
    every, sizes = list(curves(material.run)), [batch(size) for size in material.batch_sizes]
    shapes = keys(sizes, {batch(one.cell.batch_size) for one in every})
    return material.plot(
        every,
        _times,
        id="time",
        title="Accuracy against training time",
        lead="The same accuracies against the seconds of training that they took (compilation and evaluation not "
        "counted): a line a cell, a point an epoch. Further left and higher is better.",
        spec=specs.accuracy_by_time(material.variants, sizes),
        legend=(*material.legend(every, "line"), *(replace(key, colour=0) for key in shapes)),
        missing=NOTHING,
    )


def _times(own: Sequence[Curve]) -> Drawn:
    values: Values = [
        {
            "variant": plain(one.cell.variant),
            "cell": titled(one.cell.variant, batch(one.cell.batch_size)),
            "seconds": short(seconds),
            "accuracy": round(mean, 5),
            "batch": batch(one.cell.batch_size),
            "epoch": number,
            "seconds_text": figures.significant(seconds),
            "accuracy_text": f"{mean:.4f}",
        }
        for one in own
        for number, (mean, seconds) in enumerate(zip(one.mean, one.seconds, strict=True), start=1)
        if seconds > 0  # the axis is logarithmic
    ]
    best = max(own, key=lambda one: one.mean[-1])
    quickest = min(own, key=lambda one: one.seconds[-1])
    words = f"Most accurate: {_reached(best)}."
    return values, words if quickest is best else f"{words} Shortest: {_reached(quickest)}."


def _reached(one: Curve) -> str:
    return f"{where(one.cell)}, {one.mean[-1]:.4f} after {figures.significant(one.seconds[-1])} s"
