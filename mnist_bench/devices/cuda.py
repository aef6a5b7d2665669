"""NVIDIA GPUs (and AMD's under ROCm, which torch calls ``cuda`` too)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mnist_bench.devices.base import time_steps_by_events


class Cuda:
    def __init__(self, index: int = 0) -> None:
        self.torch_device = torch.device("cuda", index)

    def missing(self) -> str | None:
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch ({torch.__version__}) is a CPU build: install a CUDA build (README: which torch)"
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

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def limit_memory(self, limit_bytes: int) -> None:
        """The allocator's fraction: CUDA reserves address space that RLIMIT_AS would count."""
        total = torch.cuda.get_device_properties(self.torch_device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), self.torch_device)

    def peak_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_reserved(self.torch_device))

    def time_steps(self, step: Callable[[], None], count: int) -> list[int]:
        with torch.cuda.device(self.torch_device):
            return time_steps_by_events(torch.cuda.Event, self.synchronize, step, count)
