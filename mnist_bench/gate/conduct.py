"""What a check measures next, and when it is enough: real workers of two trees, every line kept in a run's folder.

Speed comes first: process pairs, spread over the cells, until each has had its first look; then the seeds of those
whose speed is decided, and more pairs of the others. A cell with a verdict gets nothing more. What comes first is free
to follow from what was seen: each test looks at its own numbers of samples only. Nothing is begun that the budget does
not seem to hold, and no pair that could not bring its cell to the next look: pairs between looks decide nothing. Where
no look is within reach the check ends at once, and says what it would take. A training that outlives the budget is
given up and leaves nothing.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median, variance
from typing import Any, Literal

from mnist_bench.analysis.ratios import round_log_ratios
from mnist_bench.cells import expand
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import Interrupted
from mnist_bench.gate.bench import NAMES, PAIR_TOKEN_S, Bench, Setting
from mnist_bench.gate.evidence import CellEvidence, Check, gather
from mnist_bench.gate.judge import Verdict, cells_compared, change, judge
from mnist_bench.gate.samples import detectable, looks
from mnist_bench.machine import environment
from mnist_bench.machine.forecast import trial_s
from mnist_bench.records import Cell, Matrix, Measurement, Session, Trial
from mnist_bench.run.group import now
from mnist_bench.table import duration

ASSUMED_SD = 0.03  # of a pair's log ratio, until some are measured: identical code here (docs/decisions/0016)
KNOWN_AFTER = 4  # pairs of every cell, then the forecast is made again
GUESS_FACTOR = 4  # a guess of a time may be off by so much: before it is believed, one pair is measured
POWER = 0.9  # of the forecast
NEEDS = "budget: "  # how the note begins that says what an undecided check would take

Task = Literal["pair", "seed", "solo"]  # a process pair; both sides trained; B alone
SHOWN = {"pair": "pair", "seed": "seed", "solo": "B alone, seed"}


def measure(folder: RunFolder, setting: Setting) -> Check:
    """Measures until every cell of the folder's check is decided, the user interrupts, or the budget is spent.

    Returns:
        The check as it then stands on disk; its status tells an interrupt.

    Raises:
        BenchError: a side was changed meanwhile, or another process is at this check.
    """
    with folder.lock():
        conductor = Conductor(folder, setting)
        conductor.keep(status="running", ended_at=None)
        status = "interrupted"
        try:
            conductor.run()
            status = "complete"
        except Interrupted:
            pass  # the status is the answer
        finally:
            conductor.keep(status=status, ended_at=now())
        return conductor.check


class Conductor:
    """One sitting of a check, inside the folder's lock. ``check`` is all that is known of it."""

    def __init__(self, folder: RunFolder, setting: Setting) -> None:
        self._folder, self._setting = folder, setting
        self._manifest = folder.manifest()
        assert self._manifest.check is not None
        self._before_s = self._manifest.check.spent_s
        self._trials = {trial.id: trial for trial in folder.trials()}
        self._sessions = list(folder.sessions())
        self._costs = Costs(self._manifest.matrix, (*self._trials.values(), *self._sessions))
        self._bench = Bench(folder, setting)
        self._rng = random.Random(f"{self._manifest.run_id}/{len(self._trials) + len(self._sessions)}")
        self._known = False
        self._gather()
        self._compared = max(1, cells_compared(self.check.cells))
        self._looks = {one.cell: looks(self._compared, one.margins) for one in self.check.cells}

    def keep(self, **changes: Any) -> None:
        """Writes what has changed in the manifest, and what is spent."""
        assert self._manifest.check is not None
        notes = [note for note in self._manifest.check.notes if not note.startswith(NEEDS)]
        if changes.get("status") == "complete":
            notes += self._needs()
        sides = replace(
            self._manifest.check, budget_s=self._setting.budget_s, spent_s=self.spent_s(), notes=tuple(notes)
        )
        self._manifest = self._folder.update_manifest(check=sides, **changes)
        self._gather()

    def run(self) -> None:
        """Measures until every cell is decided, or the budget is spent.

        Raises:
            Interrupted: what was measured is in the folder.
        """
        self._forecast()
        while tasks := self._tasks():
            # In random order: which cell comes first must not hang together with how the machine drifts.
            done = [self._do(task, cell) for task, cell in self._rng.sample(tasks, len(tasks))]
            if not any(done):
                return
            if not self._known and all(len(one.pairs) >= KNOWN_AFTER for one, _ in self._open()):
                self._known = True
                self._forecast()

    def spent_s(self) -> float:
        return self._before_s + self._setting.clock() - self._setting.started_s

    def left_s(self) -> float:
        return self._setting.budget_s - self.spent_s()

    def _gather(self) -> None:
        """All that is known, and what follows from it."""
        self.check = gather(self._manifest, tuple(self._trials.values()), self._sessions)
        self._verdicts = judge(self.check)

    # ── what comes next ──────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> list[tuple[CellEvidence, Verdict]]:
        """Cells that can be compared and have no verdict yet: one failure is one, whatever else would be found."""
        both = zip(self.check.cells, self._verdicts, strict=True)
        return [(one, verdict) for one, verdict in both if one.comparable and verdict.kind == "inconclusive"]

    def _tasks(self) -> list[tuple[Task, Cell]]:
        """One sweep: a pair of every cell that wants its first look; once all have had it, of the others, and seeds."""
        pairs = self._reachable()
        if early := [one for one in pairs if len(one.pairs) < self._looks[one.cell][0]]:
            return [("pair", one.cell) for one in early]
        tasks: list[tuple[Task, Cell]] = [("pair", one.cell) for one in pairs]
        waiting = {one.cell for one in pairs}
        others = ((one, verdict) for one, verdict in self._open() if one.cell not in waiting)
        tasks += [("seed", one.cell) for one, verdict in others if self._wants_seed(one, verdict)]
        return tasks + [("solo", one.cell) for one in self.check.cells if _stands_alone(one)]

    def _wants_seed(self, one: CellEvidence, verdict: Verdict) -> bool:
        """Whether a seed of both sides may decide a cell. It gets none before its speed has been looked at."""
        accuracy = verdict.accuracy
        undecided = accuracy is None or (accuracy.decision == "undecided" and accuracy.more_seeds > 0)
        return len(one.pairs) >= self._looks[one.cell][0] and (undecided or bool(one.seeds_awaited))

    def _pairs_left(self, one: CellEvidence, verdict: Verdict) -> int:
        """To the next look; 0: speed is decided, or no look is left."""
        look = verdict.speed.next_look if verdict.speed else self._looks[one.cell][0]
        return (look or 0) - len(one.pairs) if look else 0

    def _reachable(self) -> list[CellEvidence]:
        """The cells that want pairs, those nearest to a look first, as far as the budget holds what takes them there.

        That is the pairs and, for a pass, a seed; where no cell can have both, the pairs: a slow-down is a verdict
        without it. Before any pair has shown how good the guesses are, one is measured all the same.
        """
        wanting = [(left, one) for one, verdict in self._open() if (left := self._pairs_left(one, verdict)) > 0]
        for with_seed in (True, False):
            needs = [(self._needs_s(one, left, with_seed=with_seed), one) for left, one in wanting]
            needs.sort(key=lambda each: each[0])
            ends = itertools.accumulate(seconds for seconds, _ in needs)
            if found := [one for end, (_, one) in zip(ends, needs, strict=True) if end <= self.left_s()]:
                return found
        guessed = not any(one.pairs for one in self.check.cells)
        return [needs[0][1]] if guessed and needs and needs[0][0] <= GUESS_FACTOR * self.left_s() else []

    def _needs_s(self, one: CellEvidence, pairs: int, *, with_seed: bool) -> float:
        seed_s = self._costs.seconds("seed", one.cell) if with_seed and not one.seeds else 0.0
        return pairs * self._costs.seconds("pair", one.cell) + seed_s

    # ── one task ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, task: Task, cell: Cell) -> bool:
        """Carries out a task if the budget holds it; whether it did."""
        if self._costs.seconds(task, cell) > self.left_s():
            return False
        one = self._of(cell)
        number = len(one.pairs) + 1 if task == "pair" else self._next_seed(one, task)
        until = f"/{next((look for look in self._looks[cell] if look >= number), number)}" if task == "pair" else ""
        name = f"{SHOWN[task]} {number}{until}  {cell.id}"
        setting = self._setting
        setting.observer.working(name, self.left_s(), setting.budget_s)
        begin = self.spent_s()
        if task == "pair":
            lines = self._bench.pair(cell, number)
        else:
            lines = self._bench.train(cell, number, NAMES if task == "seed" else ("B",), self.left_s())
        setting.unchanged()
        for line in lines:
            self._take(line)
        self.keep()
        faults = any(isinstance(line, Trial) and line.status != "ok" for line in lines)
        text = f"{name}  {_found(lines)}  {self.spent_s() - begin:.0f} s, {duration(self.left_s())} left"
        setting.observer.notice(text, warning=faults)
        return True

    def _take(self, line: Session | Trial) -> None:
        """Makes a line durable, and counts it."""
        self._costs.learn(line)
        if isinstance(line, Session):
            self._sessions.append(self._folder.append(line))
        else:
            self._trials.setdefault(line.id, self._folder.append(line))

    def _of(self, cell: Cell) -> CellEvidence:
        return next(one for one in self.check.cells if one.cell == cell)

    def _next_seed(self, one: CellEvidence, task: Task) -> int:
        trained = [pair.b for pair in one.seeds] if task == "seed" else one.b.trainings if one.b else ()
        done = {each.seed for each in trained}
        return next(
            seed for seed in itertools.chain(self._manifest.matrix.seeds, itertools.count()) if seed not in done
        )

    # ── what the budget is enough for ────────────────────────────────────────────────────────────────────────────────

    def _forecast(self) -> None:
        """Says what the budget can show: of guesses, or of what the first pairs took and how they spread."""
        cells = [one for one, _ in self._open()]
        if not cells:
            return
        logs = [[pair.log_ratio for pair in one.pairs] for one in cells if len(one.pairs) > 1]
        sd = math.sqrt(fmean(map(variance, logs))) if logs else ASSUMED_SD
        each_s = math.fsum(self._costs.seconds("pair", one.cell) for one in cells)
        seeds_s = math.fsum(self._needs_s(one, 0, with_seed=True) for one in cells)
        have, planned = min(len(one.pairs) for one in cells), self._looks[cells[0].cell]
        pairs = min(planned[-1], have + max(0, int((self.left_s() - seeds_s) / each_s)))
        budget = f"{duration(self.left_s())} of the budget of {duration(self._setting.budget_s)} left"
        if pairs < planned[0]:
            (needs,) = self._needs()
            text = (
                f"{budget}: too little for a verdict on every cell: it takes {planned[0]} pairs a cell and a training "
                f"of both sides: {needs.removeprefix(NEEDS)}, or choose cells with --filter"
            )
            self._setting.observer.notice(text, warning=True)
            return
        found = max(detectable(pairs, self._compared, sd, one.margins, POWER) for one in cells)
        seen = (
            f"the smallest slow-down that they find in {100 * POWER:.0f} of 100 cases, {'as' if logs else 'if'} they "
            f"spread by {100 * sd:.1f} %: {100 * found:.1f} %"
        )
        text = f"{budget}: about {pairs} pairs a cell fit, {planned[0]} make a first look; {seen}"
        self._setting.observer.notice(text)

    def _needs(self) -> list[str]:
        """A note of what would bring the cells that are undecided to their next look; none: nothing would."""
        costs, open_ = self._costs, self._open()
        pairs_s = [self._needs_s(one, left, with_seed=True) for one, v in open_ if (left := self._pairs_left(one, v))]
        seeds_s = [
            max(1, v.accuracy.more_seeds if v.accuracy else 1, len(one.seeds_awaited)) * costs.seconds("seed", one.cell)
            for one, v in open_
            if not self._pairs_left(one, v) and self._wants_seed(one, v)
        ]
        if not pairs_s + seeds_s:
            return []
        count, total_s = len(pairs_s + seeds_s), self.spent_s() + math.fsum(pairs_s + seeds_s)
        cells = f"{count} cell{'s are' if count > 1 else ' is'} undecided"
        return [f"{NEEDS}{cells}; the next look at all of them takes about --budget {math.ceil(total_s / 60)}m in all"]


