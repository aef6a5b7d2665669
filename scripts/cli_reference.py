"""Prints docs/cli.md: the --help of every command, as the parsers have it, and the exit codes.

python scripts/cli_reference.py > docs/cli.md
"""

import argparse
import os
import sys
from collections.abc import Iterator

from mnist_bench.cli import COMMANDS, build_parser

WIDTH = 80
PREFACE = """\
# Command line

Written by `make docs` from the parsers; a test holds it against them. `python -m mnist_bench` and `mnist-bench` are
the same program. Data goes to stdout, progress and logs to stderr; `--json` prints one JSON document.
"""
EXIT_CODES = {
    "0": "all went well (cells skipped for a missing device or compiler included)",
    "1": "a trial failed, or the program did",
    "2": "usage or configuration",
    "3": "regression, or an `expect` floor missed",
    "4": "inconclusive",
    "5": "nothing measured or nothing comparable",
    "130": "interrupted; `--resume` goes on with what was finished",
}
PRECEDENCE = "Where several hold: 2, 130, program error 1, 3, failed trial 1, 4, 5, 0 in this order."


def main() -> None:
    # The reference must not depend on who writes it: argparse asks these for width and (from 3.14 on) for colour.
    os.environ.update(COLUMNS=str(WIDTH), NO_COLOR="1")
    os.environ.pop("FORCE_COLOR", None)
    sys.stdout.write("\n".join([PREFACE, *sections(), exit_codes()]))


def sections() -> Iterator[str]:
    """A section of the program, and of each command in the order of the table, its verbs below it."""
    yield section("mnist-bench", build_parser(None), "##")
    for command in COMMANDS:
        parser = verbs(build_parser(command))[command]
        yield section(f"mnist-bench {command}", parser, "##")
        for verb, below in verbs(parser).items():
            yield section(f"mnist-bench {command} {verb}", below, "###")


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of what a parser calls commands; none where it has no such argument."""
    for action in parser._actions:  # argparse has no public way to its subparsers
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def section(title: str, parser: argparse.ArgumentParser, level: str) -> str:
    return f"{level} `{title}`\n\n```text\n{parser.format_help().rstrip()}\n```\n"


def exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["## Exit codes", "", "| exit code | means |", "|---|---|", *rows, "", PRECEDENCE, ""])


if __name__ == "__main__":
    main()
