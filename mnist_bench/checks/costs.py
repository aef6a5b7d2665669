"""About how long the tasks of a check take: guessed before any was measured, then from those that were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from mnist_bench.checks.events import Task
from mnist_bench.machine.forecast import trial_s
from mnist_bench.records import Cell, Matrix

PAIR_TOKEN_S = 2.0  # of each side of a process pair: rounds of blocks (docs/decisions/0016)


class Costs:
    """Args:
    guesses: seconds of each task of each cell.
    durations: those that were measured, which grow.
    """

    def __init__(
        self, guesses: Mapping[tuple[Task, Cell], float], durations: Mapping[tuple[Task, Cell], Sequence[float]]
    ) -> None:
        self._guesses, self._durations = guesses, durations

    def seconds(self, task: Task, cell: Cell) -> float:
        """The median of the cell's own tasks; before its first, the guess by how far others were off."""
        if own := self._durations.get((task, cell)):
            return median(own)
        others = [
            median(found) / self._guesses[key]
            for key, found in self._durations.items()
            if key[0] == task and found and self._guesses.get(key)
        ]
        return self._guesses[task, cell] * (median(others) if others else 1.0)


def guesses(matrix: Matrix, cells: Sequence[Cell], cores: int) -> dict[tuple[Task, Cell], float]:
    """Seconds by ``trial_s``; a pair's workers start side by side.

    Args:
        matrix: B's.
        cells: of it.
    """
    found: dict[tuple[Task, Cell], float] = {}
    for cell in cells:
        whole = trial_s(cell, matrix, matrix.epochs, cores)
        found["pair", cell] = 1.5 * trial_s(cell, matrix, 0, cores) + 2 * PAIR_TOKEN_S
        found["seed", cell] = 2 * whole
        found["solo", cell] = whole
    return found
