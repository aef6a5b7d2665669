"""``mnist-bench report``: a run as one HTML page that opens offline, and its plots as images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench import report
from mnist_bench.cli import options
from mnist_bench.cli.console import say, try_out, write, writing
from mnist_bench.disk.files import try_folder
from mnist_bench.disk.folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The page holds its data and programs and opens offline. Exit code 5: nothing was measured; the page says why."
    )
    options.add(parser, "run", "output_dir")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the page here (default: report.html in the run's folder)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="write PNG and SVG of each plot there as well")
    options.add(parser, "quiet")


def execute(args: argparse.Namespace) -> int:
    folder = RunFolder.open(args.output_dir, args.run)
    output = folder.path / "report.html" if args.output is None else args.output
    try_out("--output", output)
    if args.images is not None:
        with writing("--images", args.images):  # before anything is drawn
            args.images.mkdir(parents=True, exist_ok=True)
            try_folder(args.images)
    with report.making_script() as script:
        from mnist_bench.analysis.summary import Run
        from mnist_bench.report import page, vega
        from mnist_bench.report.material import Material

        material = Material(Run.read(folder), lambda trial: _step_ms(folder, trial))
        plots = {name: draw(material) for name, draw in page.PLOTS.items()}
        text = page.render(material.run, plots, script())
    # A link in a stranger's folder is replaced, not followed; one that was named is the user's own.
    write("--output", output, text.encode("utf-8", "backslashreplace"), follow=args.output is not None)
    print(output)
    if args.images is not None:
        for plot_name, plot in plots.items():
            if not args.quiet:
                say(f"{plot.title}: {plot.missing or f'{len(plot.panels)} images as SVG and PNG'}")
            for name, content in vega.images_of(plot_name, plot):
                write("--images", args.images / name, content)
    return 0 if material.measured else options.NOTHING


def _step_ms(folder: RunFolder, trial: str) -> "NDArray[np.float64] | None":
    """The raw steps of a trial; None, and a warning, where they cannot be read."""
    try:
        return folder.session_ms(trial)
    except ValueError as error:
        say(f"{error}; its step times are left out")
        return None
