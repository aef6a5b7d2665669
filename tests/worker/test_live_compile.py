"""Compiled trials: warm-up covers every shape, a recompilation inside a timed span fails, traces agree with eager's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch._inductor.config
from torch._dynamo.utils import counters
from worker_kit import LINEAR, TEST, TRAIN, carry_out, make_spec, open_trial, write_plugin

from mnist_bench.errors import TrialError
from mnist_bench.protocol import Prepared
from mnist_bench.records import CompileOptions, DataSet, TrialSpec
from mnist_bench.worker.executions import graphs_compiled
from mnist_bench.worker.server import classify

pytestmark = [
    pytest.mark.usefixtures("hasty"),
    # torch's compiler meets deprecated parts of torch as it is imported and used.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]

# Dropout and a convolution in it, so that train and eval differ, and small enough to compile in seconds.
SMALL = """
    from torch import nn

    def build():
        return nn.Sequential(
            nn.AvgPool2d(4), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(50, 10)
        )
"""
# Its shapes depend on how often it was called: in the first timed span it meets one that warm-up has not seen.
SHIFTY = """
    import torch
    from torch import nn

    class Shifty(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, 10)
            self.limit = 10**9

        def forward(self, images):
            flat = images.flatten(1)
            return self.linear(flat * 2 if self.limit < 5 else flat)

    build = Shifty
"""


def compiled_spec(data: DataSet, folder: Path, name: str, code: str, **changes: object) -> TrialSpec:
    write_plugin(folder, name, code)
    options = changes.pop("compile", CompileOptions(backend="aot_eager"))
    return make_spec(
        data,
        f"{name}:build",
        plugin_path=str(folder),
        execution="compile",
        compile=options,
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("scope", ["model", "step"])
def test_a_ragged_tail_is_no_recompilation(scope: str, tiny: DataSet, tmp_path: Path) -> None:
    options = CompileOptions(backend="aot_eager", scope=scope)  # type: ignore[arg-type]
    spec = compiled_spec(tiny, tmp_path, f"ragged_{scope}", SMALL, batch_size=64, compile=options, epochs=2)
    assert TRAIN % 64
    outcome = carry_out(spec, blocks=3)  # any compilation inside a timed span would raise
    assert outcome.prepared.compile_s is not None
    assert outcome.scored.samples == TEST


def test_inductor_from_end_to_end(tiny: DataSet, tmp_path: Path) -> None:
    """No tail batch, to spare a graph."""
    write_plugin(tmp_path, "inducted", LINEAR)
    common = {"plugin_path": str(tmp_path), "batch_size": 460}
    eager = carry_out(make_spec(tiny, "inducted:build", **common))
    spec = make_spec(tiny, "inducted:build", execution="compile", **common)
    compiled = carry_out(spec, blocks=2)
    assert compiled.prepared.class_ == "A"
    assert compiled.prepared.loss_trace == pytest.approx(eager.prepared.loss_trace, rel=1e-3)
    assert compiled.order_sha256 == eager.order_sha256
    assert compiled.prepared.compile_s is not None
    assert compiled.prepared.compile_s > 0.5
    assert compiled.prepared.time_to_first_step_s > 0.5


def test_the_cnns_trace_is_eagers(tiniest: DataSet) -> None:
    """Dropout draws differently once compiled; the trace has it off."""
    eager = open_trial(make_spec(tiniest, "cnn")).prepare()
    options = CompileOptions(backend="aot_eager")
    compiled = open_trial(make_spec(tiniest, "cnn", execution="compile", compile=options)).prepare()
    assert isinstance(eager, Prepared)
    assert isinstance(compiled, Prepared)
    assert len(eager.loss_trace) == 3
    assert compiled.loss_trace == pytest.approx(eager.loss_trace, rel=1e-3)


def test_a_compiled_session_leaves_no_trace(tiny: DataSet, tmp_path: Path) -> None:
    spec = compiled_spec(tiny, tmp_path, "traceless", SMALL, batch_size=500)
    plain, timed = carry_out(spec), carry_out(spec, blocks=3)
    assert timed.losses == plain.losses
    assert timed.scored.predictions_sha256 == plain.scored.predictions_sha256


@pytest.mark.parametrize("where", ["the timing session", "epoch 0", "the evaluation"])
def test_a_recompilation_inside_a_timed_span_fails_the_trial(where: str, tiny: DataSet, tmp_path: Path) -> None:
    name = f"shifty_{where.split()[-1]}"
    trial = open_trial(compiled_spec(tiny, tmp_path, name, SHIFTY, batch_size=500))
    assert isinstance(trial.prepare(), Prepared)
    before = graphs_compiled()
    if where == "the timing session":
        trial.block(0)
        trial._one_step, steady = _shift_then(trial._one_step, trial), trial._one_step  # type: ignore[method-assign]
        with pytest.raises(TrialError, match=f"1 graphs were compiled inside {where}: its times are not those"):
            trial.block(1)
        trial._one_step = steady  # type: ignore[method-assign]
    else:
        trial.end_session()
        if where == "the evaluation":
            trial.train_epoch(0)
        trial._model.limit = 1  # type: ignore[assignment]
        call = trial.evaluate if where == "the evaluation" else lambda: trial.train_epoch(0)
        with pytest.raises(TrialError, match=rf"\d graphs were compiled inside {where}: its times are not those"):
            call()
    assert graphs_compiled() > before


def _shift_then(step, trial):  # type: ignore[no-untyped-def]
    """The first step of a block does not count; the second one changes the model's mind."""
    calls: list[int] = []

    def one_step() -> None:
        calls.append(1)
        if len(calls) == 2:
            trial._model.limit = 1
        step()

    return one_step


def test_too_many_recompilations_are_an_error_not_eager(tiny: DataSet, tmp_path: Path) -> None:
    code = """
        import torch
        from torch import nn

        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(784, 10)
                self.calls = 0

            def forward(self, images):
                self.calls += 1
                return self.linear(images.flatten(1)) * (1 + 1e-9 * self.calls)

        build = Counting
    """
    spec = compiled_spec(tiny, tmp_path, "counting", code, batch_size=500)
    with pytest.raises(Exception, match="recompile") as caught:
        carry_out(spec, blocks=3)
    assert classify(caught.value) in ("compile_error", "failed")


def test_what_was_not_compiled_is_no_compiled_variant(tiny: DataSet, tmp_path: Path) -> None:
    """As with TORCHDYNAMO_DISABLE=1 in the environment."""
    spec = compiled_spec(tiny, tmp_path, "uncompiled", SMALL)
    counters.clear()  # a worker is a process of its own
    with torch._dynamo.config.patch(disable=True), pytest.raises(TrialError, match="nothing was compiled"):
        open_trial(spec).prepare()


def test_an_unknown_backend_is_a_compile_error(tiny: DataSet, tmp_path: Path) -> None:
    spec = compiled_spec(tiny, tmp_path, "backendless", SMALL, compile=CompileOptions(backend="no_such_backend"))
    with pytest.raises(Exception, match="no_such_backend") as caught:
        open_trial(spec).prepare()
    assert classify(caught.value) == "compile_error"


def test_a_compiler_that_fails_is_a_compile_error(tiny: DataSet, tmp_path: Path) -> None:
    spec = compiled_spec(tiny, tmp_path, "uncompilable", SMALL, compile=CompileOptions())
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/bin/false")}),
        pytest.raises(Exception, match="InvalidCxxCompiler") as caught,
    ):
        open_trial(spec).prepare()
    assert classify(caught.value) == "compile_error"
