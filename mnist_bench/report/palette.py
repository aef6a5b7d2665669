"""Colours and type of the plots. Specifications name no colour: one is on the screen, the other on paper.

The hues are Okabe and Ito's (2008, *Color Universal Design*), told apart with any kind of colour vision; darker on a
light ground, lighter on a dark one, so that each has a contrast of 3:1. Shapes repeat what colours say.
"""

from __future__ import annotations

from typing import Any

from mnist_bench.report.panels import Shape

LIGHT = ("#0a5c8f", "#c8500a", "#00805b", "#a8477f", "#8f6a00", "#3d94d1", "#6b6f76", "#4a3fa8")
DARK = ("#4fa9e2", "#f28a45", "#2fc79b", "#e391bf", "#e3b43c", "#9bd3f5", "#a3a8b0", "#a79cf2")
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


def colour_of(number: int) -> int:
    """The place in the palette of the ``number``-th name, both counted from 1: after the last comes the first."""
    return (number - 1) % len(LIGHT) + 1


def shape_of(number: int) -> Shape:
    return SHAPES[(number - 1) % len(SHAPES)]


def style() -> str:
    """The palette as variables and classes of the page's style sheet, a pair of colours for the two themes."""
    pairs = list(enumerate(zip(LIGHT, DARK, strict=True), start=1))
    variables = "".join(f"--c{number}:light-dark({light},{dark});" for number, (light, dark) in pairs)
    classes = "".join(f".fill{number}{{fill:var(--c{number})}}" for number, _ in pairs) + ".fill0{fill:var(--muted)}"
    return f":root{{{variables}}}{classes}\n"


def screen() -> dict[str, Any]:
    """Vega-Lite's config for the page: every colour is a variable of its style sheet, so that themes need no script."""
    variables = [f"var(--c{number})" for number in range(1, len(LIGHT) + 1)]
    # The page has legends of its own, which wrap.
    return {**_config("var(--ink)", "var(--muted)", "var(--rule)", variables), "legend": {"disable": True}}


def paper() -> dict[str, Any]:
    """The config for PNG and SVG files: dark on white, with a legend."""
    config = _config("#1a1d21", "#565b63", "#d9dce1", list(LIGHT))
    config["legend"] = {
        "orient": "bottom",
        "direction": "horizontal",
        "columns": 4,
        "symbolLimit": 60,
        "symbolOpacity": 1,
    }
    config["legend"] |= {"labelFont": FONT, "titleFont": FONT, "labelLimit": 240, "title": None}
    config["title"] = {
        "font": FONT,
        "fontSize": 14,
        "anchor": "start",
        "subtitleFont": FONT,
        "subtitleColor": "#565b63",
    }
    return {**config, "background": "white", "padding": 16}


def _config(ink: str, muted: str, rule: str, colours: list[str]) -> dict[str, Any]:
    return {
        "aria": False,  # the page puts each plot under a label of its own
        "font": FONT,
        "background": None,
        "view": {"stroke": None},
        "axis": {
            "labelColor": muted,
            "titleColor": muted,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelLimit": 190,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "labelSeparation": 8,
            "gridColor": rule,
            "gridWidth": 1,
        },
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": muted},
        "range": {"category": colours, "ordinal": colours, "symbol": list(SHAPES)},
    }
