"""The torch side of ``doctor``: imports torch, looks at it, prints one JSON document.

``python -m mnist_bench.worker.probe`` is a process of its own, so that a torch that crashes or hangs is a finding and
no end of doctor. What is being done stands on stderr, line by line: the last one tells where it died.
"""

import faulthandler
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from mnist_bench.machine.environment import available_cores
from mnist_bench.running.protocol import PROBE_STAGE, DeviceReport, ProbeFailure, TorchReport

T = TypeVar("T")

_LONGEST = 300  # characters of an error


def main() -> None:
    """With ``--compile`` it compiles a small function too, with ``--measure`` it measures matrix products."""
    faulthandler.enable()
    document = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no part of the document
    report = probe(try_compile="--compile" in sys.argv, measure="--measure" in sys.argv)
    with os.fdopen(document, "wb") as file:
        file.write(msgspec.json.encode(report))


def probe(*, try_compile: bool, measure: bool = False) -> TorchReport | ProbeFailure:
    """Looks at torch; a torch that is missing or cannot be imported is the answer, not an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch, failure = _attempt("import torch", lambda: importlib.import_module("torch"))
        if failure is not None:
            missing = importlib.util.find_spec("torch") is None
            return ProbeFailure(kind="missing" if missing else "broken", detail=failure)
        report = _report(torch, try_compile=try_compile)
        if measure:
            report = msgspec.structs.replace(report, ceilings=_ceilings(torch))
    return msgspec.structs.replace(report, warnings=tuple(dict.fromkeys(_short(str(each.message)) for each in caught)))


def _report(torch: Any, *, try_compile: bool) -> TorchReport:
    devices = _devices(torch)
    version, error, usable = _torchvision()
    compile_s, compile_error = _compiled(torch) if try_compile else (None, None)
    return TorchReport(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        devices=devices,
        torchvision=version,
        torchvision_error=error,
        torchvision_usable=usable,
        compile_s=compile_s,
        compile_error=compile_error,
    )


def _devices(torch: Any) -> tuple[DeviceReport, ...]:
    from mnist_bench.catalogue import DEVICES

    count, _ = _attempt("device cuda", torch.cuda.device_count)
    numbered = [f"cuda:{index}" for index in range(count or 0)]
    names = [name for kind in DEVICES for name in (numbered if numbered and kind == "cuda" else [kind])]
    return tuple(_device(torch, name) for name in names)


def _device(torch: Any, name: str) -> DeviceReport:
    """A device that is there may still be of no use: a GPU too old for this build fails at its first kernel."""
    from mnist_bench.worker.devices import open_device

    device = open_device(name)
    missing, failure = _attempt(f"device {name}", device.missing)
    if missing or failure:
        return DeviceReport(name=name, missing=missing or failure)
    description, failure = _attempt(f"device {name}", device.describe)
    if failure is None:
        _, failure = _attempt(f"device {name}", lambda: torch.ones(8, device=device.torch_device).sum().item())
    return DeviceReport(name=name, missing=failure, description=description or "")


def _ceilings(torch: Any) -> dict[int, float]:
    """FLOP/s of a matrix product in float32 with 1, 2, 4 ... and all threads."""
    from mnist_bench.worker.devices import open_device
    from mnist_bench.worker.extras import ceiling_flops_s

    found, most = {}, available_cores()
    for threads in [*(1 << power for power in range((most - 1).bit_length())), most]:
        print(f"{PROBE_STAGE}matrix product, {threads} threads", file=sys.stderr, flush=True)
        torch.set_num_threads(threads)
        found[threads] = ceiling_flops_s(open_device("cpu"), torch.float32)
    return found


def _torchvision() -> tuple[str | None, str | None, bool]:
    """Its version (None: not installed), the error of a plain import, and whether mnist_bench can import it."""
    from mnist_bench.worker.pipelines import import_torchvision

    _, failure = _attempt("import torchvision", lambda: importlib.import_module("torchvision"))
    if failure is None or _attempt("import torchvision", import_torchvision)[1] is None:
        # Its own word tells the build (0.28.0+cu130), where the package's name may not.
        return str(sys.modules["torchvision"].__version__), failure, True
    return _attempt("import torchvision", lambda: importlib.metadata.version("torchvision"))[0], failure, False


def _compiled(torch: Any) -> tuple[float, str | None]:
    """The seconds that one small function took, and what went wrong."""

    def double(x: Any) -> Any:
        return torch.relu(x) * 2 + 1

    x, begin = torch.linspace(-1.0, 1.0, 64), perf_counter()
    same, failure = _attempt("torch.compile", lambda: torch.equal(torch.compile(double)(x), double(x)))
    if same is False:
        failure = "the compiled function gave another result than the eager one"
    return perf_counter() - begin, failure


def _attempt(stage: str, action: Callable[[], T]) -> tuple[T | None, str | None]:
    """What it gives, or else the error in one line."""
    print(f"{PROBE_STAGE}{stage}", file=sys.stderr, flush=True)
    try:
        return action(), None
    except Exception as failure:  # noqa: BLE001 - whatever a broken installation raises is the finding
        return None, _short(f"{type(failure).__name__}: {failure}")


def _short(text: str) -> str:
    """The first line that says something, cut to length."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST]


if __name__ == "__main__":
    main()
