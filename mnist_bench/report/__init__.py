"""``report``: a run as one HTML page. Pure: records in, text out (its template and scripts are parts of it)."""

from mnist_bench.report.history import render_history
from mnist_bench.report.images import Image, images_of
from mnist_bench.report.material import Material, gather, trials_to_read
from mnist_bench.report.page import render
from mnist_bench.report.plots import plots_of

__all__ = ["Image", "Material", "gather", "images_of", "plots_of", "render", "render_history", "trials_to_read"]
