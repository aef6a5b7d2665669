"""The one table: rows to a terminal, to Markdown, to CSV and to JSON. Pure.

Text from outside is made harmless here and nowhere else: control characters (a terminal obeys them), Markdown and HTML,
formulas of spreadsheets, workflow commands. Lines of a terminal are laid out here, not by rich: thousands of them must
not take seconds.
"""

import csv
import io
import re
import textwrap
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from rich.cells import cell_len
from rich.text import Text

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

ROOMY = 100  # columns of a terminal from which two spaces stand between those of a table

# Excel, LibreOffice and Google Sheets execute a cell that begins with one of these, quoted or not; where the decimal
# sign is a comma, Excel takes a semicolon for the end of a cell. The signs of full width are those of East Asian
# keyboards. Source: https://owasp.org/www-community/attacks/CSV_Injection, CWE-1236.
_FORMULA = re.compile(r'(^|;)(?=[\s"]*[=+\-@＝＋－＠])')  # noqa: RUF001

_WITHIN = re.compile(r"(?<=\d) (?=%)|(?<=\d,) (?=[^ \]]+( %)?\])")  # the blanks of a percentage and of an interval


def plain(text: str) -> str:
    """Text from outside on one line, without control characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def escape(text: str) -> str:
    """Text from outside as Markdown that shows it literally: no markup, HTML, link or mention, in a table or not."""
    text = plain(text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]~$#!])", r"\\\1", text)
    text = text.replace("|", "&#124;").replace("://", ":\\//")
    text = re.sub(r"(www)\.", r"\1\\.", text, flags=re.IGNORECASE)  # GitHub makes a link of it without http too
    return re.sub(r"@(?=\w)", "@\u200b", text)  # a zero-width space: GitHub notifies nobody


@lru_cache(maxsize=1024)  # names and reasons come again in every line
def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: ``=1+1`` is ``'=1+1``; any other stays, on one line."""
    return _FORMULA.sub(r"\1'", plain(text))


def inert(line: str) -> str:
    """A line of text that no CI runner takes for a command; almost always the line itself.

    GitHub's runner obeys ``::name`` at the beginning of a line, after spaces too, and the older ``##[name]`` anywhere.
    """
    line = line.replace("##[", "# [")
    return line.replace("::", ": :", 1) if line.lstrip().startswith("::") else line


