"""``mnist-bench report``: a run as one HTML page that opens offline, and its plots as images."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench import report
from mnist_bench.cli import options
from mnist_bench.cli.console import say, try_out, write, writing
from mnist_bench.disk.files import try_folder
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import UsageError, unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mnist_bench.report.material import Material, Plot

WIDTHS = 40, 1000  # millimetres: the least and the most of a picture


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The page holds its data and programs and opens offline. Exit code 5: nothing was measured; the page says why."
    )
    options.add(parser, "run", "output_dir")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the page here (default: report.html in the run's folder)"
    )
    pictures = parser.add_argument_group("pictures", "Print-ready: without title and caption, which go to captions.txt")
    pictures.add_argument("--images", type=Path, metavar="DIR", help="write pictures of the plots there as well")
    pictures.add_argument(
        "--plot",
        action="extend",
        type=_names,
        metavar="NAME,...",
        help="only these, as in throughput,memory; may be given again (a wrong name lists them)",
    )
    pictures.add_argument(
        "--format",
        type=lambda text: _known("--format", "format", _names(text), report.FORMATS),
        metavar="FORMAT,...",
        help="svg, png (300 dpi), pdf (default: svg,png)",
    )
    pictures.add_argument(
        "--width", type=_width, metavar="MM", help="how wide, in millimetres, as in 84mm (default: 160mm)"
    )
    pictures.add_argument("--theme", choices=report.THEMES, help="for which ground (default: light)")
    options.add(parser, "quiet")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _known(flag: str, kind: str, names: list[str], known: Iterable[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise UsageError(f"{flag}: {unknown(kind, name, known)}")
    return names


def _width(text: str) -> int:
    """Millimetres."""
    return options.whole("--width in mm", *WIDTHS)(text.removesuffix("mm"))


def execute(args: argparse.Namespace) -> int:
    look = {name: value for name in ("plot", "format", "width", "theme") if (value := getattr(args, name)) is not None}
    if look and args.images is None:
        raise UsageError(f"--{next(iter(look))}: says what --images writes: add --images DIR")
    folder = RunFolder.open(args.output_dir, args.run)
    output = folder.path / "report.html" if args.output is None else args.output
    try_out("--output", output)
    if args.images is not None:
        with writing("--images", args.images):  # before anything is drawn
            args.images.mkdir(parents=True, exist_ok=True)
            try_folder(args.images)
    material, plots, text = drawn(folder, args.plot)
    # A link in a stranger's folder is replaced, not followed; one that was named is the user's own.
    write("--output", output, text.encode("utf-8", "backslashreplace"), follow=args.output is not None)
    print(output)
    if args.images is not None:
        _write_pictures(args, {name: plot for name, plot in plots.items() if name in (args.plot or plots)})
    return 0 if material.measured else options.NOTHING


def drawn(folder: RunFolder, named: list[str] | None = None) -> "tuple[Material, Mapping[str, Plot], str]":
    """What the page of a run is made of, its plots, and its text; refuses names that no plot has."""
    with report.making_script() as script:
        from mnist_bench.analysis.summary import Run
        from mnist_bench.report import page
        from mnist_bench.report.material import Material

        _known("--plot", "plot", named or [], page.PLOTS)
        material = Material(Run.read(folder), lambda trial: _step_ms(folder, trial))
        plots = {name: draw(material) for name, draw in page.PLOTS.items()}
        return material, plots, page.render(material.run, plots, script())


def _write_pictures(args: argparse.Namespace, plots: "Mapping[str, Plot]") -> None:
    from mnist_bench.report import vega

    formats, width, theme = args.format or report.FORMATS[:2], args.width or report.WIDTH, args.theme or "light"
    for name, plot in plots.items():
        if not args.quiet:
            count = f"{len(plot.panels)} picture{'s' * (len(plot.panels) != 1)} as {', '.join(formats)}"
            say(f"{plot.title}: {plot.missing or count}")
        for file, content in vega.images_of(name, plot, formats, width, theme):
            write("--images", args.images / file, content)
    captions = "\n".join(text for name, plot in plots.items() for text in vega.captions_of(name, plot))
    write("--images", args.images / "captions.txt", captions.encode("utf-8", "backslashreplace"))


def _step_ms(folder: RunFolder, trial: str) -> "NDArray[np.float64] | None":
    """The raw steps of a trial; None, and a warning, where they cannot be read."""
    try:
        return folder.session_ms(trial)
    except ValueError as error:
        say(f"{error}; its step times are left out")
        return None
