"""``mnist-bench doctor``: what this machine is, and every known pitfall found on it, each with its mend."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_bench.cli import options

if TYPE_CHECKING:
    from rich.console import Console

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
    import msgspec

    from mnist_bench.cli.console import make_console, print_json, print_rows
    from mnist_bench.labs.doctor import diagnose
    from mnist_bench.labs.doctor_facts import look

    with make_console(args, stderr=True).status("looking at this machine, asking torch ..."):
        facts = look(os.environ, output_dir=args.output_dir, data_dir=args.data_dir, try_compile=args.compile)
        found = diagnose(facts)
    rows = [{"group": group, "check": check, **dataclasses.asdict(each)} for group, check, each in found]
    levels = [each.level for _, _, each in found]
    worst = next((level for level in ("error", "warning", "info") if level in levels), "ok")
    match args.format:
        case "json":
            known = {name: msgspec.to_builtins(getattr(facts, name)) for name in ("environment", "torch", "noise")}
            print_json({"worst": worst, "findings": rows, **known})
        case "table":
            _print(found, make_console(args, stderr=False))
        case _:
            print_rows(rows, args)
    return 1 if worst == "error" else 0


def _print(found: Sequence[tuple[str, str, Diagnosis]], console: Console) -> None:
    """A block per group, the level on the left; what to do stands below what was found."""
    from rich.text import Text

    from mnist_bench.table import wrapped

    def say(margin: Text, text: str, style: str) -> None:
        lines = wrapped(text, console.width - len(margin))
        console.print(margin + Text(("\n" + " " * (len(margin) - 2)).join(lines), style), soft_wrap=True)

    for group in dict.fromkeys(group for group, _, _ in found):
        console.print(Text(group, style="bold"))
        for each in (each for of, _, each in found if of == group):
            say(Text(f"  {each.level:<9}", STYLES[each.level]), each.what, "")
            if each.mend:
                say(Text(f"{'':<11}mend: ", "dim"), each.mend, "bold")
    counts = {name: sum(each.level == level for _, _, each in found) for level, name in PLURALS.items()}
    said = ", ".join(f"{count} {name if count > 1 else name[:-1]}" for name, count in counts.items() if count)
    can = "cannot work until the errors are mended" if counts["errors"] else "can work here"
    console.print(Text(f"\nA default run {can}{': ' if said else ''}{said}."))
