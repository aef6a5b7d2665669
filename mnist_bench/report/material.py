"""What plots are made of, and what all of them do alike. No drawing.

A plot has one Vega-Lite specification and several panels: small multiples that share it and differ in their data. The
page holds the specification once, and a phone stacks the panels that a desktop puts side by side.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.summary import Run
from mnist_bench.figures import Row
from mnist_bench.records import Cell
from mnist_bench.report.vega import LIGHT, POINT, SHAPES, Shape
from mnist_bench.table import Table, grouped, plain

MOST_PANELS = 60  # of one plot: more take a browser long, and nobody looks at them
MOST_BARS = 60  # of one panel
BAR_HEIGHT = 24  # pixels, the gap included
MOST_SERIES = 24  # of one plot: then looks come again
MOST_VALUES = 20_000  # of one plot
CUT = (
    f"Not all is drawn: at most {MOST_PANELS} panels of {MOST_BARS} bars, {MOST_SERIES} devices and variants, and "
    f"{MOST_VALUES:,} values. The table has all cells."
)

Steps = NDArray[np.float64]
Values = list[dict[str, Any]]
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is drawn of a cell: the values of its marks, and words on it for a caption."""

    cell: Cell
    values: Values
    words: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One small multiple. ``caption`` says in words what it shows: the alternative for who cannot see it."""

    title: str
    values: Values
    caption: str
    height: int | None = None  # pixels of the drawing; None: that of the specification


@dataclass(frozen=True, slots=True)
class Key:
    """A line of the legend, of a name in ``field``. ``colour`` counts from 1 in the palette; 0: a shape without one.

    ``area`` is that of the symbol, as in the plot.
    """

    field: str
    label: str
    colour: int
    shape: Shape
    area: float = POINT


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A section of the page. Without panels, ``missing`` says why there are none.

    ``notes`` stand below it (what marks mean, what was left out); ``wide``: bars with long names want more room.
    """

    title: str
    lead: str
    spec: Mapping[str, Any]
    panels: Sequence[Panel]
    legend: Sequence[Key] = ()
    missing: str
    notes: Sequence[str] = ()
    table: Table[Any] | None = None
    wide: bool = False


@dataclass(frozen=True)
class Material:
    """A run, and what reads the single steps of a trial's session in milliseconds (None: they cannot be read)."""

    run: Run
    read: Callable[[str], Steps | None]

    @property
    def measured(self) -> list[Row]:
        """The cells with at least one seed that is ok."""
        return [row for row in self.run.rows if row.seeds]

    @property
    def series(self) -> list[str]:
        """Devices and variants as the plots name them: each has the same look in all of them."""
        return list(dict.fromkeys(series(row.cell) for row in self.measured))


def panelled(
    items: Sequence[Drawn],
    caption: Callable[[list[Drawn]], str],
    legend: Iterable[Key],
    *,
    missing: str,
    by: Callable[[Cell], Names] = lambda cell: (cell.model,),
    bars: bool = False,
    notes: Iterable[str] = (),
    **words: Any,
) -> Plot:
    """A plot with a panel for each group of items that have values, as many as a page bears.

    Args:
        caption: of a panel, from what is drawn in it.
        legend: all keys that there are; those of names in the values are shown.
        missing: what is said where there is no panel.
        by: the names of a cell's panel; its model, if nothing else is said: all devices stand in one panel.
        bars: every item is a bar: a panel has room for some, and is as high as they are.
        words: the rest of the plot.
    """
    looks = [*legend]
    drawn = {*[key.label for key in looks if key.field == "series"][:MOST_SERIES]}
    known = [one for one in items if not (drawn and one.values) or one.values[0]["series"] in drawn]
    groups = grouped(known, lambda one: by(one.cell))
    panels, count, lost = list[Panel](), 0, len(known) < len(items) or len(groups) > MOST_PANELS
    for names, own in list(groups.items())[:MOST_PANELS]:
        found = [one for one in own if one.values]
        shown = found[: MOST_BARS if bars else None]
        values = [value for one in shown for value in one.values]
        count += len(values)
        lost |= len(found) > len(shown) or count > MOST_VALUES
        if values and count <= MOST_VALUES:
            panels.append(Panel(titled(*names), values, caption(shown), BAR_HEIGHT * len(shown) if bars else None))
    used = {pair for panel in panels for value in panel.values for pair in value.items()}
    return Plot(
        panels=panels,
        legend=[key for key in looks if (key.field, key.label) in used],
        missing="" if panels else missing,
        notes=[*notes, *[CUT] * lost],
        wide=bars,
        **words,
    )


def keys(field: str, names: Iterable[str], shape: Shape | None = None) -> list[Key]:
    """The legend of names: each has the colour and (unless all share one) shape of its place."""
    looks = zip(names, cycle(range(1, len(LIGHT) + 1)), cycle(SHAPES), strict=False)
    return [Key(field, name, colour, shape or own) for name, colour, own in looks]


def by_size(cell: Cell) -> Names:
    """The panel of a cell where each model and batch size has its own."""
    return cell.model, batch(cell.batch_size)


def series(cell: Cell) -> str:
    """``cuda · compile``"""
    return titled(cell.device, cell.variant)


def titled(*names: object) -> str:
    """Names from outside as one title: ``lenet5 · cpu``."""
    return " · ".join(plain(str(name)) for name in names)


def batch(size: int) -> str:
    return f"batch {size:,}"


def short(value: float) -> float:
    """5 significant digits: finer than a screen, and a third of the bytes."""
    return float(f"{value:.5g}")
