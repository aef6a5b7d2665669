"""Two sides and a folder -> evidence in the folder: the part of a check that knows nothing of git."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mnist_bench.checks.budget import Budget
from mnist_bench.checks.conduct import Conductor
from mnist_bench.checks.costs import Costs, guesses
from mnist_bench.checks.events import CheckObserver, CheckStarted
from mnist_bench.checks.folder import CheckFolder
from mnist_bench.checks.rules import Rules, rules_of
from mnist_bench.checks.workbench import Workbench
from mnist_bench.errors import Interrupted
from mnist_bench.gate.records import CellEvidence, Check, Margins
from mnist_bench.gate.sides import Side
from mnist_bench.interrupts import Interrupts
from mnist_bench.machine import environment
from mnist_bench.runner import label


def _nothing_can_change() -> None:
    """Sides that nobody edits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How two sides are measured.

    Args:
        clock: seconds; ``started_s``: the clock when this sitting began.
        unchanged: raises where a side is no longer what it was.
        judges_of: the judges of so many cells.
    """

    budget_s: float
    clock: Callable[[], float]
    started_s: float
    interrupts: Interrupts
    emit: CheckObserver
    allow_plugins: bool = False
    timeout_s: float | None = None
    unchanged: Callable[[], None] = _nothing_can_change
    judges_of: Callable[[tuple[CellEvidence, ...], Margins], Rules] = rules_of


def measure(folder: CheckFolder, a: Side, b: Side, setting: Setting) -> Check:
    """Measures until every cell of the folder's head is decided, the user interrupts, or the budget is spent.

    Returns:
        The check as it then stands on disk; its status tells an interrupt.

    Raises:
        BenchError: a side was changed meanwhile, or another process is at this check.
    """
    with folder.lock():
        budget = Budget(
            total_s=setting.budget_s,
            before_s=folder.spent_s(),
            clock=setting.clock,
            started_s=setting.started_s,
        )
        folder.update(status="running", ended_at=None, budget_s=setting.budget_s)
        conductor = _conductor(folder, a, b, budget, setting)
        head = folder.head()
        setting.emit(
            CheckStarted(
                check_id=head.id,
                path=str(folder.path),
                a=head.a,
                b=head.b,
                cells=conductor.ledger.cells(),
                looks=conductor.rules.looks,
            )
        )
        status = "interrupted"
        try:
            conductor.run()
            status = "complete"
        except Interrupted:
            pass  # the status is the answer
        finally:
            folder.update(status=status, ended_at=label(datetime.now(UTC)), spent_s=budget.spent_s())
        return folder.check()


def _conductor(folder: CheckFolder, a: Side, b: Side, budget: Budget, setting: Setting) -> Conductor:
    if b.matrix is None:
        raise ValueError("side B has no matrix")
    ledger, head = folder.ledger(), folder.head()
    cells = [one.cell for one in ledger.cells() if one.sides != "only A"]
    return Conductor(
        ledger=ledger,
        bench=Workbench(
            sides={"A": a, "B": b},
            name=head.id,
            logs=folder.logs.resolve(),
            interrupts=setting.interrupts,
            emit=setting.emit,
            allow_plugins=setting.allow_plugins,
            timeout_s=setting.timeout_s,
            clock=setting.clock,
            unchanged=setting.unchanged,
        ),
        rules=setting.judges_of(head.cells, head.margins),
        costs=Costs(guesses(b.matrix, cells, environment.available_cores()), ledger.durations),
        budget=budget,
        seeds=head.seeds,
        rng=random.Random(f"{head.id}/{len(folder.lines())}"),
        emit=setting.emit,
    )
