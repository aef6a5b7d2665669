"""Gathers the facts: every look at the machine that ``doctor`` takes, but for torch's."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter, perf_counter_ns

import psutil

import mnist_bench
from mnist_bench.data import default_root
from mnist_bench.data.fetch import packed_path
from mnist_bench.data.mnist import RESOURCES
from mnist_bench.data.verify import describe, expectations, inspect
from mnist_bench.diagnosis.asking import ask_torch
from mnist_bench.diagnosis.facts import Compiler, DataFacts, DataState, Facts, Machine, Noise, Places
from mnist_bench.errors import DataError
from mnist_bench.machine import environment, forecast
from mnist_bench.machine import noise as machine_noise
from mnist_bench.records import BUILTIN_VARIANTS

NOISE_SECONDS = 1.0
SLICE_ITEMS = 100_000  # a few milliseconds: long against the clock, short against the kernel's time slices


def survey(
    environ: Mapping[str, str],
    *,
    output_dir: Path,
    data_dir: Path | None,
    try_compile: bool,
    tell: Callable[[str], None],
    root: Path = environment.ROOT,
) -> Facts:
    """Looks at everything; takes some seconds, and writes nothing that stays.

    Args:
        environ: the environment variables.
        output_dir: where runs would be kept; data_dir: as ``--data-dir``.
        try_compile: have torch compile something too.
        tell: told what is being done.
        root: where /proc and /sys are found.
    """
    tell("timing a fixed loop")
    noise = measure_noise()
    tell("checking MNIST's files")
    data = look_for_data(data_dir, environ)
    tell("trying torch.compile" if try_compile else "asking torch")
    torch = ask_torch(environ, try_compile=try_compile)
    described = environment.describe(environ, root=root)
    return Facts(
        python=sys.version_info[:3],
        system=sys.platform,
        environment=described,
        torch=torch,
        nvidia_driver="nvidia_driver" in described.details or shutil.which("nvidia-smi") is not None,
        noise=noise,
        machine=look_at_machine(root),
        compiler=look_for_compiler(environ),
        places=look_at_places(output_dir),
        data=data,
        variables=known_variables(environ),
        shadowing=shadowing(search_path(environ)),
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


def look_for_data(data_dir: Path | None, environ: Mapping[str, str]) -> DataFacts:
    """MNIST's four files, hashed anew."""
    folder = default_root(str(data_dir) if data_dir else None, environ)
    state, detail = _state_of_data(folder)
    return DataFacts(
        root=str(folder),
        by_variable=data_dir is None and bool(environ.get("MNIST_BENCH_DATA", "").strip()),
        root_exists=folder.is_dir(),
        state=state,
        detail=detail,
    )


def _state_of_data(folder: Path) -> tuple[DataState, str]:
    try:
        states = inspect(folder, expectations("mnist", folder), None)
    except DataError as error:
        return "unreadable", str(error)
    corrupt = [describe(each) for each in states if each.status == "corrupt"]
    if corrupt:
        return "corrupt", "; ".join(corrupt)
    missing = [each.expected.name for each in states if each.status == "missing"]
    if not missing:
        return "whole", ""
    unpackable = {each.name for each in RESOURCES if packed_path(folder, each).is_file()}
    if unpackable.issuperset(missing):
        return "packed", ""
    return "missing" if len(missing) == len(states) else "incomplete", ", ".join(missing)


def look_at_machine(root: Path) -> Machine:
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    charge = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return Machine(
        logical_cpus=os.cpu_count() or 1,
        affinity=len(affinity),
        quota=environment.cpu_quota(root),
        physical_cores=physical_cores(affinity, root),
        memory_free_bytes=min(psutil.virtual_memory().available, environment.available_memory_bytes(root)),
        swap_used_bytes=swap_used_bytes(root),
        on_battery=charge is not None and charge.power_plugged is False,
        other_runs=tuple(each.pid for each in psutil.process_iter(["cmdline"]) if is_run(each.info["cmdline"] or [])),
        gpu_processes=machine_noise.foreign_gpu_processes(),
    )


