"""Intel GPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mnist_bench.devices.base import time_steps_by_events


class Xpu:
    def __init__(self, index: int = 0) -> None:
        self.torch_device = torch.device("xpu", index)

    def missing(self) -> str | None:
        if not torch.xpu.is_available():
            return "torch sees no Intel GPU: install the XPU build of torch and Intel's driver"
        return None

    def describe(self) -> str:
        return str(torch.xpu.get_device_properties(self.torch_device).name)

    def synchronize(self) -> None:
        torch.xpu.synchronize(self.torch_device)

    def limit_memory(self, limit_bytes: int) -> None:
        total = torch.xpu.get_device_properties(self.torch_device).total_memory
        torch.xpu.set_per_process_memory_fraction(min(1.0, limit_bytes / total), self.torch_device)

    def peak_bytes(self) -> int | None:
        return int(torch.xpu.max_memory_reserved(self.torch_device))

    def time_steps(self, step: Callable[[], None], count: int) -> list[int]:
        return time_steps_by_events(torch.xpu.Event, self.synchronize, step, count)
