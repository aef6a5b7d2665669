"""``doctor``: every known pitfall of a machine. A check is a function here and its entry in ``CHECKS`` below."""

import math
import os
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from mnist_bench.analysis.answers import MOST_SEEDS, seeds_for
from mnist_bench.data import copies, default_root
from mnist_bench.data.mnist import inspect, is_drawn
from mnist_bench.disk.files import try_folder
from mnist_bench.errors import DataError
from mnist_bench.figures import significant
from mnist_bench.labs.facts import TWIN, TWIN_S, Check, Diagnosis, Facts, Found, Level, error, info, ok, warning
from mnist_bench.machine import environment, forecast
from mnist_bench.machine import noise as counters
from mnist_bench.records import BUILTIN_VARIANTS
from mnist_bench.running.protocol import ProbeFailure, TorchReport
from mnist_bench.table import listed, span

OLDEST_TORCH = (2, 10)
INSTALL = 'pip install "torch>=2.10" torchvision'
CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"
REINSTALL = "pip install --force-reinstall torch torchvision"
SPREAD_LIMIT = 1.10  # of a fixed loop, p95 / p50; an idle desktop stays below 1.05
PRESSURE_LIMIT = 0.10  # of the time, in which some task waited for a core
DIFFERENCES, SO_MANY = (10, 5, 2), f"more than {MOST_SEEDS} seeds"  # in per cent; what shows them is said
GPU_CLOCKS = "--query-gpu=index,clocks.sm,clocks.max.sm,clocks_throttle_reasons.active"
THROTTLED = 0xEC  # of the last one, by nvml.h: limits of power, heat and the hardware's own
SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies")
PAGES = {"always": "the kernel moves memory about", "never": "large tensors miss the TLB more often"}
PAIR_BYTES = 3 << 30  # two live trials
SMALL_SHM_BYTES = 256 << 20
LITTLE_BYTES, NO_BYTES = 1 << 30, 64 << 20
# A run or its worker, by its command line.
RUN = re.compile(r"(-m mnist_bench|(^|/| )mnist-bench) (run|race|check|reproduce|selftest)\b|-m mnist_bench\.worker\b")
ON = r"(?!0$).+"  # "0" and "" turn a variable off
SPINS = "threads of a waiting trial may spin, and take the cores of the one that is timed"
SLOWS = "for finding faults: it slows what is measured"
# Variables of a process that matter, the values at which they do, how much, and why; the first that fits is said.
VARIABLES: Sequence[tuple[str, str, Level, str]] = (
    ("ATEN_CPU_CAPABILITY|DNNL_MAX_CPU_ISA", ".+", "warning", "holds torch back"),
    ("CUDA_VISIBLE_DEVICES", r"\s*(-1.*|,.*)?", "warning", "hides every GPU"),
    ("CUDA_VISIBLE_DEVICES", ".*", "info", "cuda:0 is the first of these"),
    ("NVIDIA_TF32_OVERRIDE", ".+", "warning", "forces TF32 on (1) or off (0), whatever a variant says"),
    ("TORCH_COMPILE_DISABLE|TORCHDYNAMO_DISABLE", ON, "warning", "compile variants would be eager ones"),
    ("OMP_NUM_THREADS|MKL_NUM_THREADS", ".+", "info", "trials set their threads themselves, by `threads` of a variant"),
    ("OMP_WAIT_POLICY", "(?i:active)", "warning", SPINS),
    ("KMP_BLOCKTIME", r"infinite|\d{2,}", "warning", SPINS),  # in ms: longer than the hand-over between trials
    (
        "CUDA_LAUNCH_BLOCKING|PYTORCH_NO_CUDA_MEMORY_CACHING|TORCH_USE_CUDA_DSA|PYTHON(DEVMODE|MALLOC)",
        ON,
        "warning",
        SLOWS,
    ),
    ("(MKL|DNNL|ONEDNN|TORCHDYNAMO)_VERBOSE|TORCH_(LOGS|COMPILE_DEBUG|SHOW_CPP_STACKTRACES)", ON, "warning", SLOWS),
    (
        r"LD_PRELOAD|MALLOC_CONF|PYTORCH_(CUDA_)?ALLOC_CONF|ONEDNN_DEFAULT_FPMATH_MODE|OMP_WAIT_POLICY|KMP_BLOCKTIME"
        r"|TORCHINDUCTOR_(?!CACHE_DIR$)\w+",  # each trial has a cache of its own
        *(".+", "info", "figures may differ from those of others"),
    ),
)


