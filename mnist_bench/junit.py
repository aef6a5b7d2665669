"""JUnit XML: what all files of this format have alike. Pure.

Valid by the two schemas that readers hold it against: Ant's (https://github.com/windyroad/JUnit-Schema) and Jenkins'
(``junit-10.xsd`` of its xunit-plugin). Neither lets a test case have properties, so figures are properties of the
suite, named after their case.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import junitparser

from mnist_bench.table import plain

Result = junitparser.Skipped | junitparser.Error | junitparser.Failure


class _Suite(junitparser.TestSuite):
    """With the two attributes that Ant's schema asks for."""

    id = junitparser.IntAttr()
    package = junitparser.Attr()


def suite(
    number: int,
    name: str,
    *,
    package: str,
    started_at: str,
    properties: Iterable[tuple[str, str]],
    cases: Sequence[junitparser.TestCase],
) -> junitparser.TestSuite:
    """The cases of one model.

    Args:
        number: from 0, of this suite in its document.
        started_at: ISO 8601.
        properties: names and texts, from outside too.
    """
    own = _Suite(word(name))
    own.id, own.package = number, package
    made: junitparser.TestSuite = own
    made.hostname = "localhost"  # the schema's word for a host that is not known: runs do not record its name
    made.timestamp = plain(started_at)[: len("2026-11-23T10:15:00")]  # without a zone
    for key, value in properties:
        made.add_property(word(key), plain(value))
    made.add_testcases(list(cases))
    made.append(junitparser.SystemOut(""))  # Ant's schema wants both, even where nothing was printed
    made.append(junitparser.SystemErr(""))
    return made


def case(name: str, classname: str, seconds: float, result: Result | None) -> junitparser.TestCase:
    """A test case; without a result it has passed."""
    made = junitparser.TestCase(word(name), classname, round(seconds, 3))
    if result is not None:
        made.result = result
    return made


def document(suites: Iterable[junitparser.TestSuite]) -> bytes:
    """The whole file."""
    made = junitparser.JUnitXml()
    for one in suites:
        made.append(one)
    out = io.BytesIO()
    made.write(out)
    return out.getvalue()


def word(text: str) -> str:
    """Without what XML 1.0 cannot hold; never empty, which the schemas forbid."""
    return plain(text) or "?"


def figure(value: str | float | bool) -> str:
    """A value as the text of a property."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}"
        case _:
            return str(value)
