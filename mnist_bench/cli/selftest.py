"""``mnist-bench selftest``: how often the gate alarms at nothing on this machine, and how often it finds a fault."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from mnist_bench.checks.events import CheckEvent
    from mnist_bench.records import Cell, Matrix
    from mnist_bench.selftest.records import CheckResult, Condition, Mislabelled, RunCheck, Slowed
    from mnist_bench.selftest.table import Report

CHECKS = 3
BUDGET = "8m"
MAX_CHECKS = 1000
NOTHING_JUDGED = 5
INTERRUPTED = 130
CONDITIONS = 5  # identical, three slow-downs, mislabelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What this machine can measure, and what a check of it is made of."""

    cells: tuple[Cell, ...]
    plan: tuple[Condition, ...]
    slowed: tuple[Slowed, ...]
    mislabelled: Mislabelled | None


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Takes hours: five kinds of check, each --checks times. Ctrl-C prints what is known so far. How it is done and "
        "how to read it: docs/ci.md."
    )
    options.add_matrix(parser)
    options.add_filter(parser)
    parser.add_argument(
        "--checks", type=_count, default=CHECKS, metavar="N", help="checks of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--budget",
        default=BUDGET,
        metavar="TIME",
        help="the most that a check may take, as in 8m (default: %(default)s)",
    )
    options.add_data_dir(parser)
    options.add_plugins(parser)
    parser.add_argument("--offline", action="store_true", help="download nothing")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for another run on this machine to end")
    options.add_format(parser)
    options.add_color(parser)


def execute(args: argparse.Namespace) -> int:
    from mnist_bench import config
    from mnist_bench.cells import expand, select
    from mnist_bench.checks import budget
    from mnist_bench.cli.console import make_console
    from mnist_bench.machine.lock import alone
    from mnist_bench.selftest.instruments import instrumented

    errors = make_console(args, stderr=True)
    matrix = config.load(args.matrix, allow_plugins=args.allow_plugins)
    cells = select(expand(matrix), options.chosen(args))
    instrumented(matrix, cells)  # refuses what it cannot instrument, before anything is measured
    budget_s = budget.parse(args.budget)
    errors.print(
        f"at most {CONDITIONS * args.checks} checks of {len(cells)} cell{'s' * (len(cells) > 1)}, {args.budget} each: "
        f"{CONDITIONS * args.checks * budget_s / 3600:.1f} h, and the calibration before them",
        soft_wrap=True,
    )
    with alone(wait=not args.no_wait, tell=errors.print), _workplace() as folder:
        report = _measure(args, matrix, cells, budget_s, folder, errors)
    if not report.complete:
        return INTERRUPTED
    return 0 if any(summary.red.trials for summary in report.summaries) else NOTHING_JUDGED


@contextmanager
def _workplace() -> Iterator[Path]:
    """A temporary folder, which stays where a worker has failed: its log is in it."""
    from mnist_bench.errors import WorkerError

    folder, stays = Path(tempfile.mkdtemp(prefix="mnist-bench-selftest-")), False
    try:
        yield folder
    except WorkerError:
        stays = True
        raise
    finally:
        if not stays:
            shutil.rmtree(folder)


def _measure(
    args: argparse.Namespace, matrix: Matrix, cells: Sequence[Cell], budget_s: float, folder: Path, errors: Console
) -> Report:
    """Calibration, then the checks. However these end, what is known is printed: it took hours.

    Raises:
        Interrupted: before the first check.
        BenchError, OSError: what ended the calibration or the checks.
    """
    from mnist_bench.errors import Interrupted

    found = _calibrate(args, matrix, cells, folder)
    results: list[CheckResult] = []
    try:
        for result in _checks(args, found, budget_s, folder):
            results.append(result)  # at once: the next one may fail
    except (Interrupted, KeyboardInterrupt):
        _say("interrupted")
    finally:
        report = _report(args, found, results, budget_s)
        _print(report, args, errors)
    return report


def _calibrate(args: argparse.Namespace, matrix: Matrix, cells: Sequence[Cell], folder: Path) -> Calibrated:
    from mnist_bench import data
    from mnist_bench.interrupts import Interrupts
    from mnist_bench.selftest import conduct
    from mnist_bench.selftest.sessions import Workshop

    root = data.default_root(args.data_dir, os.environ)
    images = data.resolve(matrix.dataset, root=root, offline=args.offline, notify=_say, environ=os.environ)
    with Interrupts() as interrupts:
        workshop = Workshop(
            matrix=matrix,
            data=images,
            folder=folder,
            plugin_path=str(args.matrix.resolve().parent),
            allow_plugins=args.allow_plugins,
            environ=os.environ,
            interrupts=interrupts,
        )
        cells = conduct.measurable(workshop, cells, _say)
        slowed = conduct.slow_down(workshop, cells, _say)
        mislabelled = conduct.mislabel(workshop, cells, _say) if cells else None
    plan = conduct.conditions(workshop, cells, slowed, mislabelled) if cells else ()
    return Calibrated(cells=tuple(cells), plan=plan, slowed=slowed, mislabelled=mislabelled)


def _checks(args: argparse.Namespace, found: Calibrated, budget_s: float, folder: Path) -> Iterator[CheckResult]:
    from mnist_bench.selftest import conduct

    return conduct.checks(
        found.plan,
        found.cells,
        times=args.checks,
        budget_s=budget_s,
        run_check=_gate(args, folder),
        clock=time.monotonic,
        say=_say,
    )


def _report(args: argparse.Namespace, found: Calibrated, results: Sequence[CheckResult], budget_s: float) -> Report:
    from mnist_bench import __version__
    from mnist_bench.machine import environment
    from mnist_bench.selftest.rates import summarise
    from mnist_bench.selftest.table import Report

    machine = environment.describe(os.environ)
    return Report(
        summaries=summarise(found.plan, results),
        slowed=found.slowed,
        mislabelled=found.mislabelled,
        results=tuple(results),
        wanted=args.checks,
        budget_s=budget_s,
        program_version=__version__,
        machine=f"{machine.cpu}, {machine.cores} cores",
    )


def _gate(args: argparse.Namespace, folder: Path) -> RunCheck:
    """The machinery of ``check --against``, below the machine's lock, which is held already."""
    from mnist_bench.selftest.checking import Gate

    return Gate(
        folder=folder,
        root=Path.cwd(),
        matrix_path=args.matrix.resolve(),
        allow_plugins=bool(args.allow_plugins),
        emit=_heard,
    )


def _heard(event: CheckEvent) -> None:
    """Of a check, what its budget is enough for: a selftest that can decide nothing should not take hours."""
    from mnist_bench.checks.events import Forecast
    from mnist_bench.cli.check_progress import forecast

    if isinstance(event, Forecast) and not event.measured:
        _say("; ".join(forecast(event)))


def _print(report: Report, args: argparse.Namespace, errors: Console) -> None:
    from mnist_bench.cli.console import make_console, print_json, print_rows
    from mnist_bench.selftest import table

    if args.format == "json":
        print_json(table.document(report))
        return
    print_rows(table.rows(report), args)
    console = make_console(args, stderr=False) if args.format == "table" else errors
    console.print()
    for note in table.notes(report):
        console.print(note)


def _say(text: str) -> None:
    from mnist_bench.table import plain

    print(f"mnist-bench: {plain(text)}", file=sys.stderr)


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_CHECKS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 to {MAX_CHECKS}")
