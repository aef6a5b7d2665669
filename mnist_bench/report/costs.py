"""Plots of what it costs: the times of single steps, where the time goes, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mnist_bench import figures
from mnist_bench.figures import Row
from mnist_bench.records import Measurement, Trial
from mnist_bench.report import specs
from mnist_bench.report.material import MOST_SEEDS, Material, batch, grouped, left_out, titled, variant_keys
from mnist_bench.report.palette import colour_of
from mnist_bench.report.panels import BAR_HEIGHT, MOST_BARS, MOST_PANELS, Key, Panel, Plot, Value
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
# Where memory is: what a row says of it, and the breadth of its bars in pixels.
PLACES: dict[str, tuple[Callable[[Row], float | None], int]] = {
    "host": (lambda row: row["host_peak_mib"], 18),
    "device": (lambda row: row["device_peak_mib"], 8),
}

Steps = NDArray[np.float64]


def step_times(material: Material) -> Plot:
    """The distribution of single steps in the session; a panel for each model, device and batch size."""
    rows = [row for row in material.measured if row.cell.id in material.step_ms]
    groups = list(grouped(rows, lambda row: (row.cell.model, row.cell.device, batch(row.cell.batch_size))))
    panels = [_step_panel(names, own, material.step_ms) for names, own in groups[:MOST_PANELS]]
    timed = {
        (row.cell.model, row.cell.device, row.cell.batch_size)
        for row in material.measured
        if row["step_ms_p50"] is not None
    }
    unread = len(material.unread)
    some = (f"Of each cell the first {MOST_SEEDS} seeds are shown.",) if _most_seeds(rows) > MOST_SEEDS else ()
    lost = f"The raw samples of {unread} trial{'s' if unread != 1 else ''} are missing or cannot be read."
    return Plot(
        id="steps",
        short="Steps",
        title="Step times",
        lead="How long single training steps took in the timing sessions, every seed counted alike; dashed rules are "
        "medians. The axis is logarithmic and leaves out the slowest 1 % of the steps. Narrow and left is better.",
        spec=specs.step_times(material.variants),
        panels=tuple(panels),
        legend=variant_keys(material, {row.cell.variant for row in rows}),
        missing="" if panels else (lost if unread else "No session was timed."),
        notes=some
        + ((lost,) if unread and panels else ())
        + left_out("panels", len(panels), max(len(timed), len(panels))),
    )


def waterfall(material: Material) -> Plot:
    """Where the time of each cell went; a panel for each model and device, a bar a cell."""
    shares = phase_seconds(material.run.trials)
    rows = [row for row in material.measured if sum(shares.get(row.cell.id, {}).values()) > 0]
    groups = list(grouped(rows, lambda row: (row.cell.model, row.cell.device)))
    panels = [_waterfall_panel(names, own[:MOST_BARS], shares) for names, own in groups[:MOST_PANELS]]
    used = {phase for row in rows for phase, seconds in shares[row.cell.id].items() if seconds > 0}
    return Plot(
        id="waterfall",
        short="Waterfall",
        title="Where the time goes",
        lead="The time that a trial was awake, process start to exit, all seeds together, as shares that add up to "
        "100 %: start (imports, device, data, model), compiling, warm-up, the timing session, training, evaluation.",
        spec=specs.waterfall(tuple(PHASES)),
        panels=tuple(panels),
        legend=tuple(
            Key(label=name, colour=colour_of(number), shape="bar")
            for number, name in enumerate(PHASES, start=1)
            if name in used
        ),
        wide=True,
        missing="" if panels else "No trial recorded its phases.",
        notes=_bars_left_out(groups),
    )


def memory(material: Material) -> Plot:
    """Peak memory; a panel for each model and device, a bar a cell and place."""
    rows = [row for row in material.measured if row["host_peak_mib"] is not None or row["device_peak_mib"] is not None]
    places = [place for place, (peak_of, _) in PLACES.items() if any(peak_of(row) is not None for row in rows)]
    groups = list(grouped(rows, lambda row: (row.cell.model, row.cell.device)))
    panels = [_memory_panel(names, own[:MOST_BARS]) for names, own in groups[:MOST_PANELS]]
    return Plot(
        id="memory",
        short="Memory",
        title="Memory",
        lead="The highest peak over seeds: on the host the resident memory of a trial's processes (most of it is torch "
        "itself), on a GPU what its allocator had reserved.",
        spec=specs.memory(places),
        panels=tuple(panels),
        legend=tuple(Key(label=name, colour=colour_of(n), shape="bar") for n, name in enumerate(places, start=1)),
        wide=True,
        missing="" if panels else "No peak was recorded.",
        notes=_bars_left_out(groups),
    )


def histogram(steps: Steps, edges: Steps) -> Steps:
    """The share of the steps that fall between neighbouring edges, shape (len(edges) - 1,); the rest lies outside."""
    counts, _ = np.histogram(steps, edges)
    shares: Steps = counts / steps.size
    return shares


def edges_of(samples: Sequence[Steps]) -> Steps:
    """Edges of bins, evenly spaced in the logarithm, that hold nearly all of each sample (times above 0).

    Their number grows with the cube root of the smallest sample (as in Rice's rule): few steps make no fine picture.
    """
    low = min(np.percentile(sample, SHOWN[0]) for sample in samples)
    high = max(np.percentile(sample, SHOWN[1]) for sample in samples)
    if high <= low * 1.01:  # all alike: still an axis
        low, high = low / 1.05, high * 1.05
    bins = min(MOST_BINS, math.ceil(3 * min(sample.size for sample in samples) ** (1 / 3)))
    edges: Steps = np.geomspace(low, high, bins + 1)
    return edges


def phase_seconds(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """Of each cell id, the seconds of each of ``PHASES`` over the seeds that are ok; they add up to the time awake."""
    found: dict[str, dict[str, float]] = {}
    known = {part: phase for phase, parts in PHASES.items() for part in parts}
    for trial in trials:
        if not isinstance(trial.outcome, Measurement):
            continue
        own = found.setdefault(trial.cell.id, dict.fromkeys(PHASES, 0.0))
        for part, seconds in trial.outcome.phases.items():
            own[known.get(part, REST)] += seconds
        own[REST] += max(0.0, trial.outcome.awake_s - sum(trial.outcome.phases.values()))
    return found


def _most_seeds(rows: Sequence[Row]) -> int:
    return max((row.seeds for row in rows), default=0)


def _step_panel(names: Sequence[str], rows: Sequence[Row], step_ms: Mapping[str, Steps]) -> Panel:
    edges = edges_of([step_ms[row.cell.id] for row in rows])
    values: list[dict[str, Value]] = []
    words = []
    for row in rows:
        steps = step_ms[row.cell.id]
        middle = float(np.median(steps))
        values.append({"variant": plain(row.cell.variant), "median": _short(middle), "median_text": _ms(middle)})
        values += _bins(row, histogram(steps, edges), edges)
        p95 = float(np.percentile(steps, 95))
        words.append(f"{plain(row.cell.variant)} {_ms(middle)} (95 % below {_ms(p95)})")
    return Panel(title=titled(*names), values=tuple(values), caption=f"Median step: {', '.join(words)}.")


def _bins(row: Row, shares: Steps, edges: Steps) -> list[dict[str, Value]]:
    middles = np.sqrt(edges[:-1] * edges[1:])
    return [
        {
            "variant": plain(row.cell.variant),
            "ms": _short(float(middle)),
            "share": round(float(share), 4),
            "bin_text": f"{figures.significant(float(low))} to {_ms(float(high))}",
            "share_text": f"{share:.1%}",
        }
        for middle, low, high, share in zip(middles, edges[:-1], edges[1:], shares, strict=True)
    ]


def _waterfall_panel(names: Sequence[str], rows: Sequence[Row], shares: Mapping[str, Mapping[str, float]]) -> Panel:
    values: list[dict[str, Value]] = []
    trained = []
    for row in rows:
        own = shares[row.cell.id]
        awake = sum(own.values())
        trained.append(own["train step"] / awake)
        values += [
            {
                "cell": _bar_name(row),
                "phase": phase,
                "rank": rank,
                "share": _short(seconds / awake),
                "parts": ", ".join(PHASES[phase]) or "teardown, audit, what no phase claims",
                "share_text": f"{seconds / awake:.1%}",
                "seconds_text": figures.significant(seconds),
            }
            for rank, (phase, seconds) in enumerate(own.items())
            if seconds > 0
        ]
    low, high = min(trained), max(trained)
    share = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    return Panel(
        title=titled(*names),
        values=tuple(values),
        caption=f"Training steps take {share} of the time awake.",
        height=BAR_HEIGHT * len(rows),
    )


def _memory_panel(names: Sequence[str], rows: Sequence[Row]) -> Panel:
    values: list[dict[str, Value]] = []
    words = []
    for place, (peak_of, breadth) in PLACES.items():
        peaks = [(row, peak) for row in rows if (peak := peak_of(row)) is not None]
        values += [
            {
                "cell": _bar_name(row),
                "place": place,
                "mib": _short(peak),
                "mib_text": figures.significant(peak),
                "breadth": breadth,
            }
            for row, peak in peaks
        ]
        if peaks:
            most, peak = max(peaks, key=lambda one: one[1])
            words.append(f"Highest on the {place}: {_bar_name(most)}, {figures.significant(peak)} MiB.")
    return Panel(title=titled(*names), values=tuple(values), caption=" ".join(words), height=BAR_HEIGHT * len(rows))


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
