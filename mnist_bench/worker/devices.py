"""The devices, a class each; their catalogue is ``mnist_bench.catalogue``."""

import platform
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import psutil
import torch

from mnist_bench.catalogue import DEVICES, load
from mnist_bench.worker.loop import time_steps_by_clock, time_steps_by_events


class Device(ABC):
    """One device, with what those of torch have alike. One that is absent says why; nothing else may then be called.

    Args:
        index: its number, where there are several.
    """

    kind: str  # as torch has it
    module: Any  # of torch, as ``torch.cuda``

    def __init__(self, index: int) -> None:
        self.torch_device = torch.device(self.kind, index)

    @abstractmethod
    def missing(self) -> str | None:
        """Why this machine cannot use it, and what to do; None where it can."""

    @abstractmethod
    def describe(self) -> str:
        """The hardware's name, with what identifies driver and runtime."""

    def synchronize(self) -> None:
        """Waits until all work given to it is done."""
        self.module.synchronize(self.torch_device)

    def limit_memory(self, limit_bytes: int) -> None:
        """Makes an allocation beyond ``limit_bytes`` fail in this process: the allocator's fraction, since a GPU
        reserves address space that RLIMIT_AS would count."""
        total = self.module.get_device_properties(self.torch_device).total_memory
        self.module.set_per_process_memory_fraction(min(1.0, limit_bytes / total), self.torch_device)

    def peak_bytes(self) -> int | None:
        """The most that the device's allocator held; None where the device has no memory of its own."""
        return int(self.module.max_memory_reserved(self.torch_device))

    def uuid(self) -> str:
        """What NVIDIA's driver calls it; empty where it is none of its."""
        return ""

    def trace(self, step: Callable[[], None], count: int) -> list[tuple[str, float]]:
        """Executes ``step`` ``count`` times under a profiler; what the device executed, each with its ns. Empty where
        that is not known."""
        return []

    def time_steps(self, step: Callable[[], object], count: int) -> list[int]:
        """Executes ``step`` ``count`` times; returns the ``count`` durations in ns, synchronised at both ends only."""
        with self.module.device(self.torch_device):
            return time_steps_by_events(self.module.Event, self.synchronize, step, count)


def open_device(name: str) -> Device:
    """The device of a matrix name (``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``); it need not be there."""
    kind, _, index = name.partition(":")
    device: Device = load(DEVICES[kind])(int(index or 0))
    return device


class Cpu(Device):
    """Work is done when the call returns."""

    def __init__(self, index: int) -> None:
        self.torch_device = torch.device("cpu")

    def missing(self) -> str | None:
        return None

    def describe(self) -> str:
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"

    def synchronize(self) -> None:
        return None

    def limit_memory(self, limit_bytes: int) -> None:
        """RLIMIT_AS: what this process has mapped already (libraries, thread stacks) plus ``limit_bytes``."""
        if sys.platform == "darwin":  # its kernel takes RLIMIT_AS and does not enforce it
            return
        limit = psutil.Process().memory_info().vms + limit_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def peak_bytes(self) -> int | None:
        return None

    def time_steps(self, step: Callable[[], object], count: int) -> list[int]:
        return time_steps_by_clock(step, count)


class Cuda(Device):
    """NVIDIA GPUs (and AMD's under ROCm, which torch calls ``cuda`` too)."""

    kind, module = "cuda", torch.cuda

    def missing(self) -> str | None:
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch ({torch.__version__}) is a CPU build: install a CUDA build (pytorch.org/get-started)"
        if not torch.cuda.is_available():
            return "torch sees no GPU: check the NVIDIA driver (nvidia-smi) and CUDA_VISIBLE_DEVICES"
        index = self.torch_device.index
        if index >= (count := torch.cuda.device_count()):
            return f"there is no GPU {index}: torch sees {count} (cuda:0 to cuda:{count - 1})"
        return None

    def describe(self) -> str:
        properties = torch.cuda.get_device_properties(self.torch_device)
        runtime = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        return f"{properties.name}, capability {properties.major}.{properties.minor}, {runtime}"

    def uuid(self) -> str:
        return f"GPU-{torch.cuda.get_device_properties(self.torch_device).uuid}" if torch.version.cuda else ""

    def trace(self, step: Callable[[], None], count: int) -> list[tuple[str, float]]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(count):
                step()
            self.synchronize()
        done = [e for e in profiler.events() if e.device_type.name == "CUDA"]
        return [(e.name, 1e3 * e.time_range.elapsed_us()) for e in done if not e.is_user_annotation]


class Mps(Device):
    """Apple GPUs; there is one."""

    kind = "mps"

    def missing(self) -> str | None:
        if not torch.backends.mps.is_built():
            return "this torch is built without MPS: it needs macOS on Apple silicon"
        if not torch.backends.mps.is_available():
            return "MPS needs macOS 14 or later and an Apple GPU"
        return None

    def describe(self) -> str:
        return f"Apple GPU, macOS {platform.mac_ver()[0]}"

    def synchronize(self) -> None:
        torch.mps.synchronize()

    def limit_memory(self, limit_bytes: int) -> None:
        torch.mps.set_per_process_memory_fraction(min(2.0, limit_bytes / torch.mps.recommended_max_memory()))

    def peak_bytes(self) -> int | None:
        return int(torch.mps.driver_allocated_memory())  # MPS keeps no peak; its allocator seldom gives memory back

    def time_steps(self, step: Callable[[], object], count: int) -> list[int]:
        return time_steps_by_events(torch.mps.Event, self.synchronize, step, count)


class Xpu(Device):
    """Intel GPUs."""

    kind, module = "xpu", torch.xpu

    def missing(self) -> str | None:
        if not torch.xpu.is_available():
            return "torch sees no Intel GPU: install the XPU build of torch and Intel's driver"
        return None

    def describe(self) -> str:
        return str(torch.xpu.get_device_properties(self.torch_device).name)
