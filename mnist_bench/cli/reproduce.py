"""``mnist-bench reproduce``: runs the tutorial's experiments and prints them beside the published figures."""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.console import make_console, print_result
from mnist_bench.disk.files import write_atomically
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import UsageError
from mnist_bench.records import RunOptions

if TYPE_CHECKING:
    from mnist_bench.running.group import Observer
    from mnist_bench.running.runner import Options, RunPlan

    Pair = tuple[RunPlan, RunPlan]  # of the tutorial recipe and of the standard one: one run has one recipe

OWN = ("seeds", "epochs", "pipeline", "data_dir")  # what a resumed reproduction has decided already


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Ten seeds of ten epochs (ten at most). Needs MNIST. Writes two runs, of the tutorial recipe and of the "
        "standard one, and into the first reproduction.md, .svg and .png. Ctrl-C keeps what is finished."
    )
    parser.add_argument(
        "--pipeline",
        choices=("resident", "tutorial"),
        help="images resident in memory, or the tutorial's own loops, which train the same, slower (default: resident)",
    )
    options.add_execution(parser, of="a reproduction")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.analysis.summary import Run
    from mnist_bench.cli.progress import RunProgress, Screen
    from mnist_bench.labs.reproduce import Reproduction, document, page, plot, to_json
    from mnist_bench.machine.noise import alone
    from mnist_bench.report import vega
    from mnist_bench.running import runner

    errors = make_console(args, stderr=True)
    begin = _resume(args) if args.resume else _new(args)
    with alone(wait=not args.no_wait, tell=errors.print):
        with Screen(errors, args) as screen:
            pair = begin(RunProgress(screen))
        for plan in pair:  # interrupted, the second waits for ``--resume``
            with Screen(errors, args) as screen:
                if runner.execute(plan, RunProgress(screen), os.environ).manifest.status != "complete":
                    break
    folder, beside = (plan.folder for plan in pair)
    result = Reproduction(tutorial=Run.read(folder), standard=Run.read(beside))
    if result.models:
        files = {"md": page(result).encode(), **vega.images(plot(result.models))}
        with folder.lock():
            for suffix, content in files.items():
                write_atomically(folder.path / f"reproduction.{suffix}", content)
        errors.print(f"reproduction: {folder.path}/reproduction.md (and .svg, .png)", soft_wrap=True)
    print_result(args, document(result), lambda: to_json(result))
    if {result.tutorial.manifest.status, result.standard.manifest.status} != {"complete"}:
        errors.print(f"interrupted; go on with: {options.resuming(args, folder.run_id)}", soft_wrap=True)
        return 130
    return 1 if result.missing else 0  # a verdict is an answer, not a failure


def _new(args: argparse.Namespace) -> "Callable[[Observer], Pair]":
    """Refuses bad input now; the folders are made later, when the machine is ours."""
    from mnist_bench.labs import reproduce
    from mnist_bench.running import runner

    published = reproduce.tutorial_matrix(args.pipeline or "resident")
    tutorial = options.overrides(published, args)
    if tutorial.epochs > published.epochs:
        raise UsageError(f"--epochs: {tutorial.epochs} epochs are more than the {published.epochs} that were published")

    own = _options(args)

    def begin(observer: "Observer") -> "Pair":
        plans: list[RunPlan] = []
        for matrix in (reproduce.standard_matrix(tutorial), tutorial):  # `latest` is the run that names the other
            run = replace(own.run, companion=plans[0].folder.run_id if plans else None)
            plans.append(runner.start(matrix, runner.draft(matrix, run), replace(own, run=run), observer, os.environ))
        return plans[1], plans[0]

    return begin


def _resume(args: argparse.Namespace) -> "Callable[[Observer], Pair]":
    from mnist_bench.running import runner

    options.refuse(args, OWN, "a resumed reproduction goes on with its own")
    folder = RunFolder.open(args.output_dir, args.resume)
    companion = folder.manifest().options.companion
    if companion is None:
        raise UsageError(f"--resume {args.resume}: is no reproduction: `mnist-bench reproduce` makes one")
    beside = RunFolder.open(folder.path.parent, companion)
    pair = runner.resume(folder, _options(args)), runner.resume(beside, _options(args))
    return lambda observer: pair


def _options(args: argparse.Namespace) -> "Options":
    return options.executed(args, "mnist-bench reproduce", RunOptions(score_both=True))
