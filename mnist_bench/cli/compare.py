"""``mnist-bench compare``: cells of a run against each other, or two runs cell by cell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.errors import UsageError
from mnist_bench.garbage import no_garbage

if TYPE_CHECKING:
    from mnist_bench.comparisons import Comparison, Run, RunComparison
    from mnist_bench.records import Cell

BY = ("device", "variant", "batch_size")  # as in compare.py, which is not imported here: numpy would slow every --help
NOTHING_COMPARABLE = 5


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Never from a cell that failed or was skipped; the accuracy stands beside every speed-up. "
        "Exit code 5: nothing is comparable."
    )
    parser.add_argument("run", metavar="RUN", help="a run: its id, its path, or latest")
    parser.add_argument("other", nargs="?", metavar="RUN", help="a second run: held against the first, cell by cell")
    parser.add_argument(
        "--by",
        choices=BY,
        help="compare the cells of one run by this (default: device where there is another beside the CPU, else "
        "variant, else batch_size)",
    )
    parser.add_argument(
        "--across-machines",
        action="store_true",
        help="compare two runs although machine, software or settings differ; what differs stands above the table",
    )
    options.add_filter(parser)
    options.add_output_dir(parser)
    options.add_format(parser)
    options.add_color(parser)


def execute(args: argparse.Namespace) -> int:
    with no_garbage():
        return _compare_cells(args) if args.other is None else _compare_runs(args)


def _compare_cells(args: argparse.Namespace) -> int:
    from mnist_bench.compare import compare_cells, default_by

    if args.across_machines:
        raise UsageError("--across-machines: compares two runs; name a second one")
    run = _load(args, args.run)
    chosen = _chosen(args, [run])
    by = args.by or default_by(run.rows, chosen)
    if args.by is None:
        print(f"compared by {by}; choose with --by", file=sys.stderr)
    comparison = compare_cells(run, by, chosen)
    _print(comparison, args)
    if comparison.comparable:
        return 0
    _complain(f"nothing comparable by {by} in run {comparison.run_id}: no cell and its reference were both measured")
    return NOTHING_COMPARABLE


def _compare_runs(args: argparse.Namespace) -> int:
    from mnist_bench.compare_runs import compare_runs

    if args.by:
        raise UsageError("--by: compares the cells of one run; two runs are compared cell by cell")
    a, b = _load(args, args.run), _load(args, args.other)
    if a.manifest.run_id == b.manifest.run_id:
        raise UsageError(f"{args.run} and {args.other} are the same run, {a.manifest.run_id}: name another one")
    comparison = compare_runs(a, b, across_machines=args.across_machines, chosen=_chosen(args, [a, b]))
    _print(comparison, args)
    if comparison.differences and not args.across_machines:
        _complain("cells whose conditions differ were not compared; these differ, what moves speed most first:")
        _complain(*(f"  {one.name}: A {one.a}, B {one.b} (moves {one.affects})" for one in comparison.differences))
        _complain("--across-machines compares them all the same")
    if comparison.comparable:
        return 0
    _complain(f"nothing comparable in runs {comparison.run_a} and {comparison.run_b}")
    return NOTHING_COMPARABLE


def _load(args: argparse.Namespace, reference: str) -> Run:
    from mnist_bench.comparisons import Run
    from mnist_bench.store import RunFolder
    from mnist_bench.summary import outline

    folder = RunFolder.open(args.output_dir, reference)
    manifest, trials, sessions = folder.manifest(), folder.trials(), folder.sessions()
    return Run(manifest=manifest, trials=trials, sessions=sessions, rows=outline(manifest, trials, sessions))


def _chosen(args: argparse.Namespace, runs: Sequence[Run]) -> Callable[[Cell], bool] | None:
    """The cells that ``--filter`` wants; a value that no cell has is refused."""
    from mnist_bench.cells import select

    wanted = options.chosen(args)
    if wanted is None:
        return None
    cells = list(dict.fromkeys(row.cell for run in runs for row in run.rows))
    return frozenset(select(cells, wanted)).__contains__


def _print(comparison: Comparison | RunComparison, args: argparse.Namespace) -> None:
    if args.format in ("csv", "json"):
        from mnist_bench import comparison_tables

        write = comparison_tables.to_csv if args.format == "csv" else comparison_tables.to_json
        sys.stdout.write(write(comparison))
        return
    from rich.text import Text

    from mnist_bench import sheets
    from mnist_bench.cli.console import make_console
    from mnist_bench.comparison_sheets import sheet_of_cells, sheet_of_runs
    from mnist_bench.comparisons import Comparison

    sheet = sheet_of_cells(comparison) if isinstance(comparison, Comparison) else sheet_of_runs(comparison)
    if args.format == "md":
        sys.stdout.write(sheets.to_markdown(sheet))
        return
    console = make_console(args, stderr=False)
    # At one go: line by line, thousands of them take five times as long.
    console.print(Text("\n").join(sheets.to_terminal(sheet, console.width)), soft_wrap=True)


def _complain(*lines: str) -> None:
    from mnist_bench.figures import plain

    for line in lines:
        print(f"mnist-bench: {line[: len(line) - len(line.lstrip())]}{plain(line)}", file=sys.stderr)
