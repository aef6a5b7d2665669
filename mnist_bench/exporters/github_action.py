"""github-action-benchmark: two files, since one can hold only figures of which smaller, or bigger, is better.

For its tools ``customSmallerIsBetter`` and ``customBiggerIsBetter``; source:
https://github.com/benchmark-action/github-action-benchmark
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mnist_bench import figures
from mnist_bench.exporters.cells import measured, names
from mnist_bench.exporters.measures import MEASURES, Better, Measure, Reading
from mnist_bench.records import Manifest, Session, Trial
from mnist_bench.rows import Row


def export_smaller(
    manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]
) -> bytes:
    """Times and memory."""
    return _export("smaller", manifest, rows)


def export_bigger(
    manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]
) -> bytes:
    """Throughput and accuracy."""
    return _export("bigger", manifest, rows)


def _export(better: Better, manifest: Manifest, rows: Sequence[Row]) -> bytes:
    """An array of entries, one per cell and measure. Rows without a figure are left out."""
    shown = measured(rows)
    entries = [
        _entry(f"{name} · {measure.title}", measure, reading, _extra(manifest, row))
        for name, row in zip(names(shown), shown, strict=True)
        for measure in MEASURES
        if measure.better == better and (reading := measure.read(row)) is not None
    ]
    return (json.dumps(entries, indent=2, allow_nan=False) + "\n").encode()


def _entry(name: str, measure: Measure, reading: Reading, extra: str) -> dict[str, str | float]:
    entry: dict[str, str | float] = {"name": name, "unit": measure.unit, "value": reading.value, "extra": extra}
    if reading.low is not None and reading.high is not None:
        # The action takes a range apart as ± and a decimal number, and rescales it with the value.
        entry["range"] = f"± {(reading.high - reading.low) / 2:.9f}"
    return entry


def _extra(manifest: Manifest, row: Row) -> str:
    """What the chart shows under the pointer: what one must know before believing a point."""
    lines = [
        f"run: {manifest.run_id}",
        f"seeds: {row.seeds}",
        f"data: {row.dataset}, recipe {row.recipe}",
        f"device: {row.device_name or row.device}",
        "" if row.status == "ok" else f"{row.status}: {row.reason}",
        *figures.footnotes([row]),
    ]
    return "\n".join(figures.plain(line) for line in lines if line)
