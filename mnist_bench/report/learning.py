"""Plots of how well: accuracy by epoch, and against the time that it took."""

from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

import altair as alt
import numpy as np

from mnist_bench import figures
from mnist_bench.analysis.summary import Run
from mnist_bench.records import Cell
from mnist_bench.report.material import Drawn, Key, Material, Plot, batch, by_size, keys, panelled, series, short
from mnist_bench.report.vega import Spec, coloured, curve, layered, logarithmic
from mnist_bench.table import joined, span

ACCURACY = (
    alt.Y("accuracy:Q")
    .scale(zero=False, padding=8)
    .axis(format=".2~%", tickCount=5, tickMinStep=1e-4)
    .title("test accuracy")
)
NOTHING = "No cell finished an epoch."


def curves(run: Run) -> list[Drawn]:
    """One for each cell that finished an epoch, in the order of the matrix: of each epoch what ``_epoch`` says."""
    found = []
    for cell, own in run.ok.items():
        seeds = [measurement.epochs for _, measurement in own.values() if measurement.epochs.accuracy]
        reached = zip(*(epochs.accuracy for epochs in seeds), strict=False)
        elapsed = zip(*(accumulate(epochs.train_s) for epochs in seeds), strict=False)
        values = [_epoch(cell, n, *both) for n, both in enumerate(zip(reached, elapsed, strict=True), start=1)]
        if values:
            where = f"{series(cell)} at {batch(cell.batch_size)}"
            accuracy, seconds = values[-1]["accuracy"], figures.significant(values[-1]["seconds"])
            found.append(Drawn(cell, values, f"{where}, {accuracy:.4f} after {seconds} s"))
    return found


def _epoch(cell: Cell, number: int, reached: Sequence[float], elapsed: Sequence[float]) -> dict[str, Any]:
    """Means over seeds, and the lowest and highest of them; ``elapsed``: seconds of training so far."""
    mean, low, high = fmean(reached), min(reached), max(reached)
    return {
        "series": series(cell),
        "batch": batch(cell.batch_size),
        "epoch": number,
        "seconds": short(fmean(elapsed)),
        "accuracy": round(mean, 5),
        "low": round(low, 5),
        "high": round(high, 5),
        "accuracy_text": f"{mean:.4f}" + f" [{low:.4f}, {high:.4f}]" * (len(reached) > 1),
    }


def by_epoch(material: Material) -> Plot:
    """Accuracy after each epoch; a panel for each model and batch size. A single epoch makes no curve."""
    every = curves(material.run)

    def caption(own: Sequence[Drawn]) -> str:
        finals = span([one.values[-1]["accuracy"] for one in own], figures.accuracy)
        cells = f" in {len(own)} cells" * (len(own) > 1)
        return f"After {max(len(one.values) for one in own)} epochs: {finals}{cells}."

    return panelled(
        [one for one in every if len(one.values) > 1],
        caption,
        keys("series", material.series),
        by=by_size,
        title="Accuracy by epoch",
        lead="The mean over seeds; the band reaches from the lowest to the highest. Variants of the same mathematics "
        "should lie on each other.",
        spec=accuracy_by_epoch(material.series, ACCURACY),
        missing="One epoch was trained: its accuracy is in the table." if every else NOTHING,
    )


def accuracy_by_epoch(names: Sequence[str], y: alt.Y) -> Spec:
    """The mean of each series, and a band from the lowest seed to the highest."""
    x = alt.X("epoch:Q").scale(padding=10, nice=False, zero=False).axis(format="d", tickMinStep=1, grid=False)
    told = {"series": "of", "epoch": "epoch", "accuracy_text": "accuracy"}
    base = coloured("series", names, **told).encode(x=x.title("epoch"))
    seeds = base.encode(y="low:Q", y2="high:Q")
    # Of a single epoch there is no band: the rules at its ends are seen.
    bands = seeds.mark_area(opacity=0.18), seeds.mark_rule(opacity=0.5)
    return layered(*bands, *curve(base.encode(y=y), "series", names))


def by_time(material: Material) -> Plot:
    """Accuracy against training time; a panel for each model. The larger a point, the larger the batch."""
    every = curves(material.run)
    sizes = [batch(size) for size in sorted({one.cell.batch_size for one in every})]
    areas = [round(float(side) ** 2, 1) for side in np.linspace(4.5, 9.5, len(sizes))]
    x = alt.X("seconds:Q").scale(logarithmic()).axis(format="~g", tickCount=4, grid=False).title("seconds of training")
    told = {"batch": "batch size", "epoch": "epoch", "seconds": "seconds|,.4~r", "accuracy_text": "accuracy"}
    base = coloured("series", material.series, series="of", **told).encode(x=x, y=ACCURACY)
    line, points = curve(base.transform_filter("datum.seconds > 0"), "series", material.series)
    size = alt.Size("batch:O").scale(domain=sizes, range=areas).title(None)

    def caption(own: Sequence[Drawn]) -> str:
        best = max(own, key=lambda one: one.values[-1]["accuracy"])
        quickest = min(own, key=lambda one: one.values[-1]["seconds"])
        return joined(f"Most accurate: {best.words}.", f"Shortest: {quickest.words}." * (quickest is not best))

    return panelled(
        every,
        caption,
        [
            *keys("series", material.series),
            *(Key("batch", name, 0, "circle", area) for name, area in zip(sizes, areas, strict=True)),
        ],
        title="Accuracy by time",
        lead="A point a cell and epoch; seconds of training alone. Further left and higher is better.",
        spec=layered(line.encode(detail=["series:N", "batch:N"]), points.encode(size=size)),
        missing=NOTHING,
    )
