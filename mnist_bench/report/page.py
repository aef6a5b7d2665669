"""The page: material in, the text of one HTML file out; its plots, data, scripts and style inside it."""

from __future__ import annotations

import base64
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from markupsafe import Markup

from mnist_bench import figures
from mnist_bench.analysis.results import machine, warnings
from mnist_bench.figures import Figure, Row, cell_columns
from mnist_bench.records import STATUSES, RunOptions, Session
from mnist_bench.report import costs, learning, rates, specs
from mnist_bench.report.material import Material, Plot
from mnist_bench.report.specs import asset
from mnist_bench.table import grouped, listed, plain

# The plots, in the order of the page; one that has nothing to show says why.
PLOTS: Mapping[str, Callable[[Material], Plot]] = {
    "throughput": rates.throughput,
    "devices": rates.by_device,
    "compiled": rates.compiled,
    "epochs": learning.by_epoch,
    "time": learning.by_time,
    "steps": costs.step_times,
    "waterfall": costs.waterfall,
    "memory": costs.memory,
}

GIB = 1 << 30
STOPPED = {"precise": "precise enough", "budget": "at the end of the budget", "alone": "timed alone"}
# Inside <script> only these could end the element or open a comment; the separators end lines in old JavaScript.
ESCAPED = "<>&\u2028\u2029"
Facts = tuple[tuple[str, str], ...]


def render(material: Material, plots: Sequence[Plot], bundle: str) -> str:
    """The text of a page that needs no other file.

    Args:
        plots: those of ``PLOTS``.
        bundle: the script of ``vega.script``, which draws them.
    """
    run, manifest, rows = material.run, material.run.manifest, material.rows
    shown = [figure for figure in figures.SHOWN if any(row[figure.key] is not None for row in rows)]
    pending = f"{len(run.pending)} of {len(manifest.trials)} trials have not finished."
    return html(
        "page.html.j2",
        plots,
        bundle,
        program_version=manifest.program_version,
        manifest=manifest,
        machine=" · ".join(machine(manifest.environment)),
        counts={status: n for status in reversed(STATUSES) if (n := sum(row.status == status for row in rows))},
        measured=bool(material.measured),
        fastest=grouped((row for row in rows if row["fastest"]), lambda row: row.cell.model),
        reasons=grouped((row for row in worst_first(rows) if row.status != "ok"), lambda row: (row.status, row.reason)),
        warnings=[*warnings(manifest), *([pending] if run.pending else [])],
        columns=cell_columns(),
        shown=shown,
        lines=[_line(row, shown) for row in worst_first(rows)],
        footnotes=figures.footnotes(map(figures.signs, material.measured)),
        environment=environment(material),
        facts=measured_how(material),
    )


def html(template: str, plots: Sequence[Plot], bundle: str, **content: Any) -> str:
    """A page from a template (of the folder of assets, which extends ``base.html.j2``).

    What it shows is made plain and escaped there (spaces at the ends of a text go), and a policy lets nothing else in.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_bench.report", "assets"),
        autoescape=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = (bundle, asset("page.js"))
    style = specs.style() + asset("page.css")
    return environment.get_template(template).render(
        policy=content_security_policy(scripts, (style,)),
        # Ours, or the bundle, which was looked through: the only texts that are not escaped.
        scripts=[Markup(script) for script in scripts],
        style=Markup(style),
        data=Markup(script_json(_data_of(plots))),
        plots=plots,
        listed=listed,
        **content,
    )


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


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Failed cells first, then skipped ones, then those with figures, each in the order of the matrix."""
    return sorted(rows, key=_rank)


def _rank(row: Row) -> int:
    return {"ok": 2, "skipped": 1}.get(row.status, 0)


def _line(row: Row, shown: Sequence[Figure]) -> dict[str, Any]:
    """A row of the table: ``order`` to sort by; ``words`` that the filter finds it by, with what no column shows."""
    cell, marks = row.cell, figures.signs(row)
    order = (_rank(row), cell.model, cell.device, cell.batch_size, cell.variant, *(row[one.key] for one in shown))
    words = (cell.id, row["device_name"], row["class"], row["doubts"], *figures.footnotes([marks]))
    return {"row": row, "marks": marks, "order": order, "words": " ".join(filter(None, words))}


def measured_how(material: Material) -> Facts:
    """(what, the run's own numbers)."""
    run, matrix = material.run, material.run.manifest.matrix
    measured = [measurement for own in run.ok.values() for _, measurement in own.values()]
    noisy = sum(bool(one.noisy) for one in measured)
    return (
        ("Seeds", f"{len(matrix.seeds)} ({listed([str(seed) for seed in matrix.seeds], 10)})"),
        ("Epochs", f"{matrix.epochs}, recipe {matrix.recipe}"),
        ("Trials", f"{len(run.trials)} finished, {len(measured)} ok, {len(run.pending)} still to come"),
        ("Timing", f"to ±{matrix.timing.precision:.1%} or {matrix.timing.budget_seconds:g} s per cell"),
        *_sessions(run.sessions),
        ("Noisy", f"{noisy} of {len(measured)} trials; {sum(bool(s.noisy) for s in run.sessions)} sessions"),
        ("Options", _options(run.manifest.options)),
    )


def _sessions(sessions: Sequence[Session]) -> Facts:
    """``12, 10 of them paired: 4 precise enough, 8 at the end of the budget`` (why they stopped), and their rounds."""
    stopped: Counter[str] = Counter(session.stopped for session in sessions)
    how = ", ".join(f"{stopped[key]} {words}" for key, words in STOPPED.items() if stopped[key])
    told = f"{len(sessions)}, {sum(session.paired for session in sessions)} of them paired: {how}"
    rounds = [len(session.rounds) for session in sessions if session.rounds]
    span = f"median {statistics.median(rounds):g} per session, {min(rounds)} to {max(rounds)}" if rounds else ""
    return ("Sessions", told if sessions else "none"), ("Rounds", span)


def _options(options: RunOptions) -> str:
    names = [field.name for field in fields(options) if field.name not in ("plugin_path", "merged_from")]
    given = [(name, getattr(options, name)) for name in names]
    words = [name if value is True else f"{name} {value}" for name, value in given if value]
    if options.merged_from:
        words.append(f"merged from {', '.join(options.merged_from)}")
    return ", ".join(words)


def environment(material: Material) -> Facts:
    """The machine and the software, as the run recorded them."""
    manifest = material.run.manifest
    where = manifest.environment
    devices = {f"{row.cell.device}: {row['device_name']}": None for row in material.measured if row["device_name"]}
    threads = sorted({row["threads"] for row in material.measured if row["threads"] is not None})
    commit = f"{where.commit[:12]}{' with changes' if where.dirty else ''}" if where.commit else ""
    return (
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
