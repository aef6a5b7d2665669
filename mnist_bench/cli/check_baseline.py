"""``mnist-bench check RUN --baseline FILE``: a finished run against a committed file; nothing is trained."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import baseline as files
from mnist_bench.cli.check_output import preflight, print_check, write_outputs
from mnist_bench.cli.writing import try_out
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from mnist_bench.analysis.summary import Run
    from mnist_bench.gate.baseline_check import Labels

NOT_HERE = ("budget", "seeds", "timeout", "resume")  # flags of a check that measures


def execute(args: argparse.Namespace) -> int:
    """The check's exit code.

    Args:
        args: ``args.target`` names the run (None: latest), ``args.baseline`` is the Path of the file; ``output_dir``,
            ``filter``, and those of ``check_output.configure``.

    Raises:
        UsageError: the run or the file cannot be used, or the run is not finished.
    """
    from mnist_bench.gate.baseline_check import check_baseline
    from mnist_bench.gate.judge import exit_code, judge
    from mnist_bench.gate.records import Margins
    from mnist_bench.gate.run_figures import refuse_unfinished

    for flag in NOT_HERE:
        if getattr(args, flag, None) is not None:
            raise UsageError(f"--{flag}: --baseline measures nothing: leave it out")
    preflight(args, os.environ)
    folder, run = files.load_run(args, args.target or "latest")
    try_out("check.json:", folder.check_path)
    baseline = files.load(args.baseline)
    chosen = files.chosen(args, [*files.cells_of(run), *(one.cell for one in baseline.cells)])
    refuse_unfinished(run, chosen)
    check = check_baseline(run, baseline, Margins(), _labels(args, run), chosen)
    verdicts = judge(check)
    print_check(check, verdicts, args)
    write_outputs(check, verdicts, args, os.environ, folder.check_path)
    print(f"mnist-bench: check: {folder.check_path}", file=sys.stderr)
    return exit_code(check, verdicts)


def _labels(args: argparse.Namespace, run: Run) -> Labels:
    import random
    from datetime import UTC, datetime

    from mnist_bench import __version__
    from mnist_bench.disk.folder import new_run_id
    from mnist_bench.gate.baseline_check import Labels

    now = datetime.now(UTC)
    return Labels(
        id=new_run_id(now, random.SystemRandom()),
        baseline=str(args.baseline),
        run=f"run {run.manifest.run_id}{', with changes' if run.manifest.environment.dirty else ''}",
        at=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        program_version=__version__,
        matrix_path=_from_root(run.manifest.matrix_path),
    )


def _from_root(matrix: str) -> str | None:
    """A matrix file from the root of its repository, as annotations name files; None: not here, or in none."""
    from mnist_bench.gate import trees

    if not Path(matrix).is_file():  # the run was made elsewhere
        return None
    try:
        return str(trees.find(Path(matrix), Path.cwd(), os.environ)[1])
    except UsageError:  # no git, no repository, or outside of it: an annotation can do without
        return None
