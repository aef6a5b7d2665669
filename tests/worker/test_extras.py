"""What a trial measures beside its training: counted work, made-up durations, a stand-in for a GPU and its profiler."""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from worker_kit import compiles, make_spec, plugin_spec, prepare

from mnist_bench.catalogue import MODELS
from mnist_bench.records import CompileOptions, ModelEntry, TrialSpec
from mnist_bench.running.protocol import Finished
from mnist_bench.worker import extras
from mnist_bench.worker.devices import Cpu, Cuda
from mnist_bench.worker.models import build_model


def batch(size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(size, 1, 28, 28), torch.arange(size)


@pytest.mark.parametrize("name", MODELS)
def test_flops_are_those_of_the_catalogue(name):
    """Which are worked out by hand, and what the forecast takes."""
    counted = extras.sample_flops(build_model(ModelEntry(name=name, model=name)), batch())
    assert counted == pytest.approx(MODELS[name].flops[0], rel=0.001)


def test_work_that_torch_does_not_count_is_not_known():
    assert extras.sample_flops(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784)), batch()) is None


@pytest.mark.parametrize(
    ("rate", "size"),
    [(1e9, 512), (1e11, 1024), (1e12, 2048), (1e16, 8192)],  # the last one: products never take long enough
)
def test_the_ceiling_is_that_of_products_which_are_long_and_the_fastest_counts(rate, size, monkeypatch):
    sizes: list[int] = []
    slowness = iter([5.0, 1.0] * (extras.SIZES.index(size) + 1) + [1.5, 0.8, 1.2])

    def calls(device: Any, function: Any, count: int) -> list[int]:
        sizes.append(function.args[0])
        return [round(next(slowness) * 2 * sizes[-1] ** 3 / rate * 1e9)]

    ticks = iter([0, 1, 2, 3, 10**12])
    monkeypatch.setattr(extras, "clock", lambda: next(ticks))
    monkeypatch.setattr(extras, "_calls", calls)
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, device: shape[0])
    assert extras.ceiling_flops_s(Cpu(0), torch.float32) == pytest.approx(rate / 0.8, rel=1e-3)
    assert sizes[-4:] == [size] * 4


@pytest.mark.parametrize(("ms", "count"), [(0.1, 300), (5.0, 100), (1000.0, 20)])
def test_latency_is_of_many_calls_that_do_not_take_for_ever(ms, count, monkeypatch):
    asked: list[int] = []

    def calls(device: Any, function: Any, count: int) -> list[int]:
        asked.append(count)
        slow_start = 1000 if len(asked) == 1 else 1  # a compilation
        return [round(ms * 1e6) * slow_start] * (count - 5) + [round(ms * 1e6)] * 5

    monkeypatch.setattr(extras, "_calls", calls)
    found = extras.latency(Cpu(0), torch.neg, torch.zeros(1))
    assert (asked, found.count) == ([20, count], count)
    assert (found.p50_ms, found.p99_ms) == pytest.approx((ms, ms))


def test_calls_are_synchronised_at_both_ends(monkeypatch):
    log: list[str] = []
    monkeypatch.setattr(extras, "clock", lambda: log.append("clock") or len(log))
    device = SimpleNamespace(synchronize=lambda: log.append("wait"))
    assert len(extras._calls(device, lambda: log.append("call"), 2)) == 2  # type: ignore[arg-type]
    assert log == ["wait", "clock", "call", "wait", "clock"] * 2


# ── kernels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def event(name: str, us: float, *, cuda: bool = True, annotation: bool = False) -> SimpleNamespace:
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    took = SimpleNamespace(elapsed_us=lambda: us)
    return SimpleNamespace(name=name, device_type=kind, time_range=took, is_user_annotation=annotation)


