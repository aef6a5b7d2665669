"""``mnist-bench history``: a cell's figures over runs and commits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options

if TYPE_CHECKING:
    from mnist_bench.history import History
    from mnist_bench.records import Cell
    from mnist_bench.trends import Point, Series

MAX_LAST = 10_000


def configure(parser: argparse.ArgumentParser) -> None:
    from mnist_bench.trends import METRICS

    parser.epilog = (
        "Runs of another machine, software or setting stand in lists of their own. history.db in the results folder "
        "is an index that is kept up to date, and made anew whenever it is missing or broken."
    )
    parser.add_argument(
        "cell",
        nargs="?",
        metavar="CELL",
        help="only these cells: a part of a cell's name, or a pattern as in 'lenet5/*/eager' (default: all)",
    )
    options.add_filter(parser)
    parser.add_argument(
        "--metric",
        choices=METRICS,
        default=next(iter(METRICS)),
        metavar="COLUMN",
        help=f"what to follow: {', '.join(METRICS)} (default: %(default)s)",
    )
    parser.add_argument("--last", type=_count, default=5, metavar="N", help="how many runs to list (default: 5)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page with a plot per cell as well")
    options.add_output_dir(parser)
    options.add_format(parser)
    options.add_color(parser)


def execute(args: argparse.Namespace) -> int:
    from mnist_bench import history, trends

    found = history.read(args.output_dir, args.metric, _say)
    warnings = _warnings(found)
    for warning in warnings:
        _say(f"warning: {warning}")
    points = _chosen(found.points, args)
    if not points:
        _say(f"nothing measured in {args.output_dir} yet: `mnist-bench run` does it, or name another --output-dir")
        return 5
    series = trends.gather(points)
    _print(series, args)
    if args.page is not None:
        _write_page(series, warnings, args)
    return 0 if any(point.value is not None for point in points) else 5


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_LAST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 to {MAX_LAST}")


def _say(text: str) -> None:
    from mnist_bench.figures import plain

    print(f"mnist-bench: {plain(text)}", file=sys.stderr)


def _warnings(found: History) -> list[str]:
    """Runs that are left out, and those that are not whole yet."""
    return [
        *(f"run {left_out.run_id} is left out: {left_out.problem}" for left_out in found.unreadable),
        *(
            f"run {running.run_id} is running: {running.finished} of {running.planned} trials are finished"
            for running in found.running
        ),
    ]


def _chosen(points: Sequence[Point], args: argparse.Namespace) -> tuple[Point, ...]:
    """The points that CELL and --filter want.

    Raises:
        UsageError: no cell is of that name.
    """
    if not points or (args.cell is None and args.filter is None):
        return tuple(points)
    from mnist_bench.matrix import select

    cells = dict.fromkeys(point.cell for point in points)
    if args.cell is not None:
        cells = dict.fromkeys(_matching(list(cells), args.cell))
    kept = frozenset(select(list(cells), options.chosen(args)))
    return tuple(point for point in points if point.cell in kept)


def _matching(cells: Sequence[Cell], pattern: str) -> list[Cell]:
    from fnmatch import fnmatchcase

    from mnist_bench.errors import UsageError
    from mnist_bench.figures import listed

    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    matching = [cell for cell in cells if fnmatchcase(cell.id, glob)]
    if not matching:
        known = listed(sorted(cell.id for cell in cells), most=10)
        raise UsageError(f"no cell is named like {pattern!r} (known: {known})")
    return matching


def _print(series: Sequence[Series], args: argparse.Namespace) -> None:
    from mnist_bench import trends
    from mnist_bench.cli.console import make_console, print_rows

    if args.format != "table":
        rows = trends.rows(series, args.metric, args.last)
        print_rows([_escaped(row) for row in rows] if args.format == "md" else rows, args)
        return
    from rich.text import Text

    console = make_console(args, stderr=False)
    shown = Text()
    for line in trends.lines(series, args.metric, args.last, console.width):
        shown.append_text(Text.assemble(*line)).append("\n")
    console.print(shown, end="", soft_wrap=True)
    for remark in trends.remarks(series):
        console.print(Text(remark, style="dim"))


def _escaped(row: Mapping[str, object]) -> dict[str, object]:
    """For Markdown, where names from outside must stay text."""
    from mnist_bench.markdown import escape

    return {key: escape(value) if isinstance(value, str) else value for key, value in row.items()}


def _write_page(series: Sequence[Series], warnings: Sequence[str], args: argparse.Namespace) -> None:
    from mnist_bench import __version__
    from mnist_bench.errors import UsageError
    from mnist_bench.files import write_atomically
    from mnist_bench.report import render_history

    page = render_history(series, args.metric, args.last, warnings, __version__)
    try:
        write_atomically(args.page, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(f"--page {args.page}: cannot be written: {error.strerror or error}") from error
    _say(f"page: {args.page}")
