"""What can be known without torch before a run: the cells that this machine must skip, and about how long it takes.

Times are those of a coarse model: start-up, compilation, floating-point work (docs/measurement.md) at an assumed rate,
and what a loader adds to every image. Its constants were measured on a shared
machine of ``MEASURED_CORES``; a GPU's work is hidden by its launches. Good to a factor of two.
"""

import importlib.metadata
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mnist_bench.catalogue import DEVICES, EXECUTIONS, MODELS, PIPELINES, PLUG_IN
from mnist_bench.cells import model_of, variant_of
from mnist_bench.records import MNIST, Cell, DataSet, Matrix, Variant

MEASURED_CORES = 2
STARTUP_S = 5.0  # interpreter, torch, data, warm-up
ACCELERATOR_STARTUP_S = 5.0  # on top
COMPILE_S = 25.0
FLOPS_PER_CORE = 15e9
CPU_STEP_S = 0.0003  # launching the operators of a step
ACCELERATOR_STEP_S = 0.001
UNMET = "skipped without --rendezvous HOST:PORT, an address of this machine where they meet"
PLATFORMS = {"darwin": "macOS", "linux": "Linux"}


def trial_s(cell: Cell, matrix: Matrix, epochs: int, cores: int, data: DataSet = MNIST) -> float:
    """Seconds of a trial without its timing session, by the coarse model."""
    variant = variant_of(matrix, cell.variant)
    compilation = COMPILE_S if EXECUTIONS[variant.execution].compiles else 0.0
    startup = STARTUP_S + compilation + (0.0 if cell.device == "cpu" else ACCELERATOR_STARTUP_S)
    return startup + epochs * _epoch_s(cell, matrix, variant, cores, data)


def _epoch_s(cell: Cell, matrix: Matrix, variant: Variant, cores: int, data: DataSet) -> float:
    trained, evaluated = data.sizes[0], data.sizes[0 if matrix.recipe == "tutorial" else 1]
    steps = trained / cell.batch_size
    loading = (trained + evaluated) * PIPELINES[variant.pipeline].image_s / max(1, variant.workers)
    if cell.device != "cpu":
        return steps * ACCELERATOR_STEP_S + loading
    train_flops, eval_flops = MODELS.get(model_of(matrix, cell.model).model, PLUG_IN).flops
    pixels = math.prod(data.shape) / math.prod(MNIST.shape)  # of an image, in those of MNIST's
    rate = FLOPS_PER_CORE * min(cores * variant.nodes, (variant.threads or cores) * variant.processes)
    return pixels * (trained * train_flops + evaluated * eval_flops) / rate + steps * CPU_STEP_S + loading


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is asked of the machine; ``platform`` as in ``sys.platform``, ``torch_version`` None where it is missing."""

    platform: str
    torch_version: str | None
    find_program: Callable[[str], str | None]
    environ: Mapping[str, str]


def this_host() -> Host:
    """The machine that we run on. Nothing is imported or started to find out."""
    try:
        version: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Host(platform=sys.platform, torch_version=version, find_program=shutil.which, environ=os.environ)


def skip_reason(cell: Cell, variant: Variant, host: Host) -> str | None:
    """Why a cell will be skipped, as far as can be known; None: no reason is known."""
    if doubt := device_doubt(cell.device, host):
        return doubt
    if found := execution_problem(cell.device, variant):
        return f"{variant.name}: {found}, will be skipped"
    if variant.nodes > 1:
        return f"{variant.name}: on {variant.nodes} machines, will be {UNMET}"
    problem = compiler_problem(variant, host)
    return problem and f"{variant.name}: {problem[0]}, will be skipped: {problem[1]}"


def device_doubt(device: str, host: Host) -> str | None:
    """Why a device is not to be had; None: it is, or only torch can tell.

    >>> host = Host(platform="linux", torch_version="2.10.0", find_program=lambda name: None, environ={})
    >>> device_doubt("mps", host)
    'mps: only on macOS, will be skipped'
    """
    platform = DEVICES[device.partition(":")[0]].platform
    if platform not in (None, host.platform):
        return f"{device}: only on {PLATFORMS.get(platform, platform)}, will be skipped"
    if not device.startswith("cuda"):
        return None
    if (host.torch_version or "").endswith("+cpu"):
        mend = "install a CUDA build (pytorch.org/get-started)"
        return f"cuda: torch {host.torch_version} is built without CUDA, will be skipped: {mend}"
    if host.platform == "darwin":
        return "cuda: macOS has no CUDA, will be skipped"
    visible = host.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and int(device.partition(":")[2] or 0) >= (count := visible_gpus(visible)):
        left = f"leaves {count} GPU{'' if count == 1 else 's'}"
        return f"{device}: CUDA_VISIBLE_DEVICES={visible!r} {left}, will be skipped: unset it"
    if host.find_program("nvidia-smi") is None:
        return "cuda: no NVIDIA driver found (nvidia-smi), will be skipped unless torch sees one"
    return None


def visible_gpus(variable: str) -> int:
    """How many GPUs ``CUDA_VISIBLE_DEVICES`` names, as CUDA reads it: the first that is no GPU's ends the list."""
    names = [name.strip() for name in variable.split(",")]
    return next((index for index, name in enumerate(names) if name in ("", "-1")), len(names))


def execution_problem(device: str, variant: Variant) -> str | None:
    """Why a device cannot execute steps so; None: it can.

    >>> execution_problem("cpu", Variant(name="graph", execution="cuda_graph"))
    'execution cuda_graph exists on cuda alone, not on cpu'
    """
    wanted, kind = EXECUTIONS[variant.execution].device, device.partition(":")[0]
    if variant.processes > 1 and kind not in ("cpu", "cuda"):
        return f"several processes train on cpu and cuda, not on {device}"
    return None if wanted in ("", kind) else f"execution {variant.execution} exists on {wanted} alone, not on {device}"


def compiler_problem(variant: Variant, host: Host) -> tuple[str, str] | None:
    """Why nothing can be compiled on this host's CPU, and the mend; None where it can, or need not."""
    if not EXECUTIONS[variant.execution].compiles or variant.compile.backend != "inductor":
        return None
    if host.find_program(wanted := compiler(host)) is None:
        mend = "xcode-select --install" if host.platform == "darwin" else "apt-get install g++"
        return f"torch.compile needs a C++ compiler ({wanted} not found)", mend
    # In this order, as ``tempfile`` does.
    folder = next(filter(None, (host.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))), "")
    if " " in folder:
        return f"torch.compile cannot work in a temporary folder with a space ({folder})", "set TMPDIR to another"
    return None


def compiler(host: Host) -> str:
    """The C++ compiler that torch calls (``torch._inductor.cpp_builder``): it tries no other."""
    return host.environ.get("CXX") or ("clang++" if host.platform == "darwin" else "g++")
