"""What bounds a step: what each part of it alone would take, and a trace (docs/profile.md). No trial comes here."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mnist_bench.catalogue import EXECUTIONS
from mnist_bench.records import Variant
from mnist_bench.running.protocol import Operator, Profiled, Share
from mnist_bench.worker import extras
from mnist_bench.worker.devices import Device
from mnist_bench.worker.executions import Program
from mnist_bench.worker.graphs import Graph
from mnist_bench.worker.loop import NS, Batch, Step, train_epoch
from mnist_bench.worker.models import as_weights
from mnist_bench.worker.pipelines import Pipeline
from mnist_bench.worker.process import COMPUTED

BLOCKS, LEAST_STEPS = 5, 5  # of 0.1 s that whole steps last, and steps
FEW_S, MOST_FEW = 0.3, 1000  # seconds that steps of one image last, and steps
TRACED, TOP = 5, 15  # steps, and operators that are told of
LEAST_COPY, COPY_S, COPIES = 1 << 20, 1e-4, 50  # bytes; seconds of a copy beside which its call is nothing
Trained = tuple[Device, Variant, nn.Module, Program, Pipeline]
Part = tuple[float | None, str]  # seconds of a step, and the evidence, or why there is none


def measure(trained: Trained, stream: Iterator[Batch], block_steps: int, trace: str) -> Profiled:
    """All of it, in some seconds.

    Args:
        stream: full training batches.
        block_steps: steps of about 0.1 s.
        trace: the file that the trace goes to.
    """
    device, variant, model, program, pipeline = trained
    calls, missed = max(LEAST_STEPS, BLOCKS * block_steps // program.steps), list[str]()
    whole = train_epoch(program.step, islice(stream, calls), calls, device.synchronize)
    step_s, loader_s = (ns * NS / calls / program.steps for ns in (whole.ended - whole.started, whole.loader_ns()))
    operators = traced(device, program, stream, trace)
    images, labels = next(stream)
    if isinstance(pipeline, Graph):
        images, labels = pipeline.gather(images[: len(images) // program.steps])

    def share(bound: str, part: Callable[..., Part], what: object) -> Share:
        seconds, evidence = extras.tried(missed, part, device, variant, what, images, labels) or (None, missed[-1])
        return Share(bound, None if seconds is None else min(1.0, max(0.0, seconds / step_s)), evidence)

    shares = (
        Share("loader", loader_s / step_s, f"{1e3 * loader_s:.3g} ms a step until the batch is there"),
        share("launch", calling, program.step),
        share("compute", computing, model),
        share("memory", moving, program.step),
    )
    return Profiled(step_s=step_s, shares=shares, operators=operators)


def calling(device: Device, variant: Variant, step: Step, images: Tensor, labels: Tensor) -> Part:
    """A step of one image has as many operators as one of a batch, and next to no arithmetic; but as many weights."""
    if EXECUTIONS[variant.execution].captured:
        return None, "not measured: a captured step has the size that it was captured with"
    one = images[:1].clone(), labels[:1].clone()
    each_ns = median(device.time_steps(partial(step, *one), 5)[2:])  # the first ones compile, or take memory
    count = min(MOST_FEW, max(LEAST_STEPS, round(FEW_S / NS / max(1, each_ns))))
    all_s = median(device.time_steps(partial(step, *one), count)) * NS
    bytes_s = moving(device, variant, step, *one)[0] or 0.0
    return all_s - bytes_s, f"a step of one image takes {1e3 * all_s:.3g} ms, {1e3 * bytes_s:.3g} of them for its bytes"


def computing(device: Device, variant: Variant, model: nn.Module, images: Tensor, labels: Tensor) -> Part:
    """Products and convolutions, at the rate of the fastest product."""
    each = extras.sample_flops(model, (as_weights(model, images), labels))
    if each is None:
        return None, "not measured: torch counts no product and no convolution in it"
    rate, flops = extras.ceiling_flops_s(device, COMPUTED.get(variant.precision, torch.float32)), each * len(labels)
    return flops / rate, f"{flops / 1e6:,.0f} MFLOP a step; the fastest product does {rate / 1e9:,.0f} GFLOP/s"


def moving(device: Device, variant: Variant, step: Step, images: Tensor, labels: Tensor) -> Part:
    """What operators read and write, at the rate of the fastest copy of about the size that they move at a time."""
    execution = EXECUTIONS[variant.execution]
    if execution.captured or execution.compiles:
        return None, "not measured: what is compiled or captured does not show what it reads and writes"
    with Moved() as moved:
        step(images, labels)
    total = sum(moved.calls)
    rate = copied_bytes_s(device, sum(count * count for count in moved.calls) // total)
    return total / rate, f"{total / 1e6:,.1f} MB a step; the fastest copy moves {rate / 1e9:,.1f} GB/s"


class Moved(TorchDispatchMode):
    """Of each operator the bytes of the tensors that it reads and writes, as if there were no cache."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[int] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operator(*args, **(kwargs or {}))
        if not operator.is_view:
            # What is written in place is returned too, but by fused optimizers: theirs are weights, gradients, state.
            written = () if operator._schema.returns else args[:1] + args[2:4]
            tensors = [one for one in tree_leaves((args, kwargs, found, written)) if isinstance(one, Tensor)]
            # Of an expanded one those bytes that there are.
            self.calls.append(sum(min(one.nbytes, one.untyped_storage().nbytes()) for one in tensors))
        return found


def copied_bytes_s(device: Device, size: int) -> float:
    """Bytes that the fastest copy reads and writes in a second: of ``size``, so that a cache helps it as it helps the
    operators; of more, where its call would be longer than the copy."""
    count = max(LEAST_COPY, size) // 8  # of float32, read and written
    while True:
        source, target = torch.ones(count, device=device.torch_device), torch.ones(count, device=device.torch_device)
        best_s = min(device.time_steps(partial(target.copy_, source), COPIES)) * NS
        if best_s >= COPY_S:
            return 8 * count / best_s
        count *= 2


def traced(device: Device, program: Program, stream: Iterator[Batch], path: str) -> tuple[Operator, ...]:
    """Writes the trace of some steps; the operators with the most time of their own. ``batch`` and ``step`` are the
    loop's halves: theirs is what no operator in them takes."""
    with torch.profiler.profile() as profiler:
        for _ in range(TRACED):
            with record_function("batch"):
                images, labels = next(stream)
            with record_function("step"):
                program.step(images, labels)
        device.synchronize()
    profiler.export_chrome_trace(path)
    steps, found = TRACED * program.steps, list[Operator]()
    for one in profiler.key_averages():
        if one.device_type.name == "CPU":  # a kernel's time is that of the operator that launched it
            host_ms, device_ms = (us / 1e3 / steps for us in (one.self_cpu_time_total, one.self_device_time_total))
            on_gpu = device.torch_device.type != "cpu"
            found.append(Operator(one.key, one.count / steps, max(0.0, host_ms), device_ms if on_gpu else None))
    return tuple(sorted(found, key=lambda one: (one.device_ms or 0.0, one.host_ms), reverse=True)[:TOP])
