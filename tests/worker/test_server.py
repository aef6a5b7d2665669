"""From an error to a status and a reason that a person can act on; the protocol's order."""

import sys
from argparse import Namespace
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
import torch._dynamo
import torch._dynamo.exc
import torch._inductor.exc
from worker_kit import make_spec, new_trial

from mnist_bench.catalogue import PIPELINES
from mnist_bench.errors import TrialError
from mnist_bench.records import Variant
from mnist_bench.running.protocol import Block, Failed, Open, Opened, Prepare, Unavailable
from mnist_bench.worker import executions
from mnist_bench.worker.executions import missing_compiler
from mnist_bench.worker.server import REASON_LENGTH, answer, classify, explain


def wrapped(inner: BaseException, outer: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


COMPILER = torch._dynamo.exc.Unsupported("graph break")
KINDS = [
    (MemoryError(), "oom"),
    (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom"),
    (RuntimeError("std::bad_alloc"), "oom"),
    (OSError(12, "Cannot allocate memory"), "oom"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed"),
    (ValueError("out of memory"), "failed"),  # a model's own words
    (COMPILER, "compile_error"),
    (torch._inductor.exc.CppCompileError(["g++"], "out of luck"), "compile_error"),
    (wrapped(COMPILER, RuntimeError("in the middle")), "compile_error"),
    (wrapped(ValueError("shape"), RuntimeError("in forward")), "failed"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=[f"{type(e).__name__}-{k}" for e, k in KINDS])
def test_every_error_has_its_status(error, kind):
    assert classify(error) == kind


def test_a_reason_is_one_line_and_a_long_one_is_cut():
    assert explain(TrialError("no weight\n  changed")) == "no weight changed"
    assert explain(ValueError("caf\udce9")) == "ValueError: caf\\udce9"  # half a surrogate pair is no Unicode
    cut = explain(RuntimeError("word " * 1000 + "undeclared identifier"))
    assert cut.startswith("RuntimeError: word")
    assert cut.endswith("word undeclared identifier"), "what a compiler says last is the error"
    assert len(cut) <= REASON_LENGTH
    assert set(cut.split()[1:-2]) == {"word", "…"}


def test_where_the_log_cannot_be_written_the_reply_says_so(monkeypatch):
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(sys, "stderr", Namespace(write=full, flush=full))
    reply = answer(Namespace(block=full), Block(seed=1))
    assert isinstance(reply, Failed)
    assert "No space left on device" in reply.reason


def test_a_model_that_ends_the_program_is_a_failure_with_its_place():
    reply = answer(Namespace(block=lambda seed: sys.exit()), Block(seed=1))
    assert isinstance(reply, Failed)
    assert reply.reason.startswith(f"SystemExit: no message ({__file__}:")


def test_a_missing_compiler_says_what_to_install(monkeypatch):
    inductor = Variant(name="compile", execution="compile")
    monkeypatch.setenv("CXX", "/opt/none/icpx")
    reason = "torch.compile needs a C++ compiler (/opt/none/icpx not found): "
    assert str(missing_compiler(inductor, torch.device("cpu"))).startswith(reason)
    monkeypatch.setattr(executions.importlib.util, "find_spec", lambda name: None)
    needs_triton = "torch.compile needs triton on a GPU: pip install triton"
    assert missing_compiler(inductor, torch.device("cuda")) == needs_triton


def test_another_protocol_is_refused_and_a_missing_device_is_no_failure(tiny):
    """Data are opened without a look at the device: others of the group may be at this too."""
    spec, trial = make_spec(tiny), new_trial()
    reply = answer(trial, Open(spec=spec, protocol=99))
    assert isinstance(reply, Failed)
    assert "the runner speaks protocol 99, this worker " in reply.reason
    for pipeline in PIPELINES:
        own = replace(spec, cell=replace(spec.cell, device="cuda:99"), variant=replace(spec.variant, pipeline=pipeline))
        assert answer(trial, Open(spec=own)) == Opened()
        missing = answer(trial, Prepare())
        assert isinstance(missing, Unavailable)
        assert missing.scope == "device"
