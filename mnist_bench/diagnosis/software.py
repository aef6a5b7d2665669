"""Checks of Python, torch, torchvision, the devices and the compiler: facts in, a finding or nothing out."""

from __future__ import annotations

import re

from mnist_bench.diagnosis.facts import Facts, Finding, ProbeFailure, TorchReport, error, info, ok, warning

OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 14)  # the newest that torch had wheels for when this was written
OLDEST_TORCH = (2, 10)
INSTALL = 'pip install "torch>=2.10" torchvision'
CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"
REINSTALL = f"pip install --force-reinstall torch torchvision (a CPU build: {CPU_INDEX})"


def python(facts: Facts) -> Finding:
    version = ".".join(map(str, facts.python))
    if facts.python[:2] < OLDEST_PYTHON:
        return error(f"Python {version} is too old", "install Python 3.11 or later, and a new virtual environment")
    if facts.python[:2] > NEWEST_PYTHON:
        return info(f"Python {version} is newer than any that mnist_bench was tried with (3.11 to 3.14)")
    return ok(f"Python {version}")


def torch(facts: Facts) -> Finding:
    match facts.torch:
        case ProbeFailure():
            return _no_torch(facts.torch)
        case TorchReport(version=version):
            numbers = re.match(r"(\d+)\.(\d+)", version)
            if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_TORCH:
                return error(f"torch {version} is too old: mnist_bench needs 2.10 or later", f"{INSTALL} --upgrade")
            return ok(f"torch {version} ({_build(facts.torch)})")


def _no_torch(failure: ProbeFailure) -> Finding:
    match failure.kind:
        case "missing":
            return error("torch is not installed", INSTALL)
        case "broken":
            return error(f"torch cannot be imported: {failure.detail}", REINSTALL)
        case "hung" if failure.stage.startswith("device"):
            mend = "look at the driver (nvidia-smi); CUDA_VISIBLE_DEVICES=-1 does without the GPU"
        case _:
            mend = f"`python -m mnist_bench.probe` shows more; {REINSTALL}"
    return error(f"the probe of torch {failure.detail}, in: {failure.stage}", mend)


def _build(report: TorchReport) -> str:
    if report.cuda:
        return f"CUDA {report.cuda}"
    return f"ROCm {report.hip}" if report.hip else "no CUDA"


def build_for_gpu(facts: Facts) -> Finding | None:
    if not isinstance(facts.torch, TorchReport) or facts.system == "darwin":
        return None
    if facts.nvidia_driver and not facts.torch.cuda:
        return warning(
            f"an NVIDIA driver is here, but torch {facts.torch.version} is built without CUDA: no cuda cell can run",
            "pip install --force-reinstall torch torchvision (pytorch.org/get-started names the index for your driver)",
        )
    if facts.torch.cuda and not facts.nvidia_driver:
        return info(
            f"torch is a CUDA build and no NVIDIA driver is here: about 5 GB of CUDA libraries lie idle "
            f"(torch, for CUDA {facts.torch.cuda})",
            f"pip install --force-reinstall torch torchvision {CPU_INDEX}",
        )
    return None


def torchvision(facts: Facts) -> Finding | None:
    if not isinstance(facts.torch, TorchReport):
        return None
    found = facts.torch.torchvision
    if found.version is None:
        return error("torchvision is not installed: no data set can be read", INSTALL)
    if found.error is None:
        return ok(f"torchvision {found.version}")
    index = f" {CPU_INDEX}" if not facts.torch.cuda and not facts.torch.hip else ""
    mend = f"pip install --force-reinstall --no-deps torchvision=={found.version.partition('+')[0]}{index}"
    if found.usable:
        return warning(
            f"torchvision {found.version} is not built for torch {facts.torch.version} ({found.error}): "
            "mnist_bench works round it, other programs cannot import it",
            mend,
        )
    return error(f"torchvision {found.version} cannot be imported: {found.error}", mend)


