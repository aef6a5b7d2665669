"""The page: a run in, the text of one HTML file out; its plots, data, scripts and style inside it."""

import base64
import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from mnist_bench import __version__, figures
from mnist_bench.analysis.results import answers, machine, warnings
from mnist_bench.analysis.summary import Run
from mnist_bench.figures import Figure, Row, cell_columns
from mnist_bench.records import CELL_KEYS, STATUSES
from mnist_bench.report import costs, learning, rates, vega
from mnist_bench.report.material import Material, Plot
from mnist_bench.table import grouped, joined, listed, plain, span

MOST_CELLS = 500  # that the table has a row for: of more, for groups of them, and a cell is looked for

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


def render(run: Run, plots: Mapping[str, Plot], bundle: str) -> str:
    """The text of a page that needs no other file.

    Args:
        plots: those of ``PLOTS``, by their names.
        bundle: the script of ``vega.script``, which draws them.
    """
    rows = sorted(run.rows, key=lambda row: row.status == "ok")  # failed ones first
    tried = [row for row in rows if row.status != "skipped"]  # what is missing here is a reason, not half of a table
    measured = [row for row in run.rows if row.seeds]
    shown, others = (
        [one for one in some if any(one.show(row) or one.show_beside(row) for row in measured)]
        for some in (figures.SHOWN, figures.OTHERS)
    )
    accelerators = {f"{row.cell.device}: {row['device_name']}": None for row in measured if row.cell.device != "cpu"}
    return html(
        "page.html.j2",
        plots,
        bundle,
        run=run,
        manifest=run.manifest,
        machine=" · ".join([*machine(run.manifest.environment), *accelerators]),
        counts={status: n for status in reversed(STATUSES) if (n := sum(row.status == status for row in rows))},
        statuses={row.status: None for row in tried},
        measured=measured,
        reasons=grouped((row for row in rows if row.status != "ok"), lambda row: (row.status, row.reason)),
        warnings=warnings(run.manifest),
        answers=answers(run),
        columns=cell_columns(),
        shown=shown,
        others=others,
        lines=[_line(number, row, shown) for number, row in enumerate(tried)],
        groups=_groups(tried, shown) if len(tried) > MOST_CELLS else [],
        footnotes=figures.footnotes(map(figures.signs, measured)),
        trials=[measurement for own in run.ok.values() for _, measurement in own.values()],
        median=statistics.median,
        options=asdict(run.manifest.options),
    )


def html(template: str, plots: Mapping[str, Plot], bundle: str, **content: Any) -> str:
    """A page from a template (of the folder of assets, which extends ``base.html.j2``).

    What it shows is made plain and escaped there (spaces at the ends of a text go), and a policy lets nothing else in.

    Raises:
        ValueError: a number of a plot is not finite.
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
    # Of ``tojson``, which lets no text end its element: all that is not ASCII, and ``<``, ``>`` and ``&``, are escaped.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    drawn = {
        name: {"spec": plot.spec, "panels": [{"values": one.values, "height": one.height} for one in plot.panels]}
        for name, plot in plots.items()
    }
    style = environment.get_template("page.css.j2").render(
        colours=list(zip(vega.LIGHT, vega.DARK, strict=True)), tones=vega.TONES
    )
    # Ours, or the bundle, which was looked through: the only texts that are not escaped.
    scripts = [Markup(bundle), Markup(vega.asset("page.js"))]
    return environment.get_template(template).render(
        policy=f"default-src 'none'; script-src {_digests(*scripts)}; style-src {_digests(style)}",
        scripts=scripts,
        style=Markup(style),
        data={"config": vega.screen(), "dataset": vega.DATA, "plots": drawn},
        plots=plots,
        listed=listed,
        program_version=__version__,
        **content,
    )


def _digests(*texts: str) -> str:
    """What a content-security policy calls these scripts or styles; no ``eval``: Vega's interpreter needs none."""
    digests = (hashlib.sha256(text.encode("utf-8")).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)


def _line(number: int, row: Row, shown: Sequence[Figure]) -> dict[str, Any]:
    """A row of the table: ``order`` to sort by; ``words`` that the filter finds it by, with what no column shows."""
    cell, marks = row.cell, figures.signs(row)
    order = (number, cell.model, cell.device, cell.batch_size, cell.variant, *(row[one.key] for one in shown))
    words = (cell.id, row["device_name"], row["class"], row["doubts"], *figures.footnotes([marks]))
    return {"row": row, "marks": marks, "order": order, "words": " ".join(filter(None, words))}


def _groups(rows: Sequence[Row], shown: Sequence[Figure]) -> list[dict[str, Any]]:
    """A line for all cells that differ in one axis alone, that with the most values; in more axes, if need be."""
    axes = sorted(CELL_KEYS, key=lambda key: len({getattr(row.cell, key) for row in rows}))
    groups, alike = dict[Any, list[Row]](), list(axes)
    while not groups or len(groups) > MOST_CELLS:
        alike.pop()
        groups = grouped(rows, lambda row: tuple(getattr(row.cell, key) for key in alike))
    return [_group(own, axes[len(alike) :], shown) for own in groups.values()]


def _group(rows: Sequence[Row], apart: Sequence[str], shown: Sequence[Figure]) -> dict[str, Any]:
    """``figures``: of each the least and the most of the cells, and what tells the best of them from the others."""
    names = {column.key: [column.show(row) for row in rows] for column in cell_columns()}
    texts, order = [], list[Any]()
    for figure in shown:
        known = sorted((row[figure.key], n) for n, row in enumerate(rows) if row[figure.key] is not None)
        value, best = known[-1 if figure.better == "higher" else 0] if known else (None, 0)
        text = span([one for one, _ in known], figure.text)
        told = joined("best:", *(names[key][best] for key in apart)) if " to " in text and figure.better else ""
        texts.append((text, told))
        order.append(value)
    shared = [listed([*dict.fromkeys(own)]) for own in names.values()]
    counts = {status: n for status in reversed(STATUSES) if (n := sum(row.status == status for row in rows))}
    return {"counts": counts, "names": shared, "figures": texts, "order": (*shared, *order)}
