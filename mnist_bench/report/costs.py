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
    MOST_PANELS,
    MOST_SEEDS,
    Key,
    Material,
    Panel,
    Plot,
    Steps,
    Value,
    grouped,
    left_out,
    step_panel,
    titled,
)
from mnist_bench.report.specs import colour_of
from mnist_bench.table import plain

MOST_BARS = 60  # cells of one panel of bars
BAR_HEIGHT = 24  # pixels, the gap included
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
    groups = list(grouped(rows, lambda row: step_panel(row.cell)))
    panels = [_step_panel(names, own, material.step_ms) for names, own in groups[:MOST_PANELS]]
    timed = {step_panel(row.cell) for row in material.measured if row["step_ms_p50"] is not None}
    unread = len(material.unread)
    lost = f"The raw samples of {unread} trial{'s' * (unread != 1)} are missing or cannot be read."
    several = max((row.seeds for row in rows), default=0) > MOST_SEEDS
    return Plot(
        id="steps",
        title="Step times",
        lead="How long single training steps took in the timing sessions, every seed counted alike; dashed rules are "
        "medians. The axis is logarithmic and leaves out the slowest 1 % of the steps. Narrow and left is better.",
        spec=specs.step_times(material.variants),
        panels=panels,
        legend=material.legend({row.cell.variant for row in rows}),
        missing="" if panels else (lost if unread else "No session was timed."),
        notes=(
            *([f"Of each cell the first {MOST_SEEDS} seeds are shown."] if several else []),
            *([lost] if unread and panels else []),
            *left_out("panels", len(panels), max(len(timed), len(panels))),
        ),
    )


def waterfall(material: Material) -> Plot:
    """Where the time of each cell went; a panel for each model and device, a bar a cell."""
    shares = phase_seconds(material.run)
    rows = [row for row in material.measured if sum(shares[row.cell].values()) > 0]
    groups = list(grouped(rows, lambda row: (row.cell.model, row.cell.device)))
    used = {phase for row in rows for phase, seconds in shares[row.cell].items() if seconds > 0}
    return Plot(
        id="waterfall",
        title="Where the time goes",
        lead="The time that a trial was awake, process start to exit, all seeds together, as shares that add up to "
        "100 %: start (imports, device, data, model), compiling, warm-up, the timing session, training, evaluation.",
        spec=specs.waterfall(tuple(PHASES)),
        panels=[_waterfall_panel(names, own[:MOST_BARS], shares) for names, own in groups[:MOST_PANELS]],
        legend=_bar_keys(PHASES, used),
        wide=True,
        missing="" if groups else "No trial recorded its phases.",
        notes=_bars_left_out(groups),
    )


def memory(material: Material) -> Plot:
    """Peak memory; a panel for each model and device, a bar a cell and place."""
    known = {place for place, (key, _) in PLACES.items() if any(row[key] is not None for row in material.measured)}
    rows = [row for row in material.measured if any(row[PLACES[place][0]] is not None for place in known)]
    groups = list(grouped(rows, lambda row: (row.cell.model, row.cell.device)))
    return Plot(
        id="memory",
        title="Memory",
        lead="The highest peak over seeds: on the host the resident memory of a trial's processes (most of it is torch "
        "itself), on a GPU what its allocator had reserved.",
        spec=specs.memory(tuple(PLACES)),
        panels=[_memory_panel(names, own[:MOST_BARS]) for names, own in groups[:MOST_PANELS]],
        legend=_bar_keys(PLACES, known),
        wide=True,
        missing="" if groups else "No peak was recorded.",
        notes=_bars_left_out(groups),
    )


def histogram(steps: Steps, edges: Steps) -> Steps:
    """The share of the steps that fall between neighbouring edges, shape (len(edges) - 1,); the rest lies outside."""
    counts, _ = np.histogram(steps, edges)
    shares: Steps = counts / steps.size
    return shares


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


