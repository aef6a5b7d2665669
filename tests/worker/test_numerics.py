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

variant = Variant(name="tested", **json.loads(sys.argv[1]))
numerics.apply(variant, torch.device("cpu"))
print(json.dumps(numerics.describe(variant, torch.device("cpu"))))
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
