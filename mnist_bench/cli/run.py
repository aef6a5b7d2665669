"""``mnist-bench run``: executes a matrix and prints its table."""

import argparse
import math
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from mnist_bench.cells import AXES, entries, select
from mnist_bench.cli import options
from mnist_bench.cli.console import add_to_summary, make_console, print_result
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import UsageError
from mnist_bench.records import Manifest, Matrix, Race, RunOptions
from mnist_bench.table import duration, plain

if TYPE_CHECKING:
    from mnist_bench.analysis.conclusions import Answer
    from mnist_bench.analysis.summary import Run
    from mnist_bench.running.cluster import Fleets
    from mnist_bench.running.group import Observer
    from mnist_bench.running.runner import Options, RunPlan

AS_STARTED = ("filter", "shard", "solo", "strict_devices")  # what a resumed run has decided already


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Writes results/<run-id>/; results/latest points to it. Ctrl-C keeps what is finished: --resume latest goes on."
    )
    options.add(parser, "matrix", *AXES, "filter", "shard", "timing_seconds", "reference", "allow_plugins")
    parser.add_argument("--solo", action="store_true", help="time trials one by one; speed-ups are then unpaired")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first trial that fails")
    parser.add_argument("--strict-devices", action="store_true", help="a missing device or compiler is a failure")
    options.add(parser, "executor", "ray_address")
    here = "an address of this machine and a port: where others join trials on several (`mnist-bench join`)"
    parser.add_argument("--rendezvous", type=options.rendezvous, metavar="HOST:PORT", help=here)
    options.add_execution(parser, of="a run")


def execute(args: argparse.Namespace) -> int:
    if args.rendezvous and args.executor == "ray":
        raise UsageError("--rendezvous: a group of a Ray cluster stays on one node: leave --executor ray out")
    errors = make_console(args, stderr=True)
    plan, run = carry_out(_resume(args) if args.resume else begin(args, *options.read_matrix(args)), args, errors)
    code = conclude(run, args, errors)
    add_to_summary(lambda room: (plan.folder.path / "results.md").read_bytes())
    if not args.quiet:
        say_where(plan.folder, errors, "results")
        if run.manifest.status == "complete" and args.format == "table" and code != options.NOTHING:
            errors.print("\n".join(_next(run, args)), soft_wrap=True)
    if run.manifest.status != "complete":
        again = options.resuming(args, plan.folder.run_id)
        errors.print(f"{run.manifest.status}; go on with: {again}", soft_wrap=True)
    return code


def carry_out(
    begin: "Callable[[Observer], RunPlan]", args: argparse.Namespace, errors: Console, **more: Any
) -> "tuple[RunPlan, Run]":
    """Executes a run, alone on this machine or on a cluster, and tells of it on ``errors`` as ``args`` want to hear.

    Args:
        more: for ``runner.execute``.
    """
    from mnist_bench.cli.progress import RunProgress, Screen
    from mnist_bench.running import cluster, runner

    with ExitStack() as held:
        fleets = machines(args, errors, held)
        if fleets:
            more["executor"] = partial(cluster.executor, fleets)
        progress = RunProgress(held.enter_context(Screen(errors, args)), here=fleets is None)
        plan = begin(progress)
        return plan, runner.execute(plan, progress, os.environ, **more)


def machines(args: argparse.Namespace, errors: Console, held: ExitStack) -> "Fleets | None":
    """What makes a fleet of the cluster that measures; None: this machine, which is then ours until ``held`` ends.

    Raises:
        UsageError: there is no such cluster.
    """
    from mnist_bench.machine.noise import alone

    if getattr(args, "executor", "local") == "ray":
        from mnist_bench.running import fleet

        return fleet.connect(args.ray_address)
    if getattr(args, "ray_address", None):
        raise UsageError("--ray-address: only with --executor ray")
    held.enter_context(alone(wait=not args.no_wait, tell=errors.print))
    return None


def begin(
    args: argparse.Namespace, path: Path, matrix: Matrix, race: Race | None = None
) -> "Callable[[Observer], RunPlan]":
    """Refuses bad input now; the run's folder is made later, when the machine is ours.

    Args:
        path: where the matrix came from.
    """
    from mnist_bench.running import runner

    run_options = _options(args, path, race)
    groups = runner.draft(matrix, run_options.run)
    return lambda observer: runner.start(matrix, groups, run_options, observer, os.environ)


def _resume(args: argparse.Namespace) -> "Callable[[Observer], RunPlan]":
    folder = RunFolder.open(args.output_dir, args.resume)
    manifest = folder.manifest()
    if manifest.options.race:
        raise UsageError(f"--resume {folder.run_id}: is a race: mnist-bench race --resume {folder.run_id}")
    refuse_elsewhere(folder, args)
    _refuse_another_matrix(args, manifest)
    return resume(args, folder)


def refuse_elsewhere(folder: RunFolder, args: argparse.Namespace) -> None:
    """Raises UsageError where what goes on began on other machines."""
    begun = folder.trials() or folder.sessions()
    if begun and bool(folder.manifest().nodes) != (args.executor == "ray"):
        where = ("this machine", "local") if args.executor == "ray" else ("a Ray cluster", "ray")
        raise UsageError(f"--resume {folder.run_id}: began on {where[0]} and goes on there: --executor {where[1]}")


