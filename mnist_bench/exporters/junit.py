"""JUnit XML: a suite per model, a test case per cell, for what shows test results in CI.

A cell that was measured has passed; a missed floor of ``expect`` is a failure, a cell that could not be measured an
error, one that the machine lacks something for is skipped. Valid by the two schemas that readers hold it against:
Ant's (https://github.com/windyroad/JUnit-Schema) and Jenkins' (``junit-10.xsd`` of its xunit-plugin). Neither lets a
test case have properties, so the figures are properties of the suite, named after their cell.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import junitparser

from mnist_bench import figures
from mnist_bench.exporters.cells import known
from mnist_bench.records import Cell, Manifest, Measurement, Session, Trial
from mnist_bench.rows import FloorResult, Row

PACKAGE = "mnist_bench"

Verdict = junitparser.Skipped | junitparser.Error | junitparser.Failure


class _Suite(junitparser.TestSuite):
    """With the two attributes that Ant's schema asks for."""

    id = junitparser.IntAttr()
    package = junitparser.Attr()


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
    document = junitparser.JUnitXml()
    for number, (model, own) in enumerate(by_model.items()):
        suite = _suite(manifest, number, model)
        for row in own:
            for column, value in known(row).items():
                suite.add_property(f"{_name(row)} {column}", _text(value))
        suite.add_testcases([_case(row, seconds.get(row.cell.id, 0.0), missed.get(row.cell, ())) for row in own])
        suite.append(junitparser.SystemOut(""))  # Ant's schema wants both, even where nothing was printed
        suite.append(junitparser.SystemErr(""))
        document.append(suite)
    out = io.BytesIO()
    document.write(out)
    return out.getvalue()


def _suite(manifest: Manifest, number: int, model: str) -> junitparser.TestSuite:
    suite = _Suite(_word(model))
    suite.id, suite.package = number, PACKAGE
    suite.hostname = "localhost"  # the schema's word for a host that is not known: runs do not record its name
    suite.timestamp = figures.plain(manifest.started_at)[: len("2026-11-23T10:15:00")]  # without a zone
    for name, value in _facts(manifest).items():
        suite.add_property(name, figures.plain(value))
    return suite


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
    case = junitparser.TestCase(_name(row), f"{PACKAGE}.{_word(row.model)}", round(seconds, 3))
    verdict = _verdict(row, missed)
    if verdict is not None:
        case.result = verdict
    return case


def _verdict(row: Row, missed: Sequence[FloorResult]) -> Verdict | None:
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
    return _word(row.cell.id.removeprefix(f"{row.model}/"))


def _word(text: str) -> str:
    """Without what XML 1.0 cannot hold; never empty, which the schemas forbid."""
    return figures.plain(text) or "?"


def _text(value: str | float | bool) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}"
        case _:
            return str(value)
