"""``mnist-bench join``: this machine is one of several that train a cell together."""

import argparse
import os

from mnist_bench.cli import options
from mnist_bench.cli.console import say
from mnist_bench.errors import BenchError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Ctrl-C ends it. Whoever reaches the ports of a run can have code executed: a trusted network alone."
    )
    where = "of `mnist-bench run --rendezvous HOST:PORT` on the other machine"
    parser.add_argument("rendezvous", type=options.rendezvous, metavar="HOST:PORT", help=where)
    options.add(parser, "data_dir")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.data import default_root
    from mnist_bench.running.process import take_part

    environ = {**os.environ, "MNIST_BENCH_DATA": str(default_root(args.data_dir, os.environ))}
    say(f"joins the trials that meet at {args.rendezvous}; Ctrl-C ends it")
    while (code := take_part(args.rendezvous, environ)) == 0:
        continue
    raise BenchError(f"join: the launcher of this machine's processes ended with {code}: what it said stands above")
