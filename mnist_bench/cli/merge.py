"""``mnist-bench merge``: one run from shards."""

import argparse

from mnist_bench.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Complete shards (run --shard K/N) of one matrix, data set, program version and machine."
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the shards: ids or paths, two or more")
    parser.add_argument(
        "--across-machines",
        action="store_true",
        help="merge shards of different machines or software; the merged run is then comparable with no other",
    )
    options.add(parser, "output_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.cli.console import make_console
    from mnist_bench.cli.run import conclude, say_where
    from mnist_bench.running.merge import merge

    errors = make_console(args, stderr=True)
    folder, run, notes = merge(args.output_dir, args.runs, across_machines=args.across_machines)
    code = conclude(run, args, errors)
    for note in notes:
        errors.print(note, soft_wrap=True)
    say_where(folder, errors, "merged")
    return code
