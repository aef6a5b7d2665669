"""What a person sees while a check goes on, on stderr: a moving display on a terminal, one line per pair elsewhere."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mnist_bench.checks import events
from mnist_bench.checks.budget import words
from mnist_bench.checks.events import CheckEvent, CheckObserver, Forecast, OutOfTime, TaskFinished, TaskStarted
from mnist_bench.cli.console import animates
from mnist_bench.events import Notice
from mnist_bench.gate.records import CellEvidence, ProcessPair, SeedPair
from mnist_bench.table import listed, plain

MOST_CHANGED = 5  # files that are named before the rest is counted
TASKS = {"pair": "pair", "seed": "seed", "solo": "B alone, seed"}


@contextmanager
def watch(console: Console, args: argparse.Namespace) -> Iterator[CheckObserver]:
    """The observer that the flags ask for."""
    lines = Lines(console=console, quiet=args.quiet)
    if not animates(args, console.file):
        yield lines
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield Display(live=live, lines=lines)


@dataclass(slots=True, kw_only=True)
class Lines:
    """One line for each pair and seed. ``quiet``: warnings and faults alone."""

    console: Console
    quiet: bool

    def __call__(self, event: CheckEvent) -> None:
        match event:
            case Notice(level=level, text=text):
                if level != "info" or not self.quiet:
                    self._print(Text("" if level == "info" else f"{level}: ", style="bold yellow") + Text(plain(text)))
            case events.CheckStarted():
                self._started(event)
            case Forecast() if not self.quiet:
                self._print(Text("; ".join(forecast(event))))
            case TaskFinished(faults=faults):
                if faults or not self.quiet:
                    self._print(finished(event))

    def _started(self, event: events.CheckStarted) -> None:
        if self.quiet:
            return
        self._print(
            Text(f"check {event.check_id}: A is {event.a.label} ({_short(event.a.commit)}), B is the working ")
            + Text(f"tree ({_short(event.b.commit)}); {outline(event.cells)}")
        )
        if event.b.changed:
            files = listed([plain(path) for path in event.b.changed], most=MOST_CHANGED)
            self._print(Text(f"B differs from its commit in {files}"))

    def _print(self, text: Text) -> None:
        self.console.print(text, soft_wrap=not self.console.file.isatty())


@dataclass(slots=True, kw_only=True)
class Display:
    """Finished pairs scroll up; below them what is measured now, and how much budget is left."""

    live: Live
    lines: Lines
    _now: str = "making the reference's worktree"
    _stage: str = ""
    _budget_s: float = 0.0
    _left_s: float = 0.0
    _pairs: dict[str, int] = field(default_factory=dict)

    def __call__(self, event: CheckEvent) -> None:
        self.lines(event)
        match event:
            case Forecast(budget_s=budget_s, left_s=left_s):
                self._budget_s, self._left_s = budget_s, left_s
            case TaskStarted(left_s=left_s):
                self._now, self._stage, self._left_s = started(event), "", left_s
            case TaskFinished(left_s=left_s):
                self._left_s = left_s
            case events.Stage(text=text):
                self._stage = text
        self.live.update(self._render(), refresh=True)

    def _render(self) -> ConsoleRenderable:
        now = Text(self._now, style="bold cyan", no_wrap=True, overflow="ellipsis")
        lines = [now, Text(f"  {plain(self._stage)}", no_wrap=True, overflow="ellipsis")]
        if not self._budget_s:
            return Group(*lines)
        left = Table.grid(padding=(0, 1))
        spent = self._budget_s - self._left_s
        left.add_row(
            ProgressBar(total=self._budget_s, completed=min(spent, self._budget_s), width=20),
            Text(f"{words(self._left_s)} of the budget of {words(self._budget_s)} left", no_wrap=True),
        )
        return Group(*lines, left)


def outline(cells: tuple[CellEvidence, ...]) -> str:
    """``3 cells to compare, 1 only in A, 2 that differ``."""
    both = [one for one in cells if one.sides == "both"]
    counts = {
        "to compare": sum(not one.differences for one in both),
        "whose sides differ": sum(bool(one.differences) for one in both),
        "only in A": sum(one.sides == "only A" for one in cells),
        "only in B": sum(one.sides == "only B" for one in cells),
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count or name == "to compare"]
    return f"cells: {', '.join(parts)}"


def forecast(event: Forecast) -> list[str]:
    """What the budget is enough for, in words."""
    budget = f"{words(event.left_s)} of the budget of {words(event.budget_s)} left"
    if event.pairs < event.first_look:
        return [
            f"{budget}: too little: a first look takes {event.first_look} pairs a cell, about "
            f"{words(event.needs_s)}; {event.pairs} a cell fit, and speed that is not looked at stays inconclusive: "
            f"raise --budget or choose cells with --filter"
        ]
    spread = f"{'as they' if event.measured else 'if they'} spread by {100 * event.sd:.1f} %"
    seen = (
        f"the smallest slow-down that they find in {100 * event.power:.0f} of 100 cases, {spread}: "
        f"{100 * event.detectable:.1f} %"
        if math.isfinite(event.detectable)
        else "no slow-down could be found by them"
    )
    return [f"{budget}: about {event.pairs} pairs a cell fit, {event.first_look} make a first look", seen]


def started(event: TaskStarted) -> str:
    until = f" of {event.target}" if event.target else ""
    return f"{TASKS[event.task]} {event.number}{until}  {event.cell.id}"


def finished(event: TaskFinished) -> Text:
    """One line of what was found."""
    until = f"/{event.target}" if event.target else ""
    line = Text(f"{TASKS[event.task]} {event.number}{until}  {event.cell.id}  ")
    match event.found:
        case ProcessPair(log_ratio=ratio, rounds=rounds, noisy=noisy):
            line += Text(f"B/A {math.exp(ratio):.3f} ({len(rounds)} rounds)")
            if noisy:
                line += Text(" noisy", style="yellow")
        case SeedPair(a=a, b=b):
            same = a.predictions_sha256 == b.predictions_sha256
            line += Text("equal predictions, " if same else "predictions differ, ")
            line += Text(f"accuracy {a.accuracy:.4f} and {b.accuracy:.4f}")
        case OutOfTime():
            line += Text("given up: the budget is spent", style="yellow")
        case None if not event.faults:
            line += Text("works")
    for fault in event.faults:
        line += Text(f"{fault.side}: {plain(fault.outcome.reason)} ", style="red")
    return line + Text(f"  {event.seconds:.0f} s, {words(event.left_s)} left", style="dim")


def _short(commit: str | None) -> str:
    return "no commit" if commit is None else commit[:12]
