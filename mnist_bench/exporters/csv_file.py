"""``results.csv`` for spreadsheets: no cell can start a formula (``spreadsheets.py`` says which could)."""

from __future__ import annotations

from collections.abc import Sequence

from mnist_bench import tables
from mnist_bench.records import Manifest, Session, Trial
from mnist_bench.rows import Row


def export(manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]) -> bytes:
    """Columns and rows as in ``results.csv``; texts on one line, without control characters, harmless."""
    return tables.to_spreadsheet(rows).encode()
