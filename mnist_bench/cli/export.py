"""``mnist-bench export``: a run in the format of another tool, to stdout or a file."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.console import say, write
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from mnist_bench.analysis.summary import Run
    from mnist_bench.figures import Row

# As in export.py, which is not imported here: numpy would slow every --help.
FORMATS = ("pytest-benchmark", "bmf", "github-action-benchmark", "junit", "csv", "parquet", "tensorboard", "mlflow")
TRACKERS = FORMATS[-2:]  # in trackers.py: of these a run becomes a folder, or is sent to a server


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "What stands in each format, and how the tools read it: docs/exports.md."
    options.add(parser, "run")
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="F", help=f"one of {', '.join(FORMATS)}")
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="the file to write, or a folder for it (default: stdout)"
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="the MLflow server (default: MLFLOW_TRACKING_URI, as MLflow reads it)"
    )
    options.add(parser, "filter", "output_dir")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.export import EXPORTERS

    if args.tracking_uri is not None and args.format != "mlflow":
        raise UsageError("--tracking-uri: names a server for --format mlflow alone")
    if args.format in TRACKERS:
        return _track(args)
    exporter = EXPORTERS[args.format]
    if len(exporter.files) > 1:
        _demand_folder(args, f"{len(exporter.files)} files")
    if exporter.binary and args.output is None and sys.stdout.isatty():
        raise UsageError(f"--format {args.format} is binary: name a file with --output, or redirect stdout")
    run, rows = _wanted(args)
    known = exporter.known(run, rows)
    held = rows if exporter.all_rows else known
    if not known:
        say(f"no cell has {exporter.needs}" + ("" if exporter.all_rows else ": nothing is written"))
    elif len(held) < len(rows):
        say(f"{len(rows) - len(held)} of {len(rows)} cells are left out: without {exporter.needs}")
    if known or exporter.all_rows:
        for name, made in exporter.files.items():
            _write(args.output, name, made(run, held), several=len(exporter.files) > 1)
    return 0 if known else options.NOTHING


def _wanted(args: argparse.Namespace) -> "tuple[Run, list[Row]]":
    """The run and its rows that ``--filter`` wants; says what the reader of the file cannot see in it."""
    run = options.load(args, args.run)
    wanted = options.wanted(args, [row.cell for row in run.rows])
    if run.manifest.status != "complete":
        say(f"the run is {run.manifest.status}: cells or seeds may be missing")
    return run, [row for row in run.rows if row.cell in wanted]


def _track(args: argparse.Namespace) -> int:
    from mnist_bench import trackers

    if args.format == "mlflow" and args.output is not None:
        raise UsageError("--format mlflow writes to a server: name it with --tracking-uri, and leave --output out")
    if args.format == "tensorboard":
        _demand_folder(args, "a file for each cell")
    run, rows = _wanted(args)
    if args.format == "mlflow":
        say(trackers.mlflow(run, rows, args.tracking_uri))
    else:
        for name, data in trackers.tensorboard(run, rows):
            write("--output", args.output / name, data)
        say(f"wrote {args.output / run.manifest.run_id}: tensorboard --logdir {shlex.quote(str(args.output))}")
    if any(row.seeds for row in rows):
        return 0
    say("no cell has a measured figure")
    return options.NOTHING


def _demand_folder(args: argparse.Namespace, made: str) -> None:
    if args.output is None or (args.output.exists() and not args.output.is_dir()):
        raise UsageError(f"--format {args.format} makes {made}: name a folder with --output")


def _write(output: Path | None, name: str, data: bytes, *, several: bool) -> None:
    """To stdout, to a file, or into a folder; for several files it is a folder, there or not."""
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    path = output / name if several or output.is_dir() else output
    write("--output", path, data)
    say(f"wrote {path}")
