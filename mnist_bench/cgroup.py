"""What a container leaves of the machine: CPU quota and memory limit of this process's control groups (v1 and v2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Where each hierarchy is mounted; inside a container its own group is often the root of the mount.
_V2_MOUNTS = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
_V1_CPU_MOUNTS = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
_V1_MEMORY_MOUNTS = ("sys/fs/cgroup/memory",)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The least CPU quota of the groups above this process, in cores; None where there is none."""
    quotas = [
        *(_quota_v2(folder) for folder in _folders(root, "", _V2_MOUNTS)),
        *(_quota_v1(folder) for folder in _folders(root, "cpu", _V1_CPU_MOUNTS)),
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The least memory limit of the groups above this process; None where there is none."""
    texts = [
        *(_read(folder / "memory.max") for folder in _folders(root, "", _V2_MOUNTS)),
        *(_read(folder / "memory.limit_in_bytes") for folder in _folders(root, "memory", _V1_MEMORY_MOUNTS)),
    ]
    # v1 writes "no limit" as a number near 2^63.
    limits = [int(text) for text in texts if text.isdecimal() and 0 < int(text) < 1 << 60]
    return min(limits, default=None)


def _folders(root: Path, controller: str, mounts: tuple[str, ...]) -> Iterator[Path]:
    """The folders of this process's group and all above it; ``controller`` is empty for v2."""
    group = _group(root, controller)
    if group is None:
        return
    for mount in mounts:
        for level in (group, *group.parents):
            yield root / mount / level.relative_to("/")


def _group(root: Path, controller: str) -> PurePosixPath | None:
    """The path in the line ``number:controllers:path`` of /proc/self/cgroup."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and path.startswith("/"):
            # Above the root of a namespace the kernel writes "..": what is there cannot be seen.
            return PurePosixPath("/", *(part for part in path.split("/") if part != ".."))
    return None


def _quota_v2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    return _cores(*fields) if len(fields) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    return _cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _cores(quota: str, period: str) -> float | None:
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None  # "max", "-1", or nothing there
    return int(quota) / int(period)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return ""