def joined(*parts: str) -> str:
    """The parts that are not empty, with a space between."""
    return " ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """``8 s``, ``12 min`` or ``3.4 h``.

    >>> duration(8), duration(720), duration(12240)
    ('8 s', '12 min', '3.4 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def span(values: Iterable[float], text: Callable[[float], str]) -> str:
    """``0.97 to 0.98``: the least and the largest; one where they read alike, nothing of nothing."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys(text(value) for value in ordered[:1] + ordered[-1:]))


def shortened(text: str, most: int) -> str:
    """A text of at most ``most`` characters, cut in its middle: ``lenet5/…/eager``; between words where it has some."""
    if len(text) <= most:
        return text
    middle = most // 2
    begin, end = text[:middle], text[len(text) - (most - middle - 1) :]
    if " " in begin and " " in end:
        return f"{begin.rpartition(' ')[0]} … {end.partition(' ')[2]}"
    return f"{begin}…{end}"


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items that have a key in common, in the order in which keys first come."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_reason(found: Iterable[tuple[str, str]]) -> list[str]:
    """Every reason once, after the cells that it holds for: of pairs (cell, reason); an empty one is none."""
    known = grouped(((plain(cell), plain(reason)) for cell, reason in found if reason), lambda pair: pair[1])
    return [f"{listed([cell for cell, _ in own])}: {reason}" for reason, own in known.items()]


def at(path: str) -> Callable[[Any], Any]:
    """Reads ``a.b`` off a row, an attribute or an entry each; None where there is no ``a``."""

    def read(found: Any) -> Any:
        for name in path.split("."):
            if found is not None:
                found = found.get(name) if isinstance(found, Mapping) else getattr(found, name)
        return found

    return read


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column.

    Args:
        title: its head for people; None: the column is for programs alone.
        text: what people read of a row; None: its value, in words.
        rank: where the width does not do, columns of the highest rank go first; 0 stays. One of another rank that is
            empty throughout is left out.
        right: whether it is set to the right, as figures are.
        key: its name in CSV and JSON; empty: the column is for people alone.
        value: what CSV and JSON get of a row; None is empty, or null.
    """

    title: str | None
    text: Callable[[T], str] | None = None
    rank: int = 0
    right: bool = True
    key: str = ""
    value: Callable[[T], Any] = lambda row: None

    def show(self, row: T) -> str:
        """What people read of a row, harmless."""
        return plain(words(self.value(row)) if self.text is None else self.text(row))


def for_programs(**paths: str) -> tuple[Column[Any], ...]:
    """Columns of CSV and JSON alone, by their keys: each reads a path (as ``at`` does) off a row."""
    return tuple(Column(None, key=key, value=at(path)) for key, path in paths.items())


def texts(**titles: str) -> tuple[Column[Any], ...]:
    """Columns of words, by their titles: each is an attribute of a row, and of that name in CSV and JSON."""
    return tuple(Column(title, right=False, key=key, value=at(key)) for key, title in titles.items())


@dataclass(frozen=True, slots=True)
class Table(Generic[T]):
    """Rows under columns; ``style``: of a row on a terminal; ``folded``: Markdown shows its title, then the rest."""

    title: str
    columns: tuple[Column[T], ...]
    rows: Sequence[T]
    style: Callable[[T], str] = lambda row: ""
    folded: bool = False

    @classmethod
    def of(cls, title: str, records: Sequence[Mapping[str, Any]]) -> "Table[Mapping[str, Any]]":
        """A table of records of one set of keys."""

        def column(key: str) -> Column[Mapping[str, Any]]:
            right = all(isinstance(record[key], int | float | None) for record in records)
            return Column(key, right=right, key=key, value=lambda row: row[key])

        return Table(title, tuple(column(key) for key in (records[0] if records else ())), records)

    def records(self) -> list[dict[str, Any]]:
        """A record per row, for JSON."""
        columns = [column for column in self.columns if column.key]
        return [{column.key: column.value(row) for column in columns} for row in self.rows]

    def csv(self) -> str:
        """A header and a line per row, as ``to_csv``."""
        columns = [column for column in self.columns if column.key]
        return to_csv([one.key for one in columns], ([one.value(row) for one in columns] for row in self.rows))

    def markdown(self) -> str:
        """A table that shows every text literally; a text of a row from outside is not markup."""
        columns, lines = self.texts()
        rules = ["---:" if column.right else "---" for column in columns]
        header = [escape(column.title or "") for column in columns]
        body = [[escape(text) for text in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in [header, rules, *body])

    def terminal(self, width: int) -> Iterator[Text]:
        """Lines for a terminal of ``width`` columns: print them without wrapping.

        The least needed columns are left out until the rest fits; a line that never fits is longer.
        """
        columns, lines = self.texts()
        heads = [column.title or "" for column in columns]
        # A letter of a foreign model's name may be two columns wide.
        widths = [max(map(cell_len, texts)) for texts in zip(heads, *lines, strict=True)]
        gap = "  " if width >= ROOMY else " "
        shown = _fitting([column.rank for column in columns], widths, width, len(gap))

        def line(texts: Sequence[str]) -> str:
            pads = [" " * (widths[n] - cell_len(texts[n])) for n in shown]
            cells = (pad + texts[n] if columns[n].right else texts[n] + pad for n, pad in zip(shown, pads, strict=True))
            return inert(gap.join(cells).rstrip())

        yield from (Text(text, "bold") for text in wrapped(self.title, width))
        yield Text(line(heads), "bold")
        yield Text("─" * max(cell_len(line(heads)), 1))
        yield from (Text(line(texts), self.style(row)) for texts, row in zip(lines, self.rows, strict=True))

    def texts(self) -> tuple[list[Column[T]], list[tuple[str, ...]]]:
        """The columns that have something to say to people, and the text of each row in them."""
        people = [column for column in self.columns if column.title is not None]
        texts = [(column, [column.show(row) for row in self.rows]) for column in people]
        kept = [(column, lines) for column, lines in texts if not column.rank or any(lines)]
        return [column for column, _ in kept], list(zip(*(lines for _, lines in kept), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A title (``style``: on a terminal), what must be said first, tables without empty ones, and notes on them.

    ``answers``: what the tables come to; above them in a file, where a terminal ends.
    """

    title: str
    facts: Sequence[str] = ()
    answers: Sequence[str] = ()
    tables: Sequence[Table[Any]] = ()
    notes: Sequence[str] = ()
    style: str = ""

    def markdown(self) -> str:
        """As GitHub shows it."""
        parts = [f"# {escape(self.title)}", *map(escape, self.facts), *_items(self.answers)]
        for table in self._filled():
            heading, shown = escape(table.title), table.markdown()
            if table.folded:
                parts.append(f"<details><summary>{heading}</summary>\n\n{shown}\n\n</details>")
            else:
                parts += [f"## {heading}"] * bool(heading) + [shown]
        return "\n\n".join([*parts, *_items(self.notes)]) + "\n"

    def terminal(self, width: int) -> Iterator[Text]:
        """Lines for a terminal of ``width`` columns: print them without wrapping."""
        yield from (Text(line, f"bold {self.style}".strip()) for line in wrapped(self.title, width))
        yield from (Text(line) for fact in self.facts for line in wrapped(fact, width))
        for table in self._filled():
            yield Text()
            yield from table.terminal(width)
        for texts in filter(None, (self.notes, self.answers)):
            yield Text()
            yield from (Text(line) for text in texts for line in wrapped(text, width))

    def _filled(self) -> list[Table[Any]]:
        return [table for table in self.tables if table.rows]


def _items(texts: Sequence[str]) -> list[str]:
    """One list, if there is anything in it."""
    return ["\n".join(f"- {escape(text)}" for text in texts)] * bool(texts)


def wrapped(text: str, width: int) -> list[str]:
    """A paragraph as lines of at most ``width`` columns, those after the first indented; no word is cut.

    ``5 %`` and ``[5, 13]`` are words:

    >>> wrapped("13 % slower than eager [9, 17]", 27)
    ['13 % slower than eager', '  [9, 17]']
    """
    kept = _WITHIN.sub("\u00a0", plain(text))
    lines = textwrap.wrap(kept, max(width, 20), subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return [inert(line.replace("\u00a0", " ")) for line in lines]


def to_csv(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """CSV with a header, even without rows: what is None is empty, booleans are true and false, texts are harmless."""
    return "".join(csv_parts(names, rows))


def csv_parts(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """That of ``to_csv``, a thousand rows at a time: a long one is many megabytes."""
    lines = chain([names], ([_field(value) for value in row] for row in rows))
    while part := [*islice(lines, 1000)]:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(part)
        yield out.getvalue()


def exact(value: Any) -> Any:
    """A value as programs read it: a number to ten digits, ``true`` or ``false``; any other stays."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else value


def _field(value: Any) -> Any:
    return exact(value) if isinstance(value, int | float) else inert(harmless(words(value)))


def words(value: Any) -> str:
    """A value as people read it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
        case list() | tuple():
            return ", ".join(words(item) for item in value)
        case _:
            return str(value)


def _fitting(ranks: Sequence[int], widths: Sequence[int], width: int, gap: int) -> list[int]:
    """The numbers of the columns that fit."""
    shown = list(range(len(ranks)))
    while sum(widths[n] for n in shown) + gap * (len(shown) - 1) > width and any(ranks[n] for n in shown):
        # max() takes the first of equals: reversed, the rightmost goes.
        shown.remove(max(reversed(shown), key=lambda n: ranks[n]))
    return shown
