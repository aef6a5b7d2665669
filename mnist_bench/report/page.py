"""The page: material in, the text of one HTML file out."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from mnist_bench import figures
from mnist_bench.report import cells, method, palette
from mnist_bench.report.embedding import content_security_policy, script_json
from mnist_bench.report.material import Material
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


def render(material: Material, plots: Sequence[Plot], bundle: str) -> str:
    """The text of a page that needs no other file.

    Args:
        plots: those of ``plots_of``.
        bundle: the script of ``vega.script``, which draws them.
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
    page: str = environment.get_template("page.html.j2").render(
        policy=content_security_policy(scripts, (style,)),
        # Ours, or the bundle, which was looked through: the only texts that are not escaped.
        scripts=[Markup(script) for script in scripts],
        style=Markup(style),
        data=Markup(script_json(_data_of(plots))),
        **_content(material, plots),
    )
    return page


def _content(material: Material, plots: Sequence[Plot]) -> dict[str, Any]:
    manifest = material.run.manifest
    return {
        "name": figures.plain(manifest.matrix.name),
        "run_id": figures.plain(manifest.run_id),
        "started_at": figures.plain(manifest.started_at),
        "manifest": manifest,
        "counts": cells.counts(material.rows),
        "measured": len(material.measured),
        "highlights": highlights(material),
        "reasons": cells.reasons(material.rows),
        "warnings": method.warnings(material),
        "plots": plots,
        "columns": (*cells.NAMES, *cells.figure_columns(material.rows)),
        "name_columns": len(cells.NAMES),
        "lines": cells.lines(material.rows),
        "footnotes": figures.footnotes(material.measured),
        "environment": method.environment(material),
        "facts": method.measured_how(material),
        "symbols": SYMBOLS,
    }


def highlights(material: Material) -> tuple[tuple[str, str, str], ...]:
    """(model, throughput, cell) of the fastest cell of each model that was measured."""
    best: dict[str, tuple[float, str]] = {}
    for row in material.measured:
        rate = row.train_samples_per_s
        if row.status == "ok" and rate is not None and rate > best.get(row.model, (0.0, ""))[0]:
            best[row.model] = rate, f"{row.variant} on {row.device}, batch {row.batch_size:,}"
    return tuple((figures.plain(m), figures.significant(rate), figures.plain(how)) for m, (rate, how) in best.items())


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
