"""The CPU: work is done when the call returns."""

import platform
import resource
import sys
from collections.abc import Callable

import psutil
import torch

from mnist_bench.worker.devices import Device
from mnist_bench.worker.loop import time_steps_by_clock


class Cpu(Device):
    def __init__(self, index: int) -> None:
        super().__init__(torch.device("cpu"), torch.cpu)

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

    def time_steps(self, step: Callable[[], None], count: int) -> list[int]:
        return time_steps_by_clock(step, count)
