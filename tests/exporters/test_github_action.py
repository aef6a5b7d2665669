"""github-action-benchmark, held against the rules of its source.

The action is no package of npm, so its code is not run here: ``extracted``, ``range_of`` and ``chart`` do what
``src/extract.ts`` (custom tools), ``src/extractRangeInfo.ts`` and ``src/addBenchmarkEntry.ts`` say.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from export_kit import every_kind, hostile, nothing_measured

from mnist_bench.exporters import github_action

BOTH = (github_action.export_smaller, github_action.export_bigger)


def extracted(data: bytes) -> list[dict[str, Any]]:
    """An array of entries {name: string, value: number, unit: string, range?: string, extra?: string}; not empty."""
    entries = json.loads(data)
    assert isinstance(entries, list)
    for entry in entries:
        assert {"name", "value", "unit"} <= set(entry) <= {"name", "value", "unit", "range", "extra"}
        assert isinstance(entry["value"], int | float)
        assert not isinstance(entry["value"], bool)
        assert all(isinstance(entry[key], str) for key in set(entry) - {"value"})
    if not entries:
        raise ValueError("No benchmark result was found")
    return entries


def range_of(text: str) -> tuple[str, float]:
    """The action rescales a range that it can take apart; any other is shown as it is."""
    found = re.search(r"(?P<prefix>(\+-|±)\s*)(?P<value>\d.+)", text)
    assert found is not None
    return found["prefix"], float(found["value"])


def chart(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The action finds the value before by its name: two entries of one name would be compared with each other."""
    found = {entry["name"]: entry for entry in entries}
    assert len(found) == len(entries)
    return found


def test_smaller_is_better() -> None:
    found = chart(extracted(github_action.export_smaller(*every_kind().all)))
    step = found["mlp/cpu/b100/compile · training step, median"]
    assert (step["value"], step["unit"]) == (pytest.approx(2.0), "ms")
    assert "range" not in step
    assert found["mlp/cpu/b100/compile · compilation"]["value"] == 9.5
    assert found["mlp/cpu/b100/eager · host memory, peak"]["value"] == 512
    assert {entry["unit"] for entry in found.values()} == {"ms", "s", "MiB"}


def test_bigger_is_better() -> None:
    found = chart(extracted(github_action.export_bigger(*every_kind().all)))
    accuracy = found["mlp/cpu/b100/eager · test accuracy"]
    assert accuracy["value"] == pytest.approx(0.96)
    assert range_of(accuracy["range"]) == ("± ", pytest.approx(0.01))
    assert found["mlp/cpu/b100/eager · training throughput"]["value"] == pytest.approx(20_000)
    assert {entry["unit"] for entry in found.values()} == {"samples/s", "fraction"}


def test_every_range_can_be_taken_apart() -> None:
    entries = extracted(github_action.export_bigger(*every_kind().all))
    ranges = [range_of(entry["range"]) for entry in entries if "range" in entry]
    assert len(ranges) == 4  # throughput and accuracy of the two cells of three seeds
    assert all(prefix == "± " and value >= 0 for prefix, value in ranges)


def test_no_figure_is_in_both_files() -> None:
    smaller, bigger = (chart(extracted(export(*every_kind().all))) for export in BOTH)
    assert not set(smaller) & set(bigger)


def test_extra_tells_what_to_know() -> None:
    found = chart(extracted(github_action.export_smaller(*every_kind().all)))
    extra = found["mlp/cpu/b100/compile · training epoch"]["extra"].splitlines()
    assert extra[:2] == ["run: 20261123T101500Z-a1b2c3", "seeds: 3"]
    assert any(line.startswith("† noisy") for line in extra)


@pytest.mark.parametrize("export", BOTH)
def test_nothing_measured_is_what_the_action_refuses(export: Any) -> None:
    with pytest.raises(ValueError, match="No benchmark result"):
        extracted(export(*nothing_measured().all))


@pytest.mark.parametrize("export", BOTH)
def test_hostile_names(export: Any) -> None:
    for entry in extracted(export(*hostile().all)):
        assert entry["name"].isprintable()
        assert all(line.isprintable() for line in entry["extra"].split("\n"))
    chart(extracted(export(*hostile().all)))
