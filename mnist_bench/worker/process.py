"""What holds for the whole process of a trial: its numerics, its core, its memory; and the way back to how it was."""

import os
import random
import re
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from mnist_bench.errors import TrialError
from mnist_bench.records import Variant

MAX_SPACER_BYTES = 64 * 1024
MAX_FIRST_SPACER_BYTES = 8 * 1024 * 1024
AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
COMPUTED = {**AUTOCAST, "bf16-weights": torch.bfloat16}  # of the large products; else float32


def apply_numerics(variant: Variant, device: torch.device, *, deterministic_if_possible: bool = False) -> None:
    """Sets threads, denormals, oneDNN, TF32 and determinism for this process.

    Args:
        deterministic_if_possible: a deterministic variant is only warned of operators that cannot be.

    Raises:
        TrialError: the processor cannot flush denormals; the device has no TF32; no linear layer can be by oneDNN.
    """
    if variant.threads is not None:
        torch.set_num_threads(variant.threads)
    if variant.flush_denormal and not torch.set_flush_denormal(True):
        raise TrialError("flush_denormal: this processor (or this build of torch) cannot flush denormals")
    if not variant.onednn:
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # a property of the module
    plain = device.type == "cpu" and variant.precision == "fp32" and variant.onednn
    if variant.onednn_linear and not (plain and torch.backends.mkldnn.is_available()):
        raise TrialError("onednn_linear: takes a CPU, fp32, and a torch with oneDNN that is not switched off")
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
def on_random_core(rng: random.Random, rank: int = 0) -> Iterator[None]:
    """Keeps the calling thread on one of its cores, drawn anew for each block; nothing where the system cannot.

    Cores of a shared machine differ, and a thread stays where it was: one process may have its main thread on the
    better core for a whole session, and a difference between cores would look like one between variants. With the same
    ``rng`` two processes take the same core, each rank of a trial another. Threads that there are already (OpenMP's)
    stay free.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield
        return
    cores = os.sched_getaffinity(0)
    drawn = rng.sample(sorted(cores), len(cores))
    os.sched_setaffinity(0, {drawn[rank % len(drawn)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def tree_peak_bytes(launcher: int | None = None) -> int:
    """The sum of the peaks of this process and of its living children (``VmHWM``; macOS: present size of children).

    Processes that have ended (a compiler, say) are not in it. The process's own is not that of whoever started it, as
    it would be after an exec: the guardian forks it.

    Args:
        launcher: of several ranks the process that started them, whose tree it is then.
    """
    if launcher is not None:
        top = psutil.Process(launcher)
        return sum(map(_peak_bytes, (top, *top.children(recursive=True))))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return own + sum(_peak_bytes(child) for child in psutil.Process().children(recursive=True))


def _peak_bytes(process: psutil.Process) -> int:
    """0: it has ended."""
    try:
        status = "" if sys.platform == "darwin" else Path(f"/proc/{process.pid}/status").read_text()
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return int(peak[1]) * 1024 if peak else int(process.memory_info().rss)
    except (OSError, psutil.NoSuchProcess):
        return 0


class Snapshot:
    """Weights, buffers, ``more`` tensors and every random state, as they were when it was taken.

    ``restore`` writes values into the tensors that there are (a compiled graph keeps its guards) and fills the
    optimizer's state with zeros, which is how SGD, Adam and AdamW begin.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        more: Iterable[torch.Tensor] = (),
    ) -> None:
        self._model, self._optimizer, self._device, self._more = model, optimizer, device, tuple(more)
        self._values = [tensor.detach().clone() for tensor in self._tensors()]
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._device_rng = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._tensors(), self._values, strict=True):
                tensor.copy_(value)
            for tensor in optimizer_tensors(self._optimizer):
                tensor.zero_()
        self._optimizer.zero_grad()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._device_rng is not None:
            torch.get_device_module(self._device).set_rng_state(self._device_rng, self._device)

    def weights_changed(self) -> bool:
        """Whether any parameter differs from what it was."""
        parameters = list(self._model.parameters())
        return any(not torch.equal(now, then) for now, then in zip(parameters, self._values, strict=False))

    def _tensors(self) -> list[torch.Tensor]:
        return [*self._model.parameters(), *self._model.buffers(), *self._more]


class Relocator:
    """Moves tensors to fresh memory; where they happen to lie is a bias of several per cent, this makes it noise.

    Every tensor is cloned; the clones are made before the old memory is freed, each behind a spacer of random size, so
    that neither page nor cache set is the same twice. The tensor objects stay the same (their ``.data`` is set), so
    optimizers and compiled graphs do not notice, and values do not change. The first spacer, of several MiB, shifts
    what every step allocates anew (activations, gradients) as well: malloc would else put it where it was. The spacers
    of the last move are held until the next, so that holes are not refilled at once.
    """

    def __init__(self) -> None:
        self._spacers: list[torch.Tensor] = []

    def move(self, tensors: Iterable[torch.Tensor], rng: random.Random) -> None:
        spacers: list[torch.Tensor] = []
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for tensor in tensors:
            size = rng.randrange(1, MAX_SPACER_BYTES if spacers else MAX_FIRST_SPACER_BYTES)
            spacers.append(torch.empty(size, dtype=torch.uint8, device=tensor.device))
            pairs.append((tensor, tensor.detach().clone(memory_format=torch.preserve_format)))
        for tensor, clone in pairs:
            tensor.data = clone
        self._spacers = spacers


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Parameters, buffers and the optimizer's state tensors, each once."""
    return [*model.parameters(), *model.buffers(), *optimizer_tensors(optimizer)]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    values = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in values if isinstance(value, torch.Tensor)]