def python(facts: Facts) -> Found:
    yield ok(f"Python {facts.environment.python}")


def torch(facts: Facts) -> Found:
    match facts.torch:
        case ProbeFailure(kind="missing"):
            yield error("torch is not installed", INSTALL)
        case ProbeFailure(detail=detail, stage=stage):
            mend = f"{REINSTALL} (a CPU build: {CPU_INDEX}); `python -m mnist_bench.worker.probe` shows more"
            if stage.startswith("device"):
                mend = "look at the driver (nvidia-smi); CUDA_VISIBLE_DEVICES=-1 does without the GPU"
            yield error(f"torch does not work, in {stage or 'import torch'}: {detail}", mend)
        case TorchReport(version=version) if _numbers(version) < OLDEST_TORCH:
            yield error(f"torch {version} is too old: mnist_bench needs 2.10 or later", f"{INSTALL} --upgrade")
        case TorchReport(version=version, cuda=cuda, hip=hip):
            yield ok(f"torch {version} ({f'CUDA {cuda}' if cuda else f'ROCm {hip}' if hip else 'no CUDA'})")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def torchvision(facts: Facts) -> Found:
    match facts.torch:
        case TorchReport(torchvision=None):
            yield error("torchvision is not installed: no data set can be read", INSTALL)
        case TorchReport(torchvision=version, torchvision_error=None):
            yield ok(f"torchvision {version}")
        case TorchReport(torchvision=str(version), torchvision_error=problem) as torch:
            index = "" if torch.cuda or torch.hip else f" {CPU_INDEX}"
            mend = f"pip install --force-reinstall --no-deps torchvision=={version.partition('+')[0]}{index}"
            if torch.torchvision_usable:
                what = f"torchvision {version} does not import ({problem}): mnist_bench works round it, others cannot"
                yield warning(what, mend)
            else:
                yield error(f"torchvision {version} cannot be imported: {problem}", mend)


def cpu(facts: Facts) -> Found:
    details = facts.environment.details
    capability = facts.report.cpu_capability if facts.report else ""
    virtual = "virtual machine" if details.get("hypervisor") == "yes" else ""
    parts = [f"cpu: {facts.environment.cpu}", _count(facts.environment.cores, "core"), virtual, capability]
    text = ", ".join(filter(None, parts))
    if capability == "DEFAULT" and details.get("architecture") in ("x86_64", "AMD64"):
        yield info(f"{text}: torch finds no AVX2 here, and is many times slower than elsewhere")
    else:
        yield ok(text)


def gpus(facts: Facts) -> Found:
    for device in facts.report.devices if facts.report else ():
        kind, _, _ = device.name.partition(":")
        if device.missing is None and kind != "cpu":
            yield ok(f"{device.name}: {device.description}")
        elif device.missing and device.description:
            what = f"{device.name}: {device.description}: its first kernel failed: {device.missing}"
            yield warning(what, "install a torch that is built for this GPU and driver, or update the driver")
        elif kind == "mps" and facts.system == "darwin":
            yield info(f"mps: {device.missing}; mps cells will be skipped")
        elif kind == "cuda" and facts.system != "darwin" and facts.report:
            yield from _no_cuda(facts, facts.report)


def _no_cuda(facts: Facts, torch: TorchReport) -> Found:
    visible = facts.environ.get("CUDA_VISIBLE_DEVICES")
    if not facts.nvidia_driver and not torch.hip:
        yield info("cuda: no NVIDIA driver here; cuda cells will be skipped")
    elif not torch.cuda and not torch.hip:
        mend = f"{REINSTALL} (pytorch.org/get-started names the index for your driver)"
        yield warning(f"an NVIDIA driver is here, but torch {torch.version} is built without CUDA", mend)
    elif visible is None or forecast.visible_gpus(visible):  # else ``variables`` says so
        said = "".join(f" ({text})" for text in torch.warnings if "driver" in text.lower())
        mend = "see that nvidia-smi works and that its driver is new enough for torch's CUDA; in docker: --gpus all"
        mend = mend if visible is None else f"unset CUDA_VISIBLE_DEVICES (it is {visible!r})"
        yield warning(f"cuda: torch sees no GPU{said}; cuda cells will be skipped", mend)


