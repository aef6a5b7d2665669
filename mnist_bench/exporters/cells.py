"""What the formats say of a cell alike: its name, its figures, and which rows have any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple

from mnist_bench import figures
from mnist_bench.records import Session, Trial
from mnist_bench.rows import Row, columns

LONGEST_NAME = 1000  # characters; Bencher refuses names over 1024


def measured(rows: Sequence[Row], trials: Sequence[Trial] = (), sessions: Sequence[Session] = ()) -> tuple[Row, ...]:
    """The rows with a seed that is ok."""
    return tuple(row for row in rows if row.seeds)


def names(rows: Sequence[Row]) -> tuple[str, ...]:
    """A name for each row, its cell's id: printable, on one line, not too long, no two alike.

    The matrix lets in only names that stay as they are; a results folder from elsewhere may hold others.
    """
    seen: Counter[str] = Counter()
    found: dict[str, None] = {}
    for row in rows:
        name = plain = figures.plain(row.cell.id)[:LONGEST_NAME]
        while name in found:
            seen[plain] += 1
            name = f"{plain} #{seen[plain] + 1}"
        found[name] = None
    return tuple(found)


def known(row: Row) -> dict[str, str | float | bool]:
    """The columns of a row that are known, by name; texts are printable and on one line."""
    values = zip(columns(Row), astuple(row), strict=True)
    return {
        name: figures.plain(value) if isinstance(value, str) else value
        for name, value in values
        if value not in (None, "")
    }
