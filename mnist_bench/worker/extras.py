"""What a trial measures beside its training, outside whatever is timed (docs/measurement.md): FLOPs, the ceiling of the
machine, the latency of one image, the kernels of a step."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from torch import nn
from torch._dynamo.utils import get_compilation_metrics
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from mnist_bench.catalogue import EXECUTIONS
from mnist_bench.records import Extras, StepTimes, Variant
from mnist_bench.table import plain, shortened
from mnist_bench.worker import layers
from mnist_bench.worker.devices import Device
from mnist_bench.worker.executions import Program
from mnist_bench.worker.graphs import Graph
from mnist_bench.worker.loop import NS, Batch, Forward, clock, step_times
from mnist_bench.worker.models import as_weights, scoring
from mnist_bench.worker.pipelines import Pipeline
from mnist_bench.worker.process import COMPUTED

SIZES = (512, 1024, 2048, 4096, 8192)  # of the matrices, until a product takes PRODUCT_S: its call is nothing beside it
PRODUCT_S, CEILING_S = 0.01, 0.1
CALLS, FEW_CALLS, CALLS_S = 300, 20, 0.5  # of one image; fewer where they would take longer than CALLS_S
KERNEL_STEPS = 20
MISSED_LENGTH = 120  # characters that say what could not be measured

T = TypeVar("T")


def measure(
    device: Device,
    variant: Variant,
    model: nn.Module,
    program: Program,
    pipeline: Pipeline,
    stream: Iterator[Batch],
    step: Callable[[], None],
) -> tuple[Extras, tuple[str, ...]]:
    """All of a trained model; and what could not be measured, which is no end of a trial that went well: a model may
    have no use for a single image.

    Args:
        stream: full training batches; ``step`` trains on the next one.
    """
    missed: list[str] = []

    breaks, anew = dynamo() if EXECUTIONS[variant.execution].compiles else (None, None)
    count, busy = tried(missed, kernels, device, step) or (None, None)
    images, labels = next(stream)
    if isinstance(pipeline, Graph):
        images, labels = pipeline.gather(images)
    flops = tried(missed, sample_flops, model, (as_weights(model, images), labels))
    own = layers.product if variant.onednn_linear else torch.mm
    ceiling = tried(missed, ceiling_flops_s, device, COMPUTED.get(variant.precision, torch.float32), own)
    with scoring(model):
        images, _ = next(iter(pipeline.test_batches()))
        single = tried(missed, latency, device, program.forward, images[:1].clone())
    found = Extras(
        sample_flops=flops,
        ceiling_flops_s=ceiling,
        latency=single,
        graph_breaks=breaks,
        recompilations=anew,
        kernels=count and count / program.steps,
        busy=busy,
    )
    return found, tuple(missed)


def tried(missed: list[str], function: Callable[..., T], *arguments: Any) -> T | None:
    """What a function returns; None where it raises, and a line more of what was missed."""
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever a model raises
        why = f"{function.__name__} was not measured: {type(error).__name__}: {plain(str(error))}"
        missed.append(shortened(why, MISSED_LENGTH))
        return None


def sample_flops(model: nn.Module, batch: Batch) -> float | None:
    """Of forward and backward on one sample, as torch counts them: products and convolutions; None: it found none."""
    images, labels = batch
    with FlopCounterMode(display=False, custom_mapping=layers.FLOPS) as counter:
        cross_entropy(model(images), labels).backward()
    return counter.get_total_flops() / len(labels) or None


def ceiling_flops_s(
    device: Device, dtype: torch.dtype, own: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.mm
) -> float:
    """FLOP/s of the fastest product of two square matrices, with the threads and flags that hold in this process.

    Args:
        own: what multiplies.
    """
    for size in SIZES:
        one, other = (torch.rand(size, size, device=device.torch_device, dtype=dtype) for _ in range(2))
        product = partial(own, one, other)
        _calls(device, product, 1)
        (best,) = _calls(device, product, 1)
        if best * NS >= PRODUCT_S:
            break
    end = clock() + CEILING_S / NS
    while clock() < end:
        best = min(best, *_calls(device, product, 1))
    return 2 * size**3 / (best * NS)


def latency(device: Device, forward: Forward, image: torch.Tensor) -> StepTimes:
    """Of a batch of one that is on the device, each call until its result is there."""
    call = partial(forward, image)
    each_ns = median(_calls(device, call, FEW_CALLS)[-5:])  # the first ones compile, or record a graph
    return step_times(_calls(device, call, min(CALLS, max(FEW_CALLS, round(CALLS_S / NS / max(1, each_ns))))))


def kernels(device: Device, step: Callable[[], None]) -> tuple[float, float] | None:
    """How many kernels a step executes on the device, and the share of a step in which the device works; None: its work
    cannot be traced. The trace has the work, steps without one the time that they take."""
    if not (trace := device.trace(step, KERNEL_STEPS)):
        return None
    count = sum(not name.startswith(("Memcpy", "Memset")) for name, _ in trace)
    busy_ns, all_ns = sum(ns for _, ns in trace), sum(device.time_steps(step, KERNEL_STEPS))
    return count / KERNEL_STEPS, min(1.0, busy_ns / all_ns)


def dynamo() -> tuple[int, int]:
    """At how many places dynamo left a frame to Python, and took it up again; how often it compiled a frame anew, for
    another shape or mode. Of its last 64 compilations."""
    done = get_compilation_metrics()
    resumed = {one.co_name for one in done if (one.co_name or "").startswith("torch_dynamo_resume_in")}
    return len(resumed), sum(one.recompile_reason is not None for one in done)


def _calls(device: Device, function: Callable[[], object], count: int) -> list[int]:
    """The ns of each call, the device's work included."""
    durations = []
    for _ in range(count):
        device.synchronize()
        begin = clock()
        function()
        device.synchronize()
        durations.append(clock() - begin)
    return durations
