"""What ``doctor`` knows before it judges: the machine, a second of its noise, and torch as seen by another process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, perf_counter_ns

import msgspec

from mnist_bench.machine import noise as machine_noise
from mnist_bench.machine.environment import ROOT, describe, read
from mnist_bench.records import Environment
from mnist_bench.run.protocol import PROBE_STAGE, ProbeFailure, TorchReport

NOISE_SECONDS = 1.0
SLICE_ITEMS = 100_000  # a few milliseconds: long against the clock, short against the kernel's time slices
PROBE = (sys.executable, "-m", "mnist_bench.worker.probe")
PROBE_TIMEOUT_S = 120.0
COMPILE_TIMEOUT_S = 300.0  # a cold compilation on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """A fixed loop, timed again and again for about a second: ``spread`` is p95 / p50 of its slices.

    ``found`` and ``noisy`` are what ``machine.noise`` says of that second.
    """

    slices: int
    slice_ms: float
    spread: float
    found: dict[str, float]
    noisy: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What several checks look at; what one alone needs, it looks up itself. ``root``: where /proc and /sys are."""

    environ: Mapping[str, str]
    environment: Environment
    torch: TorchReport | ProbeFailure
    noise: Noise
    output_dir: Path
    data_dir: Path | None
    root: Path = ROOT
    system: str = sys.platform

    @property
    def nvidia_driver(self) -> bool:
        return "nvidia_driver" in self.environment.details or shutil.which("nvidia-smi") is not None

    def read(self, name: str) -> str:
        """What a file of the kernel's says; nothing where it is not there."""
        return read(self.root / name)


def look(environ: Mapping[str, str], *, output_dir: Path, data_dir: Path | None, try_compile: bool) -> Facts:
    """Looks at everything that several checks need; takes some seconds, and writes nothing that stays."""
    return Facts(
        environ=environ,
        noise=measure_noise(),
        torch=ask_torch(environ, try_compile=try_compile),
        environment=describe(environ),
        output_dir=output_dir,
        data_dir=data_dir,
    )


def measure_noise(seconds: float = NOISE_SECONDS) -> Noise:
    """Times the same work again and again; whatever is not equal is the machine's doing."""
    durations_ns: list[int] = []
    before = machine_noise.read(())
    end = perf_counter() + seconds
    while len(durations_ns) < 20 or perf_counter() < end:
        begin = perf_counter_ns()
        sum(range(SLICE_ITEMS))
        durations_ns.append(perf_counter_ns() - begin)
    found, noisy = machine_noise.compare(before, machine_noise.read(()), os.cpu_count() or 1)
    durations_ns.sort()
    p50, p95 = (durations_ns[int(len(durations_ns) * part)] for part in (0.50, 0.95))
    return Noise(slices=len(durations_ns), slice_ms=p50 / 1e6, spread=p95 / p50, found=found, noisy=noisy)


def ask_torch(
    environ: Mapping[str, str],
    *,
    try_compile: bool,
    command: Sequence[str] = PROBE,
    timeout_s: float | None = None,
) -> TorchReport | ProbeFailure:
    """What a process of its own says of torch; one that crashes or hangs is an answer too.

    Args:
        environ: of the process, but for the compiler's caches, which are empty.
        try_compile: compile a small function too.
        command: starts it; timeout_s: how long it may take (None: by what it does). Tests give others.
    """
    words = [*command, *(["--compile"] if try_compile else [])]
    limit_s = timeout_s or (COMPILE_TIMEOUT_S if try_compile else PROBE_TIMEOUT_S)
    try:
        with tempfile.TemporaryDirectory(prefix="mnist-bench-doctor-", ignore_cleanup_errors=True) as folder:
            caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
            # Files, not pipes: a compiler's helper that outlives the process would hold a pipe open.
            output, errors = Path(folder, "output"), Path(folder, "errors")
            code = _run(words, {**environ, **caches}, output, errors, limit_s)
            return _answer(code, output.read_bytes(), errors.read_text(errors="replace").splitlines(), limit_s)
    except OSError as error:
        return ProbeFailure(kind="crashed", detail=f"could not be started: {error}", stage="start")


def _run(words: Sequence[str], environ: Mapping[str, str], output: Path, errors: Path, limit_s: float) -> int | None:
    """Its exit code; None: it took too long. Nothing that it started is left."""
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            words, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:  # after Ctrl-C too
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: not permitted where all are gone
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answer(code: int | None, output: bytes, lines: Sequence[str], limit_s: float) -> TorchReport | ProbeFailure:
    if code == 0:
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(output, type=TorchReport | ProbeFailure)
    said = [line.strip() for line in lines if line.strip() and not line.startswith(PROBE_STAGE)]
    if code is None:
        detail = f"no answer within {limit_s:g} s"
    elif -code in set(signal.Signals):
        detail = f"was killed by {signal.Signals(-code).name}"
    else:
        detail = f"exited with {code} ({said[-1] if said else 'silent'})"
    stage = next((line.removeprefix(PROBE_STAGE) for line in reversed(lines) if line.startswith(PROBE_STAGE)), "start")
    return ProbeFailure(kind="hung" if code is None else "crashed", detail=detail, stage=stage)
