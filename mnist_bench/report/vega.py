"""What Vega itself makes: the script that draws on a page, and plots as PNG and SVG files.

Making the script takes some 2 s, in which vl-convert holds the interpreter's lock: a process of its own makes it while
the caller goes on.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mnist_bench.errors import BenchError

if TYPE_CHECKING:
    from mnist_bench.report.material import Panel, Plot

WIDTH = 640
SCALE = 2.0  # pixels of a PNG per unit of length
NAME_LIMIT = 80
LINE = 105  # characters of a caption that fit into the width


def script() -> str:
    """Vega, Vega-Lite and vega-embed as one script (0.9 MB), which sets ``window.vegaEmbed``.

    Raises:
        ValueError: the script would end its element early.
    """
    import vl_convert

    made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_version())
    if "</script" in made.lower() or "<!--" in made:
        raise ValueError("the bundle of Vega holds the end of a script element")
    return made


def _version() -> str:
    """``6.4``: of Vega-Lite, which Altair writes for."""
    import altair

    return altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]


@contextmanager
def making() -> Iterator[Callable[[], str]]:
    """Starts the process, which does not outlive the ``with``; gives what waits for the script.

    Raises:
        BenchError: (what is given) the process failed; it says why.
    """
    command = [sys.executable, "-m", "mnist_bench.report.vega"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:

        def made() -> str:
            text, complaint = process.communicate()
            if process.returncode != 0:
                last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise BenchError(f"the scripts of the plots could not be made: {last}; install mnist_bench anew")
            return text.decode("utf-8")

        try:
            yield made
        finally:
            process.kill()


def images_of(plot: Plot) -> Iterator[tuple[str, bytes]]:
    """An SVG and a PNG of each panel, with its title and legend in it: names and contents of files."""
    for number, panel in enumerate(plot.panels, start=1):
        for suffix, image in images(on_paper(plot, panel)).items():
            yield f"{file_name(plot, panel, number)}.{suffix}", image


def images(spec: dict[str, Any]) -> dict[str, bytes]:
    """A specification as an image, by the suffix of its file."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_version())
    return {"svg": svg.encode("utf-8", "backslashreplace"), "png": vl_convert.svg_to_png(svg, scale=SCALE)}


def on_paper(plot: Plot, panel: Panel) -> dict[str, Any]:
    """A specification that stands alone: data, title, colours, legend and width in it."""
    from mnist_bench.report.specs import DATA, paper

    title = {"text": f"{plot.title}: {panel.title}", "subtitle": textwrap.wrap(panel.caption, LINE)}
    return {
        **plot.spec,
        "width": WIDTH,
        "height": panel.height or plot.spec["height"],
        "title": {**title, "limit": WIDTH, "offset": 14},
        "datasets": {DATA: [dict(value) for value in panel.values]},
        "config": paper(),
    }


def file_name(plot: Plot, panel: Panel, number: int) -> str:
    """``throughput-1-lenet5-cpu``: letters, digits, dots and hyphens only, whatever the models are called."""
    words = re.sub(r"[^a-z0-9.]+", "-", f"{plot.id}-{number}-{panel.title.lower()}")
    return words[:NAME_LIMIT].strip("-.")


if __name__ == "__main__":
    sys.stdout.buffer.write(script().encode("utf-8"))
