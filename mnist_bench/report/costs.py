"""Plots of what it costs: the times of single steps, where the time goes, memory."""

from collections.abc import Sequence
from operator import itemgetter

import altair as alt
import numpy as np

from mnist_bench import figures
from mnist_bench.records import Cell, Measurement
from mnist_bench.report.material import MOST_PANELS, Drawn, Material, Plot, by_size, keys, panelled, series, short
from mnist_bench.report.vega import coloured, curve, layered, logarithmic, rule_at
from mnist_bench.table import plain, span

SKETCH = (np.arange(400) + 0.5) / 400  # quantiles of one trial's steps that are kept
MOST_SEEDS = 5  # of a cell, whose steps are read
DRAWN = [1, *np.arange(2.5, 100, 2.5).tolist(), 99]  # percentiles
REST = "teardown, other"
PHASES = ("train step", "evaluation", "loader wait", "compile", "warm-up", "session", "start", REST)
# What is drawn as one phase: the phases of a trial's waterfall. Any other is the rest.
PHASE_OF = {phase: phase for phase in PHASES} | {"check": "warm-up"}
PHASE_OF |= dict.fromkeys(("import", "device", "data", "transfer", "build"), "start")
PLACES = {"host": "host_peak_mib", "device": "device_peak_mib"}  # where memory is: the figure that says how much
BREADTHS = [18, 8]  # of their bars in pixels
CELLS = alt.Y("cell:N").sort(None).title(None)


def step_times(material: Material) -> Plot:
    """The distribution of single steps in the session; a panel for each model and batch size."""
    timed = [row for row in material.measured if row["step_ms_p50"] is not None]
    panels = list(dict.fromkeys(by_size(row.cell) for row in timed))[:MOST_PANELS]
    unread: list[str] = []
    items = []
    for row in timed:
        seen = by_size(row.cell) in panels
        items.append(_distribution(material, row.cell, unread) if seen else Drawn(row.cell, []))
    several = f"Of each cell the first {MOST_SEEDS} seeds are shown."
    lost = f"The raw samples of {len(unread)} trial{'s' * (len(unread) != 1)} are missing or cannot be read."
    x = alt.X("ms:Q").scale(logarithmic(0)).axis(format="~g", tickCount=5, grid=False).title("ms per step")
    y = alt.Y("share:Q").axis(format=".0%", tickCount=3).title("share of steps")
    told = {"series": "of", "share": "share of its steps|.1%", "ms": "took at most ms|.3r"}
    line, points = curve(coloured("series", material.series, **told).encode(x=x, y=y), "series", material.series)
    return panelled(
        items,
        lambda own: f"Median step: {', '.join(one.words for one in own)}.",
        keys("series", material.series),
        by=by_size,
        title="Step times",
        lead="The share of the steps of the timing sessions that took at most so long, less the slowest 1 %. The "
        "points are the medians. Steep and left is better.",
        spec=layered(rule_at(0.5), line, points.transform_filter("datum.share == 0.5"), height=150),
        missing=lost if unread else "No session was timed.",
        notes=[several] * any(row.seeds > MOST_SEEDS for row in timed) + [lost] * (len(unread) > 0),
    )


def _distribution(material: Material, cell: Cell, unread: list[str]) -> Drawn:
    """Of a cell's first seeds as many order statistics each; ``unread`` gets the trials that have none."""
    trials = [trial for trial, _ in material.run.ok[cell].values() if trial in material.run.index]
    found = {trial: material.read(trial) for trial in trials[:MOST_SEEDS]}
    unread += [trial for trial, steps in found.items() if steps is None]
    read = [steps for steps in found.values() if steps is not None and steps.size]
    if not read:
        return Drawn(cell, [])
    steps = np.concatenate([np.quantile(steps, SKETCH, method="inverted_cdf") for steps in read])
    name, ms = series(cell), dict(zip(DRAWN, np.percentile(steps, DRAWN).tolist(), strict=True))
    values = [{"series": name, "ms": short(ms[percent]), "share": percent / 100} for percent in DRAWN]
    middle, high = figures.significant(ms[50]), figures.significant(ms[95])
    return Drawn(cell, values, f"{name} {middle} ms (95 % below {high} ms)")


