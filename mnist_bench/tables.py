"""Rows to text: CSV, JSON, Markdown, and a table for the terminal. Pure; the terminal's library is imported late."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from mnist_bench import figures
from mnist_bench.markdown import to_markdown
from mnist_bench.records import Manifest, Status
from mnist_bench.rows import EpochRow, Row, columns
from mnist_bench.spreadsheets import harmless

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = [
    "Format",
    "epochs_to_csv",
    "to_csv",
    "to_frame",
    "to_json",
    "to_markdown",
    "to_rich",
    "to_spreadsheet",
    "to_text",
]

Format = Literal["table", "csv", "json", "md"]

ROOMY = 100  # columns of a terminal from which two spaces stand between those of the table
STATUS_STYLES: dict[Status, str] = {"ok": "green", "skipped": "yellow"}  # all others: red


def to_text(format_: Format, manifest: Manifest, rows: Sequence[Row], width: int = 80) -> str:
    """What ``--format`` names, as text that ends with a newline; ``table`` without colours."""
    match format_:
        case "csv":
            return to_spreadsheet(rows)
        case "json":
            return to_json(manifest, rows)
        case "md":
            return to_markdown(manifest, rows)
        case "table":
            return _rendered(to_rich(rows, width), width)


def to_frame(rows: Sequence[Row] | Sequence[EpochRow], row_type: type[Row] | type[EpochRow] = Row) -> pd.DataFrame:
    """The rows as a data frame with the columns of ``row_type``; what was not measured is NA."""
    import pandas as pd  # half a second, which a command that prints no CSV need not wait for

    frame = pd.DataFrame([_record(row) for row in rows], columns=list(columns(row_type)))
    return frame.convert_dtypes()


def to_csv(rows: Sequence[Row]) -> str:
    """``results.csv``: a header even without rows; what was not measured is empty; booleans are true and false.

    For programs: the texts are as they are.
    """
    return _csv(to_frame(rows))


def to_spreadsheet(rows: Sequence[Row]) -> str:
    """``to_csv`` for people, whose spreadsheet must not take a text for a formula."""
    return to_csv([_harmless(row) for row in rows])


def epochs_to_csv(rows: Sequence[EpochRow]) -> str:
    """``epochs.csv``, as ``to_csv``."""
    return _csv(to_frame(rows, EpochRow))


def to_json(manifest: Manifest, rows: Sequence[Row]) -> str:
    """``results.json``: one document; what was not measured is null."""
    matrix = manifest.matrix
    document = {
        "schema_version": manifest.schema_version,
        "run_id": manifest.run_id,
        "name": matrix.name,
        "status": manifest.status,
        "started_at": manifest.started_at,
        "ended_at": manifest.ended_at,
        "program_version": manifest.program_version,
        "matrix_sha256": manifest.matrix_sha256,
        "dataset": {"name": manifest.dataset.name, "sha256": manifest.dataset.sha256},
        "recipe": matrix.recipe,
        "epochs": matrix.epochs,
        "seeds": list(matrix.seeds),
        "environment": asdict(manifest.environment),
        "rows": [_record(row) for row in rows],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the terminal's table. Those of the highest ``rank`` go first where the width does not do."""

    header: str
    show: Callable[[Row], str]
    rank: int = 0
    right: bool = True


