"""Sheets: a few tables with what must be said about them, for a terminal or as Markdown. Pure.

Lines are laid out here, not by rich: thousands of them must not take seconds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from mnist_bench.table import escape, plain

if TYPE_CHECKING:
    from rich.text import Text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of a table. Those of the highest ``rank`` go first where the width does not do; 0 stays."""

    header: str
    show: Callable[[T], str]
    rank: int = 0
    right: bool = True


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as texts: a cell for every column in every line. ``styles``: of each line in a terminal, if any has."""

    title: str
    columns: tuple[Column[object], ...]
    lines: tuple[tuple[str, ...], ...]
    styles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A title, what must be said first, tables, and notes on them."""

    title: str
    facts: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    notes: tuple[str, ...] = ()


def grid(title: str, columns: Sequence[Column[T]], rows: Sequence[T]) -> Grid:
    """The rows as texts without control characters; a column of a rank that is empty throughout is left out."""
    texts = [(column, [plain(column.show(row)) for row in rows]) for column in columns]
    kept = [(column, lines) for column, lines in texts if not column.rank or any(lines)]
    return Grid(title, tuple(c for c, _ in kept), tuple(zip(*(lines for _, lines in kept), strict=True)))  # type: ignore[misc]


def to_markdown(sheet: Sheet) -> str:
    """The sheet as Markdown that shows every text literally."""
    parts = [f"# {escape(sheet.title)}", *map(escape, sheet.facts)]
    for one in sheet.grids:
        names = [escape(column.header) for column in one.columns]
        lines = [[escape(text) for text in line] for line in one.lines]
        rules = ["---:" if column.right else "---" for column in one.columns]
        parts += [f"## {escape(one.title)}", markdown_table(names, lines, rules)]
    if sheet.notes:
        parts.append("\n".join(f"- {escape(note)}" for note in sheet.notes))
    return "\n\n".join(parts) + "\n"


def to_terminal(sheet: Sheet, width: int) -> Iterator[Text]:
    """The lines of the sheet for a terminal of ``width`` columns: print them without wrapping.

    The least needed columns are left out until the rest fits; a line that never fits is longer.
    """
    from rich.text import Text

    yield from (Text(line, "bold") for line in wrapped(sheet.title, width))
    yield from (Text(line) for fact in sheet.facts for line in wrapped(fact, width))
    for one in sheet.grids:
        yield Text()
        yield from (Text(line, "bold") for line in wrapped(one.title, width))
        yield from _aligned(one, width)
    if sheet.notes:
        yield Text()
        yield from (Text(line) for note in sheet.notes for line in wrapped(note, width))


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]], rules: Sequence[str]) -> str:
    """A table of texts that are Markdown already; ``rules`` are ``---`` (left) or ``---:`` (right)."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rules, *lines])


def wrapped(text: str, width: int) -> list[str]:
    """A paragraph as lines of at most ``width`` columns, those after the first indented."""
    return textwrap.wrap(plain(text), max(width, 20), subsequent_indent="  ", break_on_hyphens=False)


def _aligned(one: Grid, width: int) -> Iterator[Text]:
    from rich.cells import cell_len  # a letter of a foreign model's name may be two columns wide
    from rich.text import Text

    widths = [
        max(map(cell_len, (column.header, *texts)))
        for column, *texts in zip(one.columns, *one.lines, strict=True)  # each column with its texts
    ]
    shown = _fitting(one.columns, widths, width)

    def line(texts: Sequence[str]) -> str:
        cells = []
        for number in shown:
            space = " " * (widths[number] - cell_len(texts[number]))
            cells.append(space + texts[number] if one.columns[number].right else texts[number] + space)
        return "  ".join(cells).rstrip()

    header = line([column.header for column in one.columns])
    yield Text(header, "bold")
    yield Text("─" * max(cell_len(header), 1))
    styles = one.styles or ("",) * len(one.lines)
    yield from (Text(line(texts), style) for texts, style in zip(one.lines, styles, strict=True))


def _fitting(columns: Sequence[Column[object]], widths: Sequence[int], width: int, gap: int = 2) -> list[int]:
    """The numbers of the columns that fit."""
    shown = list(range(len(columns)))
    while sum(widths[n] for n in shown) + gap * (len(shown) - 1) > width and any(columns[n].rank for n in shown):
        # max() takes the first of equals: reversed, the rightmost goes.
        shown.remove(max(reversed(shown), key=lambda n: columns[n].rank))
    return shown
