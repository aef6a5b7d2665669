"""Devices, executions and pipelines that a matrix can name: facts without torch, and where the code of each is.

To add one: its file in ``worker/devices``, or its function in ``worker/executions.py`` or ``worker/pipelines.py``, and
its entry here. Built-in models have a catalogue of their own (``models``).
"""

import pkgutil
from dataclasses import dataclass
from typing import Any

_NUMBER = "(0|[1-9][0-9]{0,2})"


@dataclass(frozen=True, slots=True)
class Entry:
    code: str  # module:name, of ``worker/``
    meaning: str


@dataclass(frozen=True, slots=True)
class Device(Entry):
    """Its code is a class, a ``worker.devices.Device``.

    ``numbered``: what ``NAME:N`` means, where there may be several; ``platform``: the only one that has it.
    """

    numbered: str = ""
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class Execution(Entry):
    """Its code makes a ``Program`` of model, optimizer, variant and device; ``compiles``: it needs torch.compile."""

    compiles: bool = False


@dataclass(frozen=True, slots=True)
class Pipeline(Entry):
    """Its code makes a ``Pipeline`` of spec, training and device; ``image_s``: about what an image costs the loader."""

    image_s: float = 0.0


DEVICES = {
    "cpu": Device("devices.cpu:Cpu", "the processor"),
    "cuda": Device(
        "devices.cuda:Cuda",
        "the first visible NVIDIA GPU, the same as cuda:0",
        numbered="the visible NVIDIA GPU number N, from 0",
    ),
    "mps": Device("devices.mps:Mps", "the GPU of an Apple computer", platform="darwin"),
    "xpu": Device("devices.xpu:Xpu", "an Intel GPU"),
}
EXECUTIONS = {
    "eager": Execution("executions:eager", "operator by operator, as written"),
    "compile": Execution("executions:compiled", "torch.compile, of the model or the whole step", compiles=True),
}
PIPELINES = {
    "resident": Pipeline("pipelines:resident", "all images resident on the device"),
    "tensors": Pipeline("pipelines:tensors", "a DataLoader over tensors", image_s=2e-5),
    "torchvision": Pipeline("pipelines:transformed", "a DataLoader over the torchvision data set", image_s=2.5e-4),
    "tutorial": Pipeline("pipelines:tutorial", "the tutorial's own loops", image_s=2.5e-4),
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


def load(entry: Entry) -> Any:
    """The code of an entry; imports torch: for workers alone."""
    return pkgutil.resolve_name(f"mnist_bench.worker.{entry.code}")
