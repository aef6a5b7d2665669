"""What is Vega's: what the charts of plots share, colours and type, the script that draws on a page, images.

Specifications are built with Altair. They hold no data (they come in by the name ``DATA``) and no colour: one is on the
screen, another on paper. The hues are Okabe and Ito's (2008, *Color Universal Design*), told apart with any kind of
colour vision; darker on a light ground, lighter on a dark one, so that each has a contrast of 3:1. Shapes repeat what
colours say.
"""

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import altair as alt

if TYPE_CHECKING:
    from mnist_bench.report.material import Panel, Plot

DATA = "panel"  # the name under which a specification expects its panel's values
HEIGHT = 210
WIDTH = 640  # of an image
SCALE = 2.0  # pixels of a PNG per unit of length
NAME_LIMIT = 80
LINE = 105  # characters of a caption that fit into the width

Spec = dict[str, Any]
Shape = Literal["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "bar", "line"]

LIGHT = ("#0a5c8f", "#c8500a", "#00805b", "#a8477f", "#8f6a00", "#3d94d1", "#6b6f76", "#4a3fa8")
DARK = ("#4fa9e2", "#f28a45", "#2fc79b", "#e391bf", "#e3b43c", "#9bd3f5", "#a3a8b0", "#a79cf2")
PAPER = {"ink": "#1a1d21", "muted": "#565b63", "rule": "#d9dce1"}
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


def coloured(field: str, names: Sequence[str], **told: str) -> alt.Chart:
    """A chart with a colour for each name, and tooltips.

    Args:
        told: titles of the tooltips by field, a number's format after a bar: ``share="of its steps|.1%"``.
    """
    colour = alt.Color(f"{field}:N").scale(domain=list(names), range="category").title(None)
    titles = ((name, *title.partition("|")) for name, title in told.items())
    tooltips = [alt.Tooltip(f"{name}:N", title=title, format=form) for name, title, _, form in titles]
    return blank().encode(color=colour, tooltip=tooltips)


def blank() -> alt.Chart:
    """A chart of a panel's values."""
    return alt.Chart(alt.NamedData(name=DATA))


def rule_at(y: float) -> alt.Chart:
    """A dashed line, once: not for each value."""
    rule: alt.Chart = blank().transform_aggregate(values="count()").mark_rule(strokeDash=[4, 4])
    return rule.encode(y=alt.YDatum(y))


def curve(base: alt.Chart, field: str, names: Sequence[str]) -> list[alt.Chart]:
    """A line and its points, with a shape for each name."""
    shape = alt.Shape(f"{field}:N").scale(domain=list(names), range=list(SHAPES)).title(None)
    points = base.mark_point(filled=True, size=55, opacity=1).encode(shape=shape)
    return [base.mark_line(strokeWidth=2).encode(detail=f"{field}:N"), points]


def logarithmic(padding: int = 12) -> alt.Scale:
    """An axis that ends at its data."""
    return alt.Scale(type="log", padding=padding, nice=False)


def layered(*layers: alt.Chart, height: int = HEIGHT) -> Spec:
    """The specification: as wide as its place on the page."""
    size = alt.AutoSizeParams(type="fit-x", contains="padding")
    spec: Spec = alt.layer(*layers).properties(width="container", height=height, autosize=size).to_dict()
    return {key: value for key, value in spec.items() if key != "config"}


def asset(name: str) -> str:
    """A file of the page: its templates, style, script, and the style of its plots."""
    return resources.files("mnist_bench.report").joinpath("assets", name).read_text(encoding="utf-8")


def screen() -> dict[str, Any]:
    """Vega-Lite's config for the page: every colour is a variable of its style sheet, so that themes need no script."""
    variables = [f"var(--c{number})" for number in range(1, len(LIGHT) + 1)]
    # The page has legends of its own, which wrap.
    return {**json.loads(asset("plots.json")), "range": {"category": variables}, "legend": {"disable": True}}


def paper() -> dict[str, Any]:
    """The config for PNG and SVG files: dark on white, with a legend."""
    text = re.sub(r"var\(--(\w+)\)", lambda found: PAPER[found[1]], asset("plots.json"))
    return {**json.loads(text), "range": {"category": list(LIGHT)}, "background": "white", "padding": 16}


def images_of(name: str, plot: "Plot") -> Iterator[tuple[str, bytes]]:
    """Images of each panel of a plot, with its title and legend in it: names and contents of files."""
    for number, panel in enumerate(plot.panels, start=1):
        for suffix, image in images(_on_paper(plot, panel)).items():
            yield f"{_file_name(f'{name}-{number}-{panel.title}')}.{suffix}", image


def images(spec: Spec) -> dict[str, bytes]:
    """A specification as an image, by the suffix of its file."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_version())
    return {"svg": svg.encode("utf-8", "backslashreplace"), "png": vl_convert.svg_to_png(svg, scale=SCALE)}


def _file_name(title: str) -> str:
    """``throughput-1-lenet5-cpu``: letters, digits, dots and hyphens only, whatever the models are called."""
    return re.sub(r"[^a-z0-9.]+", "-", title.lower())[:NAME_LIMIT].strip("-.")


def _on_paper(plot: "Plot", panel: "Panel") -> Spec:
    """A specification that stands alone: data, title, colours, legend and width in it."""
    title = {"text": f"{plot.title}: {panel.title}", "subtitle": textwrap.wrap(panel.caption, LINE)}
    return {
        **plot.spec,
        "width": WIDTH,
        "height": panel.height or plot.spec["height"],
        "title": {**title, "limit": WIDTH, "offset": 14},
        "datasets": {DATA: panel.values},
        "config": paper(),
    }


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
    return alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]


if __name__ == "__main__":
    sys.stdout.buffer.write(script().encode("utf-8"))
