"""The machine and the software of a run, as they can be seen without torch. Whatever is not there is left out."""

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path, PurePosixPath

from mnist_bench import __version__
from mnist_bench.records import Environment

ROOT = Path("/")
PACKAGES = ("torch", "torchvision", "triton", "numpy", "scipy", "pandas", "pydantic")
# What changes how fast or how exactly torch computes. Not all variables: an environment holds secrets.
VARIABLES = re.compile(
    r"(ATEN|CUBLAS|CUDA|CUDNN|DNNL|GOMP|KMP|MALLOC|MKL|OMP|ONEDNN|PYTORCH|TORCH|TORCHDYNAMO|TORCHINDUCTOR)_\w+"
    r"|LD_PRELOAD|NVIDIA_TF32_OVERRIDE|PYTHONDEVMODE|PYTHONMALLOC"
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
# Controller of a cgroup (empty: version 2): where its hierarchy may be mounted.
CGROUP_MOUNTS = {
    "": ("sys/fs/cgroup", "sys/fs/cgroup/unified"),
    "cpu": ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"),
    "memory": ("sys/fs/cgroup/memory",),
}
COMMAND_TIMEOUT_SECONDS = 5.0
MADE_HOME = "mnist-bench-home-"
_LONGEST = 200  # characters of a detail


def run_command(command: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """What a command prints; None where it is absent, fails, or takes more than five seconds."""
    try:
        done = subprocess.run(
            command,
            env={**environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def describe(environ: Mapping[str, str], folder: Path | None = None, *, root: Path = ROOT) -> Environment:
    """Describes this machine.

    Args:
        environ: the environment variables (those of ``VARIABLES`` are recorded, and commands are given all).
        folder: whose git commit is recorded (None: the current one).
        root: where /proc and /sys are found.
    """
    commit, dirty = git_state(folder or Path.cwd(), environ)
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(root, environ),
        cores=available_cores(root),
        memory_bytes=available_memory_bytes(root),
        packages=_packages(),
        commit=commit,
        dirty=dirty,
        details=_details(root, environ),
    )


def give_home(environ: MutableMapping[str, str]) -> None:
    """Gives a user without a home one, and a name: libraries end in a traceback without them.

    Such a user is a container's foreign uid, or a service. The home is a folder of the user's own among the temporary
    files, the same in every process; ``/`` where none can be made.
    """
    home = Path("/")
    with contextlib.suppress(OSError):
        folder = Path(tempfile.gettempdir(), f"{MADE_HOME}{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid == os.getuid():  # nobody else has made it beforehand
            home = folder
    environ["HOME"] = str(home)
    environ.setdefault("USER", str(os.getuid()))


def affinity() -> tuple[int, ...]:
    """The CPUs that this process may use; all of them on macOS, which has no affinity."""
    return tuple(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def available_cores(root: Path = ROOT) -> int:
    """The cores that affinity and cgroup quota leave: the default ``threads`` of a variant; at least 1.

    A broken quota is rounded down: one thread more than it pays for would stall all of them in every period.
    """
    cores, quota = len(affinity()), cpu_quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def available_memory_bytes(root: Path = ROOT) -> int:
    """The machine's memory, or what the cgroups leave of it."""
    import psutil  # late: no --help needs it

    total: int = psutil.virtual_memory().total
    texts = [*_cgroup(root, "", "memory.max"), *_cgroup(root, "memory", "memory.limit_in_bytes")]
    return min([total, *(int(text) for text in texts if text.isdecimal() and int(text))])


def cpu_quota(root: Path = ROOT) -> float | None:
    """The least CPU quota of the cgroups above this process, in cores; None where there is none."""
    old = zip(_cgroup(root, "cpu", "cpu.cfs_quota_us"), _cgroup(root, "cpu", "cpu.cfs_period_us"), strict=True)
    texts = [*_cgroup(root, "", "cpu.max"), *map(" ".join, old)]
    matches = [re.fullmatch(r"([1-9]\d*) ([1-9]\d*)", text) for text in texts]  # not of "max", "-1", or nothing
    return min((int(found[1]) / int(found[2]) for found in matches if found), default=None)


def _cgroup(root: Path, controller: str, name: str) -> list[str]:
    """What a file says in this process's group and in all above it; a container's own is often the mount's root."""
    found = re.findall(r"^\d+:(.*?):/(.*)$", read(root / "proc/self/cgroup"), re.MULTILINE)
    group = next((path for controllers, path in found if controller in controllers.split(",")), None)
    if group is None:
        return []
    # Above the root of a namespace the kernel writes "..": what is there cannot be seen.
    level = PurePosixPath(*(part for part in group.split("/") if part != ".."))
    folders = [root / mount / each for mount in CGROUP_MOUNTS[controller] for each in (level, *level.parents)]
    return [read(folder / name) for folder in folders]


def git_state(folder: Path, environ: Mapping[str, str]) -> tuple[str | None, bool]:
    """The commit of a folder and whether tracked files differ from it; (None, False) outside of git, or without it."""
    # One call; no lock on the index of somebody's working tree, and no hook of an unknown repository.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    text = run_command([*command, "status", "--porcelain=v2", "--branch", "--untracked-files=no"], environ) or ""
    commit = re.search(r"^# branch\.oid ([0-9a-f]{40,64})$", text, re.MULTILINE)  # "(initial)" before the first
    return (commit[1], bool(re.search(r"^[^#]", text, re.MULTILINE))) if commit else (None, False)


def read(path: Path) -> str:
    """What a small file of the kernel's says; nothing where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu(root: Path, environ: Mapping[str, str]) -> str:
    """The processor's name: /proc/cpuinfo, sysctl on macOS, else the architecture."""
    name = _first(r"^(?:model name|Model|Hardware|cpu model)\s*:\s*(\S.*)$", read(root / "proc/cpuinfo"))
    if not name and platform.system() == "Darwin":
        name = run_command(["sysctl", "-n", "machdep.cpu.brand_string"], environ) or ""
    return _short(name or platform.processor() or platform.machine() or "unknown")


def _packages() -> dict[str, str]:
    versions = {"mnist-bench": __version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _details(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    cpuinfo, quota = read(root / "proc/cpuinfo"), cpu_quota(root)
    flags = _first(r"^flags\s*:(.*)$", cpuinfo).split()
    found = {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        **{name: read(root / path) for name, path in FILES.items()},
        "transparent_hugepages": _first(r"\[(\w+)\]", read(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        "hypervisor": ("yes" if "hypervisor" in flags else "no") if cpuinfo else "",
        "microcode": _first(r"^microcode\s*:\s*(\S+)", cpuinfo),
        "cpu_quota": "" if quota is None else f"{quota:g}",
        "nvidia_driver": _first(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", read(root / "proc/driver/nvidia/version")),
        "container": "yes" if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists() else "",
        "nice": str(os.nice(0) or ""),
        **{f"env.{name}": value for name, value in environ.items() if VARIABLES.fullmatch(name)},
    }
    return {name: _short(text) for name, text in found.items() if text}


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""


def _short(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
