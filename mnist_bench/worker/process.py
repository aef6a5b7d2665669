"""What holds for the whole process of a trial: its numerics, its core, its memory."""

import os
import random
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from mnist_bench.errors import TrialError
from mnist_bench.records import Variant

AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16}


def apply_numerics(variant: Variant, device: torch.device, *, deterministic_if_possible: bool = False) -> None:
    """Sets threads, denormals, TF32 and determinism for this process.

    Args:
        deterministic_if_possible: a deterministic variant is only warned of operators that cannot be.

    Raises:
        TrialError: the processor cannot flush denormals; the device has no TF32.
    """
    if variant.threads is not None:
        torch.set_num_threads(variant.threads)
    if variant.flush_denormal and not torch.set_flush_denormal(True):
        raise TrialError("flush_denormal: this processor (or this build of torch) cannot flush denormals")
    if variant.precision == "tf32" and device.type != "cuda":
        raise TrialError(f"precision tf32 exists on NVIDIA GPUs (Ampere and later), not on {device.type}")
    if device.type == "cuda":
        # fp32 is to mean the same on every device: torch's default lets cuDNN use TF32. The newer names of these flags
        # (fp32_precision) set parts of them, whereupon reading the older ones, as inductor does, is an error.
        tf32 = variant.precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    if variant.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=deterministic_if_possible)
        torch.backends.cudnn.benchmark = False


def describe_numerics(variant: Variant, device: torch.device) -> dict[str, Any]:
    """The numerics in force, read from torch, not from the settings."""
    found: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "autocast": str(AUTOCAST[variant.precision]) if variant.precision in AUTOCAST else "off",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "onednn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        # Whether the smallest denormal, doubled on this thread, comes out as zero.
        "denormals_flushed": bool((torch.tensor([1e-45]) * 2).item() == 0.0),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }
    if device.type == "cuda":
        found["matmul_precision"] = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
        found["conv_precision"] = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    return found


@contextmanager
def on_random_core(rng: random.Random) -> Iterator[None]:
    """Keeps the calling thread on one of its cores, drawn anew for each block; nothing where the system cannot.

    Cores of a shared machine differ, and a thread stays where it was: one process may have its main thread on the
    better core for a whole session, and a difference between cores would look like one between variants. With the same
    ``rng`` two processes take the same core. Threads that there are already (OpenMP's) stay free.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {rng.choice(sorted(cores))})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def tree_peak_bytes() -> int:
    """The sum of the peaks of this process and of its living children (``VmHWM``; macOS: present size of children).

    Processes that have ended (a compiler, say) are not in it.
    """
    me, peak = psutil.Process(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = peak if sys.platform == "darwin" else (_high_water_bytes(me.pid) or peak * 1024)
    return own + sum(_high_water_bytes(child.pid) or _resident_bytes(child) for child in me.children(recursive=True))


def _high_water_bytes(pid: int) -> int:
    """VmHWM of a process; 0 where it has ended or the kernel keeps none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
