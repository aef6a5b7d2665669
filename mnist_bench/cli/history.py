"""``mnist-bench history``: a cell's figures over runs and commits."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.console import print_lines, print_result, say, try_out, write

if TYPE_CHECKING:
    from mnist_bench.analysis.history import Series
    from mnist_bench.records import Cell

MAX_LAST = 10_000


def configure(parser: argparse.ArgumentParser) -> None:
    from mnist_bench.analysis.history import METRICS

    parser.epilog = (
        "Newest first. Runs of another machine, software or setting stand in lists of their own. What is read is the "
        "results.json of each run; a run without one that fits is read from its lines, which takes longer."
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
        default="train_samples_per_s",
        metavar="COLUMN",
        help=f"what to follow: {', '.join(METRICS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--last",
        type=options.whole("--last", 1, MAX_LAST),
        default=5,
        metavar="N",
        help="how many runs to list (default: 5)",
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page with a plot per cell as well")
    options.add(parser, "output_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.analysis import history

    if args.page is not None:
        try_out("--page", args.page)
    runs, warnings = history.read(args.output_dir, args.metric, say)
    for warning in warnings:
        say(f"warning: {warning}")
    series = history.gather(runs, history.METRICS[args.metric])
    wanted = _chosen([one.cell for one in series], args)
    series = tuple(one for one in series if one.cell in wanted)
    if not series:
        say(f"nothing measured in {args.output_dir} yet: `mnist-bench run` does it, or name another --output-dir")
    if series or args.format == "json":  # a document for programs, empty as it may be
        _print(series, args)
    if series and args.page is not None:
        _write_page(series, warnings, args)
    return 0 if any(one.values for one in series) else options.NOTHING


def _chosen(cells: Sequence[Cell], args: argparse.Namespace) -> Collection[Cell]:
    """The cells that CELL and --filter want.

    Raises:
        UsageError: no cell is of that name.
    """
    from fnmatch import fnmatchcase

    from mnist_bench.errors import UsageError
    from mnist_bench.table import listed

    pattern = args.cell or ""
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    matching = [cell for cell in cells if fnmatchcase(cell.id, glob)]
    if cells and not matching:
        known = listed(list(dict.fromkeys(cell.id for cell in cells)), most=10)
        raise UsageError(f"no cell is named like {pattern!r} (known: {known})")
    return options.wanted(args, matching) if matching else ()


def _print(series: Sequence[Series], args: argparse.Namespace) -> None:

    from mnist_bench.analysis import history
    from mnist_bench.table import Document

    metric = history.METRICS[args.metric]
    if args.format == "table":
        print_lines(lambda width: history.screen(series, metric, args.last, width), args)
        return
    table = history.table(series, metric, args.last)
    page = Document(title=f"{metric.title} over runs", tables=[table], notes=history.notes(series, metric))
    print_result(args, page, table.csv, table.records)


def _write_page(series: Sequence[Series], warnings: Sequence[str], args: argparse.Namespace) -> None:
    from mnist_bench import __version__
    from mnist_bench.report import vega

    with vega.making() as script:
        from mnist_bench.report.history import render_history

        page = render_history(series, args.metric, args.last, warnings, __version__, script())
    write("--page", args.page, page.encode("utf-8", "backslashreplace"))
    say(f"page: {args.page}")
