"""Peak memory of this process and its children."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil


def tree_peak_bytes() -> int:
    """The sum of the peaks of this process and of its living children (``VmHWM``; macOS: present size of children).

    Processes that have ended (a compiler, say) are not in it.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = peak if sys.platform == "darwin" else (_high_water_bytes(psutil.Process().pid) or peak * 1024)
    children = psutil.Process().children(recursive=True)
    return own + sum(_high_water_bytes(child.pid) or _resident_bytes(child) for child in children)


def _high_water_bytes(pid: int) -> int:
    """VmHWM of a process; 0 where it has ended or the kernel keeps none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