def _step_panel(names: Sequence[str], rows: Sequence[Row], step_ms: Mapping[Cell, Steps]) -> Panel:
    edges = edges_of([step_ms[row.cell] for row in rows])
    values: list[dict[str, Value]] = []
    words = []
    for row in rows:
        variant, steps = plain(row.cell.variant), step_ms[row.cell]
        middle, p95 = float(np.median(steps)), float(np.percentile(steps, 95))
        values.append({"variant": variant, "median": _short(middle), "median_text": _ms(middle)})
        values += _bins(variant, histogram(steps, edges), edges)
        words.append(f"{variant} {_ms(middle)} (95 % below {_ms(p95)})")
    return Panel(title=titled(*names), values=values, caption=f"Median step: {', '.join(words)}.")


def _bins(variant: str, shares: Steps, edges: Steps) -> list[dict[str, Value]]:
    middles = np.sqrt(edges[:-1] * edges[1:])
    return [
        {
            "variant": variant,
            "ms": _short(float(middle)),
            "share": round(float(share), 4),
            "bin_text": f"{figures.significant(float(low))} to {_ms(float(high))}",
            "share_text": f"{share:.1%}",
        }
        for middle, low, high, share in zip(middles, edges[:-1], edges[1:], shares, strict=True)
    ]


def _waterfall_panel(names: Sequence[str], rows: Sequence[Row], shares: Mapping[Cell, Mapping[str, float]]) -> Panel:
    awake = {row.cell: sum(shares[row.cell].values()) for row in rows}
    trained = [f"{shares[row.cell]['train step'] / awake[row.cell]:.0%}" for row in rows]
    low, high = min(trained, key=lambda one: float(one[:-1])), max(trained, key=lambda one: float(one[:-1]))
    return Panel(
        title=titled(*names),
        values=[value for row in rows for value in _phase_values(row, shares[row.cell], awake[row.cell])],
        caption=f"Training steps take {low if low == high else f'{low} to {high}'} of the time awake.",
        height=BAR_HEIGHT * len(rows),
    )


def _phase_values(row: Row, seconds: Mapping[str, float], awake: float) -> list[dict[str, Value]]:
    return [
        {
            "cell": _bar_name(row),
            "phase": phase,
            "rank": rank,
            "share": _short(took / awake),
            "parts": ", ".join(PHASES[phase]) or "teardown, audit, what no phase claims",
            "share_text": f"{took / awake:.1%}",
            "seconds_text": figures.significant(took),
        }
        for rank, (phase, took) in enumerate(seconds.items())
        if took > 0
    ]


def _memory_panel(names: Sequence[str], rows: Sequence[Row]) -> Panel:
    values: list[dict[str, Value]] = []
    words = []
    for place, (key, breadth) in PLACES.items():
        peaks = [(row[key], row) for row in rows if row[key] is not None]
        for peak, row in peaks:
            text = figures.significant(peak)
            bar: dict[str, Value] = {"cell": _bar_name(row), "place": place, "mib": _short(peak), "mib_text": text}
            values.append({**bar, "breadth": breadth})
        if peaks:
            peak, most = max(peaks, key=lambda one: one[0])
            words.append(f"Highest on the {place}: {_bar_name(most)}, {figures.significant(peak)} MiB.")
    return Panel(title=titled(*names), values=values, caption=" ".join(words), height=BAR_HEIGHT * len(rows))


def _bar_keys(names: Mapping[str, object], used: set[str]) -> tuple[Key, ...]:
    numbered = enumerate(names, start=1)
    return tuple(Key(label=name, colour=colour_of(n), shape="bar") for n, name in numbered if name in used)


def _bar_name(row: Row) -> str:
    return titled(f"{row.cell.batch_size:,}", row.cell.variant)


def _bars_left_out(groups: Sequence[tuple[tuple[str, ...], Sequence[Row]]]) -> tuple[str, ...]:
    shown = sum(len(own[:MOST_BARS]) for _, own in groups[:MOST_PANELS])
    return left_out("cells", shown, sum(len(own) for _, own in groups))


def _ms(value: float) -> str:
    return f"{figures.significant(value)} ms"


def _short(value: float) -> float:
    """5 significant digits: finer than a screen, and a third of the bytes."""
    return float(f"{value:.5g}")
