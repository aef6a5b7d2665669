"""A check for programs: CSV of the cells, one JSON document. The samples stand in ``check.json`` alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mnist_bench.gate.judge import exit_code
from mnist_bench.gate.output import words
from mnist_bench.gate.output.annotations import inert
from mnist_bench.gate.records import Check, Verdict
from mnist_bench.stats import Interval
from mnist_bench.table import harmless


def to_csv(check: Check, verdicts: Sequence[Verdict]) -> str:
    """A header and one line per cell, worst first; a figure that is not known is empty. Safe in a spreadsheet."""
    rows = _records(check, verdicts)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(list(row) for row in rows[:1])
    writer.writerows([_field(value) for value in row.values()] for row in rows)
    return out.getvalue()


def to_json(check: Check, verdicts: Sequence[Verdict]) -> str:
    """One document; a figure that is not known is null."""
    code = exit_code(check, verdicts)
    document = {
        "schema_version": check.schema_version,
        "id": check.id,
        "mode": check.mode,
        "status": check.status,
        "exit_code": code,
        "overall": words.overall(verdicts, code),
        "a": asdict(check.a),
        "b": asdict(check.b),
        "matrix": check.matrix_path,
        "dataset": check.dataset,
        "recipe": check.recipe,
        "started_at": check.started_at,
        "ended_at": check.ended_at,
        "budget_s": check.budget_s,
        "spent_s": check.spent_s,
        "notes": list(check.notes),
        "cells": [
            {**record, "advisories": [asdict(item) for item in one.advisories]}
            for record, one in zip(_records(check, verdicts), words.sorted_worst_first(verdicts), strict=True)
        ],
    }
    # ##[ would be a command to a CI runner; its escape is the same text to a reader of JSON.
    return json.dumps(document, indent=2, allow_nan=False).replace("##[", "#\\u0023[") + "\n"


def _records(check: Check, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The cells as their columns, in order, worst first."""
    noisy = words.noisy_pairs(check)
    return [_record(one, noisy.get(one.cell, 0)) for one in words.sorted_worst_first(verdicts)]


def _record(one: Verdict, noisy_pairs: int) -> dict[str, Any]:
    speed, accuracy = one.speed, one.accuracy
    return {
        "model": one.cell.model,
        "device": one.cell.device,
        "batch_size": one.cell.batch_size,
        "variant": one.cell.variant,
        "verdict": one.kind,
        "text": one.text,
        **_bounded("time_ratio", None if speed is None else speed.ratio),
        "speed_decision": speed and speed.decision,
        "pairs": speed and speed.pairs,
        "noisy_pairs": noisy_pairs,
        "p_slower": speed and speed.p_slower,
        "p_within": speed and speed.p_within,
        "alpha": speed and speed.alpha,
        "accuracy_a": accuracy and accuracy.a,
        "accuracy_b": accuracy and accuracy.b,
        **_bounded("accuracy_change", None if accuracy is None else accuracy.change),
        "accuracy_decision": accuracy and accuracy.decision,
        "seeds": accuracy and accuracy.seeds,
        "identical_seeds": accuracy and accuracy.identical,
    }


def _bounded(name: str, value: Interval | None) -> dict[str, float | None]:
    estimate, low, high = (None, None, None) if value is None else (value.estimate, value.low, value.high)
    return {name: estimate, f"{name}_low": low, f"{name}_high": high}


def _field(value: object) -> object:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.10g}"
        case str():
            return inert(harmless(value))
        case _:
            return value
