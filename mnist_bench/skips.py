"""What can be known without torch about the cells that this machine will have to skip, and what would mend it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mnist_bench.records import Cell, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is asked of the machine; ``platform`` as in ``sys.platform``, ``torch_version`` None where it is missing."""

    platform: str
    torch_version: str | None
    find_program: Callable[[str], str | None]
    environment: Mapping[str, str]


def this_host() -> Host:
    """The machine that we run on. Nothing is imported or started to find out."""
    try:
        version: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Host(platform=sys.platform, torch_version=version, find_program=shutil.which, environment=os.environ)


def skip_reason(cell: Cell, variant: Variant, host: Host) -> str | None:
    """Why a cell will be skipped, as far as can be known; None: no reason is known.

    Args:
        cell: of the matrix.
        variant: the one that the cell names.
        host: the machine.
    """
    return device_doubt(cell.device, host) or compiler_doubt(variant, host)


def device_doubt(device: str, host: Host) -> str | None:
    """Why a device is not to be had; None: it is, or only torch can tell.

    >>> host = Host(platform="linux", torch_version="2.10.0", find_program=lambda name: None, environment={})
    >>> device_doubt("mps", host)
    'mps: only on macOS, will be skipped'
    """
    if device == "mps" and host.platform != "darwin":
        return "mps: only on macOS, will be skipped"
    if device.startswith("cuda"):
        return _cuda_doubt(device, host)
    return None


def _cuda_doubt(device: str, host: Host) -> str | None:
    version = host.torch_version or ""
    if host.platform == "darwin" or version.endswith("+cpu"):
        build = f"torch {version} is built without CUDA" if version.endswith("+cpu") else "macOS has no CUDA"
        mend = ": install a CUDA build (pytorch.org/get-started)" if version.endswith("+cpu") else ""
        return f"cuda: {build}, will be skipped{mend}"
    visible = host.environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # As CUDA reads it: the first number that is no GPU's ends the list.
        names = [name.strip() for name in visible.split(",")]
        count = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        if int(device.partition(":")[2] or 0) >= count:
            left = f"leaves {count} GPU{'' if count == 1 else 's'}"
            return f"{device}: CUDA_VISIBLE_DEVICES={visible!r} {left}, will be skipped: unset it"
    if host.find_program("nvidia-smi") is None:
        return "cuda: no NVIDIA driver found (nvidia-smi), will be skipped unless torch sees one"
    return None


def compiler_doubt(variant: Variant, host: Host) -> str | None:
    """Why torch.compile cannot work; None: it may."""
    if variant.execution != "compile" or variant.compile.backend != "inductor":
        return None
    wanted = compiler(host)
    if host.find_program(wanted):
        return None
    mend = "xcode-select --install" if host.platform == "darwin" else "apt-get install g++"
    return f"{variant.name}: torch.compile needs a C++ compiler ({wanted} not found), will be skipped: {mend}"


def compiler(host: Host) -> str:
    """The C++ compiler that torch calls (``torch._inductor.cpp_builder``): it tries no other."""
    return host.environment.get("CXX") or ("clang++" if host.platform == "darwin" else "g++")
