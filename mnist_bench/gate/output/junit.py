"""A check as JUnit XML: a suite per model, a test case per cell.

``regression``, ``missing`` and ``failed`` are failures; ``pass``, ``improvement`` and ``new`` have passed.
``not_comparable`` is skipped, and so is ``inconclusive``: nothing was shown to be wrong, and a reader that counted it
as passed would say more than was measured. The exit code (4) is what tells it from a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import junitparser

from mnist_bench import junit
from mnist_bench.gate.output import words
from mnist_bench.gate.records import CellEvidence, Check, Verdict, VerdictKind
from mnist_bench.table import plain

PACKAGE = "mnist_bench.check"
RESULTS: dict[VerdictKind, type[junit.Result]] = {
    "failed": junitparser.Failure,
    "missing": junitparser.Failure,
    "regression": junitparser.Failure,
    "inconclusive": junitparser.Skipped,
    "not_comparable": junitparser.Skipped,
}


def to_junit(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    """The whole file; a case's time is that of its timed blocks, of both sides."""
    by_model: dict[str, list[Verdict]] = {}
    for one in verdicts:
        by_model.setdefault(one.cell.model, []).append(one)
    seconds = {evidence.cell: _seconds(evidence) for evidence in check.cells}
    return junit.document(
        junit.suite(
            number,
            model,
            package=PACKAGE,
            started_at=check.started_at,
            properties=[*_facts(check).items(), *_figures(own)],
            cases=[_case(one, seconds.get(one.cell, 0.0)) for one in own],
        )
        for number, (model, own) in enumerate(by_model.items())
    )


def _case(one: Verdict, seconds: float) -> junitparser.TestCase:
    kind = RESULTS.get(one.kind)
    result = None if kind is None else kind(plain(one.text), one.kind)
    return junit.case(_name(one), f"{PACKAGE}.{junit.word(one.cell.model)}", seconds, result)


def _facts(check: Check) -> dict[str, str]:
    return {
        "check_id": check.id,
        "check_status": check.status,
        "schema_version": str(check.schema_version),
        "program_version": check.program_version,
        "mode": check.mode,
        "a": check.a.label,
        "a_commit": check.a.commit or "",
        "b": check.b.label,
        "b_commit": check.b.commit or "",
        "b_changed": str(len(check.b.changed)),
        "matrix": check.matrix_path,
        "recipe": check.recipe,
        "dataset": check.dataset,
    }


def _figures(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, str]]:
    for one in verdicts:
        known = (
            ("verdict", one.kind),
            ("speed", words.speed(one)),
            ("accuracy", words.accuracy(one)),
            ("pairs", words.pairs(one)),
            ("seeds", words.seeds(one)),
            *((item.name, f"{words.advisory(item)} {item.unit}") for item in one.advisories),
        )
        yield from ((f"{_name(one)} {name}", value) for name, value in known if value)


def _seconds(evidence: CellEvidence) -> float:
    return sum(sum(one.seconds) for pair in evidence.pairs for one in pair.rounds)


def _name(one: Verdict) -> str:
    return junit.word(one.cell.id.removeprefix(f"{one.cell.model}/"))
