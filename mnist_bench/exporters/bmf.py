"""Bencher Metric Format: for ``bencher run --adapter json --file``.

Source: https://bencher.dev/docs/reference/bencher-metric-format
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mnist_bench.exporters.cells import measured, names
from mnist_bench.exporters.measures import MEASURES, Measure, Reading
from mnist_bench.records import Manifest, Session, Trial
from mnist_bench.rows import Row


def export(manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]) -> bytes:
    """An object: cell -> measure -> value and, where known, its bounds. Rows without a figure are left out."""
    shown = measured(rows)
    document = {name: _metrics(row) for name, row in zip(names(shown), shown, strict=True)}
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def _metrics(row: Row) -> dict[str, dict[str, float]]:
    readings = ((measure, measure.read(row)) for measure in MEASURES)
    return {measure.slug: _metric(measure, reading) for measure, reading in readings if reading is not None}


def _metric(measure: Measure, reading: Reading) -> dict[str, float]:
    values = {"value": reading.value, "lower_value": reading.low, "upper_value": reading.high}
    return {key: value * measure.slug_scale for key, value in values.items() if value is not None}
