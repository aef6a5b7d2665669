"""Apple GPUs."""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch

from mnist_bench.worker.loop import time_steps_by_events


class Mps:
    def __init__(self, index: int) -> None:
        self.torch_device = torch.device("mps")

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

    def time_steps(self, step: Callable[[], None], count: int) -> list[int]:
        return time_steps_by_events(torch.mps.Event, self.synchronize, step, count)
