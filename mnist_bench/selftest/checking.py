"""The gate that a selftest measures: two sides and a folder, by the path that ``check --against`` takes below git."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mnist_bench import __version__
from mnist_bench.checks import measure
from mnist_bench.checks.cells import union
from mnist_bench.checks.events import CheckObserver
from mnist_bench.checks.folder import CheckFolder, Head
from mnist_bench.disk.folder import new_run_id
from mnist_bench.gate import sides
from mnist_bench.gate.judge import judge
from mnist_bench.gate.records import CHECK_SCHEMA_VERSION, CellEvidence, Check, Margins, SideInfo, Verdict
from mnist_bench.gate.records import Side as SideName
from mnist_bench.interrupts import Interrupts
from mnist_bench.records import Cell
from mnist_bench.runner import label
from mnist_bench.selftest.records import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A ``RunCheck``.

    Args:
        folder: takes the checks, evidence and logs.
        root: where workers are started.
        matrix_path: the matrix file, whose folder is on the path of workers that load plug-ins.
        emit: what a check tells its observer.
    """

    folder: Path
    root: Path
    matrix_path: Path
    allow_plugins: bool
    emit: CheckObserver

    def __call__(self, a: Side, b: Side, cells: Sequence[Cell], budget_s: float) -> tuple[Check, Sequence[Verdict]]:
        """Raises: as ``checks.measure.measure`` does."""
        begin = time.monotonic()
        folder = CheckFolder.create(self.folder, self._head(a, b, cells, budget_s))
        with Interrupts() as interrupts:
            setting = measure.Setting(
                budget_s=budget_s,
                clock=time.monotonic,
                started_s=begin,
                interrupts=interrupts,
                emit=self.emit,
                allow_plugins=self.allow_plugins,
            )
            check = measure.measure(folder, self._side("A", a), self._side("B", b), setting)
        return check, judge(check)

    def _side(self, name: SideName, side: Side) -> sides.Side:
        return sides.Side(
            name=name,
            label=name,
            root=self.root,
            matrix_path=self.matrix_path,
            matrix=side.matrix,
            environ=side.environ,
            data=side.data,
        )

    def _head(self, a: Side, b: Side, cells: Sequence[Cell], budget_s: float) -> Head:
        now = datetime.now(UTC)
        return Head(
            id=new_run_id(now, random.SystemRandom()),
            schema_version=CHECK_SCHEMA_VERSION,
            program_version=__version__,
            status="running",
            a=SideInfo(label="selftest", commit=None),
            b=SideInfo(label="selftest", commit=None),
            content_sha256="",
            untracked=(),
            matrix_path=str(self.matrix_path),
            dataset=b.data,
            recipe=b.matrix.recipe,
            margins=Margins(),
            cells=planned(a, b, cells),
            seeds=b.matrix.seeds,
            options={},
            budget_s=budget_s,
            started_at=label(now),
        )


def planned(a: Side, b: Side, cells: Sequence[Cell]) -> tuple[CellEvidence, ...]:
    """The cells as a check plans them, less the floors of ``expect``: a missed one fails whatever the sides do."""
    known = {one.cell: one for one in union(a.matrix, b.matrix, None)}
    return tuple(replace(known[cell], min_accuracy=None, min_train_samples_per_s=None) for cell in cells)