def gpu_neighbours(facts: Facts) -> Found:
    if pids := [str(pid) for pid in counters.foreign_gpu_processes()]:
        yield warning(f"other processes are on the GPU: {listed(pids)}", "end them, or wait for them")


def compiler(facts: Facts) -> Found:
    host = forecast.Host(platform=facts.system, torch_version=None, find_program=shutil.which, environ=facts.environ)
    name = forecast.compiler(host)
    if problem := forecast.compiler_problem(BUILTIN_VARIANTS["compile"], host):
        yield warning(f"{problem[0]}: cells of compile variants will be skipped", problem[1])
    else:
        said = environment.run_command([name, "--version"], facts.environ) or name
        yield ok(f"C++ compiler: {said.splitlines()[0].strip()}")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        version = ".".join(map(str, _numbers(facts.environment.python)))
        mend = f"apt-get install python{version}-dev (dnf: python{version}-devel)"
        yield warning("Python.h is missing: torch.compile cannot build its kernels", mend)


def compilation(facts: Facts) -> Found:
    match facts.torch:
        case TorchReport(compile_s=None):
            yield info("torch.compile was not tried", "mnist-bench doctor --compile tries it (up to half a minute)")
        case TorchReport(compile_error=str(problem)):
            yield warning(f"torch.compile does not work: {problem}", "until it is mended: --filter variant=eager")
        case TorchReport(compile_s=float(seconds)):
            yield ok(f"torch.compile works: a small function took {seconds:.0f} s from an empty cache")


def threads(facts: Facts) -> Found:
    cores, cpus, quota = facts.environment.cores, environment.affinity(), environment.cpu_quota(facts.root)
    yield ok(f"trials use {_count(cores, 'thread')} ({len(cpus)} of {os.cpu_count()} CPUs may be used)")
    if quota is not None and quota < len(cpus):
        mend = "give it whole CPUs of its own (docker: --cpuset-cpus in place of --cpus)"
        yield warning(
            f"the CPU quota is {quota:g} of {len(cpus)} CPUs: the kernel stops all threads within steps", mend
        )
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    physical = {facts.read(topology.format(cpu)) for cpu in cpus}
    if "" not in physical and cores > len(physical):
        mend = f"a variant of `threads: {len(physical)}` is often as fast and steadier"
        yield info(f"{cores} threads share {_count(len(physical), 'physical core')}: they slow each other down", mend)


def noise(facts: Facts) -> Found:
    """A fixed loop; steal, other processes, throttling in the words that a trial would be marked with; load."""
    seen, cpus = facts.noise, os.cpu_count() or 1
    text = f"a fixed loop of {seen.slice_ms:.1f} ms varies by {seen.spread - 1:.0%} (p95 over p50, {seen.slices} times)"
    if seen.spread <= SPREAD_LIMIT:
        yield ok(text)
    else:
        yield warning(f"this machine is noisy: {text}", "end other programs; ratios, timed in turns, bear it best")
    if seen.noisy:
        stolen = seen.found["steal"] > seen.found["others"]
        mend = "a machine of its own, or one that is less shared" if stolen else "see `top` for who; end it, or wait"
        yield warning(f"within a second, {', '.join(seen.noisy)}", mend)
    average, pressure = seen.found["load_1min"], seen.found.get("cpu_pressure", 0.0)
    if average > cpus or pressure > PRESSURE_LIMIT:
        load = f"load {average:.1f} on {_count(cpus, 'CPU')}, tasks wait {pressure:.0%} of the time"
        yield warning(f"this machine is busy: {load}", "wait until it is idle, or see `top` for what keeps it busy")


def resolution(facts: Facts) -> Found:
    """How small a difference is shown, and in what time, by what two trials of the same code differed."""
    match facts.twins:
        case None:
            text = "how small a difference this machine can show, and in what time, was not measured"
            yield info(text, "mnist-bench doctor --measure measures it (20 s)")
        case str(reason):
            yield warning(f"the same code in two processes could not be timed: {reason}", "mend that first")
        case found:
            spread = math.sqrt(found.variance or 0.0)
            seeds = {share: seeds_for(math.log1p(share / 100), spread) for share in DIFFERENCES}
            words = (f"{count} seeds ({count * TWIN_S:.0f} s a cell)" if count else SO_MANY for count in seeds.values())
            told = (f"{share} % by {how}" for share, how in zip(seeds, words, strict=True))
            text = f"a seed of {TWIN_S:.0f} s in turns is off by {100 * spread:.1f} % ({TWIN.id} against itself)"
            text += f": a difference of {', of '.join(told)} is shown"
            yield ok(text) if seeds[5] else warning(text, "end other programs, or take a machine of your own")


