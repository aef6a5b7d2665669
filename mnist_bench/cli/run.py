"""``mnist-bench run``: executes a matrix and prints its table."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from mnist_bench.analysis.summary import Run
    from mnist_bench.cli.progress import Screen
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.records import Cell, Matrix
    from mnist_bench.run.observer import Observer
    from mnist_bench.run.runner import Options, RunPlan

DEFAULT_MATRIX = Path("benchmarks.yaml")
SUMMARY_LIMIT = 1 << 20  # bytes of a step's summary that GitHub takes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Writes results/<run-id>/; results/latest points to it. Ctrl-C keeps what is finished: --resume latest goes on."
    )
    parser.add_argument(
        "matrix", nargs="?", type=Path, metavar="MATRIX", help=f"the matrix file (default: {DEFAULT_MATRIX})"
    )
    options.add(parser, "filter", "shard", "reference", "allow_plugins")
    parser.add_argument("--solo", action="store_true", help="time trials one by one; speed-ups are then unpaired")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first trial that fails")
    parser.add_argument("--strict-devices", action="store_true", help="a missing device or compiler is a failure")
    options.add_execution(parser, of="a run")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.analysis.summary import missed_floors
    from mnist_bench.cli.console import make_console
    from mnist_bench.cli.progress import RunProgress, Screen
    from mnist_bench.disk.files import try_folder
    from mnist_bench.disk.folder import no_place
    from mnist_bench.machine.lock import alone
    from mnist_bench.run import runner

    errors = make_console(args, stderr=True)
    begin = _resume(args) if args.resume else _new(args)
    try:
        try_folder(args.output_dir)
    except OSError as error:
        raise no_place(args.output_dir, error) from error
    screen = Screen(errors, args)
    with alone(wait=not args.no_wait, tell=errors.print):
        plan = begin(RunProgress(screen))  # a download has its own bar
        with screen:
            run = runner.execute(plan, RunProgress(screen), os.environ)
    missed = missed_floors(run.manifest.matrix, run.rows)
    print_table(run, args)
    print_floors(missed, errors)
    _write_step_summary(plan.folder, screen)
    if not args.quiet:
        errors.print(f"results: {shortest(plan.folder.path)}/results.md (and .csv, .json, epochs.csv)", soft_wrap=True)
    if run.manifest.status != "complete":
        errors.print(f"{run.manifest.status}; go on with: {_resume_command(plan, args)}", soft_wrap=True)
    return exit_code(run, missed)


def _resume_command(plan: RunPlan, args: argparse.Namespace) -> str:
    where = "" if args.output_dir == Path("results") else f" -o {shlex.quote(str(args.output_dir))}"
    plugins = " --allow-plugins" if plan.options.run.allow_plugins else ""
    return f"mnist-bench run --resume {plan.folder.run_id}{where}{plugins}"


def _new(args: argparse.Namespace) -> Callable[[Observer], RunPlan]:
    """Refuses bad input now; the run's folder is made later, when the machine is ours."""
    from mnist_bench import config
    from mnist_bench.run import runner

    path = args.matrix or DEFAULT_MATRIX
    matrix = options.overrides(config.load(path, allow_plugins=args.allow_plugins), args)
    run_options = _options(args, path)
    drafted = runner.draft(matrix, run_options.run)
    return lambda observer: runner.start(drafted, run_options, observer, os.environ)


def _resume(args: argparse.Namespace) -> Callable[[Observer], RunPlan]:
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.errors import UsageError
    from mnist_bench.run import runner

    folder = RunFolder.open(args.output_dir, args.resume)
    if folder.manifest().options.allow_plugins and not args.allow_plugins:
        raise UsageError(f"--resume {args.resume}: this run executes plug-ins: say --allow-plugins again")
    plan = runner.resume(folder, _options(args, args.matrix or DEFAULT_MATRIX))
    _refuse_another_matrix(args, folder)
    return lambda observer: plan


def _refuse_another_matrix(args: argparse.Namespace, folder: RunFolder) -> None:
    """The matrix of a resumed run comes from the run; one that is named all the same must be the same.

    Raises:
        UsageError: it is another one, or a flag asks for other cells, or for another way to execute them.
    """
    from mnist_bench import config
    from mnist_bench.cells import fingerprint
    from mnist_bench.errors import UsageError

    manifest = folder.manifest()
    for name in ("filter", "shard", "solo", "strict_devices"):
        if getattr(args, name) not in (None, False, getattr(manifest.options, name)):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: a resumed run goes on as it was started; leave {flag} out, or start anew")
    given: Matrix = manifest.matrix
    if args.matrix is not None:
        given = config.load(args.matrix, allow_plugins=args.allow_plugins)
    wanted = options.overrides(given, args)
    if args.timeout is not None:
        wanted = replace(wanted, limits=manifest.matrix.limits)
    if fingerprint(wanted) != manifest.matrix_sha256:
        raise UsageError(
            f"--resume {folder.run_id}: the matrix differs from the one that the run was started with "
            f"({manifest.matrix_path}): leave MATRIX, --seeds and --epochs out, or start a new run"
        )


def _options(args: argparse.Namespace, path: Path) -> Options:
    from mnist_bench.cli.console import animates

    found = options.executed(args, matrix_path=str(path), plugin_path=str(path.resolve().parent))
    asked = ("filter", "shard", "allow_plugins", "solo", "strict_devices")
    own = replace(found.run, **{name: getattr(args, name) for name in asked})
    return replace(found, run=own, fail_fast=args.fail_fast, progress=animates(args, sys.stderr))


def print_table(run: Run, args: argparse.Namespace) -> None:
    from mnist_bench.analysis import results
    from mnist_bench.cli.console import make_console, print_document

    match args.format:
        case "json":
            print(results.to_json(run), end="")
        case "csv":
            print(results.table_of(run.rows).csv(), end="")
        case "md":
            print(results.document(run.manifest, run.rows).markdown(), end="")
        case _ if not run.rows:
            make_console(args, stderr=False).print("nothing was measured")
        case _:
            print_document(results.screen(run.rows), args)


def print_floors(missed: Sequence[tuple[Cell, str]], errors: Console) -> None:
    from rich.text import Text

    for _, how in missed:
        errors.print(Text("expect: ", style="bold red") + Text(how), soft_wrap=True)


def shortest(path: Path) -> Path:
    """Relative to where the user stands, if it lies below."""
    return path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path


def _write_step_summary(folder: RunFolder, screen: Screen) -> None:
    """Under GitHub Actions the table stands on the job's page too; where it cannot, the run is as good."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            text = (folder.path / "results.md").read_bytes() + b"\n"
            with Path(path).open("ab") as summary:
                if summary.tell() + len(text) > SUMMARY_LIMIT:
                    raise OSError(f"more than {SUMMARY_LIMIT >> 20} MiB, which GitHub would refuse")
                summary.write(text)
        except OSError as error:
            why = error.strerror or error
            screen.notice(f"GITHUB_STEP_SUMMARY: {why}: the table is not on the job's page", warning=True)


def exit_code(run: Run, missed: Sequence[tuple[Cell, str]]) -> int:
    """The contract's: interrupted 130, a floor missed 3, a failed trial 1, nothing measured 5, else 0."""
    statuses = {row.status for row in run.rows}  # of a cell: the worst of its seeds
    if run.manifest.status == "interrupted":
        return 130
    if missed:
        return 3
    if statuses - {"ok", "skipped"}:
        return 1
    return 0 if any(trial.status == "ok" for trial in run.trials) else 5
