"""The page: material in, the text of one HTML file out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mnist_bench import figures
from mnist_bench.report import cells, method
from mnist_bench.report.document import document
from mnist_bench.report.material import Material
from mnist_bench.report.panels import Plot
from mnist_bench.table import plain


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
        "name": plain(manifest.matrix.name),
        "run_id": plain(manifest.run_id),
        "started_at": plain(manifest.started_at),
        "manifest": manifest,
        "program_version": manifest.program_version,
        "counts": cells.counts(material.rows),
        "measured": len(material.measured),
        "highlights": highlights(material),
        "reasons": cells.reasons(material.rows),
        "warnings": method.warnings(material),
        "columns": cells.heads(material.rows),
        "name_columns": len(cells.NAMES),
        "lines": cells.lines(material.rows),
        "footnotes": figures.footnotes(map(figures.signs, material.measured)),
        "environment": method.environment(material),
        "facts": method.measured_how(material),
    }


def highlights(material: Material) -> tuple[tuple[str, str, str], ...]:
    """(model, throughput, cell) of the fastest cell of each model that was measured."""
    best: dict[str, tuple[float, str]] = {}
    for row in material.measured:
        rate = row["train_samples_per_s"]
        if row.status == "ok" and rate is not None and rate > best.get(row.cell.model, (0.0, ""))[0]:
            best[row.cell.model] = rate, f"{row.cell.variant} on {row.cell.device}, batch {row.cell.batch_size:,}"
    return tuple((plain(m), figures.significant(rate), plain(how)) for m, (rate, how) in best.items())
