"""What ``doctor`` knows of a machine before anything is judged (tests make it up), and what its checks say."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import quantiles
from time import perf_counter, perf_counter_ns
from typing import Literal, get_args

import msgspec

from mnist_bench import records
from mnist_bench.analysis.ratios import SessionRatio, between_processes, ratio_of, round_log_ratios
from mnist_bench.machine import environment
from mnist_bench.machine import noise as counters
from mnist_bench.machine.environment import ROOT
from mnist_bench.records import MNIST, Cell, Environment, Session, Trial, TrialSpec
from mnist_bench.running.group import Settings, run_group
from mnist_bench.running.process import Interrupts, LocalWorker, uninstalled_package
from mnist_bench.running.protocol import PROBE_STAGE, ProbeFailure, TorchReport
from mnist_bench.running.runner import trial_spec

PROBE = (sys.executable, "-m", "mnist_bench.worker.probe")
PROBE_S, COMPILE_S = 120.0, 300.0  # the most that it may take; a cold compilation on a busy machine takes long
TWIN = Cell(model="lenet5", device="cpu", batch_size=100, variant="eager")  # timed against itself
TWIN_SET = "mnist_bench.worker.sets:blank"
TWIN_S, TWIN_LIMIT_S = 6.0, 120.0  # of each with the token: rounds; all that it may take
SLICE_ITEMS = 100_000  # a few milliseconds: long against the clock, short against the kernel's time slices


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
    """What several checks look at; what one alone needs, it looks up itself. ``root``: where /proc and /sys are.

    ``twins``: how the same code in two processes differs, or why that is not known; None: nobody asked.
    """

    environ: Mapping[str, str]
    environment: Environment
    torch: TorchReport | ProbeFailure
    noise: Noise
    output_dir: Path
    data_dir: Path | None
    twins: SessionRatio | str | None = None
    root: Path = ROOT
    system: str = sys.platform

    @property
    def report(self) -> TorchReport | None:
        """What torch said, where it could."""
        return self.torch if isinstance(self.torch, TorchReport) else None

    @property
    def nvidia_driver(self) -> bool:
        return "nvidia_driver" in self.environment.details or shutil.which("nvidia-smi") is not None

    def read(self, name: str) -> str:
        """What a file of the kernel's says; nothing where it is not there."""
        return environment.read(self.root / name)


def look(
    environ: Mapping[str, str], *, output_dir: Path, data_dir: Path | None, try_compile: bool, measure: bool
) -> Facts:
    """Looks at everything that several checks need; takes some seconds, and writes nothing that stays.

    Args:
        measure: about 20 s more: what a matrix product reaches, and twins.
    """
    command = (*PROBE, *["--compile"] * try_compile, *["--measure"] * measure)
    noise, torch = measure_noise(), ask_torch(environ, command, COMPILE_S if try_compile else PROBE_S)
    twins = None
    if measure:
        twins = time_twins(environ) if isinstance(torch, TorchReport) else "torch does not work"
    return Facts(
        environ=environ,
        noise=noise,
        torch=torch,
        twins=twins,
        environment=environment.describe(environ),
        output_dir=output_dir,
        data_dir=data_dir,
    )


def measure_noise(seconds: float = 1.0) -> Noise:
    """Times the same work again and again; whatever is not equal is the machine's doing."""
    durations_ns: list[int] = []
    before, end = counters.read(()), perf_counter() + seconds
    while len(durations_ns) < 20 or perf_counter() < end:
        begin = perf_counter_ns()
        sum(range(SLICE_ITEMS))
        durations_ns.append(perf_counter_ns() - begin)
    found, noisy = counters.compare(before, counters.read(()), os.cpu_count() or 1)
    cuts = quantiles(durations_ns, n=20)
    p50, p95 = cuts[9], cuts[18]
    return Noise(slices=len(durations_ns), slice_ms=p50 / 1e6, spread=p95 / p50, found=found, noisy=noisy)


