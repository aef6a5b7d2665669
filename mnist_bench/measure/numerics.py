"""The numerics of a trial: set from the variant, read back from torch as they then are."""

from __future__ import annotations

import os
from typing import Any

import torch

from mnist_bench.records import Variant

AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16}


class NumericsError(Exception):
    """A setting that this machine or this torch cannot have."""


def apply(variant: Variant, device: torch.device, *, deterministic_if_possible: bool = False) -> None:
    """Sets threads, denormals, TF32 and determinism for this process.

    Args:
        deterministic_if_possible: a deterministic variant is only warned of operators that cannot be.

    Raises:
        NumericsError: the processor cannot flush denormals; the device has no TF32.
    """
    if variant.threads is not None:
        torch.set_num_threads(variant.threads)
    if variant.flush_denormal and not torch.set_flush_denormal(True):
        raise NumericsError("flush_denormal: this processor (or this build of torch) cannot flush denormals")
    if variant.precision == "tf32" and device.type != "cuda":
        raise NumericsError(f"precision tf32 exists on NVIDIA GPUs (Ampere and later), not on {device.type}")
    if device.type == "cuda":
        # fp32 is to mean the same on every device: torch's default lets cuDNN use TF32. The newer names of these flags
        # (fp32_precision) set parts of them, whereupon reading the older ones, as inductor does, is an error.
        tf32 = variant.precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    if variant.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=deterministic_if_possible)
        torch.backends.cudnn.benchmark = False


def describe(variant: Variant, device: torch.device) -> dict[str, Any]:
    """The numerics in force, read from torch, not from the settings."""
    found: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "autocast": str(AUTOCAST[variant.precision]) if variant.precision in AUTOCAST else "off",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "onednn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "denormals_flushed": _denormals_flushed(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }
    if device.type == "cuda":
        found["matmul_precision"] = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
        found["conv_precision"] = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    return found


def _denormals_flushed() -> bool:
    """Whether the smallest denormal, doubled on this thread, comes out as zero."""
    return bool((torch.tensor([1e-45]) * 2).item() == 0.0)
