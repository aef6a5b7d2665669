"""``mnist-bench init``: the commented matrix file, to be edited."""

import argparse
import shlex
from pathlib import Path

from mnist_bench.cli import options
from mnist_bench.cli.console import say, try_out, write
from mnist_bench.errors import UsageError

IN_REPOSITORY, SCHEMA = "$schema=./mnist_bench/schema.json", "$schema=./schema.json"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "`mnist-bench plan` then prints its cells and about how long they take; `mnist-bench schema > schema.json` "
        "beside the file lets an editor complete its keys."
    )
    place = options.DEFAULT_MATRIX
    parser.add_argument("--output", type=Path, default=place, metavar="FILE", help=f"write it here (default: {place})")


def execute(args: argparse.Namespace) -> int:
    place: Path = args.output
    if place.exists() or place.is_symlink():
        raise UsageError(f"--output {place}: is there already, and stays as it is: name another with --output FILE")
    try_out("--output", place)
    write("--output", place, options.SHIPPED.read_text("utf-8").replace(IN_REPOSITORY, SCHEMA).encode())
    named = "" if place == options.DEFAULT_MATRIX else f" {shlex.quote(str(place))}"
    say(f"{place}: edit it, then: mnist-bench run{named}")
    return 0
