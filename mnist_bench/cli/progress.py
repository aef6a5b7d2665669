"""What a person sees while something goes on, on stderr: a moving display on a terminal, one line per trial elsewhere.

The display is redrawn only when something is told, and that comes only between timed spans: a clock that ticked on the
screen would take its time from the cores that are being timed.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from mnist_bench import figures
from mnist_bench.gate.sides import CheckObserver
from mnist_bench.machine.forecast import skip_reason, this_host, trial_s
from mnist_bench.records import Cell, Measurement, Trial
from mnist_bench.running.group import Observer, Stage
from mnist_bench.table import duration, plain

if TYPE_CHECKING:
    from mnist_bench.running.runner import RunPlan

STYLES = {"ok": "green", "skipped": "yellow"}  # any other status: red
ONE_LINE: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}


class Screen:
    """Lines that stay, and below them, on a terminal, what goes on now. Use it as a context."""

    def __init__(self, console: Console, args: argparse.Namespace) -> None:
        self.quiet: bool = args.quiet
        self._verbose: int = getattr(args, "verbose", 0)
        self._console, self._terminal = console, console.file.isatty()
        self._animates = self._terminal and not (args.quiet or args.no_progress or os.environ.get("CI"))
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._animates:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        self._live = None

    def line(self, text: Text) -> None:
        """A line that stays; a terminal's wraps between words."""
        self._console.print(text, soft_wrap=not self._terminal)

    def notice(self, text: str, *, warning: bool = False) -> None:
        if warning or not self.quiet:
            self.line(Text.assemble(("warning: " if warning else "", "bold yellow"), plain(text)))

    def more(self, words: str) -> None:
        """A line of what ``-v`` adds."""
        if self._verbose:
            self.line(Text(f"  {words}", style="dim"))

    def show(self, now: str, detail: str, done: float, total: float, words: str, left: str = "") -> None:
        """What goes on: a stage and how far it is, a bar of ``done`` of ``total`` and what it means in words."""
        if self._live is None:
            return
        bar = Table.grid(*(Column(**ONE_LINE) for _ in range(3)), padding=(0, 1))
        if total:
            bar.add_row(ProgressBar(total=total, completed=min(done, total), width=20), words, Text(left, style="dim"))
        lines = Text(plain(now), style="bold cyan", **ONE_LINE), Text(f"  {plain(detail)}", **ONE_LINE)
        self._live.update(Group(*lines, bar), refresh=True)


