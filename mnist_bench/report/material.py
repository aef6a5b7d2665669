"""What a report is made of: a run, what was compared in it, and the records of its plots. No drawing.

A plot has one Vega-Lite specification and several panels: small multiples that share it and differ in their data. The
page holds the specification once, and a phone stacks the panels that a desktop puts side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.compare import Comparison, compare_cells
from mnist_bench.analysis.summary import Run
from mnist_bench.figures import Row
from mnist_bench.records import Cell, Measurement, Trial
from mnist_bench.report.specs import Shape, colour_of, shape_of
from mnist_bench.table import Table, plain

MOST_PANELS = 60  # of one plot: more take a browser long, and nobody looks at them
SKETCH = 400  # order statistics kept of one trial's steps
MOST_SEEDS = 5  # of a cell, whose steps are read

Steps = NDArray[np.float64]
Value = str | int | float | None
T = TypeVar("T")


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

    def legend(self, used: Iterable[str]) -> tuple[Key, ...]:
        """Of variants: the same colour and shape in every plot of the page."""
        wanted = {plain(name) for name in used}
        return keys(self.variants, wanted)


def gather(run: Run, step_ms: Mapping[str, Steps | None]) -> Material:
    """The material of a run.

    Args:
        step_ms: by trial id, the single steps of its session in milliseconds; None where they cannot be read. Those
            that ``trials_to_read`` names are enough.
    """
    pooled: dict[Cell, list[Steps]] = {}
    for trial in run.trials:
        steps = step_ms.get(trial.id)
        if steps is not None and steps.size:
            pooled.setdefault(trial.cell, []).append(sketch(steps))
    return Material(
        run=run,
        step_ms={cell: np.concatenate(parts) for cell, parts in pooled.items()},
        unread=[trial for trial, steps in step_ms.items() if steps is None],
    )


def sketch(steps: Steps) -> Steps:
    """At most ``SKETCH`` order statistics, evenly spaced: the same distribution, and every seed counts alike."""
    if steps.size <= SKETCH:
        return steps
    ranks = ((np.arange(SKETCH) + 0.5) / SKETCH * steps.size).astype(np.intp)
    return np.sort(steps)[ranks]


def trials_to_read(run: Run) -> list[Trial]:
    """The trials whose samples the plot of step times shows: timed ones of its first panels, some seeds of a cell."""
    timed = {member for session in run.sessions for member in session.steps}
    ok = [trial for trial in run.trials if isinstance(trial.outcome, Measurement) and trial.id in timed]
    drawn = list(dict.fromkeys(step_panel(row.cell) for row in run.rows if row.seeds))[:MOST_PANELS]
    wanted = [trial for trial in ok if step_panel(trial.cell) in drawn]
    return [trial for _, own in grouped(wanted, lambda trial: (trial.cell.id,)) for trial in own[:MOST_SEEDS]]


def step_panel(cell: Cell) -> tuple[str, ...]:
    """The panel of step times that a cell is in."""
    return cell.model, cell.device, batch(cell.batch_size)


def grouped(items: Iterable[T], key: Callable[[T], tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], list[T]]]:
    """The items that have a key in common, in the order in which keys first come."""
    groups: dict[tuple[str, ...], list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    yield from groups.items()


def titled(*names: object) -> str:
    """Names from outside as one title: ``lenet5 · cpu``."""
    return " · ".join(plain(str(name)) for name in names)


def batch(size: int) -> str:
    return f"batch {size:,}"


def keys(names: Sequence[str], used: Iterable[str]) -> tuple[Key, ...]:
    """The legend of those names that are used; each has the colour and shape of its place."""
    wanted = set(used)
    numbered = enumerate(names, start=1)
    return tuple(Key(label=v, colour=colour_of(n), shape=shape_of(n)) for n, v in numbered if v in wanted)


def left_out(what: str, shown: int, of: int) -> tuple[str, ...]:
    """A note where not everything is drawn."""
    return () if shown >= of else (f"The first {shown} of {of} {what} are drawn; the table has them all.",)
