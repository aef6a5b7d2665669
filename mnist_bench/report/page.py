"""The page: material in, the text of one HTML file out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mnist_bench import figures
from mnist_bench.report import cells, method
from mnist_bench.report.document import document
from mnist_bench.report.material import Material
from mnist_bench.report.panels import Plot


def render(material: Material, plots: Sequence[Plot], bundle: str) -> str:
    """The text of a page that needs no other file.

    Args:
        plots: those of ``plots_of``.
        bundle: the script of ``vega.script``, which draws them.
    """
    return document("page.html.j2", plots, bundle, **_content(material))


def _content(material: Material) -> dict[str, Any]:
    manifest = material.run.manifest
    return {
        "name": figures.plain(manifest.matrix.name),
        "run_id": figures.plain(manifest.run_id),
        "started_at": figures.plain(manifest.started_at),
        "manifest": manifest,
        "program_version": manifest.program_version,
        "counts": cells.counts(material.rows),
        "measured": len(material.measured),
        "highlights": highlights(material),
        "reasons": cells.reasons(material.rows),
        "warnings": method.warnings(material),
        "columns": (*cells.NAMES, *cells.figure_columns(material.rows)),
        "name_columns": len(cells.NAMES),
        "lines": cells.lines(material.rows),
        "footnotes": figures.footnotes(material.measured),
        "environment": method.environment(material),
        "facts": method.measured_how(material),
    }


def highlights(material: Material) -> tuple[tuple[str, str, str], ...]:
    """(model, throughput, cell) of the fastest cell of each model that was measured."""
    best: dict[str, tuple[float, str]] = {}
    for row in material.measured:
        rate = row.train_samples_per_s
        if row.status == "ok" and rate is not None and rate > best.get(row.model, (0.0, ""))[0]:
            best[row.model] = rate, f"{row.variant} on {row.device}, batch {row.batch_size:,}"
    return tuple((figures.plain(m), figures.significant(rate), figures.plain(how)) for m, (rate, how) in best.items())
