"""What a report is made of: a run, what was compared in it, and the records of its plots. No drawing.

A plot has one Vega-Lite specification and several panels: small multiples that share it and differ in their data. The
page holds the specification once, and a phone stacks the panels that a desktop puts side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.compare import Comparison, compare_cells
from mnist_bench.analysis.summary import Run
from mnist_bench.figures import Row
from mnist_bench.records import Cell
from mnist_bench.report.specs import Shape, colour_of, shape_of
from mnist_bench.table import Table, grouped, plain

MOST_PANELS = 60  # of one plot: more take a browser long, and nobody looks at them
MOST_BARS = 60  # of one panel
BAR_HEIGHT = 24  # pixels, the gap included
SKETCH = 400  # order statistics kept of one trial's steps
MOST_SEEDS = 5  # of a cell, whose steps are read

Steps = NDArray[np.float64]
Value = str | int | float | None
Values = list[Mapping[str, Value]]
Drawn = tuple[Values, str]  # the values of a panel, and its caption
Names = tuple[str, ...]


class Celled(Protocol):
    """Whatever is of one cell: a row, a line of a comparison, a curve."""

    @property
    def cell(self) -> Cell: ...


C = TypeVar("C", bound=Celled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small multiple. ``caption`` says in words what it shows: the alternative for who cannot see it."""

    title: str
    values: Sequence[Mapping[str, Value]]
    caption: str
    height: int | None = None  # pixels of the drawing; None: that of the specification


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A line of the legend. ``colour`` counts from 1 in the palette; 0: a shape that has no colour of its own."""

    label: str
    colour: int
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A section of the page. Without panels, ``missing`` says why there are none.

    ``notes`` stand below it (what marks mean, what was left out); ``wide``: bars with long names want more room.
    """

    id: str
    title: str
    lead: str
    spec: Mapping[str, Any]
    panels: Sequence[Panel]
    legend: Sequence[Key] = ()
    missing: str = ""
    notes: Sequence[str] = ()
    table: Table[Any] | None = None
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Material:
    """A run and what was compared in it.

    ``step_ms``: of each cell whose samples were read, its steps (a sketch of each seed's), milliseconds. ``unread``:
    the trials whose samples are missing or broken.
    """

    run: Run
    step_ms: Mapping[Cell, Steps]
    unread: Sequence[str] = ()

    @cached_property
    def by_device(self) -> Comparison:
        return compare_cells(self.run, "device", partial=True)

    @cached_property
    def by_variant(self) -> Comparison:
        return compare_cells(self.run, "variant", partial=True)

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.run.rows

    @property
    def measured(self) -> tuple[Row, ...]:
        """The cells with at least one seed that is ok."""
        return tuple(row for row in self.rows if row.seeds)

    @property
    def variants(self) -> tuple[str, ...]:
        """As the plots name them, in the order of the matrix."""
        return tuple(dict.fromkeys(plain(row.cell.variant) for row in self.rows))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(sorted({row.cell.batch_size for row in self.rows}))

    def legend(self, used: Iterable[Celled], shape: Shape | None = None) -> tuple[Key, ...]:
        """The variants of what is drawn: the same colour and shape in every plot of the page."""
        return keys(self.variants, {plain(one.cell.variant) for one in used}, shape)

    def plot(
        self,
        items: Sequence[C],
        draw: Callable[[list[C]], Drawn],
        *,
        missing: str,
        by: Callable[[Cell], Names] | None = None,
        bars: bool = False,
        of: int = 0,
        notes: Iterable[str] = (),
        **words: Any,
    ) -> Plot:
        """A plot with a panel for each group of items, as many as a page bears.

        Args:
            draw: the values and the caption of a panel.
            missing: what is said where there are no items.
            by: the names of a cell's panel; its model and device, if nothing else is said.
            bars: every item is a bar: a panel has room for some, and is as high as they are.
            of: how many panels there would be, if more than have items.
            words: the rest of the plot.
        """
        groups = list(grouped(items, lambda one: (by or model_and_device)(one.cell)).items())
        shown = [(names, own[:MOST_BARS] if bars else own) for names, own in groups[:MOST_PANELS]]
        panels = []
        for names, own in shown:
            (values, caption), height = draw(own), BAR_HEIGHT * len(own) if bars else None
            panels.append(Panel(title=titled(*names), values=values, caption=caption, height=height))
        lost = left_out("panels", len(panels), max(of, len(groups)))
        if bars:
            lost = left_out("cells", sum(len(own) for _, own in shown), len(items))
        missing = "" if panels else missing
        words.setdefault("legend", self.legend(items))
        return Plot(panels=panels, missing=missing, notes=(*notes, *lost), wide=bars, **words)


def gather(run: Run, read: Callable[[str], Steps | None]) -> Material:
    """The material of a run.

    Args:
        read: gives the single steps of a trial's session in milliseconds, by its id; None where they cannot be read.
            It is asked for those of the first panels, and of some seeds of each cell.
    """
    timed = {member for session in run.sessions for member in session.steps}
    shown = list(grouped((cell for cell, seeds in run.ok.items() if seeds), cell_and_size))[:MOST_PANELS]
    pooled, unread = {}, []
    for cell, seeds in run.ok.items():
        wanted = [trial for trial, _ in seeds.values() if trial in timed and cell_and_size(cell) in shown]
        steps = {trial: read(trial) for trial in wanted[:MOST_SEEDS]}
        unread += [trial for trial, found in steps.items() if found is None]
        if parts := [sketch(found) for found in steps.values() if found is not None and found.size]:
            pooled[cell] = np.concatenate(parts)
    return Material(run=run, step_ms=pooled, unread=unread)


def sketch(steps: Steps) -> Steps:
    """At most ``SKETCH`` order statistics, evenly spaced: the same distribution, and every seed counts alike."""
    if steps.size <= SKETCH:
        return steps
    ranks = ((np.arange(SKETCH) + 0.5) / SKETCH * steps.size).astype(np.intp)
    return np.sort(steps)[ranks]


def left_out(what: str, shown: int, of: int) -> tuple[str, ...]:
    """A note where not everything is drawn."""
    return () if shown >= of else (f"The first {shown} of {of} {what} are drawn; the table has them all.",)


def model_and_device(cell: Cell) -> Names:
    return cell.model, cell.device


def cell_and_size(cell: Cell) -> Names:
    """The panel of a cell where each model, device and batch size has its own."""
    return cell.model, cell.device, batch(cell.batch_size)


def titled(*names: object) -> str:
    """Names from outside as one title: ``lenet5 · cpu``."""
    return " · ".join(plain(str(name)) for name in names)


def batch(size: int) -> str:
    return f"batch {size:,}"


def where(cell: Cell) -> str:
    """A cell within its panel, in words: ``eager at batch 100``."""
    return f"{plain(cell.variant)} at {batch(cell.batch_size)}"


def short(value: float) -> float:
    """5 significant digits: finer than a screen, and a third of the bytes."""
    return float(f"{value:.5g}")


def keys(names: Iterable[str], used: Collection[str], shape: Shape | None = None) -> tuple[Key, ...]:
    """The legend of those names that are used; each has the colour and (unless all share one) shape of its place."""
    numbered = enumerate(names, start=1)
    return tuple(Key(label=v, colour=colour_of(n), shape=shape or shape_of(n)) for n, v in numbered if v in used)