class RunProgress(Observer):
    """A run on a screen: one line per finished trial; with ``-v`` the stages too."""

    def __init__(self, screen: Screen, *, here: bool = True) -> None:
        self._screen, self._here = screen, here
        self._now, self._detail = "looking for the data set", ""
        self._done = self._total = self._width = 0
        self._left = TimeLeft({})

    def notice(self, text: str, *, warning: bool = False) -> None:
        self._screen.notice(text, warning=warning)
        self._show()

    def started(self, plan: "RunPlan", done: Collection[str]) -> None:
        manifest = plan.manifest
        self._done, self._total = len(done), len(manifest.trials)
        self._width = max(map(len, manifest.trials))
        self._left = TimeLeft.of(plan, done)
        if not self._screen.quiet:
            found = f", {self._done} of them finished before" if done else ""
            cores = f"{manifest.environment.cores} core{'' if manifest.environment.cores == 1 else 's'}"
            where = f"{plain(manifest.environment.cpu)}, {cores}" if self._here else "on the nodes of a cluster"
            self._screen.line(
                Text(f"run {manifest.run_id}: {self._total} trials{found}; {manifest.dataset.name} data, ")
                + Text(f"recipe {manifest.matrix.recipe}; {where}")
            )

    def placed(self, groups: Sequence[tuple[str, str]]) -> None:
        self._now = f"{len(groups)} groups on {len({node for node, _ in groups})} nodes"
        self._detail, self._left.places = ", ".join(map(": ".join, groups)), max(1, len(groups))
        self._show()

    def stage(self, stage: Stage, trial_id: str) -> None:
        self._now, self._detail = f"{stage} {trial_id}", ""
        self._left.enter(stage, trial_id)
        self._screen.more(self._now)
        self._show()

    def detail(self, words: str) -> None:
        self._detail = words
        if words.startswith("epoch"):
            self._screen.more(f"{self._now.partition(' ')[2]}: {words}")
        self._show()

    def finished(self, trial: Trial) -> None:
        self._done += 1
        self._left.leave(trial.id)
        if not self._screen.quiet or trial.status not in ("ok", "skipped"):
            self._screen.line(self._line(trial))
        self._show()

    def _line(self, trial: Trial) -> Text:
        status = (f"{trial.status:<8} ", STYLES.get(trial.status, "red"))
        name = (f"{trial.id:<{self._width}}  ", "bold" if trial.status == "ok" else "")
        node = f" on {trial.node}" if trial.node else ""
        match trial.outcome:
            case Measurement(epochs=epochs, train_samples=samples, noisy=noisy):
                seconds = sum(epochs.train_s)
                rate, each = figures.significant(samples / seconds), figures.significant(seconds / len(epochs.train_s))
                words = f"accuracy {epochs.accuracy[-1]:.4f} {rate:>9} samples/s {each:>6} s/epoch{node}"
                return Text.assemble(status, name, words, (" noisy" if noisy else "", "yellow"))
            case other:
                return Text.assemble(status, name, plain(other.reason), node)

    def _show(self) -> None:
        words = f"{self._done}/{self._total} trials"
        self._screen.show(self._now, self._detail, self._done, self._total, words, self._left.words())


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
    """What is left of a run: a coarse guess of every stage, scaled as the stages of its kind have done in this run.

    To tell it costs the same however many trials are left.

    ``guesses``: seconds by trial and stage; ``places``: where groups are at work at the same time.
    """

    guesses: dict[str, Mapping[Stage, float]]
    clock: Callable[[], float] = monotonic
    places: int = 1
    _left_s: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))  # the sums of ``guesses``
    _took_s: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    _guessed_s: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    _ready: set[str] = field(default_factory=set)  # prepared, and not yet timed
    _now: list[tuple[Stage, str]] = field(default_factory=list)
    _begin_s: float = 0.0

    def __post_init__(self) -> None:
        for own in self.guesses.values():
            for stage, guess in own.items():
                self._left_s[stage] += guess

    @classmethod
    def of(cls, plan: "RunPlan", done: Collection[str]) -> Self:
        matrix, host, cores = plan.manifest.matrix, this_host(), plan.manifest.environment.cores
        data = plan.manifest.dataset
        timing_s = matrix.timing.budget_seconds / len(matrix.seeds)
        of_cell: dict[Cell, dict[Stage, float]] = {}
        for spec in plan.specs:
            if spec.cell not in of_cell:
                startup_s, whole_s = (trial_s(spec.cell, matrix, epochs, cores, data) for epochs in (0, matrix.epochs))
                guess: dict[Stage, float] = {
                    "preparing": startup_s,
                    "timing": timing_s,
                    "training": whole_s - startup_s,
                }
                executed = spec.rendezvous or skip_reason(spec.cell, spec.variant, host) is None
                of_cell[spec.cell] = guess if executed else {}
        return cls({spec.id: own for spec in plan.specs if spec.id not in done and (own := of_cell[spec.cell])})

    def enter(self, stage: Stage, trial_id: str) -> None:
        """A session is that of all who wait for it, prepared and not yet timed; else a stage is one trial's."""
        self._end()
        names = self._ready if stage == "timing" else (trial_id,)
        self._now = [(stage, name) for name in names if stage in self.guesses.get(name, ())]
        self._begin_s = self.clock()

    def leave(self, trial_id: str) -> None:
        self._end()
        self._ready.discard(trial_id)
        for stage in self.guesses.get(trial_id, ()):
            self._take(stage, trial_id)
        self.guesses.pop(trial_id, None)

    def _end(self) -> None:
        for stage, name in self._now:
            self._took_s[stage] += (self.clock() - self._begin_s) / len(self._now)
            self._guessed_s[stage] += self._take(stage, name)
            (self._ready.add if stage == "preparing" else self._ready.discard)(name)
        self._now = []

    def _take(self, stage: Stage, name: str) -> float:
        own = {**self.guesses[name]}
        guess = own.pop(stage)
        self.guesses[name] = own
        self._left_s[stage] -= guess
        return guess

    def seconds(self) -> float:
        left_s = sum(left * self._scale(stage) for stage, left in self._left_s.items())
        now_s = sum(self.guesses[name][stage] * self._scale(stage) for stage, name in self._now)
        return (left_s - min(self.clock() - self._begin_s, now_s)) / self.places

    def _scale(self, stage: Stage) -> float:
        return self._took_s[stage] / self._guessed_s[stage] if self._guessed_s[stage] else 1.0

    def words(self) -> str:
        if not self.guesses:
            return ""
        until = datetime.now() + timedelta(seconds=self.seconds())
        return f"about {figures.significant(max(1.0, self.seconds() / 60), 1)} min left, until {until:%H:%M}"
