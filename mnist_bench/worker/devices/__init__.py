"""The devices: a file each; their catalogue is ``mnist_bench.catalogue``."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from mnist_bench.catalogue import DEVICES, load
from mnist_bench.worker.loop import time_steps_by_events


class Device(ABC):
    """One device, with what those of torch have alike. One that is absent says why; nothing else may then be called.

    Args:
        module: of torch, as ``torch.cuda``.
    """

    def __init__(self, torch_device: torch.device, module: Any) -> None:
        self.torch_device, self._module = torch_device, module

    @abstractmethod
    def missing(self) -> str | None:
        """Why this machine cannot use it, and what to do; None where it can."""

    @abstractmethod
    def describe(self) -> str:
        """The hardware's name, with what identifies driver and runtime."""

    def synchronize(self) -> None:
        """Waits until all work given to it is done."""
        self._module.synchronize(self.torch_device)

    def limit_memory(self, limit_bytes: int) -> None:
        """Makes an allocation beyond ``limit_bytes`` fail in this process: the allocator's fraction, since a GPU
        reserves address space that RLIMIT_AS would count."""
        total = self._module.get_device_properties(self.torch_device).total_memory
        self._module.set_per_process_memory_fraction(min(1.0, limit_bytes / total), self.torch_device)

    def peak_bytes(self) -> int | None:
        """The most that the device's allocator held; None where the device has no memory of its own."""
        return int(self._module.max_memory_reserved(self.torch_device))

    def time_steps(self, step: Callable[[], None], count: int) -> list[int]:
        """Executes ``step`` ``count`` times; returns the ``count`` durations in ns, synchronised at both ends only."""
        with self._module.device(self.torch_device):
            return time_steps_by_events(self._module.Event, self.synchronize, step, count)


def open_device(name: str) -> Device:
    """The device of a matrix name (``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``); it need not be there."""
    kind, _, index = name.partition(":")
    device: Device = load(DEVICES[kind])(int(index or 0))
    return device
