"""What a person sees while a run goes on, on stderr: a moving display on a terminal, one line per trial elsewhere.

The display is redrawn only when an event comes, and events come only between timed spans: a clock that ticked on the
screen would take its time from the cores that are being timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import perf_counter

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mnist_bench import events, figures
from mnist_bench.cells import expand, variant_of
from mnist_bench.cli.console import animates
from mnist_bench.events import Event, Observer
from mnist_bench.machine.forecast import estimate, skip_reason, this_host
from mnist_bench.records import Manifest, Measurement, Trial
from mnist_bench.table import plain

STYLES = {"ok": "green", "skipped": "yellow"}  # any other status: red


@contextmanager
def watch(console: Console, args: argparse.Namespace) -> Iterator[Observer]:
    """The observer that the flags ask for."""
    lines = Lines(console, quiet=args.quiet, verbose=args.verbose)
    if not animates(args, console.file):
        yield lines
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield Display(live, lines)


@dataclass(slots=True)
class Lines:
    """One line per finished trial; with ``-v`` the stages too."""

    console: Console
    quiet: bool
    verbose: int
    _width: int = 0

    def __call__(self, event: Event) -> None:
        match event:
            case events.Notice(level=level, text=text):
                if level != "info" or not self.quiet:
                    prefix = Text("") if level == "info" else Text(f"{level}: ", style="bold yellow")
                    self._print(prefix + Text(text))
            case events.RunStarted():
                self._started(event)
            case events.TrialFinished(trial=trial):
                if not self.quiet or trial.status not in ("ok", "skipped"):
                    self._print_short(self.trial_line(trial))
            case events.StageStarted(trial_id=trial, stage=stage) if self.verbose:
                self._print(Text(f"  {stage} {trial}", style="dim"))
            case events.SessionFinished(session=session) if self.verbose:
                words = f"  timed {session.group}: {len(session.rounds)} rounds, stopped: {session.stopped}"
                self._print(Text(words, style="dim"))
            case events.EpochFinished() if self.verbose:
                self._print(Text(f"  {event.trial_id}: {epoch_words(event)}", style="dim"))

    def _started(self, event: events.RunStarted) -> None:
        manifest = event.manifest
        self._width = max(len(trial) for trial in manifest.trials)
        if self.quiet:
            return
        found = f", {event.done} of them finished before" if event.done else ""
        environment = manifest.environment
        cores = f"{environment.cores} core{'' if environment.cores == 1 else 's'}"
        self._print(
            Text(f"run {manifest.run_id}: {event.total} trials{found}; {manifest.dataset.name} data, ")
            + Text(f"recipe {manifest.matrix.recipe}; {environment.cpu}, {cores}")
        )

    def trial_line(self, trial: Trial) -> Text:
        line = Text(f"{trial.status:<8} ", style=STYLES.get(trial.status, "red"))
        line += Text(f"{trial.id:<{self._width}}  ", style="bold" if trial.status == "ok" else "")
        match trial.outcome:
            case Measurement(epochs=epochs, train_samples=samples):
                seconds = sum(epochs.train_s)
                rate = figures.significant(samples / seconds)
                per_epoch = figures.significant(seconds / len(epochs.train_s))
                line += Text(f"accuracy {epochs.accuracy[-1]:.4f} {rate:>9} samples/s {per_epoch:>6} s/epoch")
                if trial.outcome.noisy:
                    line += Text(" noisy", style="yellow")
            case other:
                line += Text(plain(other.reason))
        return line

    def _print_short(self, text: Text) -> None:
        """On a terminal one line, whatever its width: the table below has the reasons in full."""
        terminal = self.console.file.isatty()
        self.console.print(text, no_wrap=terminal, overflow="ellipsis" if terminal else None, soft_wrap=not terminal)

    def _print(self, text: Text) -> None:
        self.console.print(text, soft_wrap=not self.console.file.isatty())


@dataclass(slots=True)
class Display:
    """Finished trials scroll up; below them what runs now, what is left and until when."""

    live: Live
    lines: Lines
    _begin: float = field(default_factory=perf_counter)
    _stage: str = "looking for the data set"
    _detail: str = ""
    _done: int = 0
    _total: int = 0
    _weights: dict[str, float] = field(default_factory=dict)
    _spent: float = 0.0

    def __call__(self, event: Event) -> None:
        self.lines(event)
        match event:
            case events.RunStarted():
                self._begin = perf_counter()
                self._done, self._total = event.done, event.total
                self._weights = weights(event.manifest)
            case events.StageStarted(trial_id=trial, stage=stage):
                self._stage, self._detail = f"{stage} {trial}", ""
            case events.SessionProgress():
                self._detail = session_words(event)
            case events.EpochFinished():
                self._detail = epoch_words(event)
            case events.TrialFinished(trial=trial, done=done):
                self._done = done
                self._spent += self._weights.pop(trial.id, 0.0)
        self.live.update(self._render(), refresh=True)

    def _render(self) -> ConsoleRenderable:
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_row(
            ProgressBar(total=max(1, self._total), completed=self._done, width=20),
            Text(f"{self._done}/{self._total} trials"),
            Text(self._left(), style="dim"),
        )
        now = Text(self._stage, style="bold cyan", no_wrap=True, overflow="ellipsis")
        return Group(now, Text(f"  {self._detail}", no_wrap=True, overflow="ellipsis"), table)

    def _left(self) -> str:
        """What is left, from the coarse estimate scaled by how it has done so far."""
        elapsed = perf_counter() - self._begin
        todo = sum(self._weights.values())
        if not self._total or (self._spent == 0 and not todo):
            return ""
        scale = elapsed / self._spent if self._spent else 1.0
        seconds = max(0.0, todo * scale - (0.0 if self._spent else elapsed))
        until = datetime.now() + timedelta(seconds=seconds)
        return f"about {figures.significant(max(1.0, seconds / 60), 1)} min left, until {until:%H:%M}"


def weights(manifest: Manifest) -> dict[str, float]:
    """About how many seconds each trial of a run takes; one that will be skipped, none."""
    matrix, host = manifest.matrix, this_host()
    found: dict[str, float] = {}
    for cell in expand(matrix):
        variant = variant_of(matrix, cell.variant)
        cores = manifest.environment.cores
        guess = estimate(cell, matrix, len(matrix.seeds), cores=cores)
        each = 0.0 if skip_reason(cell, variant, host) else guess.seconds / len(matrix.seeds)
        found.update({f"{cell.id}/s{seed}": each for seed in matrix.seeds})
    return {trial: found[trial] for trial in manifest.trials if trial in found}


def epoch_words(event: events.EpochFinished) -> str:
    rate = figures.significant(event.samples_per_s)
    return f"epoch {event.epoch}/{event.epochs}: {rate} samples/s, loss {event.loss:.4f}, accuracy {event.accuracy:.4f}"


def session_words(event: events.SessionProgress) -> str:
    width = "" if event.half_width is None else f", known to ±{event.half_width:.1%}"
    return f"round {event.rounds}{width}, {event.token_s:.1f} of at most {event.budget_s:.1f} s a trial"
