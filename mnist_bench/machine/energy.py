"""The energy that training takes, by the counters of NVIDIA GPUs (NVML) and of processor packages (RAPL), where they
can be read. Whatever else the GPU, or the processor, does meanwhile is in it."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from mnist_bench.machine.environment import ROOT, read

Counters = Mapping[str, tuple[int, int]]  # by name: microjoules, and at how many it begins again (0: never)


class Meter:
    """Adds up the spans in which it is entered.

    Args:
        device: of a cell; on a GPU the GPU is metered alone.
        gpu: as NVIDIA's driver calls it.

    Attributes:
        joules: so far; None: of a span they are not known.
    """

    def __init__(self, device: str, gpu: str = "", root: Path = ROOT) -> None:
        self._read = partial(packages, root) if device == "cpu" else partial(_gpu, gpu)
        self.joules: float | None = 0.0

    def __enter__(self) -> None:
        self._before = self._read()

    def __exit__(self, *_: object) -> None:
        used = spent_j(self._before, self._read())
        self.joules = None if used is None or self.joules is None else self.joules + used


def spent_j(before: Counters, after: Counters) -> float | None:
    """Joules between two readings. A counter that has begun again has gone through its whole range once, at most: that
    of a processor takes minutes. None: there is no counter, or one has gone back that never begins again."""
    if not after or before.keys() != after.keys():
        return None
    rises = [(now - before[name][0], range_uj) for name, (now, range_uj) in after.items()]
    used = [rise + range_uj * (rise < 0) for rise, range_uj in rises]
    return sum(used) * 1e-6 if min(used) >= 0 else None


def packages(root: Path = ROOT) -> Counters:
    """Of the processor's packages; the zones within one (cores, memory) are parts of it, or no processor."""
    found = {}
    for zone in sorted(root.glob("sys/class/powercap/*-rapl:*")):
        texts = [read(zone / name) for name in ("energy_uj", "max_energy_range_uj")]
        if read(zone / "name").startswith("package") and all(text.isdecimal() for text in texts):
            found[zone.name] = (int(texts[0]), int(texts[1]))
    return found


def _gpu(uuid: str) -> Counters:
    """Since the driver was loaded."""
    with suppress(ImportError):
        import pynvml

        with suppress(pynvml.NVMLError):  # older than Volta, a part of a GPU, AMD's: it has no such counter
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return {uuid: (1000 * pynvml.nvmlDeviceGetTotalEnergyConsumption(handle), 0)}
    return {}
