"""What a command prints and writes: its answer in every format, lines on stderr, the files that flags name."""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from mnist_bench.disk.files import try_folder, write_atomically
from mnist_bench.errors import UsageError
from mnist_bench.table import Document, Table, inert, plain

PREFIX = "mnist-bench: "  # of what the program says in its own name
SUMMARY, SUMMARY_BYTES = "GITHUB_STEP_SUMMARY", 1 << 20  # of all that the commands of a step write there
PIPE_WIDTH = 200  # a file has no width, and a cell that is cut off in one is lost


class _Patient(io.FileIO):
    """A standard stream whose reader may go away: what comes then goes nowhere, and the program goes on.

    What cannot be written to stdout for another reason (a full disk) is an error; stderr never is.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if not isinstance(error, BrokenPipeError) and self.fileno() == 1:
                raise
            return len(data)


def settle_streams() -> None:
    """Gives the process a stdin, stdout and stderr on which nothing fails that is not ours.

    Those that are closed lead nowhere (or the next file that is opened would take their number). What the encoding of
    the other side has not is escaped.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:  # it is given the lowest number that is free
        pass
    os.close(nowhere)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        encoding = getattr(getattr(sys, name), "encoding", "utf-8")
        buffer = io.BufferedWriter(_Patient(descriptor, "w", closefd=False))
        lines = descriptor == 2 or os.isatty(descriptor)
        stream = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=lines)
        setattr(sys, name, stream)


def make_console(args: argparse.Namespace, *, stderr: bool) -> Console:
    """A console on stdout or stderr.

    ``--color`` (``auto`` where the command has no such flag) wins over ``NO_COLOR``, which wins over ``FORCE_COLOR``.
    A forced colour makes no terminal: whether something moves there is another question.
    """
    file = sys.stderr if stderr else sys.stdout
    colored = wants_colour(getattr(args, "color", "auto"), file)
    # Where the terminal is dumb or unknown, as under CI, rich would leave out the colour that was asked for.
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return Console(
        file=file,
        force_terminal=colored or file.isatty(),
        no_color=not colored,  # given, so that NO_COLOR cannot overrule --color always
        color_system=("standard" if dumb else "auto") if colored else None,
        width=None if file.isatty() or os.environ.get("COLUMNS", "").isdigit() else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def wants_colour(wish: str, file: TextIO) -> bool:
    """Whether ``--color`` (``auto``, ``always`` or ``never``), the environment and the file together want colour."""
    if wish != "auto":
        return wish == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return file.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def say(*lines: str, prefix: str = PREFIX) -> None:
    """Lines on stderr, in the program's name; text from outside is made harmless, what is indented stays so."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip(" ")))
        print(inert(f"{prefix}{indent}{plain(line)}"), file=sys.stderr, flush=True)


def print_result(
    args: argparse.Namespace,
    people: Document | Table[Any],
    json: Callable[[], Any] | None = None,
    csv: Callable[[], str] | None = None,
) -> None:
    """A command's answer to stdout, as ``args.format`` says: ``people`` on a terminal and as Markdown.

    ``json`` makes its values, or its text; ``csv`` its text; None: those of the (first) table.
    """
    match args.format:
        case "csv":
            sys.stdout.write(csv() if csv else _table(people).csv())
        case "json":
            print_json(json() if json else _table(people).records())
        case "md":
            print(people.markdown().rstrip("\n"))
        case _:
            print_lines(people.terminal, args)


def _table(people: Document | Table[Any]) -> Table[Any]:
    return people if isinstance(people, Table) else people.tables[0]


def print_lines(lines: Callable[[int], Iterable[Text]], args: argparse.Namespace) -> None:
    """What a width makes lines of, to a terminal."""
    console = make_console(args, stderr=False)
    # At one go: line by line, thousands of them take five times as long.
    console.print(Text("\n").join(lines(console.width)), soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document to stdout: values, or the text that was made of them."""
    sys.stdout.write(document if isinstance(document, str) else f"{json.dumps(document, indent=2, allow_nan=False)}\n")


@contextmanager
def writing(flag: str, path: Path) -> Iterator[None]:
    """Where a file or folder that a user has named is made.

    Raises:
        UsageError: it cannot be; the message names the flag.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{flag} {path}: cannot be written: {error.strerror or error}; name another place") from error


def try_out(flag: str, path: Path) -> None:
    """Whether the file could be written, before hours are spent on what goes into it. Makes the folders above it.

    Raises:
        UsageError: it could not; the message names the flag.
    """
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder: name a file in it")
    with writing(flag, path):
        if path.is_file() or not path.exists():  # a pipe or a device is opened once, when there is something to say
            path.parent.mkdir(parents=True, exist_ok=True)
            try_folder(path.resolve().parent)


def write(flag: str, path: Path, data: bytes, *, follow: bool = True) -> None:
    """Atomically, if it is a file: a reader never sees half of one. Of a link, what it leads to, where ``follow``.

    Raises:
        UsageError: it cannot be written.
    """
    with writing(flag, path):
        if follow and path.exists() and not path.is_file():  # a pipe or a device: replacing it would do away with it
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.resolve() if follow else path, data)


def add_to_summary(make: Callable[[int], bytes]) -> None:
    """Under GitHub Actions an answer stands on the job's page too; where it cannot, a warning: no part of the answer.

    Args:
        make: of the bytes that are left on the page: earlier commands of the step may have written there.
    """
    if not (name := os.environ.get(SUMMARY)):
        return
    try:
        with Path(name).open("ab") as page:
            taken = page.tell()
            text = b"\n" * bool(taken) + make(SUMMARY_BYTES - taken - 1)
            if taken + len(text) > SUMMARY_BYTES:
                raise OSError(f"it holds {taken:,} bytes already, and GitHub would refuse more than {SUMMARY_BYTES:,}")
            page.write(text)
    except OSError as error:
        say(f"warning: {SUMMARY}: {name}: nothing is added: {error.strerror or error}")
