"""``mnist-bench history``: a cell's figures over runs and commits."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.console import print_lines, print_result, say, try_out, write
from mnist_bench.table import Document

if TYPE_CHECKING:
    from mnist_bench.analysis.history import Series


def configure(parser: argparse.ArgumentParser) -> None:
    from mnist_bench.analysis.history import METRICS

    parser.epilog = "Newest first. Runs of another machine, software or setting stand in lists of their own."
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
        type=options.whole("--last", 1, 10_000),
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
    found = history.gather(runs, metric)
    wanted = options.wanted(args, [one.cell for one in found]) if found else ()
    series = [one for one in found if one.cell in wanted]
    if not series:
        say(f"nothing measured in {args.output_dir} yet: `mnist-bench run` does it, or name another --output-dir")
    if args.format == "table":
        print_lines(lambda width: history.screen(series, metric, args.last, width), args)
    elif series or args.format == "json":  # a document for programs, empty as it may be
        # People read of what was never measured in the notes, once per reason.
        listed = [one for one in series if one.values] if args.format == "md" else series
        table = history.table(listed, metric, args.last)
        page = Document(title=f"{metric.title} over runs", tables=[table], notes=history.notes(series, metric))
        print_result(args, page)
    if series and args.page is not None:
        _write_page(series, warnings, args)
    return 0 if any(one.values for one in series) else options.NOTHING


def _write_page(series: "Sequence[Series]", warnings: Sequence[str], args: argparse.Namespace) -> None:
    from mnist_bench.report import making_script

    with making_script() as script:
        from mnist_bench.report.history import render_history

        page = render_history(series, args.metric, args.last, warnings, script())
    write("--page", args.page, page.encode("utf-8", "backslashreplace"))
    say(f"page: {args.page}")
