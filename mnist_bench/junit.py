"""JUnit XML: a suite per model, a test case per cell. Pure.

Valid by the two schemas that readers hold it against: Ant's (https://github.com/windyroad/JUnit-Schema) and Jenkins'
(``junit-10.xsd`` of its xunit-plugin). Neither lets a test case have properties, so figures are properties of the
suite, named after their case.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import junitparser

from mnist_bench.records import Cell
from mnist_bench.table import grouped, plain

Result = junitparser.Skipped | junitparser.Error | junitparser.Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A cell; without a result it has passed. ``figures``: names and texts, from outside too."""

    cell: Cell
    seconds: float
    result: Result | None
    figures: Iterable[tuple[str, str]]


class _Suite(junitparser.TestSuite):
    """With the two attributes that Ant's schema asks for."""

    id = junitparser.IntAttr()
    package = junitparser.Attr()


def document(package: str, started_at: str, facts: Mapping[str, str], cases: Iterable[Case]) -> bytes:
    """The whole file, models and cells in the order of ``cases``.

    Args:
        package: of the test classes.
        started_at: ISO 8601.
        facts: properties of every suite.
    """
    made = junitparser.JUnitXml()
    for model, own in grouped(cases, lambda case: case.cell.model).items():
        suite = _suite(model, package, facts, own)
        suite.id = len(made)
        suite.timestamp = plain(started_at)[: len("2026-11-23T10:15:00")]  # without a zone
        made.append(suite)
    out = io.BytesIO()
    made.write(out)
    return out.getvalue()


def _suite(model: str, package: str, facts: Mapping[str, str], cases: Sequence[Case]) -> Any:
    made: Any = _Suite(_word(model))
    made.package = package
    made.hostname = "localhost"  # the schema's word for a host that is not known: runs do not record its name
    for key, value in facts.items():
        made.add_property(_word(key), plain(value))
    for one in cases:
        name = _word(one.cell.id.removeprefix(f"{model}/"))
        case = junitparser.TestCase(name, f"{package}.{_word(model)}", round(one.seconds, 3))
        if one.result is not None:
            case.result = one.result
        made.add_testcase(case)
        for key, value in one.figures:
            made.add_property(_word(f"{name} {key}"), plain(value))
    made.append(junitparser.SystemOut(""))  # Ant's schema wants both, even where nothing was printed
    made.append(junitparser.SystemErr(""))
    return made


def _word(text: str) -> str:
    """Without what XML 1.0 cannot hold; never empty, which the schemas forbid."""
    return plain(text) or "?"
