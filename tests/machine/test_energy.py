"""Joules by made-up counters: of a processor's packages, that wrap, and of a stand-in for NVIDIA's library."""

import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from mnist_bench.machine.energy import Meter, packages, spent_j

RANGE = 262_143_328_850  # of an Intel package, uJ: 22 minutes at 200 W


def zone(root: Path, name: str, energy_uj: object, title: str = "package-0", range_uj: object = RANGE) -> None:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("energy_uj", energy_uj), ("name", title), ("max_energy_range_uj", range_uj)):
        (folder / file).write_text(f"{text}\n")


def test_packages_are_added_and_their_parts_are_not(tmp_path):
    assert packages(tmp_path) == {}
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", 7_000_000, "package-1")
    zone(tmp_path, "intel-rapl:0:0", 3_000_000, "core")
    zone(tmp_path, "intel-rapl:2", 90_000_000, "psys")
    zone(tmp_path, "intel-rapl-mmio:0", 5_000_000)  # the same package by another way
    zone(tmp_path, "intel-rapl:3", "", "package-3")  # one that may not be read
    assert packages(tmp_path) == {"intel-rapl:0": (5_000_000, RANGE), "intel-rapl:1": (7_000_000, RANGE)}
    meter = Meter("cpu", root=tmp_path)
    for rise in (2_000_000, 500_000):
        with meter:
            zone(tmp_path, "intel-rapl:0", packages(tmp_path)["intel-rapl:0"][0] + rise)
        zone(tmp_path, "intel-rapl:1", packages(tmp_path)["intel-rapl:1"][0] + 10**9)  # between the spans
    assert meter.joules == pytest.approx(2.5)


def test_a_counter_that_wraps_has_gone_on_counting(tmp_path):
    """A fault that a plain difference would make -262 kJ of."""
    zone(tmp_path, "intel-rapl:0", RANGE - 1_000_000)
    meter = Meter("cpu", root=tmp_path)
    with meter:
        zone(tmp_path, "intel-rapl:0", 2_000_000)
    assert meter.joules == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"a": (1, 9)}, {}),
        ({}, {"a": (1, 9)}),
        ({"a": (1, 9)}, {"a": (2, 9), "b": (3, 9)}),
        ({"a": (5, 0)}, {"a": (4, 0)}),  # never wraps: the driver was loaded anew
    ],
)
def test_what_is_not_known_is_no_figure(before, after):
    assert spent_j(before, after) is None


def test_the_counter_of_a_gpu_by_nvidias_name(monkeypatch):
    library = Mock(NVMLError=LookupError)
    library.nvmlDeviceGetHandleByUUID.side_effect = {"GPU-1": 7}.__getitem__
    library.nvmlDeviceGetTotalEnergyConsumption.side_effect = [1_000, 3_500]  # mJ
    monkeypatch.setitem(sys.modules, "pynvml", library)
    known, unknown = Meter("cuda:1", "GPU-1"), Meter("cuda", "")
    with known, unknown:
        pass
    assert (known.joules, unknown.joules) == (2.5, None)
    library.nvmlDeviceGetTotalEnergyConsumption.assert_called_with(7)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    with known:
        pass
    assert known.joules is None, "a span that is not known spoils the sum"