def test_kernels_and_the_busy_share_of_a_gpu(monkeypatch):
    """20 steps of 3 kernels and a copy, 50 us each, in steps of 400 us."""
    done = [event(name, 50.0) for name in ("gemm", "relu", "gemm", "Memcpy DtoD") * 20]
    done += [event("aten::mm", 900.0, cuda=False), event("Optimizer.step", 900.0, annotation=True)]
    steps: list[Any] = []

    @contextlib.contextmanager
    def profile(activities: Any) -> Any:
        steps.append(activities)
        yield SimpleNamespace(events=lambda: done)
        steps.append("profiled")

    monkeypatch.setattr(torch.profiler, "profile", profile)
    monkeypatch.setattr(Cuda, "synchronize", lambda self: steps.append("waited"))
    monkeypatch.setattr(Cuda, "time_steps", lambda self, step, count: [400_000] * count)
    assert extras.kernels(Cuda(0), lambda: steps.append("step")) == (3.0, 0.5)
    cuda = torch.profiler.ProfilerActivity.CUDA
    assert steps == [[cuda], *["step"] * 20, "waited", "profiled"]


def test_a_gpu_is_called_as_nvidias_driver_has_it_and_a_processor_has_neither_name_nor_kernels(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"4d65{device.index}"))
    for cuda, name in (("13.0", "GPU-4d651"), (None, "")):  # None: AMD's
        monkeypatch.setattr(torch.version, "cuda", cuda)
        assert Cuda(1).uuid() == name
    assert (Cpu(0).uuid(), extras.kernels(Cpu(0), lambda: None)) == ("", None)


# ── in a trial ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quick(hasty, monkeypatch):
    monkeypatch.setattr(extras, "SIZES", (64,))
    monkeypatch.setattr(extras, "CEILING_S", 0.0)


def finished(spec: TrialSpec) -> Finished:
    trial, _ = prepare(spec)
    trial.block(1)
    trial.end_session()
    trial.train_epoch(0)
    trial.evaluate()
    return trial.finish()


@pytest.mark.usefixtures("quick")
def test_a_trial_that_is_asked_measures_them_after_its_training(tiny):
    plain, asked = (finished(make_spec(tiny, "lenet5", extras=wanted)) for wanted in (False, True))
    assert (plain.extras, plain.missed, asked.missed) == (None, (), ())
    assert plain.order_sha256 == asked.order_sha256
    found = asked.extras
    assert found.sample_flops == pytest.approx(2.264e6, rel=0.001)
    assert found.ceiling_flops_s > 1e6
    assert (found.latency.count, 0 < found.latency.p50_ms <= found.latency.p99_ms) == (300, True)
    assert (found.graph_breaks, found.recompilations, found.kernels, found.busy) == (None,) * 4
    assert asked.phases["extras"] > found.latency.p50_ms * 0.3
    assert sum(asked.phases.values()) == pytest.approx(asked.elapsed_s - asked.asleep_s, rel=0.02)


BROKEN = """
    import torch
    from torch import nn

    class build(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, 10)

        def forward(self, images):
            flat = images.flatten(1) * 2
            torch._dynamo.graph_break()
            flat = flat + 1
            torch._dynamo.graph_break()
            if len(images) == 1:
                raise ValueError("one\\nimage is no batch " + 99 * "!")
            return self.linear(flat)
"""


@pytest.mark.usefixtures("quick")
@compiles
def test_breaks_and_recompilations_are_counted_and_what_fails_is_said_but_fails_no_trial(tiny, tmp_path):
    torch._dynamo.utils.clear_compilation_metrics()  # a worker is a process of its own
    compiled = {"execution": "compile", "compile": CompileOptions(backend="aot_eager")}
    done = finished(plugin_spec(tiny, tmp_path, "breaking", BROKEN, extras=True, batch_size=500, **compiled))
    (missed,) = done.missed
    assert missed.startswith("latency was not measured: ")
    assert len(missed) <= 120
    assert done.extras.latency is None
    assert done.extras.sample_flops == 2 * 2 * 784 * 10
    assert done.extras.graph_breaks == 2
    assert done.extras.recompilations >= 2  # for the ragged tail, for the mode and the batch of the evaluation
