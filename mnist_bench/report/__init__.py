"""``report``: a run as one HTML page. Pure: records in, text out (its template and scripts are parts of it)."""

from collections.abc import Callable

from mnist_bench.report import costs, learning, rates
from mnist_bench.report.material import Material, Plot

# The plots, in the order of the page; one that has nothing to show says why.
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
