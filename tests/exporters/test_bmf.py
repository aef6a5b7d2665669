"""Bencher Metric Format, held against the schema of its documentation, and what its server refuses."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from export_kit import every_kind, hostile, nothing_measured

from mnist_bench.exporters import bmf
from mnist_bench.exporters.measures import MEASURES

# Written after https://bencher.dev/docs/reference/bencher-metric-format (an object of benchmarks, of measures, with
# ``value`` required), and stricter: no other keys, and the lengths that the page gives for names.
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "propertyNames": {"minLength": 1, "maxLength": 1024},
    "additionalProperties": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "maxLength": 64},
        "additionalProperties": {
            "type": "object",
            "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}


def document(made: Any) -> dict[str, Any]:
    found = json.loads(bmf.export(*made.all))
    jsonschema.Draft7Validator(SCHEMA).validate(found)
    return found


def test_measures_of_a_cell() -> None:
    found = document(every_kind())
    assert set(found) == {"mlp/cpu/b100/eager", "mlp/cpu/b100/compile", "cnn/cpu/b100/eager"}
    compiled = found["mlp/cpu/b100/compile"]
    assert compiled["latency"] == {"value": pytest.approx(2.0e6)}  # nanoseconds: 2 ms a step
    assert compiled["throughput"]["value"] == pytest.approx(20_000)  # 120,000 samples in 6 s
    assert compiled["compile-seconds"] == {"value": 9.5}
    assert compiled["test-accuracy"] == {
        "value": pytest.approx(0.96),
        "lower_value": pytest.approx(0.95),
        "upper_value": pytest.approx(0.97),
    }


def test_what_was_not_measured_is_left_out() -> None:
    found = document(every_kind())
    assert "compile-seconds" not in found["mlp/cpu/b100/eager"]
    assert "latency" not in found["cnn/cpu/b100/eager"]
    assert found["cnn/cpu/b100/eager"]["throughput"] == {"value": 20_000}  # one seed has no interval
    assert document(nothing_measured()) == {}


def test_bounds_hold_the_value() -> None:
    metrics = [metric for cell in document(every_kind()).values() for metric in cell.values()]
    bounded = [metric for metric in metrics if "lower_value" in metric]
    assert bounded
    assert all(metric["lower_value"] <= metric["value"] <= metric["upper_value"] for metric in bounded)


def test_hostile_names() -> None:
    made = hostile()
    names = list(document(made))
    assert len(names) == len(made.sessions)
    assert all(name.isprintable() and name == name.strip() for name in names)


def test_measures_have_names_of_their_own() -> None:
    assert len({measure.slug for measure in MEASURES}) == len({measure.title for measure in MEASURES}) == len(MEASURES)
