"""``mnist-bench check --replay FILE``: judges a stored check again, and tells whether its verdicts follow from it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from mnist_bench.cli.check_output import preflight, print_check, write_outputs
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from mnist_bench.gate.records import Check, Verdict

MOST = 20  # disagreements that are named
DISAGREES = 1


def execute(args: argparse.Namespace) -> int:
    """The check's exit code where every verdict is as stored; else 1.

    Args:
        args: ``args.replay`` is the Path of a ``check.json``; else those of ``check_output.configure``.

    Raises:
        UsageError: the file cannot be read, or is no check of this version.
    """
    from mnist_bench.gate.judge import exit_code
    from mnist_bench.gate.output.replay import disagreements

    preflight(args, os.environ)
    check, verdicts = _read(args)
    found = list(disagreements(check, verdicts))
    if found:
        _complain(args, check, found)
        return DISAGREES
    print_check(check, verdicts, args)
    print(f"mnist-bench: replayed: every verdict follows from the samples of {args.replay}", file=sys.stderr)
    write_outputs(check, verdicts, args, os.environ)
    return exit_code(check, verdicts)


def _read(args: argparse.Namespace) -> tuple[Check, tuple[Verdict, ...]]:
    from mnist_bench.gate.output.codec import decode

    try:
        data = args.replay.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--replay {args.replay}: cannot be read: {reason}; name a check.json") from error
    return decode(data, source=str(args.replay))


def _complain(args: argparse.Namespace, check: Check, found: list[str]) -> None:
    from mnist_bench import __version__
    from mnist_bench.table import plain

    places = f"{len(found)} place{'s' if len(found) != 1 else ''}"
    print(f"mnist-bench: {args.replay}: judged again, it differs from what is stored in {places}:", file=sys.stderr)
    for line in found[:MOST]:
        print(f"mnist-bench:   {plain(line)}", file=sys.stderr)
    if len(found) > MOST:
        print(f"mnist-bench:   and {len(found) - MOST} more", file=sys.stderr)
    written = plain(check.program_version)
    why = (
        "the file was edited, or the judge is not deterministic"
        if written == __version__
        else f"mnist-bench {written} wrote the file, this is {__version__}: replay it with that version"
    )
    print(f"mnist-bench: {why}", file=sys.stderr)
