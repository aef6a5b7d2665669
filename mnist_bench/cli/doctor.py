"""``mnist-bench doctor``: what this machine is, and every known pitfall found on it, each with its mend."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mnist_bench.cli import options
from mnist_bench.cli.console import make_console, print_json, print_lines, print_result
from mnist_bench.table import Table, wrapped

if TYPE_CHECKING:
    from rich.text import Text

    from mnist_bench.labs.doctor import Diagnosis

STYLES = {"ok": "green", "info": "cyan", "warning": "yellow", "error": "bold red"}
PLURALS = {"error": "errors", "warning": "warnings", "info": "notes"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit code 1 where an error is found (a default run cannot work), else 0. It takes some seconds: a process "
        "of its own imports torch, and a fixed loop is timed for a second."
    )
    parser.add_argument("--compile", action="store_true", help="try torch.compile too (up to half a minute)")
    options.add(parser, "output_dir", "data_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.labs.doctor import diagnose
    from mnist_bench.labs.doctor_facts import look

    with make_console(args, stderr=True).status("looking at this machine, asking torch ..."):
        facts = look(os.environ, output_dir=args.output_dir, data_dir=args.data_dir, try_compile=args.compile)
        found = diagnose(facts)
    rows = [{"group": group, "check": check, **dataclasses.asdict(each)} for group, check, each in found]
    levels = {each.level for _, _, each in found}
    worst = next((level for level in PLURALS if level in levels), "ok")
    match args.format:
        case "json":
            known = {name: msgspec.to_builtins(getattr(facts, name)) for name in ("environment", "torch", "noise")}
            print_json({"worst": worst, "findings": rows, **known})
        case "table":
            print_lines(lambda width: _lines(found, width), args)
        case _:
            print_result(args, Table.of("", rows))
    return 1 if worst == "error" else 0


def _lines(found: Sequence[tuple[str, str, Diagnosis]], width: int) -> Iterator[Text]:
    """A block per group, the level on the left; what to do stands below what was found."""
    from rich.text import Text

    def said(margin: Text, text: str, style: str) -> Text:
        lines = wrapped(text, width - len(margin))
        return margin + Text(("\n" + " " * (len(margin) - 2)).join(lines), style)

    for group in dict.fromkeys(group for group, _, _ in found):
        yield Text(group, style="bold")
        for each in (each for of, _, each in found if of == group):
            yield said(Text(f"  {each.level:<9}", STYLES[each.level]), each.what, "")
            if each.mend:
                yield said(Text(f"{'':<11}mend: ", "dim"), each.mend, "bold")
    counts = {name: sum(each.level == level for _, _, each in found) for level, name in PLURALS.items()}
    summary = ", ".join(f"{count} {name if count > 1 else name[:-1]}" for name, count in counts.items() if count)
    can = "cannot work until the errors are mended" if counts["errors"] else "can work here"
    yield Text()
    yield from map(Text, wrapped(f"A default run {can}{': ' if summary else ''}{summary}.", width))
