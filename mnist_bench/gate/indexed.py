"""A run's rows, measurements and sessions by cell id: what the rooms of a baseline look things up in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mnist_bench.analysis.ratios import SessionIndex
from mnist_bench.analysis.summary import Run
from mnist_bench.figures import Row
from mnist_bench.records import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    run: Run
    rows: Mapping[str, Row]
    measured: Mapping[str, Mapping[int, tuple[str, Measurement]]]
    sessions: SessionIndex

    def comparable(self, row: Row) -> bool:
        return row.status == "ok"


def index(run: Run) -> Indexed:
    return Indexed(
        run=run,
        rows={row.cell.id: row for row in run.rows},
        measured={cell.id: own for cell, own in run.ok.items()},
        sessions=run.index,
    )
