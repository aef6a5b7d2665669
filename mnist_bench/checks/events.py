"""What a check tells its observer. Events come between timed spans, never inside one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mnist_bench.events import DataReady, Notice
from mnist_bench.gate.records import CellEvidence, ProcessPair, SeedPair, SideFault, SideInfo
from mnist_bench.records import Cell

Task = Literal["pair", "seed", "solo"]  # a process pair; both sides trained; B alone


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckStarted:
    """``looks``: numbers of pairs at which a cell is judged."""

    check_id: str
    path: str  # of its folder
    a: SideInfo
    b: SideInfo
    cells: tuple[CellEvidence, ...]
    looks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the budget is enough for.

    Args:
        pairs: of every cell, if they are shared out evenly.
        first_look: pairs of every cell that a first judgement takes.
        needs_s: about how long it is until then.
        sd: of a pair's log ratio: assumed, or ``measured``.
        detectable: the smallest slow-down that these pairs find with ``power``, as a fraction; infinite: none.
    """

    budget_s: float
    left_s: float
    pairs: int
    first_look: int
    needs_s: float
    sd: float
    measured: bool
    detectable: float
    power: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted:
    """``number``: of the pair, or the seed; ``target``: the pair at which the cell is judged next."""

    task: Task
    cell: Cell
    number: int
    target: int | None
    left_s: float


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """A task that had not ended when the budget did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished:
    """``found``: what it gave, None of B alone where it works; ``faults`` where a side could not."""

    task: Task
    cell: Cell
    number: int
    target: int | None
    found: ProcessPair | SeedPair | OutOfTime | None
    faults: tuple[SideFault, ...]
    seconds: float
    left_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one side does now."""

    text: str


CheckEvent = Notice | DataReady | CheckStarted | Forecast | TaskStarted | TaskFinished | Stage
CheckObserver = Callable[[CheckEvent], None]
