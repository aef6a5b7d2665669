"""The plots of a report, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from mnist_bench.report import costs, learning, rates
from mnist_bench.report.material import Material
from mnist_bench.report.panels import Plot

PLOTS: dict[str, Callable[[Material], Plot]] = {
    "throughput": rates.throughput,
    "devices": rates.by_device,
    "compiled": rates.compiled,
    "epochs": learning.by_epoch,
    "time": learning.by_time,
    "steps": costs.step_times,
    "waterfall": costs.waterfall,
    "memory": costs.memory,
}


def plots_of(material: Material) -> tuple[Plot, ...]:
    """Every plot; one that has nothing to show says why."""
    return tuple(draw(material) for draw in PLOTS.values())
