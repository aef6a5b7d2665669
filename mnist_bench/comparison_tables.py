"""Comparisons for programs: CSV of the cells, one JSON document of all. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from mnist_bench.comparisons import (
    AccuracyDifference,
    BatchPoint,
    BreakEven,
    ComparedCell,
    Comparison,
    Crossover,
    GeometricMean,
    MatchedCell,
    RunComparison,
)
from mnist_bench.records import Cell
from mnist_bench.speedups import SpeedUp
from mnist_bench.spreadsheets import harmless


def to_csv(comparison: Comparison | RunComparison) -> str:
    """A header and one line per cell; a figure that is not known is empty. Nothing without cells."""
    records = cell_records(comparison)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(list(record) for record in records[:1])
    writer.writerows([_field(value) for value in record.values()] for record in records)
    return out.getvalue()


def to_json(comparison: Comparison | RunComparison) -> str:
    """The whole comparison as one document; a figure that is not known is null."""
    document = {**_head(comparison), "cells": cell_records(comparison), **_tail(comparison)}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def cell_records(comparison: Comparison | RunComparison) -> list[dict[str, Any]]:
    """The cells as flat records of one set of keys."""
    match comparison:
        case Comparison():
            return [_compared(cell) for cell in comparison.cells]
        case RunComparison():
            return [_matched(cell) for cell in comparison.cells]


def _head(comparison: Comparison | RunComparison) -> dict[str, Any]:
    match comparison:
        case Comparison():
            return {"run_id": comparison.run_id, "by": comparison.by, "reference": comparison.reference}
        case RunComparison():
            differences = [{**asdict(one), "affects": one.affects} for one in comparison.differences]
            return {
                "run_a": comparison.run_a,
                "run_b": comparison.run_b,
                "across_machines": comparison.across_machines,
                "differences": differences,
            }


def _tail(comparison: Comparison | RunComparison) -> dict[str, Any]:
    match comparison:
        case Comparison():
            return {
                "geometric_means": _means(comparison.means),
                "crossovers": [_crossover(one) for one in comparison.crossovers],
                "break_evens": [_break_even(one) for one in comparison.break_evens],
            }
        case RunComparison():
            return {
                "geometric_means_of_throughput": _means(comparison.throughput_means),
                "geometric_means_of_steps": _means(comparison.step_means),
            }


def _compared(one: ComparedCell) -> dict[str, Any]:
    return {
        **_names(one.cell),
        "reference": one.reference and one.reference.id,
        "status": one.status,
        "reason": one.reason,
        **_ratio("speedup", one.speed_up),
        "paired": one.speed_up and one.speed_up.paired,
        **_accuracy("accuracy", "reference_accuracy", one.accuracy),
        "noisy": one.noisy,
        "class": one.class_,
    }


def _matched(one: MatchedCell) -> dict[str, Any]:
    return {
        **_names(one.cell),
        "status_a": one.status_a,
        "status_b": one.status_b,
        "reason": one.reason,
        **_ratio("throughput_ratio", one.throughput),
        **_ratio("step_ratio", one.step),
        **_accuracy("accuracy_b", "accuracy_a", one.accuracy),
        "noisy": one.noisy,
        "class": one.class_,
        "differs": ", ".join(difference.field for difference in one.differences),
    }


def _names(cell: Cell) -> dict[str, Any]:
    return {"model": cell.model, "device": cell.device, "batch_size": cell.batch_size, "variant": cell.variant}


def _ratio(name: str, speed: SpeedUp | None) -> dict[str, Any]:
    return {name: speed and speed.ratio, f"{name}_low": speed and speed.low, f"{name}_high": speed and speed.high}


def _accuracy(this: str, reference: str, accuracy: AccuracyDifference | None) -> dict[str, Any]:
    return {
        this: accuracy and accuracy.this,
        reference: accuracy and accuracy.reference,
        "accuracy_difference": accuracy and accuracy.difference,
        "accuracy_difference_low": accuracy and accuracy.low,
        "accuracy_difference_high": accuracy and accuracy.high,
        "accuracy_seeds": accuracy and accuracy.seeds,
        "accuracy_verdict": accuracy and accuracy.verdict,
    }


def _means(means: Sequence[GeometricMean]) -> list[dict[str, Any]]:
    return [{name.rstrip("_"): value for name, value in asdict(one).items()} for one in means]


def _crossover(one: Crossover) -> dict[str, Any]:
    def ends(points: Iterable[tuple[str, BatchPoint]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, point in points:
            found |= {f"batch_size{name}": point.batch_size, f"where{name}": point.where}
        return found

    return {
        "model": one.model,
        "device": one.device,
        "variant": one.variant,
        **ends([("", one.estimate), ("_low", one.low), ("_high", one.high)]),
        "smallest_measured": one.smallest,
        "largest_measured": one.largest,
        "reason": one.reason,
    }


def _break_even(one: BreakEven) -> dict[str, Any]:
    known = {name: value for name, value in asdict(one).items() if name not in ("cell", "reference")}
    return {**_names(one.cell), "reference": one.reference.id, **known}


def _field(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.10g}"
        case str():
            return harmless(value)
        case _:
            return value
