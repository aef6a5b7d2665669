"""What a selftest is made of: conditions, what was injected, and what the gate said. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mnist_bench.gate.records import Check, Verdict, VerdictKind
from mnist_bench.records import Cell, DataSet, Matrix
from mnist_bench.stats import Interval

SLOW_DOWNS = (1.05, 1.10, 1.20)  # seconds per step, B / A, that are aimed at
DROP = 0.006  # of accuracy, at least, that mislabelled training data are to cost
RED: frozenset[VerdictKind] = frozenset(("regression", "missing", "failed"))
JUDGED: frozenset[VerdictKind] = RED | {"pass", "improvement", "inconclusive"}

MISLABELLED = "mislabelled"  # the condition of that name


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a check: the same tree as the other's, with an environment, a matrix and images of its own."""

    matrix: Matrix
    environ: Mapping[str, str]
    data: DataSet


class RunCheck(Protocol):
    """The gate, by the very path that ``check --against`` takes.

    ``b.data`` may be another set than ``a.data``: that is the injected fault, and no reason not to compare.
    """

    def __call__(self, a: Side, b: Side, cells: Sequence[Cell], budget_s: float) -> tuple[Check, Sequence[Verdict]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowed:
    """Extra work for one cell: ``rows`` of it, and the ratio of seconds per step that was measured with them.

    ``measured`` is the mean over sessions of fresh process pairs with its 95 % t interval; ``aim`` what it was to be.
    """

    cell: Cell
    aim: float
    rows: int
    measured: Interval
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mislabelled:
    """A training set of which ``fraction`` of the labels are wrong; ``drops``: of accuracy, by cell, with one seed."""

    data: DataSet
    fraction: float
    drops: Mapping[Cell, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What differs between the sides of a check.

    Args:
        name: in the table.
        a: side A.
        b: side B.
        faulty: the cells of B that are worse; none: the sides are alike, and every alarm is false.
        size: of the fault as it was measured, least and most over the cells: a ratio less 1, or a drop of accuracy.
    """

    name: str
    a: Side
    b: Side
    faulty: frozenset[Cell] = frozenset()
    size: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """What the gate said of one cell, and after how many process pairs and seeds."""

    cell: Cell
    kind: VerdictKind
    pairs: int
    seeds: int
    ratio: float | None  # seconds per step, B / A, as the gate estimated it
    change: float | None  # of accuracy, B - A


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check. ``seconds``: wall time of it."""

    condition: str
    seconds: float
    cells: tuple[CellResult, ...]
