"""``mnist-bench doctor``: what this machine is, and every known pitfall found on it, each with its mend."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mnist_bench.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from mnist_bench.diagnosis import Diagnosis

STYLES = {"ok": "green", "info": "cyan", "warning": "yellow", "error": "bold red"}
PLURALS = {"error": "errors", "warning": "warnings", "info": "notes"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit code 1 where an error is found (a default run cannot work), else 0. It takes some seconds: a process "
        "of its own imports torch, and a fixed loop is timed for a second."
    )
    parser.add_argument("--compile", action="store_true", help="try torch.compile too (up to half a minute)")
    options.add_output_dir(parser)
    options.add_data_dir(parser)
    options.add_format(parser)
    options.add_color(parser)


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.cli.console import print_json, print_rows
    from mnist_bench.diagnosis import diagnose, worst
    from mnist_bench.diagnosis.survey import survey

    with _status(args) as tell:
        facts = survey(
            os.environ, output_dir=args.output_dir, data_dir=args.data_dir, try_compile=args.compile, tell=tell
        )
    found = diagnose(facts)
    match args.format:
        case "json":
            print_json({"worst": worst(found), "findings": _rows(found), "facts": dataclasses.asdict(facts)})
        case "table":
            _print(found, args)
        case _:
            print_rows(_rows(found), args)
    return 1 if worst(found) == "error" else 0


@contextmanager
def _status(args: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being done; elsewhere nothing: it is over in seconds."""
    from mnist_bench.cli.console import animates, make_console

    console = make_console(args, stderr=True)
    if not animates(args, console.file):
        yield lambda text: None
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{text} ...")


def _rows(found: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(each) for each in found]


def _print(found: Sequence[Diagnosis], args: argparse.Namespace) -> None:
    """A block per group, the level on the left; what to do stands below its finding."""
    from rich.text import Text

    from mnist_bench.cli.console import make_console

    console = make_console(args, stderr=False)
    for group in dict.fromkeys(each.group for each in found):
        console.print(Text(group, style="bold"))
        console.print(_block([each for each in found if each.group == group]))
    console.print()
    console.print(Text(_verdict(found)))


def _block(found: Sequence[Diagnosis]) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    block = Table.grid(padding=(0, 2, 0, 0))
    block.add_column(width=len("warning"), no_wrap=True)
    block.add_column(overflow="fold")
    for each in found:
        block.add_row(Text(each.level, style=STYLES[each.level]), Text(each.what))
        if each.mend:
            mend = Table.grid(padding=(0, 1, 0, 0))
            mend.add_column(no_wrap=True)
            mend.add_column(overflow="fold")
            mend.add_row(Text("mend:", style="dim"), Text(each.mend, style="bold"))
            block.add_row("", mend)
    return Padding(block, (0, 0, 0, 2))


def _verdict(found: Sequence[Diagnosis]) -> str:
    counts = {name: sum(each.level == level for each in found) for level, name in PLURALS.items()}
    said = ", ".join(f"{count} {name if count > 1 else name[:-1]}" for name, count in counts.items() if count)
    can = "cannot work until the errors are mended" if counts["errors"] else "can work here"
    return f"A default run {can}{': ' if said else ''}{said}."
