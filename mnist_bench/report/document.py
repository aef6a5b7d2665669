"""One HTML file from a template: its plots, scripts and style inside it, and a policy that lets nothing else in."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from mnist_bench.report import palette
from mnist_bench.report.embedding import content_security_policy, script_json
from mnist_bench.report.panels import DATA, Plot

# Outlines of the symbols of the legends, in a box from -6 to 6.
SYMBOLS: dict[str, str] = {
    "circle": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z",
    "square": "M-4,-4H4V4H-4Z",
    "triangle-up": "M0,-5L5,4H-5Z",
    "diamond": "M0,-5.5L4.5,0L0,5.5L-4.5,0Z",
    "cross": "M-5,-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
    "triangle-down": "M0,5L-5,-4H5Z",
    "bar": "M-5,-5H5V5H-5Z",
}


def document(template: str, plots: Sequence[Plot], bundle: str, **content: Any) -> str:
    """The text of a page that needs no other file.

    Args:
        template: a file of the folder of assets, which extends ``base.html.j2``.
        plots: whose sections the template draws.
        bundle: the script of ``vega.script``, which draws them.
        content: what else the template shows; it is escaped there.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_bench.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = (bundle, _asset("page.js"))
    style = palette.style() + _asset("page.css")
    page: str = environment.get_template(template).render(
        policy=content_security_policy(scripts, (style,)),
        # Ours, or the bundle, which was looked through: the only texts that are not escaped.
        scripts=[Markup(script) for script in scripts],
        style=Markup(style),
        data=Markup(script_json(_data_of(plots))),
        plots=plots,
        symbols=SYMBOLS,
        **content,
    )
    return page


def _data_of(plots: Sequence[Plot]) -> dict[str, Any]:
    return {
        "config": palette.screen(),
        "dataset": DATA,
        "plots": {
            plot.id: {
                "spec": dict(plot.spec),
                "panels": [{"values": list(panel.values), "height": panel.height} for panel in plot.panels],
            }
            for plot in plots
            if plot.panels
        },
    }


def _asset(name: str) -> str:
    return resources.files("mnist_bench.report").joinpath("assets", name).read_text(encoding="utf-8")
