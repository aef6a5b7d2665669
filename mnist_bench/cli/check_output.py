"""What ``check`` prints and writes when it is done, or judges again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.writing import cannot_write, try_out, write
from mnist_bench.errors import BenchError, UsageError

if TYPE_CHECKING:
    from mnist_bench.gate.records import Check, Verdict

SUMMARY = "GITHUB_STEP_SUMMARY"
ACTIONS = "GITHUB_ACTIONS"
LEAST_SUMMARY = 32_000  # bytes; a page has its head whatever there is to say

Make = Callable[["Check", Sequence["Verdict"]], bytes]


def configure(parser: argparse.ArgumentParser) -> None:
    """``args.junit``, ``args.comment`` (Paths or None), ``args.format``, ``args.color``."""
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML there: a test case per cell")
    parser.add_argument(
        "--comment", type=Path, metavar="FILE", help="write Markdown there, for a comment on a pull request"
    )
    options.add(parser, "format", "color")


def preflight(args: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Whether all that was asked for can be written; makes the folders. Call it before anything is measured.

    Raises:
        UsageError: it cannot; the message names the flag or the variable.
    """
    targets = _targets(args)
    for flag, path in targets.items():
        try_out(flag, path)
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise UsageError(f"{' and '.join(targets)} name the same file: name two")
    if environ.get(SUMMARY):
        _append_summary(Path(environ[SUMMARY]), b"")


def print_check(check: Check, verdicts: Sequence[Verdict], args: argparse.Namespace) -> None:
    """Prints the table to stdout, as ``args.format`` says."""
    from mnist_bench.gate.output import markdown, rows, table

    match args.format:
        case "csv":
            sys.stdout.write(rows.to_csv(check, verdicts))
        case "json":
            sys.stdout.write(rows.to_json(check, verdicts))
        case "md":
            sys.stdout.write(markdown.page(check, verdicts))
        case _:
            from rich.text import Text

            from mnist_bench.cli.console import make_console

            console = make_console(args, stderr=False)
            # At one go: line by line, thousands of them take five times as long.
            console.print(Text("\n").join(table.to_terminal(check, verdicts, console.width)), soft_wrap=True)


def write_outputs(
    check: Check,
    verdicts: Sequence[Verdict],
    args: argparse.Namespace,
    environ: Mapping[str, str],
    result: Path | None = None,
) -> None:
    """Writes ``check.json`` to ``result``, ``--junit`` and ``--comment``, and under GitHub Actions the step's summary
    and annotations.

    Print the table first: annotations follow it. One that cannot be written does not keep the others from it.

    Raises:
        BenchError: some could not be written, although they could when ``preflight`` tried; all are named.
    """
    failed = []
    for action in _actions(check, verdicts, args, environ, result):
        try:
            action()
        except UsageError as error:
            failed.append(str(error))
    if failed:
        raise BenchError("\n".join(failed))


def _actions(
    check: Check,
    verdicts: Sequence[Verdict],
    args: argparse.Namespace,
    environ: Mapping[str, str],
    result: Path | None,
) -> Iterator[Callable[[], None]]:
    makers: dict[str, Make] = {"--junit": _junit, "--comment": _comment}
    if result is not None:
        yield partial(_make, _document, "check.json:", result, check, verdicts)
    for flag, path in _targets(args).items():
        yield partial(_make, makers[flag], flag, path, check, verdicts)
    if environ.get(SUMMARY):
        yield partial(_summarise, Path(environ[SUMMARY]), check, verdicts)
    if environ.get(ACTIONS) == "true":
        yield partial(_annotate, check, verdicts, args)


def _make(make: Make, flag: str, path: Path, check: Check, verdicts: Sequence[Verdict]) -> None:
    write(flag, path, make(check, verdicts))


def _targets(args: argparse.Namespace) -> dict[str, Path]:
    named = {"--junit": args.junit, "--comment": args.comment}
    return {flag: path for flag, path in named.items() if path is not None}


def _document(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    from mnist_bench.gate.output.codec import encode

    return encode(check, verdicts)


def _junit(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    from mnist_bench.gate.output.junit import to_junit

    return to_junit(check, verdicts)


def _comment(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    from mnist_bench.gate.output.markdown import comment

    return comment(check, verdicts).encode()


def _summarise(path: Path, check: Check, verdicts: Sequence[Verdict]) -> None:
    """Appends to the step's summary what room is left in it: earlier commands of the step may have written there."""
    from mnist_bench.gate.output.markdown import SUMMARY_BYTES, page

    taken = path.stat().st_size if path.exists() else 0
    room = SUMMARY_BYTES - taken - 1
    if room < LEAST_SUMMARY:
        print(f"mnist-bench: {SUMMARY} holds {taken:,} bytes already: nothing is added to it", file=sys.stderr)
        return
    _append_summary(path, b"\n" * bool(taken) + page(check, verdicts, room).encode())


def _append_summary(path: Path, data: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError as error:
        raise cannot_write(f"{SUMMARY}:", path, error) from error


def _annotate(check: Check, verdicts: Sequence[Verdict], args: argparse.Namespace) -> None:
    """After the table on stdout; where stdout is a document, on stderr, which the runner reads as well."""
    from mnist_bench.gate.output.annotations import commands

    out = sys.stdout if args.format == "table" else sys.stderr
    sys.stdout.flush()
    for line in commands(check, verdicts):
        print(line, file=out)