def resume(args: argparse.Namespace, folder: RunFolder) -> "Callable[[Observer], RunPlan]":
    """Refuses a folder that cannot be gone on with now."""
    from mnist_bench.running import runner

    plan = runner.resume(folder, _options(args, options.DEFAULT_MATRIX))
    return lambda observer: plan


def _refuse_another_matrix(args: argparse.Namespace, manifest: Manifest) -> None:
    """The matrix of a resumed run comes from the run; one that is named all the same must be the same.

    Raises:
        UsageError: it is another one, or a flag asks for other cells, or for another way to execute them.
    """
    changed = [name for name in AS_STARTED if getattr(args, name) != getattr(manifest.options, name)]
    options.refuse(args, [*changed, "data_dir"], "a resumed run goes on as it was started")
    wanted = options.read_matrix(args)[1] if args.matrix else options.overrides(manifest.matrix, args)
    if args.timeout is not None:
        wanted = replace(wanted, limits=manifest.matrix.limits)
    before = entries(manifest.matrix)
    for key, value in entries(wanted).items():
        if value != before[key]:
            raise UsageError(
                f"--resume {manifest.run_id}: {key}: {value}, and {before[key]} in its own matrix: leave it out, or "
                "start a new run"
            )


def _options(args: argparse.Namespace, path: Path, race: Race | None = None) -> "Options":
    own = {name: getattr(args, name) for name in (*AS_STARTED, "allow_plugins") if name in args}
    return options.executed(args, str(path), RunOptions(plugin_path=str(path.resolve().parent), race=race, **own))


def conclude(run: "Run", args: argparse.Namespace, errors: Console) -> int:
    """Prints the table of a run and the floors that it misses; its exit code.

    Interrupted 130, a floor missed 3, a failed trial 1, nothing measured 5, else 0.
    """
    missed = tell(run, args, errors)
    if run.manifest.status == "interrupted":
        return 130
    if missed:
        return 3
    if {row.status for row in run.rows} - {"ok", "skipped"}:  # of a cell: the worst of its seeds
        return 1
    return 0 if any(trial.status == "ok" for trial in run.trials) else options.NOTHING


def tell(run: "Run", args: argparse.Namespace, errors: Console) -> bool:
    """Prints the table of a run and the floors that it misses; whether it misses any."""
    from mnist_bench import figures
    from mnist_bench.analysis import results
    from mnist_bench.analysis.summary import missed_floors

    manifest, rows, said = run.manifest, run.rows, results.answers(run)
    if args.format == "table" and not rows:
        make_console(args, stderr=False).print("nothing was measured")
    else:
        people = results.document(manifest, rows, said) if args.format == "md" else results.screen(rows, said)
        print_result(args, people, lambda: results.to_json(run, said), lambda: figures.table_of(rows).csv())
    missed = missed_floors(manifest.matrix, rows)
    for _, message in missed:
        errors.print(Text("expect: ", style="bold red") + Text(plain(message)), soft_wrap=True)
    return bool(missed)


def _next(run: "Run", args: argparse.Namespace) -> Iterator[str]:
    """What to type next: to be told more of the model of which that takes least, and to see what there is."""
    from mnist_bench.analysis import results

    untold = [] if args.resume else [_telling(run, one) for one in results.answers(run) if one.seeds]
    for seconds, model, flags in sorted(untold)[:1]:
        command = shlex.join(["mnist-bench", *args.argv, *flags])
        yield f"to tell more of {plain(model)}, about {duration(seconds)}: {command}"
    yield options.reporting(args, args.resume or "latest")


def _telling(run: "Run", answer: "Answer") -> tuple[float, str, list[str]]:
    """About how many seconds it takes to tell what an answer could not, and the flags beside those of this run.

    Each seed is timed as long as those so far.
    """
    seeds, matrix = answer.seeds or 1, run.manifest.matrix
    pairs = ((key, getattr(cell, key)) for key in ("model", "device", "batch_size") for cell in answer.untold)
    wanted = ",".join(dict.fromkeys(f"{key}={value}" for key, value in pairs))
    timing_s = math.ceil(matrix.timing.budget_seconds * seeds / len(matrix.seeds))
    cells = select([*run.cells], wanted)
    seconds = sum(seeds * (row["total_s"] or 0.0) + timing_s for row in run.rows if row.seeds and row.cell in cells)
    return seconds, answer.model, ["--seeds", f"{seeds}", "--timing-seconds", f"{timing_s}", "--filter", wanted]


def say_where(folder: RunFolder, errors: Console, what: str) -> None:
    """Where the tables are; relative to where the user stands, if they lie below."""
    errors.print(f"{what}: {shortest(folder.path)}/results.md (and .csv, .json, epochs.csv)", soft_wrap=True)


def shortest(path: Path) -> Path:
    """Relative to where the user stands, if it lies below."""
    return path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path
