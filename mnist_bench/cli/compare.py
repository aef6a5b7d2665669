"""``mnist-bench compare``: cells of a run against each other, or two runs cell by cell."""

import argparse
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.console import print_result, say
from mnist_bench.disk.folder import no_garbage
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from mnist_bench.analysis.compare import Comparison

# As in analysis/compare.py, which is not imported here: numpy would slow every --help.
BY = ("device", "variant", "batch_size", "model")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Never from a cell that failed or was skipped. Exit code 5: nothing is comparable."
    options.add(parser, "run")
    parser.add_argument("other", nargs="?", metavar="RUN", help="a second run: held against the first, cell by cell")
    by = "compare the cells of one run by this (default: device where there are several, else variant, else batch_size)"
    parser.add_argument("--by", choices=BY, help=by)
    parser.add_argument(
        "--across-machines",
        action="store_true",
        help="compare two runs although machine, software or settings differ; what differs stands above the table",
    )
    options.add(parser, "reference", "filter", "output_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.analysis import compare

    with no_garbage():
        comparison = _asked(args)
        lines, document = compare.lines_table(comparison), compare.document(comparison)
        print_result(args, document, lambda: compare.to_json(comparison), lines.csv)
    if comparison.differences and not args.across_machines:
        say("cells whose conditions differ were not compared; these differ, what moves speed most first:")
        say(*(f"  {one.name}: A {one.a}, B {one.b} (moves {one.affects})" for one in comparison.differences))
        say("--across-machines compares them all the same")
    if comparison.comparable:
        if args.other is None and args.format == "table":
            say(options.reporting(args, args.run))
        return 0
    why = "" if comparison.differences else ": no cell and its reference were both measured"
    say(f"nothing comparable by {comparison.by} in {' and '.join(comparison.runs)}{why}")
    return options.NOTHING


def _asked(args: argparse.Namespace) -> "Comparison":
    from mnist_bench.analysis.compare import compare_as_asked

    run, other = options.load(args, args.run), args.other and options.load(args, args.other)
    if other and run.manifest.run_id == other.manifest.run_id:
        raise UsageError(f"{args.run} and {args.other} are the same run, {run.manifest.run_id}: name another one")
    chosen = options.wanted(args, [*run.cells, *(other.cells if other else ())]).__contains__
    across = args.across_machines
    found = compare_as_asked(run, other, args.by, args.reference, across_machines=across, chosen=chosen)
    if found.by != "run" and args.by is None:
        say(f"compared by {found.by}; choose with --by")
    return found
