"""A check as JUnit XML: valid by the schema that the exports are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import junitparser
import pytest
from gate_factory import KINDS, every_kind, hostile, make_check, make_verdict, of_kinds
from lxml import etree
from record_factory import make_cell

from mnist_bench.gate.output.junit import to_junit
from mnist_bench.gate.records import Check, Verdict

SCHEMA = etree.XMLSchema(etree.parse(str(Path(__file__).parents[1] / "junit.xsd")))


def read(check: Check, verdicts: tuple[Verdict, ...]) -> junitparser.JUnitXml:
    data = to_junit(check, verdicts)
    SCHEMA.assertValid(etree.fromstring(data))
    return junitparser.JUnitXml.fromstring(data)


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("regression", junitparser.Failure),
        ("missing", junitparser.Failure),
        ("failed", junitparser.Failure),
        ("inconclusive", junitparser.Skipped),
        ("not_comparable", junitparser.Skipped),
        ("pass", None),
        ("improvement", None),
        ("new", None),
    ],
)
def test_each_kind_has_its_result(kind: Any, result: Any) -> None:
    verdict = make_verdict(kind)
    ((case,),) = read(make_check(), (verdict,))
    assert (case.name, case.classname) == ("cpu/b100/eager", "mnist_bench.check.mlp")
    if result is None:
        assert case.is_passed
    else:
        (found,) = case.result
        assert isinstance(found, result)
        assert (found.type, found.message) == (kind, verdict.text)


def test_no_kind_is_forgotten() -> None:
    (suite,) = read(*every_kind())
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (len(KINDS), 3, 0, 2)


def test_a_suite_per_model_with_facts_and_figures() -> None:
    suites = list(read(*of_kinds("pass", "regression", "pass")))
    assert [suite.name for suite in suites] == ["mlp", "cnn", "lenet5"]
    found = {one.name: one.value for one in suites[1].properties()}
    assert found["check_id"] == "20261126T101500Z-a1b2c3"
    assert found["b"] == "working tree"
    assert found["cpu/b100/eager verdict"] == "regression"
    assert found["cpu/b100/eager speed"] == "12 % slower (10-14 %)"
    assert found["cpu/b100/eager compile time"] == "10.4 → 11.1 (+7 %) s"


def test_time_is_that_of_the_blocks_of_both_sides() -> None:
    check, verdicts = of_kinds("pass")
    ((case,),) = read(check, verdicts)
    blocks = sum(sum(one.seconds) for pair in check.cells[0].pairs for one in pair.rounds)
    assert case.time == pytest.approx(blocks, abs=0.001)
    assert blocks > 1


def test_no_cell_is_a_file_without_a_suite() -> None:
    assert list(read(make_check(), ())) == []


def test_many_cells() -> None:
    assert sum(suite.tests for suite in read(*of_kinds(*["pass"] * 200))) == 200


def test_hostile_texts_stay_texts() -> None:
    nasty = ("</testcase><failure>", "]]><!-- & -->", "\x00\x1b[31m", "\ud800\ufffe", "\n", "", '" onload="x')
    check, verdicts = hostile(nasty)
    document = etree.fromstring(to_junit(check, verdicts))
    SCHEMA.assertValid(document)
    assert len(document.findall(".//testcase")) == len(verdicts)
    assert all(text.isprintable() for element in document.iter() for text in element.attrib.values())


def test_a_cell_without_a_name() -> None:
    read(make_check(), (make_verdict("failed", make_cell("\n"), text="\x00"),))
