"""Plots as PNG and SVG files: one for each panel, with its title and legend in it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mnist_bench.report.material import Panel, Plot
from mnist_bench.report.specs import DATA, paper

WIDTH = 640
SCALE = 2.0  # pixels of a PNG per unit of length
NAME_LIMIT = 80
LINE = 105  # characters of a caption that fit into the width


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A file's name and content."""

    name: str
    content: bytes


def images_of(plot: Plot) -> Iterator[Image]:
    """An SVG and a PNG of each panel, made one after the other."""
    import vl_convert

    for number, panel in enumerate(plot.panels, start=1):
        spec, name = on_paper(plot, panel), file_name(plot, panel, number)
        svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_version(spec))
        yield Image(name=f"{name}.svg", content=svg.encode("utf-8", "backslashreplace"))
        yield Image(name=f"{name}.png", content=vl_convert.svg_to_png(svg, scale=SCALE))


def on_paper(plot: Plot, panel: Panel) -> dict[str, Any]:
    """A specification that stands alone: data, title, colours, legend and width in it."""
    title = {
        "text": f"{plot.title}: {panel.title}",
        "subtitle": textwrap.wrap(panel.caption, LINE),
        "limit": WIDTH,
        "offset": 14,
    }
    datasets = {DATA: [dict(value) for value in panel.values]}
    height = plot.spec["height"] if panel.height is None else panel.height
    return {
        **plot.spec,
        "width": WIDTH,
        "height": height,
        "title": title,
        "datasets": datasets,
        "config": paper(),
    }


def file_name(plot: Plot, panel: Panel, number: int) -> str:
    """``throughput-1-lenet5-cpu``: letters, digits, dots and hyphens only, whatever the models are called."""
    words = re.sub(r"[^a-z0-9.]+", "-", f"{plot.id}-{number}-{panel.title.lower()}")
    return words[:NAME_LIMIT].strip("-.")


def _version(spec: dict[str, Any]) -> str:
    """``6.4`` of ``https://vega.github.io/schema/vega-lite/v6.4.1.json``."""
    found = re.search(r"/v(\d+\.\d+)", str(spec["$schema"]))
    assert found is not None, "Altair writes the version into the schema's address"
    return found[1]
