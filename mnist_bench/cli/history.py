"""``mnist-bench history``: a cell's figures over runs and commits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.console import print_lines, print_result, say, try_out, write
from mnist_bench.errors import UsageError
from mnist_bench.table import Document, listed

if TYPE_CHECKING:
    from mnist_bench.analysis.history import Series

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
    say(*(f"warning: {warning}" for warning in warnings))
    metric = history.METRICS[args.metric]
    series = _chosen(history.gather(runs, metric), args)
    if not series:
        say(f"nothing measured in {args.output_dir} yet: `mnist-bench run` does it, or name another --output-dir")
    if args.format == "table":
        print_lines(lambda width: history.screen(series, metric, args.last, width), args)
    elif series or args.format == "json":  # a document for programs, empty as it may be
        table = history.table(series, metric, args.last)
        page = Document(title=f"{metric.title} over runs", tables=[table], notes=history.notes(series, metric))
        print_result(args, page)
    if series and args.page is not None:
        _write_page(series, warnings, args)
    return 0 if any(one.values for one in series) else options.NOTHING


def _chosen(series: Sequence[Series], args: argparse.Namespace) -> list[Series]:
    """Those of the cells that CELL and --filter want.

    Raises:
        UsageError: no cell is of that name.
    """
    from fnmatch import fnmatchcase

    pattern = args.cell or ""
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    matching = [one for one in series if fnmatchcase(one.cell.id, glob)]
    if series and not matching:
        known = listed(list(dict.fromkeys(one.cell.id for one in series)), most=10)
        raise UsageError(f"no cell is named like {pattern!r} (known: {known})")
    wanted = options.wanted(args, [one.cell for one in matching]) if matching else ()
    return [one for one in matching if one.cell in wanted]


def _write_page(series: Sequence[Series], warnings: Sequence[str], args: argparse.Namespace) -> None:
    from mnist_bench.report import making_script

    with making_script() as script:
        from mnist_bench.report.history import render_history

        page = render_history(series, args.metric, args.last, warnings, script())
    write("--page", args.page, page.encode("utf-8", "backslashreplace"))
    say(f"page: {args.page}")
