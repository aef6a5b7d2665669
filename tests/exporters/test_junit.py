"""JUnit XML, valid by the schema that CI systems share and read back by junitparser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import junitparser
import pytest
from export_kit import Records, every_kind, hostile, nothing_measured, records
from lxml import etree

from mnist_bench.exporters import junit

SCHEMA = etree.XMLSchema(etree.parse(str(Path(__file__).with_name("junit.xsd"))))


def read(made: Records) -> junitparser.JUnitXml:
    data = junit.export(*made.all)
    SCHEMA.assertValid(etree.fromstring(data))
    return junitparser.JUnitXml.fromstring(data)


def cases(made: Records) -> dict[str, junitparser.TestCase]:
    return {f"{suite.name}/{case.name}": case for suite in read(made) for case in suite}


def test_a_case_per_cell_a_suite_per_model() -> None:
    made = every_kind()
    assert [suite.name for suite in read(made)] == ["mlp", "cnn"]
    assert sorted(cases(made)) == sorted(row.cell.id for row in made.rows)
    assert {case.classname for case in cases(made).values()} == {"mnist_bench.mlp", "mnist_bench.cnn"}


def test_results_have_reasons() -> None:
    found = cases(every_kind())
    assert found["mlp/cpu/b100/eager"].is_passed
    assert found["cnn/cpu/b100/eager"].is_passed
    kinds = {
        "mlp/cuda/b100/eager": (junitparser.Skipped, "skipped", "no NVIDIA driver"),
        "mlp/cpu/b1000/eager": (junitparser.Error, "oom", "out of memory: use less"),
        "mlp/cpu/b100/compile": (
            junitparser.Failure,
            "expect",
            "mlp/cpu/b100/compile: test accuracy 0.96 is below the floor 0.99",
        ),
    }
    for name, (kind, type_, message) in kinds.items():
        (result,) = found[name].result
        assert isinstance(result, kind)
        assert (result.type, result.message) == (type_, message)


def test_counts_and_times_add_up() -> None:
    mlp, cnn = read(every_kind())
    assert (mlp.tests, mlp.failures, mlp.errors, mlp.skipped) == (4, 1, 1, 1)
    assert (cnn.tests, cnn.failures, cnn.errors, cnn.skipped) == (1, 0, 0, 0)
    assert {case.name: case.time for case in mlp} == {
        "cpu/b100/eager": 45.0,  # three trials of 15 s
        "cpu/b100/compile": 45.0,
        "cuda/b100/eager": 0.0,
        "cpu/b1000/eager": 0.0,
    }
    assert mlp.time == 90.0


def test_figures_are_properties_of_the_suite() -> None:
    mlp, _ = read(every_kind())
    found = {one.name: one.value for one in mlp.properties()}
    assert found["run_id"] == "20261123T101500Z-a1b2c3"
    assert found["package.torch"] == "2.13.0+cpu"
    assert found["cpu/b100/compile compile_s"] == "9.5"
    assert float(found["cpu/b100/compile speedup_vs_eager"]) > 1.3
    assert found["cpu/b100/compile noisy"] == "true"
    assert "cpu/b100/eager compile_s" not in found


def test_an_error_comes_before_the_floor_that_it_misses() -> None:
    made = every_kind()
    floor = replace(made.manifest.matrix.expect[0], variant=None)
    matrix = replace(made.manifest.matrix, expect=(floor,))
    found = cases(records(made.trials, made.sessions, matrix=matrix))
    (result,) = found["mlp/cpu/b1000/eager"].result
    assert isinstance(result, junitparser.Error)
    assert found["mlp/cpu/b100/eager"].is_failure


def test_nothing_measured_is_a_file_of_skips() -> None:
    (case,) = cases(nothing_measured()).values()
    assert case.is_skipped


def test_a_run_without_a_cell_is_a_file_without_a_suite() -> None:
    assert list(read(records([]))) == []


def test_hostile_names_stay_text() -> None:
    made = hostile()
    document = etree.fromstring(junit.export(*made.all))  # refuses what XML cannot hold
    SCHEMA.assertValid(document)
    assert {element.tag for element in document.iter()} <= {
        "testsuites",
        "testsuite",
        "properties",
        "property",
        "testcase",
        "error",
        "system-out",
        "system-err",
    }
    texts = [value for element in document.iter() for value in element.attrib.values()]
    assert all(text.isprintable() for text in texts)
    assert any("</script><img src=x onerror=alert(1)>" in text for text in texts)


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 123456.7894])
def test_seconds_are_decimal(seconds: float) -> None:
    made = every_kind()
    trials = [replace(one, outcome=replace(one.outcome, total_s=seconds)) for one in made.trials if one.status == "ok"]
    read(records(trials))
