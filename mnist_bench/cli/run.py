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

    from mnist_bench.analysis.summary import FloorResult, Run
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.events import Observer
    from mnist_bench.records import Manifest, Matrix, Trial
    from mnist_bench.runner import Options

DEFAULT_MATRIX = Path("benchmarks.yaml")


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
    from mnist_bench import runner
    from mnist_bench.analysis.summary import Run, floors
    from mnist_bench.cli.console import make_console
    from mnist_bench.cli.terminal import Lines, watch
    from mnist_bench.machine.lock import alone

    errors = make_console(args, stderr=True)
    begin = _resume(args) if args.resume else _new(args)
    with alone(wait=not args.no_wait, tell=errors.print):
        folder, run_options = begin(Lines(errors, quiet=args.quiet, verbose=args.verbose))  # a download has its own bar
        with watch(errors, args) as emit:
            manifest = runner.execute(folder, run_options, emit, os.environ)
    run = Run.read(folder)
    results = floors(manifest.matrix, run.rows)
    print_table(run, args)
    print_floors(results, errors)
    _write_step_summary(folder)
    if not args.quiet:
        errors.print(f"results: {shortest(folder.path)}/results.md (and .csv, .json, epochs.csv)", soft_wrap=True)
    if manifest.status != "complete":
        errors.print(f"{manifest.status}; go on with: {_resume_command(manifest, args)}", soft_wrap=True)
    return exit_code(manifest, run.trials, results)


def _resume_command(manifest: Manifest, args: argparse.Namespace) -> str:
    where = "" if args.output_dir == Path("results") else f" -o {shlex.quote(str(args.output_dir))}"
    plugins = " --allow-plugins" if manifest.options.allow_plugins else ""
    return f"mnist-bench run --resume {manifest.run_id}{where}{plugins}"


def _new(args: argparse.Namespace) -> Callable[[Observer], tuple[RunFolder, Options]]:
    """Refuses bad input now; the run's folder is made later, when the machine is ours."""
    from mnist_bench import config, runner

    path = args.matrix or DEFAULT_MATRIX
    matrix = options.overrides(config.load(path, allow_plugins=args.allow_plugins), args)
    run_options = _options(args, path)
    runner.plan(matrix, run_options)

    def begin(emit: Observer) -> tuple[RunFolder, Options]:
        return runner.start(matrix, run_options, emit, os.environ), run_options

    return begin


def _resume(args: argparse.Namespace) -> Callable[[Observer], tuple[RunFolder, Options]]:
    from mnist_bench import runner
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.errors import UsageError

    folder = RunFolder.open(args.output_dir, args.resume)
    if folder.manifest().options.allow_plugins and not args.allow_plugins:
        raise UsageError(f"--resume {args.resume}: this run executes plug-ins: say --allow-plugins again")
    run_options = runner.resumed(folder, _options(args, args.matrix or DEFAULT_MATRIX))
    _refuse_another_matrix(args, folder)
    return lambda emit: (folder, run_options)


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
        given = config.load(args.matrix, allow_plugins=bool(manifest.options.allow_plugins))
    wanted = options.overrides(given, args)
    timeout_only = manifest.matrix.limits if args.timeout is not None else wanted.limits
    if fingerprint(_with_limits(wanted, timeout_only)) != manifest.matrix_sha256:
        raise UsageError(
            f"--resume {folder.run_id}: the matrix differs from the one that the run was started with "
            f"({manifest.matrix_path}): leave MATRIX, --seeds and --epochs out, or start a new run"
        )


def _with_limits(matrix: Matrix, limits: object) -> Matrix:
    return replace(matrix, limits=limits)  # type: ignore[arg-type]


def _options(args: argparse.Namespace, path: Path) -> Options:
    from mnist_bench.cli.console import animates

    return replace(
        options.executed(args, matrix_path=str(path), plugin_path=str(path.resolve().parent)),
        filter=args.filter,
        shard=args.shard,
        allow_plugins=args.allow_plugins,
        solo=args.solo,
        strict_devices=args.strict_devices,
        fail_fast=args.fail_fast,
        progress=animates(args, sys.stderr),
    )


def print_table(run: Run, args: argparse.Namespace) -> None:
    from mnist_bench.analysis import results
    from mnist_bench.cli.console import make_console, print_document

    match args.format:
        case "json":
            print(results.to_json(run.manifest, run.rows), end="")
        case "csv":
            print(results.to_csv(run.rows), end="")
        case "md":
            print(results.document(run.manifest, run.rows).markdown(), end="")
        case _ if not run.rows:
            make_console(args, stderr=False).print("nothing was measured")
        case _:
            print_document(results.screen(run.rows), args)


def print_floors(results: Sequence[FloorResult], errors: Console) -> None:
    from rich.text import Text

    for result in results:
        if result.verdict == "missed":
            errors.print(Text("expect: ", style="bold red") + Text(result.message), soft_wrap=True)


def shortest(path: Path) -> Path:
    """Relative to where the user stands, if it lies below."""
    return path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path


def _write_step_summary(folder: RunFolder) -> None:
    """Under GitHub Actions the table stands on the job's page too."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write((folder.path / "results.md").read_text("utf-8") + "\n")


def exit_code(manifest: Manifest, trials: Sequence[Trial], results: Sequence[FloorResult]) -> int:
    """The contract's: interrupted 130, a floor missed 3, a failed trial 1, nothing measured 5, else 0."""
    if manifest.status == "interrupted":
        return 130
    if any(result.verdict == "missed" for result in results):
        return 3
    if any(trial.status not in ("ok", "skipped") for trial in trials):
        return 1
    return 0 if any(trial.status == "ok" for trial in trials) else 5
