"""From an error to a status and a reason that a person can act on; the protocol's order."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter_ns

import pytest
import torch
import torch._dynamo
import torch._dynamo.exc
import torch._inductor.exc
from worker_kit import make_spec, write_plugin

from mnist_bench.errors import DataError
from mnist_bench.execution import compiled
from mnist_bench.execution.compiled import is_compile_error, missing_compiler
from mnist_bench.measure.numerics import NumericsError
from mnist_bench.measure.waterfall import Waterfall
from mnist_bench.models import ModelError
from mnist_bench.protocol import Block, EndSession, Evaluate, Failed, Finish, Prepare, TrainEpoch, Unavailable
from mnist_bench.records import CompileOptions, DataSet, Variant
from mnist_bench.serving import REASON_LENGTH, Server, classify, explain
from mnist_bench.trial import Diverged, TrialError


def wrapped(inner: BaseException, outer: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


COMPILER = torch._dynamo.exc.Unsupported("graph break")
KINDS = [
    (Diverged("NaN"), "diverged"),
    (TrialError("an audit"), "failed"),
    (ModelError("no module"), "failed"),
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
    (SystemExit(0), "failed"),
    (SystemExit("bye"), "failed"),
    (ZeroDivisionError("division by zero"), "failed"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=[f"{type(e).__name__}-{k}" for e, k in KINDS])
def test_every_error_has_its_status(error: BaseException, kind: str) -> None:
    assert classify(error) == kind


def test_our_own_words_stand_alone() -> None:
    for kind in (TrialError, Diverged, ModelError, NumericsError, DataError):
        assert explain(kind("no weight\n  changed")) == "no weight changed"


def test_others_words_have_their_type_and_place() -> None:
    try:
        int("x")
    except ValueError as caught:
        text = explain(caught)
    assert text.startswith("ValueError: invalid literal for int() with base 10: 'x' (")
    assert f"{Path(__file__).name}:" in text
    assert explain(SystemExit()) == "SystemExit: no message"


def test_a_long_message_is_cut() -> None:
    text = explain(RuntimeError("x" * 5000))
    assert len(text) == REASON_LENGTH
    assert text.endswith("…")


# ── the compiler ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_of_a_model_under_compilation_is_the_models() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as caught:
        torch.compile(forward, backend="eager")(torch.ones(2))
    assert not is_compile_error(caught.value)


def test_a_broken_backend_is_the_compilers() -> None:
    def backend(graph: object, inputs: object) -> object:
        raise ValueError("cannot")

    with pytest.raises(Exception, match="cannot") as caught:
        torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))
    assert is_compile_error(caught.value)


def test_a_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, inductor = torch.device("cpu"), Variant(name="compile", execution="compile")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    reason = missing_compiler(inductor, cpu)
    assert reason is not None
    assert reason.startswith(f"torch.compile needs a C++ compiler ({compiled.COMPILER} not found): ")
    monkeypatch.setenv("CXX", "/opt/none/icpx")
    assert "/opt/none/icpx not found" in str(missing_compiler(inductor, cpu))
    assert missing_compiler(Variant(name="eager"), cpu) is None
    eager_backend = Variant(name="e", execution="compile", compile=CompileOptions(backend="eager"))
    assert missing_compiler(eager_backend, cpu) is None
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)
    assert missing_compiler(inductor, cpu) is None


def test_triton_is_needed_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    reason = missing_compiler(Variant(name="compile", execution="compile"), torch.device("cuda"))
    assert reason == "torch.compile needs triton on a GPU: pip install triton"


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server() -> Server:
    return Server(Waterfall(perf_counter_ns, perf_counter_ns()))


@pytest.mark.parametrize("request_", [Block(seed=1), EndSession(), TrainEpoch(epoch=0), Evaluate(), Finish()])
def test_nothing_comes_before_prepare(server: Server, request_: object) -> None:
    reply = server.answer(request_)  # type: ignore[arg-type]
    assert reply == Failed(kind="failed", reason=f"{request_.type} before prepare")  # type: ignore[attr-defined]


def test_another_protocol_is_refused(server: Server, tiny: DataSet) -> None:
    reply = server.answer(Prepare(spec=make_spec(tiny), protocol=99))
    assert isinstance(reply, Failed)
    assert "the runner speaks protocol 99, this worker " in reply.reason


def test_a_missing_device_is_no_failure(server: Server, tiny: DataSet) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    spec = make_spec(tiny)
    reply = server.answer(Prepare(spec=type(spec)(**{**_fields(spec), "cell": _on(spec.cell, "cuda")})))
    assert isinstance(reply, Unavailable)
    assert reply.scope == "device"


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]


def _on(cell: object, device: str) -> object:
    return type(cell)(**{**_fields(cell), "device": device})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise KeyError('lost')", "KeyError: 'lost' ({folder}/{name}.py:1)"),
        ("def build():\n    raise SystemExit(3)", "SystemExit: 3 ({folder}/{name}.py:2)"),
        ("def build():\n    return None", "{name}:build() returned a NoneType, not a torch.nn.Module"),
    ],
)
def test_what_a_plugin_does_becomes_a_reply(
    code: str, reason: str, server: Server, tiny: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"served_{abs(hash(code))}"
    write_plugin(tmp_path, name, code)
    reply = server.answer(Prepare(spec=make_spec(tiny, f"{name}:build", plugin_path=str(tmp_path))))
    assert reply == Failed(kind="failed", reason=reason.format(folder=tmp_path, name=name))
    assert "Traceback" in capsys.readouterr().err  # in the worker, its log
