"""What every device can do for a trial."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, Protocol

import torch


class Device(Protocol):
    """One device. A device that is absent says why; nothing else may then be called."""

    torch_device: torch.device

    def missing(self) -> str | None:
        """Why this machine cannot use it, and what to do; None where it can."""

    def describe(self) -> str:
        """The hardware's name, with what identifies driver and runtime."""

    def synchronize(self) -> None:
        """Waits until all work given to it is done."""

    def limit_memory(self, limit_bytes: int) -> None:
        """Makes an allocation beyond ``limit_bytes`` fail in this process."""

    def peak_bytes(self) -> int | None:
        """The most that the device's allocator held; None where the device has no memory of its own."""

    def time_steps(self, step: Callable[[], None], count: int) -> list[int]:
        """Executes ``step`` ``count`` times; returns the ``count`` durations in ns, synchronised at both ends only."""


def time_steps_by_events(
    events: Any, synchronize: Callable[[], None], step: Callable[[], None], count: int
) -> list[int]:
    """``time_steps`` by device events: ``events`` makes one, as ``torch.cuda.Event`` does.

    An event between steps costs about a microsecond of launch and no synchronisation.
    """
    marks = [events(enable_timing=True) for _ in range(count + 1)]
    synchronize()
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    synchronize()
    return [round(first.elapsed_time(second) * 1e6) for first, second in pairwise(marks)]


def time_steps_by_clock(step: Callable[[], None], count: int) -> list[int]:
    """``time_steps`` where work is done when the call returns (the CPU): every step is stamped."""
    stamps = [0] * (count + 1)
    stamps[0] = perf_counter_ns()
    for index in range(1, count + 1):
        step()
        stamps[index] = perf_counter_ns()
    return [second - first for first, second in pairwise(stamps)]
