"""Numerics are of the whole process: each is set in a process of its own, and read back there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from mnist_bench.measure import numerics
from mnist_bench.records import Variant

CPU = torch.device("cpu")
PROGRAM = """
import json, sys, torch
from mnist_bench.measure import numerics
from mnist_bench.records import Variant

settings = json.loads(sys.argv[1])
device, leniently = torch.device(settings.pop("device", "cpu")), settings.pop("deterministic_if_possible", False)
variant = Variant(name="tested", **settings)
numerics.apply(variant, device, deterministic_if_possible=leniently)
found = numerics.describe(variant, device)
found["warns_only"] = torch.is_deterministic_algorithms_warn_only_enabled()
found["flags"] = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision
print(json.dumps(found))
"""


def in_a_process(**settings: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(settings)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_numerics_are_set_and_read_back() -> None:
    usual = in_a_process(threads=1)
    assert usual["threads"] == 1
    assert usual["autocast"] == "off"
    assert usual["deterministic"] is False
    assert usual["denormals_flushed"] is False
    changed = in_a_process(threads=2, deterministic=True, flush_denormal=True, precision="bf16")
    assert changed["threads"] == 2
    assert changed["autocast"] == "torch.bfloat16"
    assert changed["deterministic"] is True
    assert changed["denormals_flushed"] is True
    assert {"interop_threads", "onednn", "omp_wait_policy"} <= changed.keys()


@pytest.mark.parametrize(("precision", "flags"), [("fp32", ["highest", "ieee"]), ("tf32", ["high", "tf32"])])
def test_the_flags_of_a_gpu_can_be_read_by_their_older_and_newer_names(precision: str, flags: list[str]) -> None:
    """They are flags of the process, which a build for the CPU has too."""
    found = in_a_process(device="cuda", precision=precision)
    assert found["flags"] == flags
    assert found["matmul_precision"] == found["conv_precision"] == flags[1]


def test_determinism_where_it_is_possible_warns_else() -> None:
    assert in_a_process(deterministic=True)["warns_only"] is False
    lenient = in_a_process(deterministic=True, deterministic_if_possible=True)
    assert (lenient["deterministic"], lenient["warns_only"]) == (True, True)


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(numerics.NumericsError, match=r"tf32 exists on NVIDIA GPUs .*, not on cpu"):
        numerics.apply(Variant(name="tf32", precision="tf32"), CPU)


def test_denormals_that_cannot_be_flushed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_flush_denormal", lambda wanted: False)
    with pytest.raises(numerics.NumericsError, match="cannot flush denormals"):
        numerics.apply(Variant(name="flush", flush_denormal=True), CPU)


def test_what_is_described_is_what_is_in_force_not_what_was_asked_for() -> None:
    torch.set_num_threads(1)
    assert numerics.describe(Variant(name="x", threads=2, deterministic=True), CPU)["threads"] == 1
    assert numerics.describe(Variant(name="x", deterministic=True), CPU)["deterministic"] is False