def cpu(facts: Facts) -> Finding:
    environment = facts.environment
    cores = f"{environment.cores} core{'' if environment.cores == 1 else 's'}"
    virtual = ", virtual machine" if environment.details.get("hypervisor") == "yes" else ""
    if not isinstance(facts.torch, TorchReport):
        return ok(f"cpu: {environment.cpu}, {cores}{virtual}")
    capability = facts.torch.cpu_capability
    text = f"cpu: {environment.cpu}, {cores}{virtual}, {capability}"
    limited = next((name for name in ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA") if name in facts.variables), None)
    if limited:
        what = f"{text}: {limited}={facts.variables[limited]} holds torch back"
        return warning(what, f"unset {limited}")
    if capability == "DEFAULT" and environment.details.get("architecture") in ("x86_64", "AMD64"):
        return info(f"{text}: torch finds no AVX2 here, and is many times slower than elsewhere")
    return ok(text)


def cuda(facts: Facts) -> Finding | None:
    if not isinstance(facts.torch, TorchReport) or facts.system == "darwin":
        return None
    devices = facts.torch.devices_of("cuda")
    broken = next((device for device in devices if device.missing), None)
    if broken is None:
        return ok("; ".join(f"{device.name}: {device.description}" for device in devices)) if devices else None
    if broken.description:
        return warning(
            f"{broken.name}: {broken.description}: its first kernel failed: {broken.missing}",
            "install a torch that is built for this GPU and driver (pytorch.org/get-started), or look at nvidia-smi",
        )
    if not facts.nvidia_driver and not facts.torch.hip:
        return info("cuda: no NVIDIA driver here; cuda cells will be skipped")
    if (facts.torch.cuda is None and facts.torch.hip is None) or _hides_all(facts):
        return None  # build_for_gpu or hidden_gpus says so
    said = "".join(f" ({text})" for text in facts.torch.warnings if "driver" in text.lower())
    return warning(f"cuda: torch sees no GPU{said}; cuda cells will be skipped", _cuda_mend(facts))


def _cuda_mend(facts: Facts) -> str:
    visible = facts.variables.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"unset CUDA_VISIBLE_DEVICES (it is {visible!r})"
    return "see that nvidia-smi works and that its driver is new enough for torch's CUDA; in docker: --gpus all"


def hidden_gpus(facts: Facts) -> Finding | None:
    visible = facts.variables.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not facts.nvidia_driver:
        return None
    if _hides_all(facts):
        return warning(f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU", "unset CUDA_VISIBLE_DEVICES")
    return info(f"CUDA_VISIBLE_DEVICES={visible}: cuda:0 is the first of these")


def _hides_all(facts: Facts) -> bool:
    first, _, _ = facts.variables.get("CUDA_VISIBLE_DEVICES", "0").partition(",")
    return first.strip() in ("", "-1")


def gpu_neighbours(facts: Facts) -> Finding | None:
    if not facts.machine.gpu_processes:
        return None
    pids = ", ".join(map(str, facts.machine.gpu_processes[:5]))
    return warning(f"other processes are on the GPU ({pids}): its figures will be noisy", "end them, or wait for them")


def tf32(facts: Facts) -> Finding | None:
    if not isinstance(facts.torch, TorchReport) or not any(not d.missing for d in facts.torch.devices_of("cuda")):
        return None
    override = facts.variables.get("NVIDIA_TF32_OVERRIDE")
    if override is not None:
        state = "off" if override == "0" else "on"
        return warning(
            f"NVIDIA_TF32_OVERRIDE={override} forces TF32 {state} whatever a variant says", "unset NVIDIA_TF32_OVERRIDE"
        )
    used = [name for name, precision in facts.torch.tf32.items() if precision == "tf32"]
    if used:
        return info(f"torch's default is TF32 for {' and '.join(used)}; fp32 variants turn it off, tf32 variants on")
    return None


def mps(facts: Facts) -> Finding | None:
    if not isinstance(facts.torch, TorchReport) or facts.system != "darwin":
        return None
    device = next(iter(facts.torch.devices_of("mps")), None)
    if device is None:
        return None
    return (
        info(f"mps: {device.missing}; mps cells will be skipped")
        if device.missing
        else ok(f"mps: {device.description}")
    )


def xpu(facts: Facts) -> Finding | None:
    if not isinstance(facts.torch, TorchReport):
        return None
    present = [device for device in facts.torch.devices_of("xpu") if device.description]
    if not present:
        return None  # most machines have no Intel GPU: no news
    if present[0].missing:
        what = f"xpu: {present[0].description}: its first kernel failed: {present[0].missing}"
        return warning(what, "update Intel's driver, or torch")
    return ok(f"xpu: {present[0].description}")


def compiler(facts: Facts) -> Finding:
    if facts.compiler.doubt:
        mend = "xcode-select --install" if facts.system == "darwin" else "apt-get install g++ (or set CXX)"
        return warning("no C++ compiler: cells of compile variants will be skipped", mend)
    return ok(f"C++ compiler: {facts.compiler.version}")


def python_headers(facts: Facts) -> Finding | None:
    if facts.compiler.python_headers:
        return None
    version = f"{facts.python[0]}.{facts.python[1]}"
    return warning(
        "Python.h is missing: torch.compile cannot build its kernels; cells of compile variants will fail",
        f"apt-get install python{version}-dev (dnf: python{version}-devel)",
    )


def compile_trial(facts: Facts) -> Finding | None:
    if not isinstance(facts.torch, TorchReport):
        return None
    trial = facts.torch.compile_trial
    if trial is None:
        return info("torch.compile was not tried", "mnist-bench doctor --compile tries it (up to half a minute)")
    if trial.error:
        return warning(
            f"torch.compile does not work: {trial.error}",
            "mend the compiler; until then: --filter variant=eager",
        )
    return ok(f"torch.compile works: a small function took {trial.seconds:.0f} s from an empty cache")


def compile_disabled(facts: Facts) -> Finding | None:
    names = ("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE")
    found = [name for name in names if facts.variables.get(name, "0") not in ("", "0")]
    if not found:
        return None
    return warning(f"{' and '.join(found)}: compile variants would be eager ones", f"unset {' '.join(found)}")
