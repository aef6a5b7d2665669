"""pytest-benchmark's JSON: for ``pytest-benchmark compare``, and for every tool that reads it.

A cell is a benchmark of the group ``model/batch size``; a round is a member's block in a round of its timing session;
what is counted is seconds per training step. The rounds of all seeds that are ok stand together, so what
``compare`` divides is unpaired: ratios to trust are the speed-ups, in ``extra_info``.
Source: https://pytest-benchmark.readthedocs.io; ``docs/exports.md`` tells the fields apart.
"""

from __future__ import annotations

import bisect
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mnist_bench import figures
from mnist_bench.exporters.cells import known, names
from mnist_bench.records import Environment, Manifest, Session, Trial
from mnist_bench.rows import Row

FORMAT_VERSION = "5.3.1"  # the pytest-benchmark whose fields these are

# Steps and seconds of each round of a cell.
Rounds = Sequence[tuple[int, float]]


def export(manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]) -> bytes:
    """Rows that were never timed in a session are left out."""
    rounds = _rounds_by_cell(trials, sessions)
    shown = [row for row in rows if row.cell.id in rounds]
    document = {
        "machine_info": _machine(manifest.environment),
        "commit_info": _commit(manifest.environment),
        "benchmarks": [
            _benchmark(manifest, row, name, rounds[row.cell.id]) for name, row in zip(names(shown), shown, strict=True)
        ],
        "datetime": manifest.started_at,
        "version": FORMAT_VERSION,
    }
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def timed(rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]) -> tuple[Row, ...]:
    """The rows with a round of a session."""
    rounds = _rounds_by_cell(trials, sessions)
    return tuple(row for row in rows if row.cell.id in rounds)


def statistics_of(seconds: Sequence[float]) -> dict[str, Any]:
    """The statistics of pytest-benchmark, by its own definitions.

    Args:
        seconds: of each round, per iteration; at least one.
    """
    ordered, mean = sorted(seconds), statistics.mean(seconds)
    deviation = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    low, high = _quartiles(ordered)
    fence = 1.5 * (high - low)
    far = sum(not mean - deviation <= one <= mean + deviation for one in seconds)
    outside = sum(not low - fence <= one <= high + fence for one in seconds)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": statistics.median(seconds),
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": ordered[bisect.bisect_left(ordered, low - fence)],
        "hd15iqr": ordered[bisect.bisect_right(ordered, high + fence) - 1],
        "ops": 1 / mean if mean > 0 else 0,
        "total": sum(seconds),
        "data": list(seconds),
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    """Of an even number the medians of the halves, else the third method of https://en.wikipedia.org/wiki/Quartile."""
    count = len(ordered)
    if count == 1:
        return ordered[0], ordered[0]
    if count % 2 == 0:
        return statistics.median(ordered[: count // 2]), statistics.median(ordered[count // 2 :])
    n = count // 4
    if count % 4 == 1:
        return (ordered[n - 1] + 3 * ordered[n]) / 4, (3 * ordered[3 * n] + ordered[3 * n + 1]) / 4
    return (3 * ordered[n] + ordered[n + 1]) / 4, (ordered[3 * n + 1] + 3 * ordered[3 * n + 2]) / 4


def _rounds_by_cell(trials: Sequence[Trial], sessions: Sequence[Session]) -> Mapping[str, Rounds]:
    """The rounds in which a trial that is ok took steps, in the order of the sessions."""
    cells = {trial.id: trial.cell.id for trial in trials if trial.status == "ok"}
    found: dict[str, list[tuple[int, float]]] = {}
    for session in sessions:
        for place, member in enumerate(session.members):
            taken = [(one.steps[place], one.seconds[place]) for one in session.rounds if one.steps[place] > 0]
            if taken and member in cells:
                found.setdefault(cells[member], []).extend(taken)
    return found


def _benchmark(manifest: Manifest, row: Row, name: str, rounds: Rounds) -> dict[str, Any]:
    stats = statistics_of([seconds / steps for steps, seconds in rounds])
    return {
        "group": figures.plain(f"{row.model}/b{row.batch_size}"),
        "name": name,
        "fullname": f"mnist_bench::{name}",
        "params": {
            "model": figures.plain(row.model),
            "device": figures.plain(row.device),
            "batch_size": row.batch_size,
            "variant": figures.plain(row.variant),
        },
        "param": name,
        "extra_info": {"run_id": manifest.run_id, "run_status": manifest.status, **known(row)},
        "options": {"max_time": manifest.matrix.timing.budget_seconds, "warmup": True},
        # One number for all rounds: seeds may differ in the length of their blocks.
        "stats": {**stats, "iterations": statistics.median_low([steps for steps, _ in rounds])},
    }


def _machine(environment: Environment) -> dict[str, Any]:
    return {
        "processor": environment.cpu,
        "machine": environment.details.get("architecture", ""),
        "python_version": environment.python,
        "system": environment.platform,
        "release": environment.details.get("kernel", ""),
        "cpu": {"brand_raw": environment.cpu, "count": environment.cores},
        "memory_bytes": environment.memory_bytes,
        "packages": environment.packages,
    }


def _commit(environment: Environment) -> dict[str, Any]:
    """``unversioned`` is the word for no commit; runs record neither its time nor its branch."""
    return {
        "id": environment.commit or "unversioned",
        "time": None,
        "author_time": None,
        "dirty": environment.dirty,
        "project": "mnist_bench",
        "branch": "(unknown)",
    }