def products(facts: Facts) -> Found:
    """What a large matrix product in float32 reaches: the ceiling of utilisation."""
    if facts.report and (ceilings := facts.report.ceilings):
        rates = (f"{significant(rate / 1e9)} with {_count(threads, 'thread')}" for threads, rate in ceilings.items())
        yield ok(f"a large matrix product reaches, in GFLOP/s: {', '.join(rates)}")


def clocks(facts: Facts) -> Found:
    """What the kernel and nvidia-smi say of clocks and throttling; what they do not say, too."""
    now = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", facts.read("proc/cpuinfo"), re.MULTILINE)]
    most = facts.read("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")  # kHz
    throttled = counters.throttled(facts.root)
    parts = (
        f"{span(now, '{:,.0f}'.format)} MHz now" if now else "none in /proc/cpuinfo",
        f"at most {int(most) // 1000:,} MHz" if most.isdecimal() else "no highest one is known (no cpufreq)",
        "whether cores were throttled is not known" if throttled is None else f"cores throttled {throttled:,} times",
    )
    yield (info if throttled else ok)(f"CPU clocks: {', '.join(parts)}", "look to the cooling" * bool(throttled))
    command = ["nvidia-smi", GPU_CLOCKS, "--format=csv,noheader"]
    said = environment.run_command(command, facts.environ) if facts.nvidia_driver else ""
    for index, here, top, active in re.findall(r"^(\d+), (.+), (.+), (0x[0-9a-f]+)$", said or "", re.MULTILINE):
        text, slow = f"GPU {index}: {here} now, at most {top}", int(active, 16) & THROTTLED
        yield warning(f"{text}, slowed down", "nvidia-smi -q -d PERFORMANCE says why") if slow else ok(text)


def other_runs(facts: Facts) -> Found:
    processes = psutil.process_iter(["cmdline"])
    if pids := [str(each.pid) for each in processes if RUN.search(" ".join(each.info["cmdline"] or ()))]:
        yield warning(f"another mnist-bench run is at work (processes {listed(pids)})", "wait for its end")


def kernel(facts: Facts) -> Found:
    settings = ("governor", "clocksource", "transparent_hugepages")
    governor, clock, pages = (facts.environment.details.get(name, "") for name in settings)
    if governor not in ("", "performance"):
        mend = "sudo cpupower frequency-set -g performance"
        yield info(f"the CPU governor is {governor}: clocks follow the load", mend)
    if clock in SLOW_CLOCKS:
        mend = "boot with tsc=reliable, or have the hypervisor offer a better clock"
        yield warning(f"the kernel's clock is {clock}: to read it takes a microsecond, and every step is stamped", mend)
    if pages in PAGES:
        mend = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        yield info(f"transparent huge pages are set to {pages}: {PAGES[pages]}", mend)


def battery(facts: Facts) -> Found:
    charge = psutil.sensors_battery()
    if charge is not None and charge.power_plugged is False:
        yield warning("this computer runs on its battery: it will slow down to save it", "plug it in")


def memory(facts: Facts) -> Found:
    whole = facts.environment.memory_bytes
    free = min(psutil.virtual_memory().available, whole)
    text = f"{_size(free)} of {_size(whole)} of memory free"
    if free >= PAIR_BYTES:
        yield ok(text)
    else:
        mend = "end other programs, or raise the container's limit"
        yield warning(f"{text}: too little for two live trials, so speed-ups will be unpaired", mend)


def shared_memory(facts: Facts) -> Found:
    folder = facts.root / "dev/shm"
    if folder.is_dir() and (size := shutil.disk_usage(folder).total) < SMALL_SHM_BYTES:
        what = f"/dev/shm has {_size(size)}: loader processes (`workers` above 0) may die of a bus error"
        yield info(what, "docker: --shm-size=1g or --ipc=host")


