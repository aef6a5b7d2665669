"""What goes to the terminal: rich consoles that honour --color and the environment, and rows in every format."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console  # imported late: what prints no table need not wait for it

    from mnist_bench.table import Document

PIPE_WIDTH = 200  # a file has no width, and a cell that is cut off in one is lost

Row = Mapping[str, object]


def make_console(args: argparse.Namespace, *, stderr: bool) -> Console:
    """A console on stdout or stderr.

    ``--color`` wins over ``NO_COLOR``, which wins over ``FORCE_COLOR``. Whether to animate is another question
    (``animates``): a forced colour makes no terminal.

    Args:
        args: ``args.color`` is ``auto`` where the command has no such flag.
        stderr: progress and logs; else data.
    """
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout
    colored = wants_colour(getattr(args, "color", "auto"), file)
    # Where the terminal is dumb or unknown, as under CI, rich would leave out the colour that was asked for.
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return Console(
        file=file,
        force_terminal=colored or file.isatty(),
        no_color=not colored,  # given, so that NO_COLOR cannot overrule --color always
        color_system=("standard" if dumb else "auto") if colored else None,
        width=None if file.isatty() or os.environ.get("COLUMNS", "").isdigit() else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def wants_colour(wish: str, file: TextIO) -> bool:
    """Whether ``--color`` (``auto``, ``always`` or ``never``), the environment and the file together want colour."""
    if wish != "auto":
        return wish == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return file.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def animates(args: argparse.Namespace, file: IO[str]) -> bool:
    """Whether a display may move on ``file``: on a terminal outside CI, unless ``-q`` or ``--no-progress`` was given.

    Args:
        args: may lack ``quiet`` and ``no_progress``, as not every command has them.
        file: where the display would be.
    """
    silent = getattr(args, "quiet", False) or getattr(args, "no_progress", False)
    return file.isatty() and not silent and not os.environ.get("CI")


def print_rows(rows: Sequence[Row], args: argparse.Namespace, *, title: str = "") -> None:
    """Prints rows to stdout as ``args.format`` says: ``table``, ``csv``, ``md``, or ``json`` (a list of objects).

    Args:
        rows: of one set of keys, in the order of the columns; None prints as nothing.
        args: with ``format``.
        title: above a table for people; no part of the data.
    """
    match args.format:
        case "json":
            print_json(list(rows))
        case "csv":
            _print_csv(rows)
        case "md":
            _print_markdown(rows)
        case _:
            _print_table(rows, args, title)


def print_json(document: Any) -> None:
    """One JSON document to stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))


def _print_csv(rows: Sequence[Row]) -> None:
    from mnist_bench.table import harmless

    if rows:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows(
            [
                _text(value) if isinstance(value, int | float | None) else harmless(_text(value))
                for value in row.values()
            ]
            for row in rows
        )


def _print_markdown(rows: Sequence[Row]) -> None:
    if not rows:
        return
    print(f"| {' | '.join(rows[0])} |")
    print(f"|{'|'.join('---' for _ in rows[0])}|")
    for row in rows:
        print("| " + " | ".join(_text(value).replace("|", "\\|") for value in row.values()) + " |")


def _print_table(rows: Sequence[Row], args: argparse.Namespace, title: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for key in rows[0] if rows else ():
        numbers = all(isinstance(row[key], int | float | None) for row in rows)
        table.add_column(key, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row.values()))
    make_console(args, stderr=False).print(table)


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
        case list() | tuple():
            return ", ".join(_text(item) for item in value)
        case _:
            return str(value)


def print_document(document: Document, args: argparse.Namespace) -> None:
    """For people, to stdout: a terminal's, or with ``--format md`` as Markdown."""
    if args.format == "md":
        sys.stdout.write(document.markdown())
        return
    from rich.text import Text

    console = make_console(args, stderr=False)
    # At one go: line by line, thousands of them take five times as long.
    console.print(Text("\n").join(document.terminal(console.width)), soft_wrap=True)
