"""The table of all cells: what each line shows and what it is sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnist_bench import figures
from mnist_bench.figures import Figure, Row
from mnist_bench.records import STATUSES
from mnist_bench.report.material import worst_first
from mnist_bench.table import listed, plain

Sortable = str | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A column's head: what it means, and whether it is a number."""

    header: str
    help: str
    numeric: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why cells are not ok: all those of one status and one reason."""

    status: str
    text: str
    cells: int
    names: str  # of the first of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A cell: its texts by column. ``keys`` are None where there is nothing to sort by.

    ``figures`` are pairs (text, detail); there are none for a cell without any: its reason stands in their place.
    """

    status: str
    seeds: int
    names: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    keys: tuple[Sortable, ...]
    reason: str
    marks: str
    doubts: str
    best: bool


NAMES = (
    Head(header="status", help="failed cells first, then skipped ones", numeric=False),
    Head(header="model", help="the model", numeric=False),
    Head(header="device", help="the device", numeric=False),
    Head(header="batch", help="images in a step"),
    Head(header="variant", help="how it is run", numeric=False),
)


def shown(rows: Sequence[Row]) -> tuple[Figure, ...]:
    """The figures that some cell has."""
    return tuple(figure for figure in figures.SHOWN if any(row[figure.key] is not None for row in rows))


def heads(rows: Sequence[Row]) -> tuple[Head, ...]:
    """Of all columns."""
    return (*NAMES, *(Head(header=figure.title, help=figure.help) for figure in shown(rows)))


def lines(rows: Sequence[Row]) -> tuple[Line, ...]:
    """Every cell, failed ones first, then skipped ones; its figures are those of ``shown``."""
    wanted = shown(rows)
    return tuple(_line(row, wanted) for row in worst_first(rows))


def reasons(rows: Sequence[Row]) -> tuple[Reason, ...]:
    """Every reason once, the failed cells' first."""
    together: dict[tuple[str, str], list[str]] = {}
    for row in worst_first(rows):
        if row.status != "ok":
            together.setdefault((row.status, plain(row.reason)), []).append(plain(row.cell.id))
    return tuple(
        Reason(status=status, text=text, cells=len(ids), names=listed(ids)) for (status, text), ids in together.items()
    )


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many cells have each status, the worst first; statuses that none has are left out."""
    found = {status: sum(row.status == status for row in rows) for status in reversed(STATUSES)}
    return {status: count for status, count in found.items() if count}


def _line(row: Row, wanted: Sequence[Figure]) -> Line:
    cell = row.cell
    rank = {"skipped": 1, "ok": 2}.get(row.status, 0)
    return Line(
        status=row.status,
        seeds=row.seeds,
        names=(row.status, *map(plain, (cell.model, cell.device)), f"{cell.batch_size:,}", plain(cell.variant)),
        figures=tuple((figure.show(row), figure.show_beside(row)) for figure in wanted) if row.seeds else (),
        keys=(rank, cell.model, cell.device, cell.batch_size, cell.variant, *(row[figure.key] for figure in wanted)),
        reason=plain(row.reason),
        marks=figures.signs(row),
        doubts=plain(row["doubts"] or ""),
        best=bool(row["fastest"]),
    )