_TERMINAL_COLUMNS = (
    _Column("model", lambda row: row.model, right=False),
    _Column("device", lambda row: row.device, right=False),
    _Column("batch", lambda row: f"{row.batch_size:,}"),
    _Column("variant", lambda row: row.variant, right=False),
    _Column("status", lambda row: row.status, right=False),
    _Column("accuracy", lambda row: figures.accuracy(row.test_accuracy, None), rank=1),
    _Column("± seeds", lambda row: "" if row.test_accuracy_std is None else f"{row.test_accuracy_std:.4f}", rank=7),
    _Column("samples/s", lambda row: figures.significant(row.train_samples_per_s)),
    _Column(
        "95 %", lambda row: figures.rate_bounds(row.train_samples_per_s_low, row.train_samples_per_s_high), rank=10
    ),
    _Column("step ms", lambda row: figures.significant(row.step_ms_p50), rank=4),
    _Column("p95", lambda row: figures.significant(row.step_ms_p95), rank=9),
    _Column("epoch s", lambda row: figures.significant(row.epoch_s), rank=5),
    _Column("compile s", lambda row: figures.significant(row.compile_s), rank=6),
    _Column("vs eager", lambda row: figures.ratio(row.speedup_vs_eager), rank=2),
    _Column("95 %", lambda row: figures.bounds(row.speedup_vs_eager_low, row.speedup_vs_eager_high), rank=8),
    _Column("vs cpu", lambda row: figures.ratio(row.speedup_vs_cpu), rank=2),
    _Column("95 %", lambda row: figures.bounds(row.speedup_vs_cpu_low, row.speedup_vs_cpu_high), rank=8),
    _Column("", figures.marks, right=False),
)


def to_rich(rows: Sequence[Row], width: int = 80) -> Table:
    """The rows for a terminal of ``width`` columns: the best of each model bold with a star, reasons below.

    Columns without a figure are left out, then the least needed ones until the rest fits.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    best = figures.fastest(rows)
    gap = 2 if width >= ROOMY else 1
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), show_edge=False, pad_edge=False)
    indent = "  " if best else ""
    shown = _fitting(rows, width - len(indent), gap)
    for column in shown:
        header = indent + column.header if column is shown[0] else column.header
        table.add_column(header, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        star = row.cell.id in best
        cells = [Text(figures.plain(c.show(row)), _style(row) if c.header == "status" else "") for c in shown]
        cells[0] = Text("* " if star else indent).append_text(cells[0])
        table.add_row(*cells, style="bold" if star else None)
    lines = _remarks(rows, starred=bool(best))
    if lines:
        table.caption, table.caption_justify, table.caption_style = Text("\n".join(lines)), "left", ""
    return table


def _fitting(rows: Sequence[Row], width: int, gap: int) -> list[_Column]:
    """The columns that have something to say and fit."""
    all_ok = all(row.status == "ok" for row in rows)
    shown = [c for c in _TERMINAL_COLUMNS if not c.rank or any(c.show(row) for row in rows)]
    shown = [c for c in shown if not (all_ok and c.header == "status")]  # nothing to tell apart

    def taken() -> int:
        widths = (max([len(c.header), *(len(c.show(row)) for row in rows)]) for c in shown)
        return sum(widths) + gap * (len(shown) - 1)

    while taken() > width and any(c.rank for c in shown):
        # max() takes the first of equals: reversed, the rightmost goes.
        shown.remove(max(reversed(shown), key=lambda c: c.rank))
    return shown


def _style(row: Row) -> str:
    return STATUS_STYLES.get(row.status, "red")


def _remarks(rows: Sequence[Row], *, starred: bool) -> list[str]:
    """What the star means, and every reason once, with its cells."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.status != "ok":
            cells.setdefault((row.status, figures.plain(row.reason)), []).append(figures.plain(row.cell.id))
    lines = ["* the best throughput of its model"] if starred else []
    lines += figures.footnotes(rows)
    return lines + [f"{status}: {figures.listed(ids)}: {reason}" for (status, reason), ids in cells.items()]


def _rendered(table: Table, width: int) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _harmless(row: Row) -> Row:
    values = ((field.name, getattr(row, field.name)) for field in fields(row))
    changes: dict[str, Any] = {name: harmless(value) for name, value in values if isinstance(value, str)}
    return replace(row, **changes)


def _csv(frame: pd.DataFrame) -> str:
    switches = frame.select_dtypes("boolean").columns
    words = frame.assign(**{name: frame[name].map({True: "true", False: "false"}) for name in switches})
    return words.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def _record(row: Row | EpochRow) -> dict[str, Any]:
    """A row as its columns, in order."""
    return dict(zip(columns(type(row)), asdict(row).values(), strict=True))
