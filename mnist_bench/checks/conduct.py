"""What is measured next, and when it is enough: first seeds, sweeps of process pairs over all cells, more seeds.

A cell that seems less accurate gets its seeds before all pairs: a drop that is shown is a verdict without them. What
comes first is free to follow from what was seen: each test looks at its own numbers of samples only. A cell that is
decided gets nothing more. Nothing is begun that the budget does not seem to hold, a training that outlives it is given
up, and no pair is begun that could not bring its cell to the next look: pairs between looks decide nothing.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import variance
from typing import Protocol

from mnist_bench.checks.budget import Budget
from mnist_bench.checks.costs import Costs
from mnist_bench.checks.events import CheckObserver, Forecast, OutOfTime, Task, TaskFinished, TaskStarted
from mnist_bench.checks.ledger import Ledger, Line
from mnist_bench.checks.rules import POWER, Rules
from mnist_bench.gate.records import AccuracyFinding, CellEvidence, ProcessPair, SeedPair, SideFault, Solo, SpeedFinding
from mnist_bench.records import Cell

ASSUMED_SD = 0.03  # of a pair's log ratio, until some are measured: identical code here (docs/decisions/0016)
REFINED_AFTER = 4  # pairs of every cell

Found = ProcessPair | SeedPair | tuple[SideFault | Solo, ...] | OutOfTime


class Bench(Protocol):
    """Where cells are measured. What a side cannot do is told, not raised; ``within_s`` are the seconds that a training
    has, after which it is given up."""

    def pair(self, cell: Cell, number: int) -> ProcessPair | tuple[SideFault, ...]: ...
    def seed(self, cell: Cell, seed: int, within_s: float) -> SeedPair | tuple[SideFault | Solo, ...] | OutOfTime: ...
    def solo(self, cell: Cell, seed: int, within_s: float) -> tuple[SideFault | Solo, ...] | OutOfTime:
        """Trains B alone."""


@dataclass(slots=True, kw_only=True)
class Conductor:
    """One sitting of a check.

    Args:
        seeds: of the matrix, in its order; where they are not enough, the smallest others follow.
    """

    ledger: Ledger
    bench: Bench
    rules: Rules
    costs: Costs
    budget: Budget
    seeds: Sequence[int]
    rng: random.Random
    emit: CheckObserver
    _refined: bool = False

    def run(self) -> None:
        """Measures until every cell is decided, or the budget is spent.

        Raises:
            Interrupted: as the bench does; what was measured is in the ledger.
        """
        self._forecast()
        for task, cell in self._shuffled(self._first_tasks()):
            self._do(task, cell)
        while tasks := self._next_tasks():
            done = [self._do(task, cell) for task, cell in self._shuffled(tasks)]
            if not any(done):
                return
            self._refine()

    def _first_tasks(self) -> list[tuple[Task, Cell]]:
        """One seed of every cell: a failure, or an accuracy that is no number, decides at once."""
        cells = self.ledger.cells()
        seeds: list[tuple[Task, Cell]] = [("seed", one.cell) for one in cells if comparable(one) and not one.seeds]
        return seeds + [("solo", one.cell) for one in cells if _stands_alone(one)]

    def _next_tasks(self) -> list[tuple[Task, Cell]]:
        """One sweep: a pair of every cell that wants one; once all have had their first look, a seed too."""
        if suspects := self._suspects():
            return [("seed", cell) for cell in suspects]
        pairs = self._wanting_pairs()
        early = [one for one in pairs if len(one.pairs) < self.rules.looks[0]]
        tasks: list[tuple[Task, Cell]] = [("pair", one.cell) for one in early or pairs]
        return tasks if early else tasks + [("seed", cell) for cell, _ in self._wanting_seeds()]

    def _wanting_pairs(self) -> list[CellEvidence]:
        """Cells whose speed is undecided and that can reach their next look in time: first those that are nearest."""
        wanting = []
        for one in self._undecided():
            target = self._target(one)
            if target is not None and target > len(one.pairs):
                wanting.append(((target - len(one.pairs)) * self.costs.seconds("pair", one.cell), one))
        wanting.sort(key=lambda each: each[0])
        ends = itertools.accumulate(seconds for seconds, _ in wanting)
        left_s = self.budget.left_s()
        return [one for end, (_, one) in zip(ends, wanting, strict=True) if end <= left_s]

    def _suspects(self) -> list[Cell]:
        """Cells whose accuracy has dropped as far as can be seen, if the seeds that may show it fit into the budget."""
        found, left_s = [], self.budget.left_s()
        for cell, accuracy in self._wanting_seeds():
            needs_s = accuracy.more_seeds * self.costs.seconds("seed", cell)
            if _dropped(accuracy) and needs_s <= left_s:
                found.append(cell)
                left_s -= needs_s
        return found

    def _wanting_seeds(self) -> list[tuple[Cell, AccuracyFinding]]:
        found = []
        for one in self._undecided():
            accuracy = self._accuracy(one)
            if accuracy is not None and accuracy.decision == "undecided" and accuracy.more_seeds > 0:
                found.append((one.cell, accuracy))
        return found

    def _undecided(self) -> list[CellEvidence]:
        """Cells that nothing has failed yet: one failure is a verdict, whatever else would be found."""
        found = []
        for one in self.ledger.cells():
            speed, accuracy = self._speed(one), self._accuracy(one)
            failed = any(finding is not None and finding.decision == "fail" for finding in (speed, accuracy))
            if comparable(one) and not failed:
                found.append(one)
        return found

    def _speed(self, one: CellEvidence) -> SpeedFinding | None:
        return self.rules.speed(one.pairs)

    def _accuracy(self, one: CellEvidence) -> AccuracyFinding | None:
        return self.rules.accuracy(one.seeds, one.min_accuracy)

    def _target(self, one: CellEvidence) -> int | None:
        """The number of pairs at which a cell is judged next; None: its speed is decided, or no look is left."""
        speed = self._speed(one)
        return self.rules.looks[0] if speed is None else speed.next_look

    # ── one task ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, task: Task, cell: Cell) -> bool:
        """Carries out a task if the budget holds it; whether it did."""
        one = self.ledger.of(cell)
        if self.costs.seconds(task, cell) > self.budget.left_s():
            return False
        number = _next_number(one) if task == "pair" else _next_seed(one, self.seeds)
        target = self._target(one) if task == "pair" else None
        self.emit(TaskStarted(task=task, cell=cell, number=number, target=target, left_s=self.budget.left_s()))
        begin = self.budget.spent_s()
        found = self._measure(task, cell, number)
        seconds = self.budget.spent_s() - begin
        faults = tuple(one for one in found if isinstance(one, SideFault)) if isinstance(found, tuple) else ()
        for line in _lines(cell, found, seconds, self.budget.spent_s()):
            self.ledger.add(line)
        self.emit(
            TaskFinished(
                task=task,
                cell=cell,
                number=number,
                target=target,
                found=None if isinstance(found, tuple) else found,
                faults=faults,
                seconds=seconds,
                left_s=self.budget.left_s(),
            )
        )
        return True

    def _measure(self, task: Task, cell: Cell, number: int) -> Found:
        match task:
            case "pair":
                return self.bench.pair(cell, number)
            case "seed":
                return self.bench.seed(cell, number, self.budget.left_s())
            case "solo":
                return self.bench.solo(cell, number, self.budget.left_s())

    def _shuffled(self, tasks: list[tuple[Task, Cell]]) -> list[tuple[Task, Cell]]:
        """In random order: which cell comes first must not hang together with how the machine drifts."""
        return self.rng.sample(tasks, len(tasks))

    # ── what the budget is enough for ────────────────────────────────────────────────────────────────────────────

    def _refine(self) -> None:
        """Once there are some pairs of every cell: the forecast again, from what was measured."""
        cells = self._undecided()
        if self._refined or not cells or any(len(one.pairs) < REFINED_AFTER for one in cells):
            return
        self._refined = True
        self._forecast()

    def _forecast(self) -> None:
        cells = self._undecided()
        if not cells:
            return
        spread = [variance([pair.log_ratio for pair in one.pairs]) for one in cells if len(one.pairs) > 1]
        sd = math.sqrt(math.fsum(spread) / len(spread)) if spread else ASSUMED_SD
        first_s = math.fsum(self.costs.seconds(task, cell) for task, cell in self._first_tasks())
        each_s = math.fsum(self.costs.seconds("pair", one.cell) for one in cells)
        have, left_s = min(len(one.pairs) for one in cells), self.budget.left_s()
        pairs = have + max(0, int((left_s - first_s) / each_s))
        self.emit(
            Forecast(
                budget_s=self.budget.total_s,
                left_s=left_s,
                pairs=min(pairs, self.rules.looks[-1]),
                first_look=self.rules.looks[0],
                needs_s=first_s + max(0, self.rules.looks[0] - have) * each_s,
                sd=sd,
                measured=bool(spread),
                detectable=self.rules.detectable(pairs, sd),
                power=POWER,
            )
        )


def comparable(one: CellEvidence) -> bool:
    """Whether a cell is on both sides, means the same there, and has not failed."""
    return one.sides == "both" and not one.differences and not one.faults


def _stands_alone(one: CellEvidence) -> bool:
    """Whether B's cell is to be trained by itself: it can be compared with nothing, but may fail, or miss a floor."""
    return one.sides != "only A" and not comparable(one) and one.solo is None and not one.faults


def _dropped(accuracy: AccuracyFinding) -> bool:
    return accuracy.change.high is not None and accuracy.change.high < 0


def _next_number(one: CellEvidence) -> int:
    return max((pair.number for pair in one.pairs), default=0) + 1


def _next_seed(one: CellEvidence, seeds: Sequence[int]) -> int:
    done = {pair.seed for pair in one.seeds}
    return next(seed for seed in itertools.chain(seeds, itertools.count()) if seed not in done)


def _lines(cell: Cell, found: Found, seconds: float, spent_s: float) -> list[Line]:
    match found:
        case OutOfTime():
            return []
        case ProcessPair():
            return [Line(cell=cell, seconds=seconds, spent_s=spent_s, pair=found)]
        case SeedPair():
            return [Line(cell=cell, seconds=seconds, spent_s=spent_s, seed=found)]
        case parts:
            line = Line(cell=cell, seconds=seconds, spent_s=spent_s)
            return [replace(line, solo=one) if isinstance(one, Solo) else replace(line, fault=one) for one in parts]
