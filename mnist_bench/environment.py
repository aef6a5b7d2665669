"""The machine and the software of a run, as they can be seen without torch. Whatever is not there is left out."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mnist_bench import __version__
from mnist_bench.cgroup import cpu_quota, memory_limit_bytes
from mnist_bench.records import Environment

ROOT = Path("/")
PACKAGES = ("torch", "torchvision", "triton", "numpy", "scipy", "pandas", "pydantic")
# What changes how fast or how exactly torch computes. A list, not all of it: an environment holds secrets.
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "MALLOC_CONF",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCHINDUCTOR_FREEZING",
    "TORCH_LOGS",
)
# Single values of /proc and /sys that a reader of odd timings asks for first.
FILES = {
    "governor": "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "boost": "sys/devices/system/cpu/cpufreq/boost",
    "no_turbo": "sys/devices/system/cpu/intel_pstate/no_turbo",
    "smt": "sys/devices/system/cpu/smt/active",
    "clocksource": "sys/devices/system/clocksource/clocksource0/current_clocksource",
    "hypervisor_type": "sys/hypervisor/type",
    "machine": "sys/class/dmi/id/product_name",
    "load_average": "proc/loadavg",
}
GIT_TIMEOUT_SECONDS = 2.0
_LONGEST = 200  # characters of a detail

# A command and its environment to what it printed; None where it is absent, failed, or took too long.
Runner = Callable[[Sequence[str], Mapping[str, str]], str | None]


def describe(
    environ: Mapping[str, str],
    folder: Path | None = None,
    *,
    root: Path = ROOT,
    affinity: int | None = None,
    run: Runner | None = None,
) -> Environment:
    """Describes this machine.

    Args:
        environ: the environment variables (those in ``VARIABLES`` are recorded, and git is given all).
        folder: whose git commit is recorded (None: the current one).
        root: where /proc and /sys are found; affinity: cores this process may use (None: asks the system);
        run: starts a command. Tests give others.
    """
    run = run or run_command
    commit, dirty = git_state(folder or Path.cwd(), environ, run)
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(root, environ, run),
        cores=available_cores(root, affinity),
        memory_bytes=available_memory_bytes(root),
        packages=_packages(),
        commit=commit,
        dirty=dirty,
        details=_details(root, environ),
    )


def available_cores(root: Path = ROOT, affinity: int | None = None) -> int:
    """The cores that affinity and cgroup quota leave: the default ``threads`` of a variant; at least 1.

    A broken quota is rounded down: one thread more than it pays for would stall all of them in every period.
    """
    if affinity is None:
        # macOS has no affinity.
        affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def available_memory_bytes(root: Path = ROOT) -> int:
    """The machine's memory, or what the cgroup leaves of it."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    total = int(found[1]) * 1024 if found else _memory_by_psutil()
    limit = memory_limit_bytes(root)
    return total if limit is None else min(total, limit)


def git_state(folder: Path, environ: Mapping[str, str], run: Runner | None = None) -> tuple[str | None, bool]:
    """The commit of a folder and whether tracked files differ from it; (None, False) outside of git, or without it."""
    # One call; no lock on the index of somebody's working tree, and no hook of an unknown repository.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    text = (run or run_command)([*command, "status", "--porcelain=v2", "--branch", "--untracked-files=no"], environ)
    lines = (text or "").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):  # "(initial)" before the first commit
        return None, False
    return commit, any(not line.startswith("#") for line in lines)


def run_command(command: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """What a command prints; None where it is absent, fails, or takes more than two seconds."""
    try:
        done = subprocess.run(
            command,
            env={**environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _cpu(root: Path, environ: Mapping[str, str], run: Runner) -> str:
    """The processor's name: /proc/cpuinfo, sysctl on macOS, else the architecture."""
    found = re.search(r"^(?:model name|Model|Hardware|cpu model)\s*:\s*(\S.*)$", _cpuinfo(root), re.MULTILINE)
    if found:
        return _short(found[1])
    brand = run(["sysctl", "-n", "machdep.cpu.brand_string"], environ) if platform.system() == "Darwin" else None
    return _short(brand or platform.processor() or platform.machine() or "unknown")


def _packages() -> dict[str, str]:
    versions = {"mnist-bench": __version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _details(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    found = {"kernel": platform.release(), "architecture": platform.machine()}
    found |= {name: _read(root / path) for name, path in FILES.items()}
    found["transparent_hugepages"] = _chosen(_read(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    cpuinfo = _cpuinfo(root)
    if cpuinfo:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
        found["hypervisor"] = "yes" if flags and "hypervisor" in flags[1].split() else "no"
        microcode = re.search(r"^microcode\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
        found["microcode"] = microcode[1] if microcode else ""
    quota = cpu_quota(root)
    found["cpu_quota"] = "" if quota is None else f"{quota:g}"
    driver = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _read(root / "proc/driver/nvidia/version"))
    found["nvidia_driver"] = driver[1] if driver else ""
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        found["container"] = "yes"
    found |= {f"env.{name}": environ[name] for name in VARIABLES if name in environ}
    return {name: _short(text) for name, text in found.items() if text}


def _cpuinfo(root: Path) -> str:
    return _read(root / "proc/cpuinfo")


def _chosen(setting: str) -> str:
    """The word in brackets of ``always [madvise] never``."""
    found = re.search(r"\[(\w+)\]", setting)
    return found[1] if found else ""


def _memory_by_psutil() -> int:
    import psutil  # only where there is no /proc

    return int(psutil.virtual_memory().total)


def _short(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
