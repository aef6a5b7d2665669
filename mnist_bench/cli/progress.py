"""What a person sees while something goes on, on stderr: a moving display on a terminal, one line per trial elsewhere.

The display is redrawn only when something is told, and that comes only between timed spans: a clock that ticked on the
screen would take its time from the cores that are being timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean
from time import monotonic
from typing import TYPE_CHECKING, Literal, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mnist_bench import figures
from mnist_bench.cli.console import animates
from mnist_bench.gate.bench import CheckObserver
from mnist_bench.machine.forecast import skip_reason, this_host, trial_s
from mnist_bench.records import Cell, Measurement, Session, Trial
from mnist_bench.run.group import Observer, Stage
from mnist_bench.table import duration, plain

if TYPE_CHECKING:
    from mnist_bench.run.runner import RunPlan

STYLES = {"ok": "green", "skipped": "yellow"}  # any other status: red
STAGES: tuple[Stage, ...] = ("preparing", "timing", "training")


class Screen:
    """Lines that stay, and below them, on a terminal, what goes on now. Use it as a context."""

    def __init__(self, console: Console, args: argparse.Namespace) -> None:
        self.quiet: bool = args.quiet
        self.verbose: int = getattr(args, "verbose", 0)
        self._console, self._terminal = console, console.file.isatty()
        self._animates = animates(args, console.file)
        self._live: Live | None = None
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        if self._animates:
            self._live = self._exit.enter_context(Live(console=self._console, auto_refresh=False, transient=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._live = None
        self._exit.close()

    def line(self, text: Text, *, short: bool = False) -> None:
        """A line that stays; ``short``: on a terminal no more than its width."""
        cut = short and self._terminal
        overflow: Literal["ellipsis"] | None = "ellipsis" if cut else None
        self._console.print(text, no_wrap=cut or None, overflow=overflow, soft_wrap=not self._terminal)

    def notice(self, text: str, *, warning: bool = False) -> None:
        if warning or not self.quiet:
            self.line(Text.assemble(("warning: " if warning else "", "bold yellow"), plain(text)))

    def show(self, now: str, detail: str, done: float, total: float, words: str, left: str = "") -> None:
        """What goes on: a stage and how far it is, a bar of ``done`` of ``total`` and what it means in words."""
        if self._live is None:
            return
        bar = Table.grid(padding=(0, 1))
        for _ in range(3):
            bar.add_column(no_wrap=True, overflow="ellipsis")
        if total:
            bar.add_row(ProgressBar(total=total, completed=min(done, total), width=20), words, Text(left, style="dim"))
        stage = Text(plain(now), style="bold cyan", no_wrap=True, overflow="ellipsis")
        how_far = Text(f"  {plain(detail)}", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(stage, how_far, bar), refresh=True)


@dataclass(slots=True)
class RunProgress(Observer):
    """A run on a screen: one line per finished trial; with ``-v`` the stages too."""

    screen: Screen
    clock: Callable[[], float] = monotonic
    _left: TimeLeft | None = None
    _done: int = 0
    _total: int = 0
    _width: int = 0
    _now: str = "looking for the data set"
    _detail: str = ""

    def notice(self, text: str, *, warning: bool = False) -> None:
        self.screen.notice(text, warning=warning)
        self._show()

    def started(self, plan: RunPlan, done: Collection[str]) -> None:
        manifest = plan.manifest
        self._done, self._total = len(done), len(manifest.trials)
        self._width = max(map(len, manifest.trials))
        self._left = TimeLeft.of(plan, done, self.clock)
        if not self.screen.quiet:
            found = f", {self._done} of them finished before" if done else ""
            cores = f"{manifest.environment.cores} core{'' if manifest.environment.cores == 1 else 's'}"
            self.screen.line(
                Text(f"run {manifest.run_id}: {self._total} trials{found}; {manifest.dataset.name} data, ")
                + Text(f"recipe {manifest.matrix.recipe}; {plain(manifest.environment.cpu)}, {cores}")
            )

    def stage(self, stage: Stage, trial_id: str) -> None:
        self._now, self._detail = f"{stage} {trial_id}", ""
        if self._left:
            self._left.enter(stage, trial_id)
        if self.screen.verbose:
            self.screen.line(Text(f"  {self._now}", style="dim"))
        self._show()

    def detail(self, words: str, share: float) -> None:
        self._detail = words
        if self._left:
            self._left.share = share
        if self.screen.verbose and words.startswith("epoch"):
            self.screen.line(Text(f"  {self._now.partition(' ')[2]}: {words}", style="dim"))
        self._show()

    def session(self, session: Session) -> None:
        if self.screen.verbose:
            words = f"  timed {session.group}: {len(session.rounds)} rounds, stopped: {session.stopped}"
            self.screen.line(Text(words, style="dim"))

    def finished(self, trial: Trial) -> None:
        self._done += 1
        if self._left:
            self._left.leave(trial.id)
        if not self.screen.quiet or trial.status not in ("ok", "skipped"):
            self.screen.line(self._line(trial), short=True)  # the table below has the reasons in full
        self._show()

    def _line(self, trial: Trial) -> Text:
        status = (f"{trial.status:<8} ", STYLES.get(trial.status, "red"))
        name = (f"{trial.id:<{self._width}}  ", "bold" if trial.status == "ok" else "")
        match trial.outcome:
            case Measurement(epochs=epochs, train_samples=samples, noisy=noisy):
                seconds = sum(epochs.train_s)
                rate, each = figures.significant(samples / seconds), figures.significant(seconds / len(epochs.train_s))
                words = f"accuracy {epochs.accuracy[-1]:.4f} {rate:>9} samples/s {each:>6} s/epoch"
                return Text.assemble(status, name, words, (" noisy" if noisy else "", "yellow"))
            case other:
                return Text.assemble(status, name, plain(other.reason))

    def _show(self) -> None:
        left = self._left.words() if self._left else ""
        self.screen.show(self._now, self._detail, self._done, self._total, f"{self._done}/{self._total} trials", left)


class CheckProgress(CheckObserver):
    """A line for each pair and seed (``-q``: warnings and faults alone); on a terminal what is measured now."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._now, self._stage, self._left_s, self._budget_s = "making the reference's worktree", "", 0.0, 0.0

    def notice(self, text: str, *, warning: bool = False) -> None:
        self._screen.notice(text, warning=warning)

    def working(self, now: str, left_s: float, budget_s: float) -> None:
        self._now, self._stage, self._left_s, self._budget_s = now, "", left_s, budget_s
        self._show()

    def stage(self, stage: Stage, trial_id: str) -> None:
        self._stage = f"{stage} {trial_id}"
        self._show()

    def _show(self) -> None:
        words = f"{duration(self._left_s)} of the budget of {duration(self._budget_s)} left"
        self._screen.show(self._now, self._stage, self._budget_s - self._left_s, self._budget_s, words)


