"""What is Vega's: what the charts of plots share, colours and type, the script that draws on a page, images.

Specifications are built with Altair. They hold no data (they come in by the name ``DATA``) and no colour: one is on the
screen, another on paper. The hues are Okabe and Ito's (2008, *Color Universal Design*), told apart with any kind of
colour vision; darker on a light ground, lighter on a dark one, so that each has a contrast of 3:1. Shapes repeat what
colours say.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import altair as alt

from mnist_bench.report import FORMATS, THEMES, WIDTH

if TYPE_CHECKING:
    from mnist_bench.report.material import Panel, Plot

DATA = "panel"  # the name under which a specification expects its panel's values
HEIGHT = 210
POINT = 55  # the area of one in square pixels
NAME_LIMIT = 80
# Of pictures. Lengths are CSS pixels, 96 an inch; a file says inches: 72 points, and 300 of a PNG's pixels.
MM = 96 / 25.4
FONT = 32 / 3  # 8 points
POINTS = 72 / 96
DPI = 300
PADDING = 4

Spec = dict[str, Any]
Shape = Literal["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "bar", "line"]

LIGHT = ("#0a5c8f", "#c8500a", "#00805b", "#a8477f", "#8f6a00", "#3d94d1", "#6b6f76", "#4a3fa8")
DARK = ("#4fa9e2", "#f28a45", "#2fc79b", "#e391bf", "#e3b43c", "#9bd3f5", "#a3a8b0", "#a79cf2")
# Of text and ground, light and dark.
TONES = {
    "ink": ("#1a1d21", "#e9ebee"),
    "muted": ("#565b63", "#a4aab3"),
    "rule": ("#e2e4e7", "#2d3239"),
    "card": ("#ffffff", "#191c20"),
}
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
    points = base.mark_point(filled=True, size=POINT, opacity=1).encode(shape=shape)
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


def paper(theme: str = THEMES[0]) -> dict[str, Any]:
    """The config of pictures: a legend, text of one size, a theme's colours."""
    dark = THEMES.index(theme)
    text = re.sub(r"var\(--(\w+)\)", lambda found: TONES[found[1]][dark], asset("plots.json"))
    config: dict[str, Any] = json.loads(re.sub(r'(ontSize": )\d+', rf"\g<1>{FONT}", text))
    own = {"range": {"category": list((LIGHT, DARK)[dark])}, "background": TONES["card"][dark], "padding": PADDING}
    return config | own


def images_of(
    name: str, plot: "Plot", formats: Sequence[str] = FORMATS[:2], width: float = WIDTH, theme: str = THEMES[0]
) -> Iterator[tuple[str, bytes]]:
    """Pictures of each panel of a plot, ``width`` mm wide, without title and caption: files' names and contents."""
    for number, panel in enumerate(plot.panels, start=1):
        for suffix, image in images(_on_paper(plot, panel, width * MM, theme), formats).items():
            yield f"{_file_name(name, number, panel)}.{suffix}", image


def captions_of(name: str, plot: "Plot") -> Iterator[str]:
    """What the page says about each of these pictures, after the name of its file."""
    for number, panel in enumerate(plot.panels, start=1):
        words = f"{plot.title}: {panel.title}. {plot.lead}", panel.caption, *plot.notes
        yield "\n".join((_file_name(name, number, panel), *words, ""))


def images(spec: Spec, formats: Sequence[str] = FORMATS[:2]) -> dict[str, bytes]:
    """A specification as a picture, by the suffix of its file."""
    import vl_convert

    size = r' (width|height)="([\d.]+)"'
    drawn: str = vl_convert.vegalite_to_svg(spec, vl_version=_version())

    def sized(unit: str) -> str:
        """What has no unit is taken for points."""
        return re.sub(size, lambda found: f' {found[1]}="{float(found[2]) * POINTS:.2f}{unit}"', drawn, count=2)

    make: dict[str, Callable[[], bytes]] = {
        "svg": lambda: sized("pt").encode("utf-8", "backslashreplace"),
        "png": lambda: vl_convert.svg_to_png(sized(""), ppi=DPI),
        "pdf": lambda: vl_convert.svg_to_pdf(sized("")),
    }
    return {suffix: make[suffix]() for suffix in formats}


def _file_name(name: str, number: int, panel: "Panel") -> str:
    """``throughput-1-lenet5``: letters, digits, dots and hyphens only, whatever the models are called."""
    return re.sub(r"[^a-z0-9.]+", "-", f"{name}-{number}-{panel.title}".lower())[:NAME_LIMIT].strip("-.")


def _on_paper(plot: "Plot", panel: "Panel", width: float, theme: str) -> Spec:
    """A specification that stands alone: data, colours, width and the legend of what is drawn in it."""
    spec: Spec = json.loads(json.dumps(plot.spec))
    config, longest = paper(theme), max(len(key.label) for key in plot.legend)
    for channel in (layer["encoding"].get(look) for layer in spec["layer"] for look in ("color", "shape", "size")):
        if channel:
            labels = [key.label for key in plot.legend if key.field == channel["field"]]
            channel.setdefault("legend", {"values": labels})
    config["legend"]["columns"] = max(1, int((width - 2 * PADDING) / ((0.6 * longest + 3) * FONT)))
    if plot.wide:  # the names of bars leave no room at the right
        config["legend"]["layout"]["bottom"]["anchor"] = "end"
    height = panel.height or max(plot.spec["height"] * 0.8, width / 2)
    return spec | {"width": width, "height": height, "datasets": {DATA: panel.values}, "config": config}


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
