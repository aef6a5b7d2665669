"""``mnist-bench selftest``: how often the gate alarms at nothing on this machine, and how often it finds a fault."""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cells import expand, select
from mnist_bench.cli import options
from mnist_bench.cli.console import print_result, say
from mnist_bench.errors import WorkerError
from mnist_bench.records import Matrix
from mnist_bench.running.process import Interrupts

if TYPE_CHECKING:
    from mnist_bench.gate import sides
    from mnist_bench.labs.selftest import Experiment


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Takes hours: five kinds of check, each --checks times. Ctrl-C prints what is known."
    options.add(parser, "matrix", "filter")
    count, checks = options.whole("--checks", 1, 1000), "checks of each kind (default: %(default)s)"
    parser.add_argument("--checks", type=count, default=3, metavar="N", help=checks)
    budget = "the most that a check may take, as in 8m (default: %(default)s)"
    parser.add_argument("--budget", default="8m", metavar="TIME", help=budget)
    options.add(parser, "data_dir", "allow_plugins", "offline", "no_wait", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.gate.plan import parse_budget
    from mnist_bench.labs.faults import Bench, instrumented
    from mnist_bench.labs.selftest import document, measure_gate, to_json
    from mnist_bench.machine.noise import alone

    path, matrix = options.read_matrix(args)
    cells = select(expand(matrix), args.filter)
    instrumented(matrix, cells)  # refuses what it cannot instrument, before anything is measured
    budget_s, most = parse_budget(args.budget), 5 * args.checks  # identical, three slow-downs, mislabelled
    hours = f"{most * budget_s / 3600:.1f} h"
    say(f"at most {most} checks of {len(cells)} cell{'s' * (len(cells) > 1)}: {hours}, and the calibration before them")
    found: Sequence[Experiment] | None = None
    with alone(wait=not args.no_wait, tell=say), ExitStack() as undone, Interrupts() as interrupts:
        folder = Path(tempfile.mkdtemp(prefix="mnist-bench-selftest-"))
        undone.callback(shutil.rmtree, folder)
        bench = Bench(gate=_gate(args, path, matrix, folder, interrupts), matrix=matrix, say=say)
        try:
            for known in measure_gate(bench, cells, args.checks, budget_s):
                found = known
        except WorkerError:
            undone.pop_all()  # its log is in the folder
            raise
        finally:  # however it ends, what is known is printed: it took hours
            if found is not None:
                print_result(
                    args, document(found, args.checks), lambda: to_json(found, args.checks, budget_s, os.environ)
                )
    return 0 if any(one.reds for one in found or ()) else options.NOTHING


def _gate(args: argparse.Namespace, path: Path, matrix: Matrix, folder: Path, interrupts: Interrupts) -> "sides.Bench":
    """The user's own side twice."""
    from mnist_bench import data
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.gate.sides import Bench, Side
    from mnist_bench.labs.selftest import Warned

    root = data.default_root(args.data_dir, os.environ)
    request = data.Request(root=root, offline=args.offline, notify=say, environ=os.environ)
    plain = Side(
        name="A",
        label="A",
        root=Path.cwd(),
        matrix_path=path.resolve(),
        matrix=matrix,
        environ=os.environ,
        data=data.resolve(matrix.dataset, request),
    )
    (folder / "logs").mkdir()
    return Bench(
        folder=RunFolder(folder),
        a=plain,
        b=replace(plain, name="B"),
        clock=time.monotonic,
        interrupts=interrupts,
        observer=Warned(say),
        allow_plugins=args.allow_plugins,
    )
