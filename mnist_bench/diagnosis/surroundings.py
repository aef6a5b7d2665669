"""Checks of folders, data set and environment variables."""

from __future__ import annotations

from mnist_bench.diagnosis.facts import Facts, Finding, error, info, ok, warning

LITTLE_BYTES = 1 << 30
NO_BYTES = 64 << 20
SMALL_SHM_BYTES = 256 << 20
# Debugging aids that slow every step down, or change what is executed; "0" and "" turn them off.
SLOWING = {
    "CUDA_LAUNCH_BLOCKING": "waits for every kernel",
    "MKL_VERBOSE": "prints every call",
    "DNNL_VERBOSE": "prints every operation",
    "ONEDNN_VERBOSE": "prints every operation",
    "PYTHONDEVMODE": "checks at every turn",
    "PYTHONMALLOC": "another allocator",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "asks the driver for every tensor",
    "TORCH_COMPILE_DEBUG": "writes every compiled graph",
    "TORCH_LOGS": "logs inside torch",
    "TORCH_SHOW_CPP_STACKTRACES": "collects stacks",
    "TORCH_USE_CUDA_DSA": "checks inside kernels",
    "TORCHDYNAMO_VERBOSE": "logs inside the compiler",
}
# What is measured is then not what others measure; wished for, perhaps.
CHANGING = ("LD_PRELOAD", "MALLOC_CONF", "ONEDNN_DEFAULT_FPMATH_MODE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
CHANGING_PREFIX = "TORCHINDUCTOR_"
OVERRIDDEN = ("TORCHINDUCTOR_CACHE_DIR",)  # each trial has a cache of its own


def results(facts: Facts) -> Finding:
    places = facts.places
    if places.results_problem:
        mend = "mend its permissions, or choose another folder with --output-dir"
        return error(f"{places.results}: {places.results_problem}", mend)
    return _room(f"results go to {places.results}", places.results_free_bytes, "choose another with --output-dir")


def temporary(facts: Facts) -> Finding | None:
    places = facts.places
    if not places.temp:
        return error("no folder for temporary files can be written to", "make room in /tmp, or set TMPDIR to a folder")
    if places.temp_noexec:
        return warning(
            f"{places.temp} is mounted noexec: what torch.compile builds there cannot be loaded",
            "set TMPDIR to a folder that allows it",
        )
    found = _room(f"temporary files go to {places.temp}", places.temp_free_bytes, "set TMPDIR to a roomier one")
    return None if found.level == "ok" else found


def _room(text: str, free_bytes: int, mend: str) -> Finding:
    free = f"{free_bytes / 2**30:.1f} GiB free" if free_bytes >= LITTLE_BYTES else f"{free_bytes >> 20} MiB free"
    if free_bytes < NO_BYTES:
        return error(f"{text}: the disk is full ({free})", f"make room there, or {mend}")
    if free_bytes < LITTLE_BYTES:
        return warning(f"{text}: little room ({free})", f"make room there, or {mend}")
    return ok(f"{text} ({free})")


def shared_memory(facts: Facts) -> Finding | None:
    size = facts.places.shm_bytes
    if size is None or size >= SMALL_SHM_BYTES:
        return None
    return info(
        f"/dev/shm has {size >> 20} MiB: loader processes (`workers` above 0) may die of a bus error",
        "docker: --shm-size=1g or --ipc=host",
    )


def data_set(facts: Facts) -> Finding:
    data = facts.data
    fetch = f"mnist-bench data fetch --data-dir {data.root}"
    match data.state:
        case "whole":
            return ok(f"MNIST in {data.root}: all four files match their checksums")
        case "packed":
            return ok(f"MNIST in {data.root}: as .gz files, which the first run unpacks")
        case "corrupt":
            return error(f"MNIST in {data.root} is corrupt: {data.detail}", fetch)
        case "unreadable":
            return error(f"MNIST cannot be read: {data.detail}", "mend its permissions, or give another --data-dir")
        case "incomplete":
            what = f"MNIST in {data.root} lacks {data.detail}"
        case "missing" if data.by_variable and not data.root_exists:
            return warning(
                f"MNIST_BENCH_DATA={data.root}: there is no such folder; a run downloads MNIST into it, or trains on "
                "synthetic digits",
                "set it to the folder that holds MNIST/raw, or unset it",
            )
        case "missing":
            what = f"MNIST is not in {data.root}"
    return warning(f"{what}: a run downloads it, or trains on synthetic digits", fetch)


def slowing_variables(facts: Facts) -> Finding | None:
    found = {name: why for name, why in SLOWING.items() if facts.variables.get(name, "0") not in ("", "0")}
    if not found:
        return None
    said = ", ".join(f"{name}={facts.variables[name]} ({why})" for name, why in found.items())
    return warning(f"debugging aids are on: {said}", f"unset {' '.join(found)}")


def changing_variables(facts: Facts) -> Finding | None:
    prefixed = sorted(name for name in facts.variables if name.startswith(CHANGING_PREFIX) and name not in OVERRIDDEN)
    found = [name for name in (*CHANGING, *prefixed) if facts.variables.get(name)]
    if not found:
        return None
    said = ", ".join(f"{name}={facts.variables[name]}" for name in found)
    return info(f"{said}: figures may differ from those of others", f"unset {' '.join(found)}, unless you want it")


def shadowing(facts: Facts) -> Finding | None:
    if not facts.shadowing:
        return None
    paths, more = ", ".join(facts.shadowing[:3]), len(facts.shadowing) - 3
    return warning(
        f"these come before the installed modules of their names: {paths}{f' and {more} more' if more > 0 else ''}",
        "rename them, unset PYTHONPATH, or work in another folder",
    )
