"""``results.csv`` for spreadsheets: no cell can start a formula.

Excel, LibreOffice and Google Sheets execute a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage
return, quoted or not. As OWASP (CSV Injection) and CWE-1236 advise, such a *text* gets an apostrophe before it. Figures
are no texts: a negative number stays a number. Source: https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from mnist_bench import tables
from mnist_bench.figures import harmless
from mnist_bench.records import Manifest, Session, Trial
from mnist_bench.rows import Row


def export(manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]) -> bytes:
    """Columns and rows as in ``results.csv``; texts on one line, without control characters, harmless."""
    return tables.to_csv([_harmless_row(row) for row in rows]).encode()


def _harmless_row(row: Row) -> Row:
    values = ((field.name, getattr(row, field.name)) for field in fields(row))
    changes: dict[str, Any] = {name: harmless(value) for name, value in values if isinstance(value, str)}
    return replace(row, **changes)
