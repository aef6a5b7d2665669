"""JUnit XML: a suite per model, a test case per cell, for what shows test results in CI.

A cell that was measured has passed; a missed floor of ``expect`` is a failure, a cell that could not be measured an
error, one that the machine lacks something for is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import junitparser

from mnist_bench import figures, junit
from mnist_bench.exporters.cells import known
from mnist_bench.records import Cell, Manifest, Measurement, Session, Trial
from mnist_bench.rows import FloorResult, Row

PACKAGE = "mnist_bench"


def export(manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]) -> bytes:
    """Every row is a test case; its time is what its trials took, less their timing sessions."""
    from mnist_bench.summary import floors  # it brings numpy, which --help need not wait for

    missed: dict[Cell, list[FloorResult]] = {}
    for result in floors(manifest.matrix, rows):
        if result.verdict == "missed":
            missed.setdefault(result.cell, []).append(result)
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    seconds = _seconds(trials)
    return junit.document(
        junit.suite(
            number,
            model,
            package=PACKAGE,
            started_at=manifest.started_at,
            properties=[*_facts(manifest).items(), *_figures(own)],
            cases=[_case(row, seconds.get(row.cell.id, 0.0), missed.get(row.cell, ())) for row in own],
        )
        for number, (model, own) in enumerate(by_model.items())
    )


def _figures(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(f"{_name(row)} {column}", junit.figure(value)) for row in rows for column, value in known(row).items()]


def _facts(manifest: Manifest) -> dict[str, str]:
    matrix, environment = manifest.matrix, manifest.environment
    facts = {
        "run_id": manifest.run_id,
        "run_status": manifest.status,
        "schema_version": str(manifest.schema_version),
        "program_version": manifest.program_version,
        "matrix": matrix.name,
        "recipe": matrix.recipe,
        "epochs": str(matrix.epochs),
        "dataset": manifest.dataset.name,
        "cpu": environment.cpu,
        "python": environment.python,
        "commit": environment.commit or "",
    }
    return facts | {f"package.{name}": version for name, version in environment.packages.items()}


def _case(row: Row, seconds: float, missed: Sequence[FloorResult]) -> junitparser.TestCase:
    return junit.case(_name(row), f"{PACKAGE}.{junit.word(row.model)}", seconds, _verdict(row, missed))


def _verdict(row: Row, missed: Sequence[FloorResult]) -> junit.Result | None:
    """The worst that is to be said, since a test case has one result at most; None: passed."""
    match row.status:
        case "ok" if missed:
            return junitparser.Failure(figures.plain("; ".join(result.message for result in missed)), "expect")
        case "ok":
            return None
        case "skipped":
            return junitparser.Skipped(figures.plain(row.reason), row.status)
        case _:
            return junitparser.Error(figures.plain(row.reason), row.status)


def _seconds(trials: Sequence[Trial]) -> dict[str, float]:
    """Seconds by cell: of the trials that went well, the only ones whose time is known."""
    found: dict[str, float] = {}
    for trial in trials:
        if isinstance(trial.outcome, Measurement):
            found[trial.cell.id] = found.get(trial.cell.id, 0.0) + trial.outcome.total_s
    return found


def _name(row: Row) -> str:
    return junit.word(row.cell.id.removeprefix(f"{row.model}/"))
