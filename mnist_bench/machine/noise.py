"""What else this machine does while we measure: another run, which is waited for; whatever counters show of a span."""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import psutil

from mnist_bench.data.mnist import cache_root
from mnist_bench.errors import UsageError
from mnist_bench.machine import environment

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
        throttled=throttled(root),
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
    """Processes on the visible NVIDIA GPUs but this one and its descendants, by nvidia-smi; none where it is silent."""
    visible = [f"--id={named}"] if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) else []
    command = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader", *visible]
    said = environment.run_command(command, os.environ) or ""
    own = {process.pid for process in _tree(os.getpid())}
    return tuple(int(word) for word in said.split() if word.isdigit() and int(word) not in own)


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
    found = re.search(r"total=(\d+)", environment.read(path))
    return int(found[1]) * 1e-6 if found else None


def throttled(root: Path) -> int | None:
    """How often cores have been slowed down since the machine was started; None: the kernel does not count."""
    counts = list(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return sum(int(path.read_text()) for path in counts) if counts else None


@contextmanager
def alone(*, wait: bool, tell: Callable[[str], object]) -> Iterator[None]:
    """Holds the lock of this user's runs on this machine; waiters are told whose it is.

    Where the cache folder cannot be written (a container without a home) there is no lock, and the run goes on.

    Args:
        wait: for another run to end.
        tell: told that another run is waited for, or that none can be.

    Raises:
        UsageError: another run is on, and is not to be waited for.
    """
    path = cache_root(os.environ) / f"machine-{os.uname().nodename}.lock"  # machines may share a home
    with ExitStack() as held:  # the end of the file, however it comes, gives the lock up
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(path.open("a+", encoding="utf-8", errors="replace"))
            _acquire(file, wait=wait, tell=tell)
            file.truncate(0)
            file.write(f"process {os.getpid()} in {Path.cwd()}, since {datetime.now():%Y-%m-%d %H:%M}")
            file.flush()
        except OSError as error:
            mend = "runs are not kept apart; set XDG_CACHE_HOME to a folder that can be written"
            tell(f"warning: {path}: {error.strerror or error}: {mend}")
        yield


def _acquire(file: IO[str], *, wait: bool, tell: Callable[[str], object]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = "".join(letter for letter in file.read(500) if letter.isprintable())
        other = f"another run of yours is measuring on this machine ({holder})"
        if not wait:
            raise UsageError(f"{other}, and --no-wait was given") from None
        tell(f"{other}: waiting for its end (Ctrl-C to leave) ...")
        fcntl.flock(file, fcntl.LOCK_EX)
