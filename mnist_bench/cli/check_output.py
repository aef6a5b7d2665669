"""What ``check`` prints and writes when it is done, holds a run against a baseline, or judges a stored check again."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import baseline as baselines
from mnist_bench.cli import options
from mnist_bench.cli.console import print_lines, say, try_out, write
from mnist_bench.errors import BenchError, UsageError

if TYPE_CHECKING:
    from mnist_bench.gate.evidence import Check
    from mnist_bench.gate.judge import Verdict

SUMMARY = "GITHUB_STEP_SUMMARY"
ACTIONS = "GITHUB_ACTIONS"
LEAST_SUMMARY = 32_000  # bytes; a page has its head whatever there is to say
NOT_OF_A_RUN = ("budget", "seeds", "timeout", "resume")  # flags of a check that measures
MOST_BYTES = 1 << 28  # of a check.json
MOST_DISAGREEMENTS = 20  # that are named
DISAGREES = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """``args.junit``, ``args.comment`` (Paths or None), ``args.format``, ``args.color``."""
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML there: a test case per cell")
    parser.add_argument(
        "--comment", type=Path, metavar="FILE", help="write Markdown there, for a comment on a pull request"
    )
    options.add(parser, "format", "color")


def preflight(args: argparse.Namespace) -> None:
    """Whether the files that were asked for can be written; makes the folders. Call it before anything is measured.

    Raises:
        UsageError: they cannot; the message names the flag.
    """
    targets = {"--junit": args.junit, "--comment": args.comment}
    given = {flag: path for flag, path in targets.items() if path is not None}
    for flag, path in given.items():
        try_out(flag, path)
    if len({path.resolve() for path in given.values()}) < len(given):
        raise UsageError(f"{' and '.join(given)} name the same file: name two")


def tell(check: Check, verdicts: Sequence[Verdict], args: argparse.Namespace, result: Path | None = None) -> int:
    """Prints the verdicts and writes all that was asked for; the exit code.

    The table comes first, since annotations follow it. A file that cannot be written does not keep the others from it.

    Args:
        result: where check.json goes; None: it is there already.

    Raises:
        BenchError: some could not be written, although they could when ``preflight`` tried; all are named.
    """
    from mnist_bench.gate.judge import exit_code

    _print(check, verdicts, args)
    failed = []
    for action in _actions(check, verdicts, args, result):
        try:
            action()
        except UsageError as error:
            failed.append(str(error))
    if failed:
        raise BenchError("\n".join(failed))
    return exit_code(check, verdicts)


def against_baseline(args: argparse.Namespace) -> int:
    """``check RUN --baseline FILE``: a finished run against a committed file; nothing is trained.

    Raises:
        UsageError: the run or the file cannot be used, or the run is not finished.
    """
    from msgspec.structs import replace

    from mnist_bench.analysis.summary import Run
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.gate.baseline import cells_of, held_against, refuse_unfinished
    from mnist_bench.gate.judge import judge

    for flag in NOT_OF_A_RUN:
        if getattr(args, flag, None) is not None:
            raise UsageError(f"--{flag}: --baseline measures nothing: leave it out")
    preflight(args)
    folder = RunFolder.open(args.output_dir, args.target or "latest")
    run = Run.read(folder)
    try_out("check.json:", folder.check_path)
    baseline = baselines.load(args.baseline)
    chosen = options.wanted(args, [*cells_of(run), *(one.cell for one in baseline.cells)]).__contains__
    refuse_unfinished(run, chosen)
    found = held_against(run, baseline, str(args.baseline), chosen)
    check = replace(found, matrix_path=_from_root(found.matrix_path))
    code = tell(check, judge(check), args, folder.check_path)
    say(f"check: {folder.check_path}")
    return code


def replay(args: argparse.Namespace) -> int:
    """``check --replay FILE``: the check's exit code where every verdict follows from its evidence; else 1.

    Raises:
        UsageError: the file cannot be read, or is no check of this version.
    """
    from mnist_bench.gate.outputs import decode, disagreements

    preflight(args)
    check, verdicts = baselines.decoded(args.replay, MOST_BYTES, decode, "name a check.json as a check wrote it")
    if found := list(disagreements(check, verdicts)):
        _complain(args, check, found)
        return DISAGREES
    code = tell(check, verdicts, args)
    say(f"replayed: every verdict follows from the samples of {args.replay}")
    return code


def _from_root(matrix: str) -> str:
    """A matrix file from the root of its repository, as annotations name files, where there is one here."""
    from mnist_bench.gate import trees

    if not Path(matrix).is_file():  # the run was made elsewhere
        return matrix
    try:
        return str(trees.find(Path(matrix), Path.cwd(), os.environ)[1])
    except UsageError:  # no git, no repository, or outside of it: an annotation can do without
        return matrix


def _complain(args: argparse.Namespace, check: Check, found: list[str]) -> None:
    from mnist_bench import __version__

    places = f"{len(found)} place{'s' if len(found) != 1 else ''}"
    more = [f"  and {len(found) - MOST_DISAGREEMENTS} more"] if len(found) > MOST_DISAGREEMENTS else []
    written = check.program_version
    why = (
        "the file was edited, or the judge is not deterministic"
        if written == __version__
        else f"mnist-bench {written} wrote the file, this is {__version__}: replay it with that version"
    )
    head = f"{args.replay}: judged again, it differs from what is stored in {places}:"
    say(head, *(f"  {one}" for one in found[:MOST_DISAGREEMENTS]), *more, why)


def _print(check: Check, verdicts: Sequence[Verdict], args: argparse.Namespace) -> None:
    from mnist_bench.gate import outputs

    match args.format:
        case "csv":
            sys.stdout.write(outputs.verdicts_table(check, outputs.ordered(check, verdicts)).csv())
        case "json":
            sys.stdout.write(outputs.to_json(check, verdicts))
        case "md":
            sys.stdout.write(outputs.page(check, verdicts))
        case _:
            print_lines(lambda width: outputs.terminal(check, verdicts, width), args)


def _actions(
    check: Check, verdicts: Sequence[Verdict], args: argparse.Namespace, result: Path | None
) -> Iterator[Callable[[], None]]:
    from mnist_bench.gate import outputs

    if result is not None:
        yield lambda: write("check.json:", result, outputs.encode(check, verdicts))
    if args.junit is not None:
        yield lambda: write("--junit", args.junit, outputs.to_junit(check, verdicts))
    if args.comment is not None:
        yield lambda: write("--comment", args.comment, outputs.comment(check, verdicts).encode())
    if summary := os.environ.get(SUMMARY):
        yield lambda: _summarise(Path(summary), check, verdicts)
    if os.environ.get(ACTIONS) == "true":
        yield lambda: _annotate(check, verdicts, args)


def _summarise(path: Path, check: Check, verdicts: Sequence[Verdict]) -> None:
    """Appends to the step's summary what room is left in it: earlier commands of the step may have written there.

    A summary is no part of the verdict: one that cannot be written is a warning.
    """
    from mnist_bench.gate.outputs import SUMMARY_BYTES, page

    try:
        taken = path.stat().st_size if path.exists() else 0
        room = SUMMARY_BYTES - taken - 1
        if room < LEAST_SUMMARY:
            say(f"{SUMMARY} holds {taken:,} bytes already: nothing is added to it")
            return
        with path.open("ab") as file:
            file.write(b"\n" * bool(taken) + page(check, verdicts, room).encode())
    except OSError as error:
        say(f"warning: {SUMMARY}: {path}: cannot be written: {error.strerror or error}")


def _annotate(check: Check, verdicts: Sequence[Verdict], args: argparse.Namespace) -> None:
    """After the table on stdout; where stdout is a document, on stderr, which the runner reads as well."""
    from mnist_bench.gate.outputs import commands

    out = sys.stdout if args.format == "table" else sys.stderr
    sys.stdout.flush()
    for line in commands(check, verdicts):
        print(line, file=out)
