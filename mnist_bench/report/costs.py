"""Plots of what it costs: the times of single steps, where the time goes, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mnist_bench import figures
from mnist_bench.analysis.summary import Run
from mnist_bench.figures import Row
from mnist_bench.records import Cell
from mnist_bench.report import specs
from mnist_bench.report.material import (
    MOST_SEEDS,
    Drawn,
    Material,
    Plot,
    Steps,
    Values,
    cell_and_size,
    keys,
    short,
    titled,
)
from mnist_bench.table import plain

MOST_BINS = 40
SHOWN = (0.5, 99.0)  # percentiles: from the lowest of a variant to the highest of one the axis of step times runs
REST = "teardown, other"
# What is drawn as one phase: the phases of a trial's waterfall.
PHASES: dict[str, tuple[str, ...]] = {
    "train step": ("train step",),
    "evaluation": ("evaluation",),
    "loader wait": ("loader wait",),
    "compile": ("compile",),
    "warm-up": ("warm-up", "check"),
    "session": ("session",),
    "start": ("import", "device", "data", "transfer", "build"),
    REST: (),  # whatever else a trial names, and what no phase claims
}
# Where memory is: the figure that says how much, and the breadth of its bars in pixels.
PLACES = {"host": ("host_peak_mib", 18), "device": ("device_peak_mib", 8)}


def step_times(material: Material) -> Plot:
    """The distribution of single steps in the session; a panel for each model, device and batch size."""
    rows = [row for row in material.measured if row.cell in material.step_ms]
    timed = {cell_and_size(row.cell) for row in material.measured if row["step_ms_p50"] is not None}
    unread = len(material.unread)
    lost = f"The raw samples of {unread} trial{'s' * (unread != 1)} are missing or cannot be read."
    several = [f"Of each cell the first {MOST_SEEDS} seeds are shown."]
    return material.plot(
        rows,
        lambda own: _steps(own, material.step_ms),
        by=cell_and_size,
        id="steps",
        title="Step times",
        lead="How long single training steps took in the timing sessions, every seed counted alike; dashed rules are "
        "medians. The axis is logarithmic and leaves out the slowest 1 % of the steps. Narrow and left is better.",
        spec=specs.step_times(material.variants),
        missing=lost if unread else "No session was timed.",
        notes=several * any(row.seeds > MOST_SEEDS for row in rows) + [lost] * (unread > 0 and len(rows) > 0),
        of=len(timed),
    )


def waterfall(material: Material) -> Plot:
    """Where the time of each cell went; a panel for each model and device, a bar a cell."""
    shares = phase_seconds(material.run)
    rows = [row for row in material.measured if sum(shares[row.cell].values()) > 0]
    used = {phase for row in rows for phase, seconds in shares[row.cell].items() if seconds > 0}
    return material.plot(
        rows,
        lambda own: _phases(own, shares),
        bars=True,
        id="waterfall",
        title="Where the time goes",
        lead="The time that a trial was awake, process start to exit, all seeds together, as shares that add up to "
        "100 %: start (imports, device, data, model), compiling, warm-up, the timing session, training, evaluation.",
        spec=specs.waterfall(tuple(PHASES)),
        legend=keys(PHASES, used, "bar"),
        missing="No trial recorded its phases.",
    )


def memory(material: Material) -> Plot:
    """Peak memory; a panel for each model and device, a bar a cell and place."""
    rows = [row for row in material.measured if any(row[key] is not None for key, _ in PLACES.values())]
    known = {place for place, (key, _) in PLACES.items() if any(row[key] is not None for row in rows)}
    return material.plot(
        rows,
        _peaks,
        bars=True,
        id="memory",
        title="Memory",
        lead="The highest peak over seeds: on the host the resident memory of a trial's processes (most of it is torch "
        "itself), on a GPU what its allocator had reserved.",
        spec=specs.memory(tuple(PLACES)),
        legend=keys(PLACES, known, "bar"),
        missing="No peak was recorded.",
    )


def edges_of(samples: Sequence[Steps]) -> Steps:
    """Edges of bins, evenly spaced in the logarithm, that hold nearly all of each sample (times above 0).

    Their number grows with the cube root of the smallest sample (as in Rice's rule): few steps make no fine picture. A
    bin more at either end lets every outline begin and end low, and hold its own median.
    """
    low = min(np.percentile(sample, SHOWN[0]) for sample in samples)
    high = max(np.percentile(sample, SHOWN[1]) for sample in samples)
    if high <= low * 1.01:  # all alike: still an axis
        low, high = low / 1.05, high * 1.05
    bins = min(MOST_BINS, math.ceil(3 * min(sample.size for sample in samples) ** (1 / 3)))
    step = (high / low) ** (1 / bins)
    edges: Steps = np.geomspace(low / step, high * step, bins + 3)
    return edges


def phase_seconds(run: Run) -> dict[Cell, dict[str, float]]:
    """Of each cell, the seconds of each of ``PHASES`` over the seeds that are ok; they add up to the time awake."""
    known = {part: phase for phase, parts in PHASES.items() for part in parts}
    found = {}
    for cell, seeds in run.ok.items():
        own = found[cell] = dict.fromkeys(PHASES, 0.0)
        for _, measurement in seeds.values():
            for part, seconds in measurement.phases.items():
                own[known.get(part, REST)] += seconds
            own[REST] += max(0.0, measurement.awake_s - sum(measurement.phases.values()))
    return found


def _steps(rows: Sequence[Row], step_ms: Mapping[Cell, Steps]) -> Drawn:
    edges = edges_of([step_ms[row.cell] for row in rows])
    values: Values = []
    words = []
    for row in rows:
        variant, steps = plain(row.cell.variant), step_ms[row.cell]
        counts, _ = np.histogram(steps, edges)  # the slowest lie outside
        middle, p95 = float(np.median(steps)), float(np.percentile(steps, 95))
        values.append({"variant": variant, "median": short(middle), "median_text": _ms(middle)})
        values += [
            {
                "variant": variant,
                "ms": short(math.sqrt(low * high)),
                "share": round(float(share), 4),
                "bin_text": f"{figures.significant(float(low))} to {_ms(float(high))}",
                "share_text": f"{share:.1%}",
            }
            for low, high, share in zip(edges[:-1], edges[1:], counts / steps.size, strict=True)
        ]
        words.append(f"{variant} {_ms(middle)} (95 % below {_ms(p95)})")
    return values, f"Median step: {', '.join(words)}."


def _phases(rows: Sequence[Row], shares: Mapping[Cell, Mapping[str, float]]) -> Drawn:
    awake = {row.cell: sum(shares[row.cell].values()) for row in rows}
    values: Values = [
        {
            "cell": _bar_name(row),
            "phase": phase,
            "rank": rank,
            "share": short(took / awake[row.cell]),
            "parts": ", ".join(PHASES[phase]) or "teardown, audit, what no phase claims",
            "share_text": f"{took / awake[row.cell]:.1%}",
            "seconds_text": figures.significant(took),
        }
        for row in rows
        for rank, (phase, took) in enumerate(shares[row.cell].items())
        if took > 0
    ]
    trained = [shares[row.cell]["train step"] / awake[row.cell] for row in rows]
    span = " to ".join(dict.fromkeys(f"{share:.0%}" for share in (min(trained), max(trained))))
    return values, f"Training steps take {span} of the time awake."


def _peaks(rows: Sequence[Row]) -> Drawn:
    values: Values = []
    words = []
    for place, (key, breadth) in PLACES.items():
        peaks = [(row[key], row) for row in rows if row[key] is not None]
        for peak, row in peaks:
            text, bar = figures.significant(peak), {"cell": _bar_name(row), "place": place}
            values.append({**bar, "mib": short(peak), "mib_text": text, "breadth": breadth})
        if peaks:
            peak, most = max(peaks, key=lambda one: one[0])
            words.append(f"Highest on the {place}: {_bar_name(most)}, {figures.significant(peak)} MiB.")
    return values, " ".join(words)


def _bar_name(row: Row) -> str:
    return titled(f"{row.cell.batch_size:,}", row.cell.variant)


def _ms(value: float) -> str:
    return f"{figures.significant(value)} ms"
