"""``mnist-bench report``: a run as one HTML page that opens offline, and its plots as images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.writing import cannot_write, try_out, write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mnist_bench.report.material import Plot

NOTHING_MEASURED = 5


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The page holds its data and programs and opens offline. Exit code 5: nothing was measured; the page says why."
    )
    options.add(parser, "run", "output_dir")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the page here (default: report.html in the run's folder)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="write PNG and SVG of each plot there as well")
    parser.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors on stderr")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.report import vega

    folder = RunFolder.open(args.output_dir, args.run)
    output = folder.report_path if args.output is None else args.output
    try_out("--output", output)
    if args.images is not None:
        _make_folder("--images", args.images)
    with vega.making() as script:
        from mnist_bench.analysis.summary import Run
        from mnist_bench.report.material import gather
        from mnist_bench.report.page import PLOTS, render

        material = gather(Run.read(folder), lambda trial: _step_ms(folder.samples_path(trial)))
        plots = [draw(material) for draw in PLOTS.values()]
        page = render(material, plots, script())
    write("--output", output, page.encode("utf-8", "backslashreplace"))
    print(output)
    if args.images is not None:
        _write_images(plots, args.images, quiet=args.quiet)
    return 0 if material.measured else NOTHING_MEASURED


def _step_ms(path: Path) -> NDArray[np.float64] | None:
    """The raw steps of a trial; None, and a warning, where they cannot be read."""
    from mnist_bench.disk.samples import session_ms

    try:
        return session_ms(path)
    except ValueError as error:
        print(f"mnist-bench: {error}; its step times are left out", file=sys.stderr)
        return None


def _make_folder(flag: str, folder: Path) -> None:
    """Before anything is drawn.

    Raises:
        UsageError: it can be neither made nor written to.
    """
    from mnist_bench.disk.files import try_folder

    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_folder(folder)
    except OSError as error:
        raise cannot_write(flag, folder, error) from error


def _write_images(plots: Sequence[Plot], target: Path, *, quiet: bool) -> None:
    from mnist_bench.report.vega import images_of

    for plot in plots:
        if not quiet:
            print(f"{plot.title}: {plot.missing or f'{len(plot.panels)} images as SVG and PNG'}", file=sys.stderr)
        for name, content in images_of(plot):
            write("--images", target / name, content)