def time_twins(environ: Mapping[str, str]) -> SessionRatio | str:
    """A session of two trials of the same code: whatever is not equal is the machine's doing; or why there is none."""
    model, variant = records.ModelEntry(name=TWIN.model, model=TWIN.model), records.BUILTIN_VARIANTS[TWIN.variant]
    size = TWIN.batch_size
    matrix = records.Matrix(models=(model,), devices=(TWIN.device,), batch_sizes=(size,), variants=(variant,))
    spec = trial_spec(matrix, replace(MNIST, name=TWIN_SET), records.RunOptions(allow_plugins=True), TWIN, 0)
    group = records.Group(id=TWIN.id, specs=(spec, replace(spec, id=f"{spec.id} again")))
    with Interrupts() as interrupts, tempfile.TemporaryDirectory(prefix="mnist-bench-doctor-") as folder:

        def launch(spec: TrialSpec) -> LocalWorker:
            return LocalWorker(spec, Path(folder, "log"), environ, TWIN_LIMIT_S, interrupts)

        settings = Settings(precision=0.0, budget_s=TWIN_S, launch=launch)
        found = list(run_group(group, settings=settings, rng=random.Random(), train=False))
    if failed := [one.reason for one in found if isinstance(one, Trial)]:
        return failed[0]
    (session,) = (one for one in found if isinstance(one, Session))
    return between_processes(ratio_of(round_log_ratios(session.rounds, 0, 1)))


def ask_torch(environ: Mapping[str, str], command: Sequence[str], limit_s: float) -> TorchReport | ProbeFailure:
    """What a process of its own says of torch; one that crashes or hangs is an answer too. Nothing of it is left.

    Args:
        environ: of the process, but for the compiler's caches, which are empty.
        command: starts it; ``limit_s``: how long it may take.
    """
    code = None
    try:
        with tempfile.TemporaryDirectory(prefix="mnist-bench-doctor-", ignore_cleanup_errors=True) as folder:
            caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
            path = os.pathsep.join([*uninstalled_package(), environ.get("PYTHONPATH", "")]).strip(os.pathsep)
            safe = {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}  # as of a worker: no file beside the user is in its way
            own, quiet = {**environ, **caches, **safe, "TMPDIR": folder}, subprocess.DEVNULL
            # Files, not pipes: a compiler's helper that outlives the process would hold a pipe open.
            output, errors = Path(folder, "output"), Path(folder, "errors")
            with output.open("wb") as out, errors.open("wb") as err:
                process = subprocess.Popen(
                    command, env=own, stdin=quiet, stdout=out, stderr=err, start_new_session=True
                )
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(limit_s)
            finally:  # after Ctrl-C too
                # macOS: not permitted where all are gone
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return _answer(code, output.read_bytes(), errors.read_text(errors="replace").splitlines(), limit_s)
    except OSError as error:
        return ProbeFailure(kind="crashed", detail=f"could not be started: {error}", stage="start")


def _answer(code: int | None, output: bytes, lines: Sequence[str], limit_s: float) -> TorchReport | ProbeFailure:
    if code == 0:
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(output, type=TorchReport | ProbeFailure)
    stages = [line.removeprefix(PROBE_STAGE) for line in lines if line.startswith(PROBE_STAGE)]
    said = [line.strip() for line in lines if line.strip() and not line.startswith(PROBE_STAGE)]
    if code is None:
        detail = f"no answer within {limit_s:g} s"
    elif -code in set(signal.Signals):
        detail = f"was killed by {signal.Signals(-code).name}"
    else:
        detail = f"exited with {code} ({said[-1] if said else 'silent'})"
    return ProbeFailure(kind="hung" if code is None else "crashed", detail=detail, stage=["start", *stages][-1])


# ── what a check is made of ───────────────────────────────────────────────────────────────────────────────────────────

Level = Literal["ok", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a check found: ``error`` means that a default run cannot work. ``mend`` says what to do, where one can."""

    group: str = field(default="", kw_only=True)
    check: str = field(default="", kw_only=True)
    level: Level
    what: str
    mend: str = ""


ok, info, warning, error = (partial(Diagnosis, level) for level in get_args(Level))

Found = Iterator[Diagnosis]
Check = Callable[[Facts], Found]
