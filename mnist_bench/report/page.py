"""The page: material in, the text of one HTML file out; its plots, data, scripts and style inside it."""

from __future__ import annotations

import base64
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from importlib import resources
from typing import Any

from markupsafe import Markup

from mnist_bench import figures
from mnist_bench.analysis.results import machine, warnings
from mnist_bench.figures import Figure, Row
from mnist_bench.records import STATUSES, RunOptions, Session
from mnist_bench.report import specs
from mnist_bench.report.material import Material, Plot
from mnist_bench.table import listed, plain

GIB = 1 << 30
STOPPED = {"precise": "precise enough", "budget": "at the end of the budget", "alone": "timed alone"}
NAMES = ("status", "model", "device", "batch", "variant")
# Inside <script> only these could end the element or open a comment; the separators end lines in old JavaScript.
ESCAPED = "<>&\u2028\u2029"
# Outlines of the symbols of the legends, in a box from -6 to 6.
SYMBOLS: dict[specs.Shape, str] = {
    "circle": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z",
    "square": "M-4,-4H4V4H-4Z",
    "triangle-up": "M0,-5L5,4H-5Z",
    "diamond": "M0,-5.5L4.5,0L0,5.5L-4.5,0Z",
    "cross": "M-5,-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
    "triangle-down": "M0,5L-5,-4H5Z",
    "bar": "M-5,-5H5V5H-5Z",
    "line": "M-6,-1.5H6V1.5H-6Z",
}

Facts = tuple[tuple[str, str], ...]


def render(material: Material, plots: Sequence[Plot], bundle: str) -> str:
    """The text of a page that needs no other file.

    Args:
        plots: those of ``plots_of``.
        bundle: the script of ``vega.script``, which draws them.
    """
    manifest, rows = material.run.manifest, material.rows
    shown = [figure for figure in figures.SHOWN if any(row[figure.key] is not None for row in rows)]
    return html(
        "page.html.j2",
        plots,
        bundle,
        name=plain(manifest.matrix.name),
        run_id=plain(manifest.run_id),
        started_at=plain(manifest.started_at),
        status=manifest.status,
        program_version=plain(manifest.program_version),
        machine=plain(" · ".join(machine(manifest.environment))),
        counts={status: n for status in reversed(STATUSES) if (n := sum(row.status == status for row in rows))},
        measured=bool(material.measured),
        fastest=fastest(rows),
        reasons=reasons(rows),
        warnings=[plain(warning) for warning in warnings(manifest)] + _pending(material),
        heads=[*((name, "") for name in NAMES), *((figure.title, figure.help) for figure in shown)],
        names=len(NAMES),
        lines=[_line(row, shown) for row in worst_first(rows)],
        footnotes=figures.footnotes(map(figures.signs, material.measured)),
        environment=environment(material),
        facts=measured_how(material),
    )


def html(template: str, plots: Sequence[Plot], bundle: str, **content: Any) -> str:
    """A page from a template (of the folder of assets, which extends ``base.html.j2``): what it shows is escaped
    there, and a policy lets nothing else in."""
    import jinja2

    loader = jinja2.PackageLoader("mnist_bench.report", "assets")
    options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, **options)
    scripts = (bundle, _asset("page.js"))
    style = specs.style() + _asset("page.css")
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


def script_json(value: Any) -> str:
    """JSON for a ``<script type="application/json">``, which cannot end its element.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate (bytes that were no UTF-8) cannot be written in UTF-8: as the escape of itself it can.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def content_security_policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Only these scripts and style sheets, and nothing from anywhere; no ``eval`` (Vega's interpreter needs none)."""

    def sources(texts: Sequence[str]) -> str:
        digests = (hashlib.sha256(text.encode("utf-8")).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)

    scripts_and_styles = f"script-src {sources(scripts)}; style-src {sources(styles)}"
    return f"default-src 'none'; {scripts_and_styles}; base-uri 'none'; form-action 'none'"


def _data_of(plots: Sequence[Plot]) -> dict[str, Any]:
    drawn = {
        plot.id: {
            "spec": dict(plot.spec),
            "panels": [{"values": list(panel.values), "height": panel.height} for panel in plot.panels],
        }
        for plot in plots
        if plot.panels
    }
    return {"config": specs.screen(), "dataset": specs.DATA, "plots": drawn}


def _asset(name: str) -> str:
    return resources.files("mnist_bench.report").joinpath("assets", name).read_text(encoding="utf-8")


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Failed cells first, then skipped ones, then those with figures, each in the order of the matrix."""
    return sorted(rows, key=_rank)


def _rank(row: Row) -> int:
    return {"ok": 2, "skipped": 1}.get(row.status, 0)


def _line(row: Row, shown: Sequence[Figure]) -> dict[str, Any]:
    """A cell of the table: its texts by column; ``order`` to sort by; ``words`` that the filter finds it by, too."""
    cell = row.cell
    keys = (_rank(row), cell.model, cell.device, cell.batch_size, cell.variant, *(row[one.key] for one in shown))
    words = (cell.id, row["device_name"], row["class"], row["doubts"], *figures.footnotes([figures.signs(row)]))
    return {
        "status": row.status,
        "seeds": row.seeds,
        "names": (row.status, plain(cell.model), plain(cell.device), f"{cell.batch_size:,}", plain(cell.variant)),
        "figures": [(one.show(row), one.show_beside(row)) for one in shown] if row.seeds else [],
        "order": keys,
        "words": plain(" ".join(word for word in words if word)),
        "reason": plain(row.reason),
        "marks": figures.signs(row),
        "doubts": plain(row["doubts"] or ""),
        "best": bool(row["fastest"]),
    }


def reasons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every reason once, the failed cells' first, with the number of its cells and the first of their names."""
    together: dict[tuple[str, str], list[str]] = {}
    for row in worst_first(rows):
        if row.status != "ok":
            together.setdefault((row.status, plain(row.reason)), []).append(plain(row.cell.id))
    return [
        {"status": status, "text": text, "cells": len(ids), "names": listed(ids)}
        for (status, text), ids in together.items()
    ]


