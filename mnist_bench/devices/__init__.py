"""The devices: one file each, all with the methods of ``Device``."""

from __future__ import annotations

from collections.abc import Callable

from mnist_bench.devices.base import Device
from mnist_bench.devices.cpu import Cpu
from mnist_bench.devices.cuda import Cuda
from mnist_bench.devices.mps import Mps
from mnist_bench.devices.xpu import Xpu

DEVICES: dict[str, Callable[[int], Device]] = {"cpu": Cpu, "cuda": Cuda, "mps": Mps, "xpu": Xpu}


def open_device(name: str) -> Device:
    """The device of a matrix name (``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``); it need not be there."""
    kind, _, index = name.partition(":")
    return DEVICES[kind](int(index or 0))


__all__ = ["DEVICES", "Device", "open_device"]
