"""Checks of threads, noise and memory: what makes figures slower or less certain than they need be."""

from __future__ import annotations

from mnist_bench.diagnosis.facts import Facts, Finding, info, ok, warning

SPREAD_LIMIT = 1.10  # of a fixed loop, p95 / p50; an idle desktop stays below 1.05
PRESSURE_LIMIT = 0.10  # of the time, in which some task waited for a core
SWAP_LIMIT_BYTES = 256 << 20
PAIR_BYTES = 3 << 30  # two live trials, as runner counts them
SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies")
SPIN_LIMIT_MS = 10  # longer than the hand-over between trials


def threads(facts: Facts) -> Finding:
    count = facts.environment.cores
    of = f"{facts.machine.affinity} of {facts.machine.logical_cpus} CPUs may be used"
    return ok(f"trials use {count} thread{'' if count == 1 else 's'} ({of})")


def quota(facts: Facts) -> Finding | None:
    allowed = facts.machine.quota
    if allowed is None or allowed >= facts.machine.affinity:
        return None
    return warning(
        f"the container's CPU quota is {allowed:g} of {facts.machine.affinity} CPUs: the kernel stops all threads "
        "when it is used up, in the middle of steps",
        "give it whole CPUs of its own (docker: --cpuset-cpus in place of --cpus)",
    )


def hyper_threads(facts: Facts) -> Finding | None:
    physical = facts.machine.physical_cores
    if physical is None or facts.environment.cores <= physical:
        return None
    return info(
        f"{facts.environment.cores} threads share {physical} physical cores: they slow each other down",
        f"compare with a variant of `threads: {physical}`, which is often as fast and steadier",
    )


def thread_variables(facts: Facts) -> Finding | None:
    count = str(facts.environment.cores)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    other = {name: facts.variables[name] for name in names if facts.variables.get(name, count) != count}
    if not other:
        return None
    said = ", ".join(f"{name}={value}" for name, value in other.items())
    return info(
        f"{said}, but {count} core{'' if count == '1' else 's'} can be used: trials set {count} threads themselves",
        f"`threads: N` in a variant sets another number; or unset {' '.join(other)}",
    )


def spinning_threads(facts: Facts) -> Finding | None:
    variables = facts.variables
    spinning = []
    if variables.get("OMP_WAIT_POLICY", "").lower() == "active":
        spinning.append("OMP_WAIT_POLICY")
    blocktime = variables.get("KMP_BLOCKTIME", "")
    if blocktime == "infinite" or (blocktime.isdigit() and int(blocktime) > SPIN_LIMIT_MS):
        spinning.append("KMP_BLOCKTIME")
    if spinning:
        said = " and ".join(f"{name}={variables[name]}" for name in spinning)
        return warning(
            f"{said}: threads of a waiting trial may spin and take the cores of the one that is timed",
            f"unset {' '.join(spinning)}",
        )
    slow = [name for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME") if variables.get(name)]
    if not slow:
        return None
    said = " and ".join(f"{name}={variables[name]}" for name in slow)
    return info(
        f"{said}: how threads wait is not the default, and small steps may be slower", f"unset {' '.join(slow)}"
    )


def noise(facts: Facts) -> Finding:
    measured = facts.noise
    text = f"a fixed loop varies by {measured.spread - 1:.0%} (p95 over p50 of {measured.slices} slices, "
    text += f"{measured.slice_ms:.1f} ms each)"
    if measured.spread <= SPREAD_LIMIT:
        return ok(text)
    return warning(f"this machine is noisy: {text}", "end other programs; ratios, timed in turns, bear it best")


def neighbours(facts: Facts) -> Finding | None:
    """Steal, other processes, throttling: in the words that a trial would be marked with."""
    if not facts.noise.noisy:
        return None
    stolen = facts.noise.found.get("steal", 0.0) > facts.noise.found.get("others", 0.0)
    mend = "a machine of its own, or one that is less shared" if stolen else "see `top` for who; end it, or wait"
    return warning(f"within a second, {', '.join(facts.noise.noisy)}", mend)


def load(facts: Facts) -> Finding | None:
    average, cores = facts.noise.found.get("load_1min", 0.0), facts.machine.logical_cpus
    pressure = facts.noise.found.get("cpu_pressure", 0.0)
    if average <= cores and pressure <= PRESSURE_LIMIT:
        return None
    waiting = f", tasks wait for a core {pressure:.0%} of the time" if pressure > PRESSURE_LIMIT else ""
    what = f"this machine is busy: load {average:.1f} on {cores} CPU{'' if cores == 1 else 's'}{waiting}"
    return warning(what, "wait until it is idle, or see `top` for what keeps it busy")


def other_runs(facts: Facts) -> Finding | None:
    pids = facts.machine.other_runs
    if not pids:
        return None
    shown = ", ".join(map(str, pids[:3])) + (", ..." if len(pids) > 3 else "")
    return warning(
        f"another mnist-bench run is at work (processes {shown}): each would disturb the other", "wait for its end"
    )


def governor(facts: Facts) -> Finding | None:
    chosen = facts.environment.details.get("governor", "")
    if chosen in ("", "performance"):
        return None
    return info(f"the CPU governor is {chosen}: clocks follow the load", "sudo cpupower frequency-set -g performance")


def huge_pages(facts: Facts) -> Finding | None:
    match facts.environment.details.get("transparent_hugepages"):
        case "always":
            what = "transparent huge pages are on for all: the kernel moves memory about behind a run"
        case "never":
            what = "transparent huge pages are off: large tensors miss the TLB more often"
        case _:
            return None
    return info(what, "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")


def clock(facts: Facts) -> Finding | None:
    source = facts.environment.details.get("clocksource", "")
    if source not in SLOW_CLOCKS:
        return None
    return warning(
        f"the kernel's clock is {source}: each reading takes a microsecond or more, and every step is stamped",
        "boot with tsc=reliable, or have the hypervisor offer a better clock",
    )


def battery(facts: Facts) -> Finding | None:
    if not facts.machine.on_battery:
        return None
    return warning("this computer runs on its battery: it will slow down to save it", "plug it in")


def memory(facts: Facts) -> Finding:
    free = facts.machine.memory_free_bytes
    text = f"{_gib(free)} of {_gib(facts.environment.memory_bytes)} of memory free"
    if free >= PAIR_BYTES:
        return ok(text)
    return warning(
        f"{text}: too little for two live trials, so speed-ups will be unpaired",
        "end other programs, or raise the container's limit",
    )


def swap(facts: Facts) -> Finding | None:
    used = facts.machine.swap_used_bytes
    if used <= SWAP_LIMIT_BYTES or facts.system == "darwin":  # macOS always swaps a little
        return None
    what = f"{_gib(used)} of swap in use: memory was short, and what returns from disk delays a trial"
    return warning(what, "end what takes the memory, then sudo swapoff -a && sudo swapon -a")


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
