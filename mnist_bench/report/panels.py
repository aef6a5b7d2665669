"""What a section of plots is made of: frozen records, no drawing.

A plot has one Vega-Lite specification and several panels: small multiples that share it and differ in their data. The
page holds the specification once, and a phone stacks the panels that a desktop puts side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

DATA = "panel"  # the name under which a specification expects its panel's values
MOST_PANELS = 60  # of one plot: more take a browser long, and nobody looks at them
MOST_BARS = 60  # cells of one panel of bars
BAR_HEIGHT = 24  # pixels, the gap included

Value = str | int | float | None
Values = tuple[Mapping[str, Value], ...]
Shape = Literal["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "bar"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small multiple. ``caption`` says in words what it shows: the alternative for who cannot see it."""

    title: str
    values: Values
    caption: str
    height: int | None = None  # pixels of the drawing; None: that of the specification


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A line of the legend. ``colour`` counts from 1 in the palette; 0: a shape that has no colour of its own."""

    label: str
    colour: int
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallTable:
    """A table below a plot: all texts. ``numeric`` are the indices of columns of figures."""

    caption: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    numeric: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A section of the page. Without panels, ``missing`` says why there are none.

    ``short`` is its name among the links; ``notes`` stand below it (what marks mean, what was left out).
    """

    id: str
    short: str
    title: str
    lead: str
    spec: Mapping[str, Any]
    panels: tuple[Panel, ...]
    legend: tuple[Key, ...] = ()
    missing: str = ""
    notes: tuple[str, ...] = ()
    table: SmallTable | None = None
    wide: bool = False  # bars with long names want more room
