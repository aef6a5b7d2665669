"""The torch side of ``doctor``: imports torch, looks at it, prints one JSON document.

``python -m mnist_bench.worker.probe`` is a process of its own, so that a torch that crashes or hangs is a finding and
no end of doctor. What is being done stands on stderr, line by line: the last one tells where it died.
"""

import argparse
import faulthandler
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from mnist_bench.run.protocol import PROBE_STAGE, DeviceReport, ProbeFailure, TorchReport

T = TypeVar("T")

_LONGEST = 300  # characters of an error


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What torch sees on this machine; started by mnist-bench doctor.")
    parser.add_argument("--compile", action="store_true", help="compile a small function too")
    args = parser.parse_args(argv)
    faulthandler.enable()
    document = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no part of the document
    report = probe(try_compile=args.compile)
    with os.fdopen(document, "wb") as file:
        file.write(msgspec.json.encode(report))


def probe(*, try_compile: bool) -> TorchReport | ProbeFailure:
    """Looks at torch; a torch that is missing or cannot be imported is the answer, not an error."""
    _stage("import torch")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, failure = _attempt(lambda: importlib.import_module("torch"))
        if failure is not None:
            missing = importlib.util.find_spec("torch") is None
            return ProbeFailure(kind="missing" if missing else "broken", detail=failure)
        report = _report(try_compile=try_compile)
    return msgspec.structs.replace(report, warnings=tuple(dict.fromkeys(_short(str(each.message)) for each in caught)))


def _report(*, try_compile: bool) -> TorchReport:
    import torch

    cudnn: Any = torch.backends.cudnn  # whose parts are not declared
    devices = tuple(_devices())
    _stage("import torchvision")
    version, error, usable = _torchvision()
    compile_s, compile_error = _compiled() if try_compile else (None, None)
    return TorchReport(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        devices=devices,
        torchvision=version,
        torchvision_error=error,
        torchvision_usable=usable,
        tf32={"matmul": torch.backends.cuda.matmul.fp32_precision, "convolution": cudnn.conv.fp32_precision},
        compile_s=compile_s,
        compile_error=compile_error,
    )


def _devices() -> Iterator[DeviceReport]:
    import torch

    from mnist_bench.catalogue import DEVICES
    from mnist_bench.worker.devices import open_device

    for kind in DEVICES:
        _stage(f"device {kind}")
        missing = open_device(kind).missing()
        if missing is not None:
            yield DeviceReport(name=kind, missing=missing)
            continue
        count = torch.cuda.device_count() if kind == "cuda" else 1
        for name in [kind] if kind != "cuda" else [f"cuda:{index}" for index in range(count)]:
            yield _device(name)


def _device(name: str) -> DeviceReport:
    """A device that is there may still be of no use: a GPU too old for this build fails at its first kernel."""
    import torch

    from mnist_bench.worker.devices import open_device

    device = open_device(name)
    description, failure = _attempt(device.describe)
    if failure is None:
        _, failure = _attempt(lambda: torch.ones(8, device=device.torch_device).sum().item())
    return DeviceReport(name=name, missing=failure, description=description or "")


def _torchvision() -> tuple[str | None, str | None, bool]:
    """Its version (None: not installed), the error of a plain import, and whether mnist_bench can import it."""
    from mnist_bench.worker.pipelines import import_torchvision

    try:
        version = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        version = None
    _, failure = _attempt(lambda: importlib.import_module("torchvision"))
    if failure is None or _attempt(import_torchvision)[1] is None:
        # Its own word tells the build (0.28.0+cu130), where the package's name may not.
        return str(sys.modules["torchvision"].__version__), failure, True
    return version, failure, False


def _compiled() -> tuple[float, str | None]:
    """The seconds that one small function took, and what went wrong."""
    import torch

    def double(x: Any) -> Any:
        return torch.relu(x) * 2 + 1

    _stage("torch.compile")
    x, begin = torch.linspace(-1.0, 1.0, 64), perf_counter()
    same, failure = _attempt(lambda: torch.equal(torch.compile(double)(x), double(x)))
    if same is False:
        failure = "the compiled function gave another result than the eager one"
    return perf_counter() - begin, failure


def _attempt(action: Callable[[], T]) -> tuple[T | None, str | None]:
    """What it gives, or else the error in one line."""
    try:
        return action(), None
    except Exception as failure:  # noqa: BLE001 - whatever a broken installation raises is the finding
        return None, _short(f"{type(failure).__name__}: {failure}")


def _short(text: str) -> str:
    """The first line that says something, cut to length."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "")[:_LONGEST]


def _stage(name: str) -> None:
    print(f"{PROBE_STAGE}{name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
