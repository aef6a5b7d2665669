"""``mnist-bench history``: a cell's figures over runs and commits."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.writing import try_out, write

if TYPE_CHECKING:
    from mnist_bench.history import History
    from mnist_bench.trends import CellName, Point, Series, Style

MAX_LAST = 10_000
SGR: dict[Style, str] = {"bold": "1", "dim": "2", "red": "31", "yellow": "33"}


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
    options.add(parser, "filter")
    parser.add_argument(
        "--metric",
        choices=tuple(METRICS),
        default=next(iter(METRICS)),
        metavar="COLUMN",
        help=f"what to follow: {', '.join(METRICS)} (default: %(default)s)",
    )
    parser.add_argument("--last", type=_count, default=5, metavar="N", help="how many runs to list (default: 5)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page with a plot per cell as well")
    options.add(parser, "output_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench import history, trends

    if args.page is not None:
        try_out("--page", args.page)
    found = history.read(args.output_dir, args.metric, _say)
    warnings = _warnings(found)
    for warning in warnings:
        _say(f"warning: {warning}")
    points = _chosen(found.points, args)
    if not points:
        _say(f"nothing measured in {args.output_dir} yet: `mnist-bench run` does it, or name another --output-dir")
        if args.format == "json":  # a document for programs, empty as it is
            _print((), args)
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
    from mnist_bench.table import plain

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
    cells = list(dict.fromkeys(point.cell for point in points))
    if cells and args.cell is not None:
        cells = _matching(cells, args.cell)
    if cells and args.filter is not None:
        cells = _filtered(cells, args)
    kept = frozenset(cells)
    return tuple(point for point in points if point.cell in kept)


def _matching(cells: Sequence[CellName], pattern: str) -> list[CellName]:
    from fnmatch import fnmatchcase

    from mnist_bench.errors import UsageError
    from mnist_bench.table import listed

    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    matching = [cell for cell in cells if fnmatchcase(cell.id, glob)]
    if not matching:
        known = listed([cell.id for cell in sorted(cells)], most=10)
        raise UsageError(f"no cell is named like {pattern!r} (known: {known})")
    return matching


def _filtered(cells: Sequence[CellName], args: argparse.Namespace) -> list[CellName]:
    from mnist_bench.cells import select
    from mnist_bench.records import Cell

    names = {Cell(**cell._asdict()): cell for cell in sorted(cells)}
    return [names[cell] for cell in select(list(names), options.chosen(args))]


def _print(series: Sequence[Series], args: argparse.Namespace) -> None:
    from mnist_bench import trends
    from mnist_bench.cli.console import PIPE_WIDTH, print_rows, wants_colour

    if args.format != "table":
        rows = trends.rows(series, args.metric, args.last)
        print_rows(rows, args)
        return
    # Without rich: to load it would take a third of the time that a query may.
    coloured = wants_colour(args.color, sys.stdout)
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    for line in trends.lines(series, args.metric, args.last, width):
        print("".join(_styled(text, style) if coloured else text for text, style in line))
    for remark in trends.remarks(series):
        for text in textwrap.wrap(remark, width) or [""]:
            print(_styled(text, "dim") if coloured else text)


def _styled(text: str, style: Style) -> str:
    return f"\x1b[{SGR[style]}m{text}\x1b[0m" if style else text


def _write_page(series: Sequence[Series], warnings: Sequence[str], args: argparse.Namespace) -> None:
    from mnist_bench import __version__, vega

    with vega.making() as script:
        from mnist_bench.report.history import render_history

        page = render_history(series, args.metric, args.last, warnings, __version__, script.result())
    write("--page", args.page, page.encode("utf-8", "backslashreplace"))
    _say(f"page: {args.page}")
