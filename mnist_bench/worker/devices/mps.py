"""Apple GPUs."""

import platform
from collections.abc import Callable

import torch

from mnist_bench.worker.devices import Device
from mnist_bench.worker.loop import time_steps_by_events


class Mps(Device):
    def __init__(self, index: int) -> None:
        super().__init__(torch.device("mps"), torch.mps)

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
