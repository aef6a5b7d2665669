"""What goes to the terminal: rich consoles that honour --color and the environment, and rows in every format."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, TextIO

from mnist_bench.table import Document, Table

if TYPE_CHECKING:
    from rich.console import Console  # imported late: what prints no table need not wait for it

PIPE_WIDTH = 200  # a file has no width, and a cell that is cut off in one is lost


class _Patient(io.FileIO):
    """A standard stream whose reader may go away: what comes then goes nowhere, and the program goes on.

    What cannot be written to stdout for another reason (a full disk) is an error; stderr never is.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if not isinstance(error, BrokenPipeError) and self.fileno() == 1:
                raise
            return len(data)


def settle_streams() -> None:
    """Gives the process a stdin, stdout and stderr on which nothing fails that is not ours.

    Those that are closed lead nowhere (or the next file that is opened would take their number). What the encoding of
    the other side has not is escaped.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, mode)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        encoding = getattr(getattr(sys, name), "encoding", "utf-8")
        buffer = io.BufferedWriter(_Patient(descriptor, "w", closefd=False))
        lines = descriptor == 2 or os.isatty(descriptor)
        stream = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=lines)
        setattr(sys, name, stream)


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


def print_rows(rows: Sequence[Mapping[str, object]], args: argparse.Namespace) -> None:
    """Prints rows to stdout as ``args.format`` says: ``table``, ``csv``, ``md``, or ``json`` (a list of objects).

    Args:
        rows: of one set of keys, in the order of the columns; None prints as nothing.
        args: with ``format``.
    """
    table = Table.of("", rows)
    match args.format:
        case "json":
            print_json(table.records())
        case "csv":
            sys.stdout.write(table.csv() if rows else "")
        case "md":
            sys.stdout.write(f"{table.markdown()}\n" if rows else "")
        case _ if rows:
            _print_folded(table, args)


def _print_folded(table: Table[Any], args: argparse.Namespace) -> None:
    """To a terminal, long texts folded within their columns: for tables that are short."""
    from rich.table import Table as Folded
    from rich.text import Text

    folded = Folded(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        folded.add_column(column.title or "", justify="right" if column.right else "left", overflow="fold")
    for row in table.rows:
        folded.add_row(*(Text(column.show(row)) for column in table.columns))
    make_console(args, stderr=False).print(folded)


def say(text: str) -> None:
    """A line of the program's own, to stderr."""
    from mnist_bench.table import inert, plain

    print(inert(f"mnist-bench: {plain(text)}"), file=sys.stderr)


def print_json(document: Any) -> None:
    """One JSON document to stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_document(document: Document, args: argparse.Namespace) -> None:
    """For people, to stdout: a terminal's, or with ``--format md`` as Markdown."""
    if args.format == "md":
        sys.stdout.write(document.markdown())
        return
    from rich.text import Text

    console = make_console(args, stderr=False)
    # At one go: line by line, thousands of them take five times as long.
    console.print(Text("\n").join(document.terminal(console.width)), soft_wrap=True)
