"""What else this machine did while a trial was measured: counters read before and after a span."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

STEAL_LIMIT = 0.02  # of the cores' time, taken by the hypervisor
OTHERS_LIMIT = 0.05  # of the cores' time, used by processes that are not ours
SHORTEST_SPAN_S = 0.5  # the kernel counts CPU time in ticks of 10 ms: shorter spans say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters at one instant; None where this system does not keep them. CPU times in seconds, over all cores."""

    at_s: float
    busy_s: float
    steal_s: float
    own_s: float
    pressure_s: float | None
    load_1min: float
    throttled: int | None


def read(pids: tuple[int, ...], proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Reading:
    """Reads the counters; ``pids`` and their descendants, and this process, are our own."""
    times: Any = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    steal = float(getattr(times, "steal", 0.0))
    return Reading(
        at_s=perf_counter(),
        busy_s=float(sum(times)) - idle - steal - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0),
        steal_s=steal,
        own_s=sum(_tree_cpu_s(pid) for pid in (*pids, os.getpid()) if pid is not None),
        pressure_s=_pressure_s(proc / "pressure" / "cpu"),
        load_1min=os.getloadavg()[0],
        throttled=_throttled(sys),
    )


def compare(before: Reading, after: Reading, cores: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """What was found between two readings, and in words what makes the span noisy.

    Args:
        cores: of the machine, not of the trial.
    """
    span = after.at_s - before.at_s
    capacity = max(span * cores, 1e-9)
    steal = max(0.0, after.steal_s - before.steal_s) / capacity
    others = max(0.0, (after.busy_s - before.busy_s) - (after.own_s - before.own_s)) / capacity
    found = {"span_s": span, "steal": steal, "others": others, "load_1min": after.load_1min}
    noisy = []
    if before.pressure_s is not None and after.pressure_s is not None:
        found["cpu_pressure"] = (after.pressure_s - before.pressure_s) / max(span, 1e-9)
    if before.throttled is not None and after.throttled is not None:
        found["throttled"] = float(after.throttled - before.throttled)
        if found["throttled"] > 0:
            noisy.append(f"the processor throttled {found['throttled']:.0f} times")
    if span >= SHORTEST_SPAN_S:
        if steal > STEAL_LIMIT:
            noisy.append(f"the hypervisor took {steal:.0%} of the cores' time")
        if others > OTHERS_LIMIT:
            noisy.append(f"other processes used {others:.0%} of the cores' time")
    return found, tuple(noisy)


def foreign_gpu_processes(own: tuple[int, ...]) -> tuple[int, ...]:
    """Processes on NVIDIA GPUs but ``own`` and their descendants, by nvidia-smi; none where it does not answer."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    ours = {pid for root in own for pid in _tree(root)}
    return tuple(int(word) for word in done.stdout.split() if word.isdigit() and int(word) not in ours)


def _tree(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process, its living descendants (not for this process: they are other trials) and its dead."""
    total = 0.0
    for member in [pid] if pid == os.getpid() else _tree(pid):
        try:
            times = psutil.Process(member).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if member != os.getpid():  # ours would hold whole trials that have ended
            total += times.children_user + times.children_system
    return total


def _pressure_s(path: Path) -> float | None:
    """Seconds in which some task waited for a CPU (``/proc/pressure/cpu``)."""
    try:
        words = path.read_text().split()
    except OSError:
        return None
    return next((int(word[6:]) * 1e-6 for word in words if word.startswith("total=")), None)


def _throttled(sys: Path) -> int | None:
    counts = list(sys.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return sum(int(path.read_text()) for path in counts) if counts else None
