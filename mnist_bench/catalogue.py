"""Devices, executions and pipelines that a matrix can name: facts without torch, and where the code of each is.

To add one: its file in ``worker/devices``, or its function in ``worker/executions.py`` or ``worker/pipelines.py``, and
its entry here. Built-in models have a catalogue of their own (``models``).
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any

_NUMBER = "(0|[1-9][0-9]{0,2})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEntry:
    """``numbered``: what ``NAME:N`` means, where there may be several; ``platform``: the only one that has it."""

    code: str  # a class with the methods of worker.devices.Device
    meaning: str
    numbered: str = ""
    platform: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEntry:
    """How a step is executed. ``compiles``: it needs torch.compile's tools, and time for them."""

    code: str  # (model, optimizer, variant, device) -> worker.executions.Program
    compiles: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineEntry:
    """``image_s``: what one image costs the loader without workers, about, for the estimate of ``plan``."""

    code: str  # (spec, training, device) -> worker.pipelines.Pipeline
    meaning: str
    image_s: float


DEVICES = {
    "cpu": DeviceEntry(code="mnist_bench.worker.devices.cpu:Cpu", meaning="the processor"),
    "cuda": DeviceEntry(
        code="mnist_bench.worker.devices.cuda:Cuda",
        meaning="the first visible NVIDIA GPU, the same as cuda:0",
        numbered="the visible NVIDIA GPU number N, from 0",
    ),
    "mps": DeviceEntry(
        code="mnist_bench.worker.devices.mps:Mps", meaning="the GPU of an Apple computer", platform="darwin"
    ),
    "xpu": DeviceEntry(code="mnist_bench.worker.devices.xpu:Xpu", meaning="an Intel GPU"),
}

EXECUTIONS = {
    "eager": ExecutionEntry(code="mnist_bench.worker.executions:eager", compiles=False),
    "compile": ExecutionEntry(code="mnist_bench.worker.executions:compiled", compiles=True),
}

PIPELINES = {
    "resident": PipelineEntry(
        code="mnist_bench.worker.pipelines:resident", meaning="all images resident on the device", image_s=0.0
    ),
    "tensors": PipelineEntry(
        code="mnist_bench.worker.pipelines:tensors", meaning="a DataLoader over tensors", image_s=2e-5
    ),
    "torchvision": PipelineEntry(
        code="mnist_bench.worker.pipelines:transformed",
        meaning="a DataLoader over the torchvision data set",
        image_s=2.5e-4,
    ),
    "tutorial": PipelineEntry(
        code="mnist_bench.worker.pipelines:tutorial", meaning="the tutorial's own loops", image_s=2.5e-4
    ),
}


def device_names() -> dict[str, str]:
    """What each name of a device means; ``NAME:N`` stands for all the numbered ones.

    >>> [name for name in device_names() if name.startswith("cuda")]
    ['cuda', 'cuda:N']
    """
    found = {}
    for name, entry in DEVICES.items():
        found[name] = entry.meaning
        if entry.numbered:
            found[f"{name}:N"] = entry.numbered
    return found


def device_pattern() -> str:
    """The names of devices as a regular expression."""
    return f"^({'|'.join(device_names()).replace(':N', f':{_NUMBER}')})$"


def load(entry: DeviceEntry | ExecutionEntry | PipelineEntry) -> Any:
    """The code of an entry; imports torch: for workers alone."""
    return pkgutil.resolve_name(entry.code)