def fastest(rows: Sequence[Row]) -> dict[str, list[tuple[str, str]]]:
    """Of each model, (batch size, the fastest cells, or those that cannot be told from them) by paired ratios."""
    found: dict[str, dict[int, list[str]]] = {}
    for row in rows:
        if row["fastest"]:
            sizes = found.setdefault(plain(row.cell.model), {})
            sizes.setdefault(row.cell.batch_size, []).append(plain(f"{row.cell.variant} on {row.cell.device}"))
    return {
        model: [(f"{size:,}", " or ".join(cells)) for size, cells in sorted(sizes.items())]
        for model, sizes in found.items()
    }


def _pending(material: Material) -> list[str]:
    count = len(material.run.pending)
    return [f"{count} of {len(material.run.manifest.trials)} trials have not finished."] if count else []


def measured_how(material: Material) -> Facts:
    """(what, the run's own numbers)."""
    run, matrix = material.run, material.run.manifest.matrix
    measured = [measurement for own in run.ok.values() for _, measurement in own.values()]
    noisy = sum(bool(one.noisy) for one in measured)
    rounds = [len(session.rounds) for session in run.sessions if session.rounds]
    facts = (
        ("Seeds", f"{len(matrix.seeds)} ({listed([str(seed) for seed in matrix.seeds], 10)})"),
        ("Epochs", f"{matrix.epochs}, recipe {matrix.recipe}"),
        ("Trials", f"{len(run.trials)} finished, {len(measured)} ok, {len(run.pending)} still to come"),
        ("Timing", f"to ±{matrix.timing.precision:.1%} or {matrix.timing.budget_seconds:g} s per cell"),
        ("Sessions", sessions_words(run.sessions)),
        ("Rounds", _rounds_words(rounds)),
        ("Noisy", f"{noisy} of {len(measured)} trials; {sum(bool(s.noisy) for s in run.sessions)} sessions"),
        ("Options", _options_words(run.manifest.options)),
    )
    return tuple((name, text) for name, text in facts if text)


def _rounds_words(counts: Sequence[int]) -> str:
    return f"median {statistics.median(counts):g} per session, {min(counts)} to {max(counts)}" if counts else ""


def _options_words(options: RunOptions) -> str:
    names = [field.name for field in fields(options) if field.name not in ("plugin_path", "sources")]
    given = [(name, getattr(options, name)) for name in names]
    words = [name if value is True else f"{name} {value}" for name, value in given if value]
    merged = [f"merged from {', '.join(options.merged_from)}"] if options.sources else []
    return plain(", ".join(words + merged))


def sessions_words(sessions: Sequence[Session]) -> str:
    """``12, 10 of them paired: 4 precise enough, 8 at the end of the budget`` (why they stopped)."""
    if not sessions:
        return "none"
    stopped: Counter[str] = Counter(session.stopped for session in sessions)
    how = ", ".join(f"{stopped[key]} {words}" for key, words in STOPPED.items() if stopped[key])
    return f"{len(sessions)}, {sum(session.paired for session in sessions)} of them paired: {how}"


def environment(material: Material) -> Facts:
    """The machine and the software, as the run recorded them."""
    manifest = material.run.manifest
    where = manifest.environment
    devices = {f"{row.cell.device}: {row['device_name']}": None for row in material.measured if row["device_name"]}
    threads = sorted({row["threads"] for row in material.measured if row["threads"] is not None})
    commit = f"{where.commit[:12]}{' with changes' if where.dirty else ''}" if where.commit else ""
    facts = (
        ("Processor", f"{where.cpu}, {where.cores} core{'s' * (where.cores != 1)}"),
        ("Memory", f"{where.memory_bytes / GIB:.1f} GiB"),
        ("Devices", "; ".join(devices)),
        ("Threads", ", ".join(map(str, threads))),
        ("Platform", where.platform),
        ("Python", where.python),
        *where.packages.items(),
        ("Commit", commit),
        *((name.replace("_", " "), text) for name, text in where.details.items()),
        ("Data set", f"{manifest.dataset.name} (SHA-256 {manifest.dataset.sha256[:12]}…)"),
        ("Matrix", f"{manifest.matrix_path} (SHA-256 {manifest.matrix_sha256[:12]}…)"),
    )
    return tuple((plain(name), plain(text)) for name, text in facts if text)
