"""``mnist-bench profile``: what bounds a step of one cell, and what to try."""

import argparse
import os

from mnist_bench.cells import AXES, expand, one_cell
from mnist_bench.cli import options
from mnist_bench.cli.console import make_console, print_result, say
from mnist_bench.records import RunOptions, Skip


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "A process of its own trains some steps (10 s). Exit code 5: the cell cannot be executed here."
    told = "its id (mlp/cpu/b100/eager), or what no other cell has of it (mlp/b100, or model=mlp,batch_size=100)"
    parser.add_argument("cell", metavar="CELL", help=told)
    options.add(parser, "matrix", *AXES, "epochs", "timeout", "allow_plugins")
    options.add(parser, "data_dir", "output_dir", "offline", "no_wait", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.labs import profile
    from mnist_bench.labs.selftest import Warned
    from mnist_bench.machine.noise import alone

    path, matrix = options.read_matrix(args)
    cell = one_cell(expand(matrix), args.cell)
    own = RunOptions(plugin_path=str(path.resolve().parent), allow_plugins=args.allow_plugins)
    asked = options.executed(args, str(path), own)
    with alone(wait=not args.no_wait, tell=say), make_console(args, stderr=True).status(f"profiling {cell.id} ..."):
        found = profile.carry_out(matrix, cell, asked, Warned(say), os.environ)
    if isinstance(found, profile.Result):
        print_result(args, profile.document(found), lambda: profile.to_json(found))
        return 0
    say(f"{cell.id}: {found.reason} (log: {args.output_dir / profile.FOLDER})")
    return options.NOTHING if isinstance(found, Skip) else 1
