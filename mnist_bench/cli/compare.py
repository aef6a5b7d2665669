"""``mnist-bench compare``: cells of a run against each other, or two runs cell by cell."""

import argparse
from typing import TYPE_CHECKING

from mnist_bench.cells import variant_of
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
        comparison = _of_cells(args) if args.other is None else _of_runs(args)
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


def _of_cells(args: argparse.Namespace) -> "Comparison":
    from mnist_bench.analysis.compare import compare_cells, default_by

    if args.across_machines:
        raise UsageError("--across-machines: compares two runs; name a second one")
    run = options.load(args, args.run)
    chosen = options.wanted(args, run.cells).__contains__
    by = args.by or default_by(run, chosen)
    if args.by is None:
        say(f"compared by {by}; choose with --by")
    reference = None if args.reference is None else variant_of(run.manifest.matrix, args.reference).name
    return compare_cells(run, by, chosen, reference=reference)


def _of_runs(args: argparse.Namespace) -> "Comparison":
    from mnist_bench.analysis.compare import compare_runs

    if args.by or args.reference:
        raise UsageError("--by, --reference: of the cells of one run; two runs are compared cell by cell")
    a, b = options.load(args, args.run), options.load(args, args.other)
    if a.manifest.run_id == b.manifest.run_id:
        raise UsageError(f"{args.run} and {args.other} are the same run, {a.manifest.run_id}: name another one")
    chosen = options.wanted(args, [*a.cells, *b.cells]).__contains__
    return compare_runs(a, b, across_machines=args.across_machines, chosen=chosen)