def _stands_alone(one: CellEvidence) -> bool:
    """Whether B's cell is to be trained by itself: it can be compared with nothing, but may fail, or miss a floor."""
    if one.comparable or one.b is None or one.b.status != "ok":
        return False
    return not one.b.trainings or bool(one.seeds_awaited)


def _found(lines: Sequence[Session | Trial]) -> str:
    """One line of what was found."""
    match lines:
        case [Session() as session]:
            speed = math.exp(median(round_log_ratios(session.rounds, 0, 1)))
            return f"{change(speed)} ({len(session.rounds)} rounds){' noisy' * bool(session.noisy)}"
        case [Trial(outcome=Measurement() as a), Trial(outcome=Measurement() as b)]:
            same = "equal predictions" if a.predictions_sha256 == b.predictions_sha256 else "predictions differ"
            return f"{same}, accuracy {a.epochs.accuracy[-1]:.4f} and {b.epochs.accuracy[-1]:.4f}"
        case []:
            return "given up: the budget is spent"
    said = [f"{line.side}: {line.reason or 'works'}" for line in lines if isinstance(line, Trial)]
    return "; ".join(said)


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────────


class Costs:
    """About how long tasks take: the coarse model's guess, then what was measured, of this cell or of others."""

    def __init__(self, matrix: Matrix, lines: Sequence[Session | Trial]) -> None:
        """Of the cells of B's matrix; ``lines`` are those of earlier sittings."""
        cores = environment.available_cores()
        self._guesses: dict[tuple[str, str], float] = {}  # kind and cell's id -> seconds
        for cell in expand(matrix):
            self._guesses["pair", cell.id] = 1.5 * trial_s(cell, matrix, 0, cores) + 2 * PAIR_TOKEN_S
            self._guesses["training", cell.id] = trial_s(cell, matrix, matrix.epochs, cores)
        self._measured: dict[tuple[str, str], list[float]] = {}
        for line in lines:
            self.learn(line)

    def learn(self, line: Session | Trial) -> None:
        if isinstance(line, Session):
            self._measured.setdefault(("pair", line.group), []).append(line.seconds)
        elif isinstance(line.outcome, Measurement):
            self._measured.setdefault(("training", line.cell.id), []).append(line.outcome.awake_s)

    def seconds(self, task: Task, cell: Cell) -> float:
        """Of a whole task. A cell's own median counts; before its first, the guess by how far others were off."""
        kind = "pair" if task == "pair" else "training"
        each = self._guesses[kind, cell.id]
        if own := self._measured.get((kind, cell.id)):
            each = median(own)
        elif off := [median(found) / self._guesses[key] for key, found in self._measured.items() if key[0] == kind]:
            each *= median(off)
        return 2 * each if task == "seed" else each