def physical_cores(cpus: Iterable[int], root: Path) -> int | None:
    """How many cores these CPUs are, hyper-threads counted once; None where the system does not tell."""
    siblings = set()
    for cpu in cpus:
        try:
            path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            siblings.add(path.read_text(encoding="ascii").strip())
        except OSError:
            return None
    return len(siblings)


def swap_used_bytes(root: Path) -> int:
    """By /proc/meminfo: psutil warns where it cannot read what we do not ask for."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    return sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0)


def is_run(command: Sequence[str]) -> bool:
    """Whether a command line is that of a mnist-bench run or of its worker.

    >>> is_run(["python", "-m", "mnist_bench", "run"]), is_run(["grep", "-r", "mnist_bench"])
    (True, False)
    """
    if list(command[1:3]) == ["-m", "mnist_bench.worker"]:
        return True
    # python -m mnist_bench run, mnist-bench run, python .../mnist-bench run
    for position, word in enumerate(command[:3]):
        if Path(word).name == "mnist-bench" or list(command[position - 1 : position + 1]) == ["-m", "mnist_bench"]:
            return "run" in command[position + 1 :]
    return False


def look_for_compiler(environ: Mapping[str, str]) -> Compiler:
    host = forecast.this_host()
    doubt = forecast.compiler_doubt(BUILTIN_VARIANTS["compile"], host)
    name = forecast.compiler(host) if doubt is None else ""
    said = (environment.run_command([name, "--version"], environ) or "") if name else ""
    return Compiler(
        doubt=doubt,
        version=said.partition("\n")[0].strip() or name,
        python_headers=Path(sysconfig.get_path("include"), "Python.h").is_file(),
    )


def look_at_places(output_dir: Path) -> Places:
    results = output_dir.absolute()
    there = next(path for path in (results, *results.parents) if os.access(path, os.F_OK))
    try:
        temp = tempfile.gettempdir()  # tries to write
    except FileNotFoundError:
        temp = ""
    shm = Path("/dev/shm")
    return Places(
        results=str(output_dir),
        results_problem=writing_problem(there),
        results_free_bytes=shutil.disk_usage(there).free,
        temp=temp,
        temp_free_bytes=shutil.disk_usage(temp).free if temp else 0,
        temp_noexec=bool(temp and os.statvfs(temp).f_flag & getattr(os, "ST_NOEXEC", 0)),
        shm_bytes=shutil.disk_usage(shm).total if shm.is_dir() else None,
    )


def writing_problem(path: Path) -> str | None:
    """Why no folder can be made in ``path``; None: it can. Nothing is written to find out."""
    if not stat.S_ISDIR(path.stat().st_mode):
        return f"{path} is a file, not a folder"
    return None if os.access(path, os.W_OK | os.X_OK) else f"{path} cannot be written to"


def known_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Those that the checks know: the others may be secrets."""
    return {name: value for name, value in environ.items() if environment.VARIABLES.fullmatch(name)}


def search_path(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders that Python looks into before the installed modules, in a worker: its own folder, PYTHONPATH."""
    named = [Path(part) for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return tuple(named) if sys.flags.safe_path else (Path.cwd(), *named)


def shadowing(folders: Iterable[Path]) -> tuple[str, ...]:
    """Files and packages in ``folders`` that bear the name of a module which mnist_bench or torch needs."""
    names = (sys.stdlib_module_names - {"this", "antigravity"}) | {*environment.PACKAGES, "mnist_bench"}
    found = []
    for folder in dict.fromkeys(folders):
        for name in sorted(names):
            for path in (folder / f"{name}.py", folder / name / "__init__.py"):
                if path.is_file() and not _is_ours(path):
                    found.append(str(path if path.name != "__init__.py" else path.parent))
    return tuple(found)


def _is_ours(path: Path) -> bool:
    """A checkout of mnist_bench in which this very program runs."""
    return path.resolve() == Path(mnist_bench.__file__).resolve()