def data_set(facts: Facts) -> Found:
    folder = default_root(facts.data_dir, facts.environ)
    fetch = f"mnist-bench data fetch --data-dir {folder}"
    try:
        states = inspect(folder, "mnist")
    except DataError as problem:
        yield error(f"MNIST cannot be read: {problem}", "mend its permissions, or give another --data-dir")
        return
    missing = [each.path.name for each in states if each.status == "missing"]
    corrupt = [str(each) for each in states if each.status == "corrupt"]
    if not missing and not corrupt:
        yield ok(f"MNIST in {folder}: all four files match their checksums")
    elif is_drawn(folder):
        yield warning(f"{folder} holds synthetic digits, not MNIST", "give another --data-dir")
    elif corrupt:
        yield error(f"MNIST in {folder} is corrupt: {'; '.join(corrupt)}", fetch)
    elif all(copies(folder, "mnist", file) for file in missing):
        yield ok(f"MNIST in {folder}: packed or under other names, which the first run puts right")
    else:
        what = f"MNIST in {folder} lacks {listed(missing)}: a run downloads it, or trains on synthetic digits"
        yield warning(what, f"{fetch}, or name the folder that holds MNIST/raw (--data-dir, MNIST_BENCH_DATA)")


def results(facts: Facts) -> Found:
    wanted = facts.output_dir.absolute()
    try:
        try_folder(wanted)
        there = next(path for path in (wanted, *wanted.parents) if path.exists())
        yield _room(f"results go to {facts.output_dir}", there, "choose another with --output-dir")
    except OSError as problem:
        mend = "mend its permissions, or choose another folder with --output-dir"
        yield error(f"results cannot go to {facts.output_dir}: {problem.strerror}", mend)


def temporary(facts: Facts) -> Found:
    try:
        folder = tempfile.gettempdir()  # tries to write
    except FileNotFoundError:
        yield error("no folder for temporary files can be written to", "make room in /tmp, or set TMPDIR to a folder")
        return
    if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        mend = "set TMPDIR to a folder that allows it"
        yield warning(f"{folder} is mounted noexec: what torch.compile builds there cannot be loaded", mend)
    yield _room(f"temporary files go to {folder}", Path(folder), "set TMPDIR to a roomier one")


def _room(text: str, folder: Path, mend: str) -> Diagnosis:
    free = shutil.disk_usage(folder).free
    text = f"{text} ({_size(free)} free)"
    if free >= LITTLE_BYTES:
        return ok(text)
    say, words = (error, "the disk is full") if free < NO_BYTES else (warning, "little room")
    return say(f"{text}: {words}", f"make room there, or {mend}")


def variables(facts: Facts) -> Found:
    for name, value in sorted(facts.environ.items()):
        if name.startswith(("CUDA_", "NVIDIA_")) and not facts.nvidia_driver:
            continue  # speaks of what is not there
        for names, values, level, why in VARIABLES:
            if re.fullmatch(names, name) and re.fullmatch(values, value):
                yield Diagnosis(level, f"{name}={value}: {why}", f"unset {name}, unless you want it")
                break


def home(facts: Facts) -> Found:
    folder = Path(facts.environ.get("HOME", "~"))
    if folder == Path("/") or folder.name.startswith(environment.MADE_HOME):
        what = f"this user has neither HOME nor an entry in /etc/passwd: caches and data sets lie in {folder}"
        yield warning(what, "set HOME, or XDG_CACHE_HOME and MNIST_BENCH_DATA, to folders that stay")


# group: its checks, in the order in which they are shown. The name of a function is the check's name.
CHECKS: Mapping[str, Sequence[Check]] = {
    "software": (python, torch, torchvision),
    "devices": (cpu, gpus, gpu_neighbours),
    "compiler": (compiler, compilation),
    "threads": (threads,),
    "noise": (noise, resolution, other_runs, kernel, battery),
    "speed": (products, clocks),
    "memory": (memory, shared_memory),
    "data and results": (data_set, results, temporary),
    "environment": (variables, home),
}


def diagnose(facts: Facts) -> list[Diagnosis]:
    """Everything that the checks found, in their order."""
    checks = [(group, check) for group, members in CHECKS.items() for check in members]
    return [replace(found, group=group, check=check.__name__) for group, check in checks for found in check(facts)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"