@dataclass(slots=True)
class TimeLeft:
    """What is left of a run, predicted from its own stages: those of a cell as they were, others by a coarse estimate
    that is scaled as it has done in this run.

    ``guesses``: seconds by trial and stage; ``groups``: the trials that share a timing session, by trial.
    """

    guesses: dict[str, dict[Stage, float]]
    cells: dict[str, Cell]
    groups: dict[str, tuple[str, ...]]
    clock: Callable[[], float]
    share: float = 0.0
    _seen: dict[tuple[Stage, Cell], list[float]] = field(default_factory=dict)
    _scale: dict[Stage, tuple[float, float]] = field(default_factory=dict)
    _now: tuple[Stage, str, float] | None = None

    @classmethod
    def of(cls, plan: RunPlan, done: Collection[str], clock: Callable[[], float]) -> Self:
        matrix, host, cores = plan.manifest.matrix, this_host(), plan.manifest.environment.cores
        budget_s = matrix.timing.budget_seconds / len(matrix.seeds)
        left = [spec for spec in plan.specs if spec.id not in done]
        guesses: dict[str, dict[Stage, float]] = {}
        for spec in left:
            startup_s = trial_s(spec.cell, matrix, 0, cores)
            training_s = trial_s(spec.cell, matrix, matrix.epochs, cores) - startup_s
            here = skip_reason(spec.cell, spec.variant, host) is None
            guesses[spec.id] = {"preparing": startup_s, "timing": budget_s, "training": training_s} if here else {}
        groups = {spec.id: tuple(each.id for each in group.specs) for group in plan.groups for spec in group.specs}
        return cls(guesses, {spec.id: spec.cell for spec in left}, groups, clock)

    def enter(self, stage: Stage, trial_id: str) -> None:
        self._end()
        self._now, self.share = (stage, trial_id, self.clock()), 0.0

    def leave(self, trial_id: str) -> None:
        self._end()
        self.guesses.pop(trial_id, None)

    def _end(self) -> None:
        """The stage that goes on has ended: what it took is what it will take."""
        if self._now is None:
            return
        stage, trial_id, begin_s = self._now
        members = [one for one in self._members(stage, trial_id) if stage in self.guesses.get(one, {})]
        each_s = (self.clock() - begin_s) / max(1, len(members))
        for one in members:
            took_s, guess_s = self._scale.get(stage, (0.0, 0.0))
            self._scale[stage] = took_s + each_s, guess_s + self.guesses[one].pop(stage)
            self._seen.setdefault((stage, self.cells[one]), []).append(each_s)
        self._now = None

    def _members(self, stage: Stage, trial_id: str) -> tuple[str, ...]:
        """A session is that of all who wait for it; else a stage is one trial's."""
        if stage != "timing":
            return (trial_id,)
        return tuple(one for one in self.groups[trial_id] if "preparing" not in self.guesses.get(one, {"preparing": 0}))

    def expected_s(self, stage: Stage, trial_id: str) -> float:
        if seen := self._seen.get((stage, self.cells[trial_id])):
            return fmean(seen)
        took_s, guess_s = self._scale.get(stage, (0.0, 0.0))
        return self.guesses[trial_id].get(stage, 0.0) * (took_s / guess_s if guess_s else 1.0)

    def seconds(self) -> float:
        left = sum(self.expected_s(stage, one) for one, stages in self.guesses.items() for stage in stages)
        if self._now is None:
            return left
        stage, trial_id, begin_s = self._now
        whole = sum(self.expected_s(stage, one) for one in self._members(stage, trial_id) if one in self.guesses)
        gone = self.clock() - begin_s
        return left - (min(whole, gone) if not self.share else whole - gone / self.share * (1 - self.share))

    def words(self) -> str:
        if not self.guesses:
            return ""
        seconds = max(0.0, self.seconds())
        until = datetime.now() + timedelta(seconds=seconds)
        return f"about {figures.significant(max(1.0, seconds / 60), 1)} min left, until {until:%H:%M}"
