"""The evidence of a check as it grows: in memory by cell, and a durable line for everything that was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mnist_bench.checks.events import Task
from mnist_bench.gate.records import CellEvidence, ProcessPair, SeedPair, SideFault, Solo
from mnist_bench.records import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was found of a cell; exactly one of ``pair``, ``seed``, ``solo`` and ``fault`` is there.

    ``seconds``: of wall time that it took (0 of a second fault of one task); ``spent_s``: of the budget by then.
    """

    cell: Cell
    seconds: float
    spent_s: float
    pair: ProcessPair | None = None
    seed: SeedPair | None = None
    solo: Solo | None = None
    fault: SideFault | None = None


class Ledger:
    """Args:
    cells: what is planned; with nothing measured.
    keep: makes a line durable before it counts.
    """

    def __init__(self, cells: Iterable[CellEvidence], keep: Callable[[Line], None]) -> None:
        self._cells = {one.cell: one for one in cells}
        self._keep = keep
        self.durations: dict[tuple[Task, Cell], list[float]] = {}

    def add(self, line: Line) -> None:
        self._keep(line)
        self.take(line)

    def take(self, line: Line) -> None:
        """Counts a line that is durable already (of an earlier sitting)."""
        evidence = self._cells.get(line.cell)
        if evidence is None:
            raise ValueError(f"{line.cell.id} is no cell of this check")
        if line.pair is not None:
            evidence = replace(evidence, pairs=(*evidence.pairs, line.pair))
            self.durations.setdefault(("pair", line.cell), []).append(line.seconds)
        if line.seed is not None:
            evidence = replace(evidence, seeds=(*evidence.seeds, line.seed))
            self.durations.setdefault(("seed", line.cell), []).append(line.seconds)
        if line.solo is not None:
            evidence = replace(evidence, solo=line.solo)
            self.durations.setdefault(("solo", line.cell), []).append(line.seconds)
        if line.fault is not None and line.fault.side not in {fault.side for fault in evidence.faults}:
            evidence = replace(evidence, faults=(*evidence.faults, line.fault))
        self._cells[line.cell] = evidence

    def of(self, cell: Cell) -> CellEvidence:
        return self._cells[cell]

    def cells(self) -> tuple[CellEvidence, ...]:
        return tuple(self._cells.values())
