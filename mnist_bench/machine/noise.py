"""What else this machine did while a trial was measured: counters read before and after a span."""

from __future__ import annotations

import contextlib
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
class Counters:
    """Counters at one instant; None where this system does not keep them. CPU times in seconds, over all cores."""

    at_s: float
    busy_s: float
    steal_s: float
    own_s: float
    pressure_s: float | None
    load_1min: float
    throttled: int | None


def read(pids: tuple[int, ...], root: Path = Path("/")) -> Counters:
    """Reads the counters; ``pids`` and their descendants, and this process, are our own."""
    times: Any = psutil.cpu_times()
    steal = float(getattr(times, "steal", 0.0))
    others = (getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
    own = [(psutil.Process(), False), *((member, True) for pid in pids for member in _tree(pid))]
    return Counters(
        at_s=perf_counter(),
        busy_s=float(sum(times)) - steal - sum(others),
        steal_s=steal,
        own_s=sum(_cpu_s(process, ended_children=ended) for process, ended in own),
        pressure_s=_pressure_s(root / "proc/pressure/cpu"),
        load_1min=os.getloadavg()[0],
        throttled=_throttled(root),
    )


def compare(before: Counters, after: Counters, cores: int) -> tuple[dict[str, float], tuple[str, ...]]:
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


def foreign_gpu_processes() -> tuple[int, ...]:
    """Processes on NVIDIA GPUs but this one and its descendants, by nvidia-smi; none where it does not answer."""
    command = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    own = {process.pid for process in _tree(os.getpid())}
    return tuple(int(word) for word in done.stdout.split() if word.isdigit() and int(word) not in own)


def _tree(pid: int) -> list[psutil.Process]:
    """A process and its living descendants; nothing where it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _cpu_s(process: psutil.Process, *, ended_children: bool) -> float:
    """CPU seconds of a process and its ended children; not with those of ours, which are whole trials."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        ended = times.children_user + times.children_system if ended_children else 0.0
        return times.user + times.system + ended
    return 0.0


def _pressure_s(path: Path) -> float | None:
    """Seconds in which some task waited for a CPU."""
    try:
        words = path.read_text().split()
    except OSError:
        return None
    return next((int(word[6:]) * 1e-6 for word in words if word.startswith("total=")), None)


def _throttled(root: Path) -> int | None:
    counts = list(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return sum(int(path.read_text()) for path in counts) if counts else None
