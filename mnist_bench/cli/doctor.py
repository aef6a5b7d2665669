"""``mnist-bench doctor``: what this machine is, and every known pitfall found on it, each with its mend."""

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from mnist_bench.cli import options
from mnist_bench.cli.console import make_console, print_lines, print_result
from mnist_bench.table import Table, wrapped

if TYPE_CHECKING:
    from mnist_bench.labs.facts import Diagnosis

STYLES = {"ok": "green", "info": "cyan", "warning": "yellow", "error": "bold red"}
NAMES = {"error": "error", "warning": "warning", "info": "note"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit code 1 where an error is found (a default run cannot work), else 0. Takes some seconds."
    parser.add_argument("--compile", action="store_true", help="try torch.compile too (up to half a minute)")
    told = "measure too (20 s): how small a difference is shown, and in what time; matrix products at 1 to all threads"
    parser.add_argument("--measure", action="store_true", help=told)
    options.add(parser, "output_dir", "data_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.labs.doctor import diagnose
    from mnist_bench.labs.facts import look

    places = {"output_dir": args.output_dir, "data_dir": args.data_dir}
    with make_console(args, stderr=True).status("looking at this machine, asking torch ..."):
        facts = look(os.environ, **places, try_compile=args.compile, measure=args.measure)
        found = diagnose(facts)
    rows = [dataclasses.asdict(each) for each in found]
    levels = {each.level for each in found}
    worst = next((level for level in NAMES if level in levels), "ok")
    if args.format == "table":
        print_lines(lambda width: _lines(found, width), args)
    else:
        known = {name: msgspec.to_builtins(getattr(facts, name)) for name in ("environment", "torch", "noise", "twins")}
        print_result(args, Table.of("", rows), lambda: {"worst": worst, "findings": rows, **known})
    return 1 if worst == "error" else 0


def _lines(found: "Sequence[Diagnosis]", width: int) -> Iterator[Text]:
    """A block per group, the level on the left; what to do stands below what was found."""

    def said(margin: str, colour: str, text: str, style: str = "") -> Text:
        lines = wrapped(text, width - len(margin))
        return Text(margin, colour) + Text(("\n" + " " * (len(margin) - 2)).join(lines), style)

    for group, members in groupby(found, key=lambda each: each.group):
        yield Text(group, style="bold")
        for each in members:
            yield said(f"  {each.level:<9}", STYLES[each.level], each.what)
            if each.mend:
                yield said(f"{'':<11}mend: ", "dim", each.mend, "bold")
    counts = {name: sum(each.level == level for each in found) for level, name in NAMES.items()}
    summary = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count)
    can = "cannot work until the errors are mended" if counts["error"] else "can work here"
    yield Text()
    yield from map(Text, wrapped(f"A default run {can}{': ' * bool(summary)}{summary}.", width))
