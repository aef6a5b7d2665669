"""``mnist-bench merge``: one run from shards."""

from __future__ import annotations

import argparse
import sys

from mnist_bench.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The shards (run --shard K/N) must share matrix, data set, recipe, program version and machine, be complete, "
        "and have no trial in common. They stay as they are; the merged run has an id of its own."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the shards: ids or paths, two or more")
    parser.add_argument(
        "--across-machines",
        action="store_true",
        help="merge shards of different machines or software; the merged run is then comparable with no other",
    )
    options.add_output_dir(parser)
    options.add_format(parser)
    options.add_color(parser)


def execute(args: argparse.Namespace) -> int:
    import random
    from datetime import UTC, datetime

    from mnist_bench.cli.run import exit_code, print_floors, print_rows, shortest
    from mnist_bench.figures import plain
    from mnist_bench.merge import merge
    from mnist_bench.summary import floors, summarise

    merged = merge(
        args.output_dir,
        args.runs,
        across_machines=args.across_machines,
        now=datetime.now(UTC),
        rng=random.SystemRandom(),
    )
    ...
