"""What ``doctor`` knows of a machine before it judges: frozen facts, and the findings that checks make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mnist_bench.records import Environment

Level = Literal["ok", "info", "warning", "error"]
DataState = Literal["whole", "packed", "missing", "incomplete", "corrupt", "unreadable"]
LEVELS: tuple[Level, ...] = ("ok", "info", "warning", "error")  # from best to worst
STAGE = "probe: "  # begins each line in which the probe says what it is about to do


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """One device as torch sees it; ``missing`` says why it cannot be used (None: a kernel ran on it)."""

    name: str
    missing: str | None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionReport:
    """``version`` None: not installed. ``error``: of a plain import. ``usable``: mnist_bench could import it."""

    version: str | None
    error: str | None
    usable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileTrial:
    """One small function through ``torch.compile``, with an empty cache; ``error`` None: it worked."""

    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchReport:
    """What the probe found. ``tf32`` are torch's own defaults by operation; ``warnings`` what torch warned of."""

    version: str
    cuda: str | None
    hip: str | None
    threads: int
    cpu_capability: str
    devices: tuple[DeviceReport, ...]
    torchvision: TorchvisionReport
    tf32: dict[str, str]
    compile_trial: CompileTrial | None
    warnings: tuple[str, ...] = ()
    type: Literal["torch"] = "torch"

    def devices_of(self, kind: str) -> tuple[DeviceReport, ...]:
        """``cuda`` gives ``cuda:0``, ``cuda:1`` and so on, or the one that says why there is none."""
        return tuple(device for device in self.devices if device.name.partition(":")[0] == kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailure:
    """Why nothing is known of torch. ``stage``: what the probe did last; ``detail``: in words."""

    kind: Literal["missing", "broken", "crashed", "hung"]
    detail: str
    stage: str = ""
    type: Literal["failure"] = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """A fixed loop, timed again and again for about a second: ``spread`` is p95 / p50 of its slices.

    ``found`` and ``noisy`` are what ``interference`` says of that second.
    """

    slices: int
    slice_ms: float
    spread: float
    found: dict[str, float]
    noisy: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Processors, memory and neighbours. None: this system does not tell."""

    logical_cpus: int
    affinity: int
    quota: float | None
    physical_cores: int | None  # among those of the affinity
    memory_free_bytes: int
    swap_used_bytes: int
    on_battery: bool
    other_runs: tuple[int, ...] = ()  # processes of other mnist-bench runs
    gpu_processes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """``doubt``: why torch.compile cannot work; ``version``: of the C++ compiler."""

    doubt: str | None
    version: str
    python_headers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders that a run writes to.

    ``results_problem``: why it cannot; ``temp`` is empty where there is none; ``shm_bytes``: the size of /dev/shm.
    """

    results: str
    results_problem: str | None
    results_free_bytes: int
    temp: str
    temp_free_bytes: int
    temp_noexec: bool
    shm_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """MNIST as found at ``root``; ``by_variable``: MNIST_BENCH_DATA named it; ``detail``: files that are not whole."""

    root: str
    by_variable: bool
    root_exists: bool
    state: DataState
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it. ``variables`` holds known names alone: an environment holds secrets. ``shadowing``: paths."""

    python: tuple[int, int, int]
    system: str  # as sys.platform
    environment: Environment
    torch: TorchReport | ProbeFailure
    nvidia_driver: bool
    noise: Noise
    machine: Machine
    compiler: Compiler
    places: Places
    data: DataFacts
    variables: Mapping[str, str] = field(default_factory=dict)
    shadowing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found: ``error`` means that a default run cannot work. ``mend`` says what to do, where one can."""

    level: Level
    what: str
    mend: str = ""


Check = Callable[[Facts], Finding | None]


def ok(what: str) -> Finding:
    return Finding(level="ok", what=what)


def info(what: str, mend: str = "") -> Finding:
    return Finding(level="info", what=what, mend=mend)


def warning(what: str, mend: str) -> Finding:
    return Finding(level="warning", what=what, mend=mend)


def error(what: str, mend: str) -> Finding:
    return Finding(level="error", what=what, mend=mend)