def waterfall(material: Material) -> Plot:
    """Where the time of each cell went; a panel for each model, a bar a cell."""
    x = alt.X("share:Q").scale(domain=[0, 1]).axis(format=".0%", tickCount=5).title("share of the time awake")
    bars = coloured("phase", PHASES, cell="cell", phase="phase", share="share|.1%", seconds="s|,.4~r")
    drawn = bars.mark_bar(height={"band": 0.72}).encode(x=x, y=CELLS, order=alt.Order("rank:Q"))

    def caption(own: Sequence[Drawn]) -> str:
        trained = [100 * value["share"] for one in own for value in one.values if value["phase"] == PHASES[0]]
        return f"Training steps take {span(trained, '{:.0f} %'.format) or 'nothing'} of the time awake."

    return panelled(
        [_phases(cell, [one for _, one in own.values()]) for cell, own in material.run.ok.items()],
        caption,
        keys("phase", PHASES, "bar"),
        bars=True,
        title="Where the time goes",
        lead="The time that a trial was awake, process start to exit: seconds (mean over seeds) and shares.",
        spec=layered(drawn),
        missing="No trial recorded its phases.",
    )


def _phases(cell: Cell, measurements: Sequence[Measurement]) -> Drawn:
    """The shares of ``PHASES`` in the time awake."""
    spent = dict.fromkeys(PHASES, 0.0)
    for one in measurements:
        for part, seconds in one.phases.items():
            spent[PHASE_OF.get(part, REST)] += seconds / len(measurements)
        spent[REST] += max(0.0, one.awake_s - sum(one.phases.values())) / len(measurements)
    awake = sum(spent.values())
    name = f"{_bar_name(cell)} · {figures.significant(awake)} s"
    values = [
        {"cell": name, "phase": phase, "rank": rank, "share": short(seconds / awake), "seconds": short(seconds)}
        for rank, (phase, seconds) in enumerate(spent.items())
        if seconds > 0
    ]
    return Drawn(cell, values)


def memory(material: Material) -> Plot:
    """Peak memory; a panel for each model, a bar a cell and place: the device's is narrow."""
    x = alt.X("mib:Q").axis(format=",d", tickCount=5).title("peak, MiB").stack(None)
    size = alt.Size("place:O").scale(domain=list(PLACES), range=BREADTHS).legend(None)
    bars = coloured("place", list(PLACES), cell="cell", place="memory", mib="MiB|,.3r").mark_bar()
    items = []
    for row in material.measured:
        peaks = {place: row[key] for place, key in PLACES.items() if row[key] is not None}
        bar = {"cell": _bar_name(row.cell)}
        items.append(Drawn(row.cell, [bar | {"place": place, "mib": short(peak)} for place, peak in peaks.items()]))

    def caption(own: Sequence[Drawn]) -> str:
        values = sorted((value for one in own for value in one.values), key=itemgetter("mib"))
        highest = {value["place"]: f"{value['cell']}, {figures.significant(value['mib'])} MiB" for value in values}
        return " ".join(f"Highest on the {place}: {highest[place]}." for place in PLACES if place in highest)

    return panelled(
        items,
        caption,
        keys("place", PLACES, "bar"),
        bars=True,
        title="Memory",
        lead="The highest peak over seeds: resident memory of a trial's processes; what a GPU's allocator reserved.",
        spec=layered(bars.encode(x=x, y=CELLS, size=size)),
        missing="No peak was recorded.",
    )


def _bar_name(cell: Cell) -> str:
    return f"{cell.device} · {cell.batch_size:,} · {plain(cell.variant)}"
