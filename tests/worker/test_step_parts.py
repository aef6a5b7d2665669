"""What a worker measures for a profile: counted bytes, made-up durations, a trace; what it cannot measure is said."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from queued import Gpu
from torch import nn
from worker_kit import compiles, make_spec, plugin_spec, prepare

from mnist_bench.records import BUILTIN_VARIANTS, CompileOptions, TrialSpec
from mnist_bench.running.protocol import Profiled
from mnist_bench.worker import extras, profile
from mnist_bench.worker import trial as trials
from mnist_bench.worker.devices import Cpu

A, B, C = torch.rand(4, 8), torch.rand(8, 2), torch.rand(4, 8)
EAGER = BUILTIN_VARIANTS["eager"]


def optimizer(kind: Any) -> Any:
    """A step of a fused one, not its first, on a thousand weights."""
    weight = nn.Parameter(torch.rand(1000))
    weight.grad = torch.rand(1000)
    step = kind([weight], lr=0.1, fused=True).step
    step()
    return step


@pytest.mark.parametrize(
    ("work", "numbers"),
    [
        (lambda: A @ B, [32 + 16 + 8]),
        (lambda: A.t().view(-1, 4).detach(), []),
        (lambda: A.add_(C), [32 + 32 + 32]),  # read, read, written
        (lambda: torch.ones(3).expand(100, 3).neg(), [3, 3 + 300]),
        (optimizer(torch.optim.SGD), [1000 * (2 + 1)]),  # weights and gradients read, weights written
        (optimizer(torch.optim.Adam), [1000 * (4 + 3)]),  # two moments more, both ways
    ],
)
def test_bytes_are_those_of_what_operators_read_and_write(work, numbers):
    with profile.Moved() as moved:
        work()
    large = [count for count in moved.calls if count > 8]  # Adam counts its steps
    assert large == pytest.approx([4 * number for number in numbers], abs=4)


class Slow(Cpu):
    """Whose calls take what was made up; a first one compiles, or the like."""

    def __init__(self, ns: Callable[[Any], float]) -> None:
        super().__init__(0)
        self._ns, self.asked = ns, list[tuple[int, Any]]()

    def time_steps(self, step: Any, count: int) -> list[int]:
        self.asked.append((count, step))
        return [round(self._ns(step)) * times for times in (1000, *[1] * (count - 1))]


@pytest.mark.parametrize(("ms", "count"), [(0.01, 1000), (3.0, 100), (500.0, 5)])
def test_steps_of_one_image_are_many_do_not_take_for_ever_and_their_bytes_do_not_count(ms, count, monkeypatch):
    monkeypatch.setattr(profile, "moving", lambda *_: (0.001, ""))
    device = Slow(lambda step: ms * 1e6)
    seconds, _ = profile.calling(device, EAGER, lambda *batch: batch[0], A, C)
    assert seconds == pytest.approx((ms - 1) / 1e3)
    assert [count for count, _ in device.asked] == [5, count]
    assert [len(one) for one in device.asked[0][1].args] == [1, 1]


@pytest.mark.parametrize(("size", "gb_s", "copied"), [(8 << 20, 10, 4 << 20), (10, 20, 1 << 20), (10, 80, 4 << 20)])
def test_a_copy_is_of_the_operators_size_and_longer_than_its_call(size, gb_s, copied):
    """Of less than a MiB, or shorter than 0.1 ms, the call would be what is timed."""
    device = Slow(lambda copy: 2 * copy.args[0].nbytes / gb_s)
    assert profile.copied_bytes_s(device, size) == pytest.approx(gb_s * 1e9, rel=0.01)
    assert device.asked[-1][1].args[0].nbytes == copied


# ── in a trial ───────────────────────────────────────────────────────────────────────────────────────────────────────

NORMED = """
    from torch import nn

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10))
"""


@pytest.fixture
def profiled(hasty, tmp_path, monkeypatch):
    """Profiles a spec, briefly; the evidence by bound."""
    monkeypatch.setattr(extras, "SIZES", (64,))
    monkeypatch.setattr(extras, "CEILING_S", 0.0)
    monkeypatch.setattr(profile, "MOST_FEW", 5)

    def of(spec: TrialSpec) -> tuple[Profiled, dict[str, str]]:
        found = prepare(spec)[0].profile(str(tmp_path / "trace.json"))
        assert all((one.share is None) == ("not measured" in one.evidence) for one in found.shares)
        return found, {one.bound: one.evidence for one in found.shares}

    return of


def test_a_step_in_its_parts_and_a_trace(profiled, tiny, tmp_path):
    found, evidence = profiled(make_spec(tiny, "mlp"))
    assert all(0 <= one.share <= 1 for one in found.shares)
    assert evidence["compute"].startswith("251 MFLOP a step; ")
    calls = {one.operator: one.calls for one in found.operators}
    assert (calls["step"], calls["aten::addmm"]) == (1.0, 2.0)
    assert [one.host_ms for one in found.operators] == sorted((one.host_ms for one in found.operators), reverse=True)
    assert {one.device_ms for one in found.operators} == {None}
    events = json.loads((tmp_path / "trace.json").read_text("utf-8"))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") in ("user_annotation", "cpu_op")]
    assert [names.count(name) / profile.TRACED for name in ("batch", "step", "aten::addmm")] == [1, 1, 2]


def test_a_model_that_cannot_train_on_one_image_is_said_so(profiled, tiny, tmp_path):
    _, evidence = profiled(plugin_spec(tiny, tmp_path, "normed", NORMED))
    assert evidence["launch"].startswith("calling was not measured: ValueError: Expected")
    assert " MB a step; " in evidence["memory"]


@compiles
@pytest.mark.parametrize(
    ("changes", "hidden"),
    [
        ({"execution": "compile", "compile": CompileOptions(backend="aot_eager")}, {"memory"}),
        ({"execution": "cuda_graph", "device": "cuda"}, {"memory", "launch"}),
    ],
)
def test_what_is_compiled_or_captured_hides_some(changes, hidden, profiled, tiny, monkeypatch):
    monkeypatch.setattr(trials, "open_device", lambda name: Gpu())
    found, evidence = profiled(make_spec(tiny, "mlp", **changes))
    assert {one.bound for one in found.shares if one.share is None} == hidden
    assert evidence["compute"].startswith("251 MFLOP a step; ")
