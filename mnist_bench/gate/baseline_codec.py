"""A baseline as a file for reviewers: JSON, cells sorted, a block of short lines each, and back. Pure.

Figures of the seeds stand in columns: one line a figure, one value a seed, or a single value where all are equal. So
the line of the accuracies stays as it is when only times have changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter

from mnist_bench.gate.baseline import (
    MIB,
    RATIO_DIGITS,
    Baseline,
    BaselineCell,
    CellRatios,
    Source,
    rounded,
)
from mnist_bench.gate.bounds import is_figure, is_log_ratio, session_problem
from mnist_bench.gate.records import SessionLogRatio, Training
from mnist_bench.gate.run_figures import cell_of
from mnist_bench.validation import explain

FORMAT = "mnist-bench baseline"
SCHEMA_VERSION = 1
WIDTH = 100  # of a line; a list that does not fit has one value a line
IN_MIB = ("host_peak_bytes", "device_peak_bytes")  # as the file has them
SESSION_FIELDS = tuple(field.name for field in fields(SessionLogRatio) if field.name not in ("seed", "log_ratio"))

_CELL = TypeAdapter(BaselineCell)
_SOURCE = TypeAdapter(Source)

_Json = dict[str, Any]
_T = TypeVar("_T")
_Number = TypeVar("_Number", int, float)


def encode(baseline: Baseline) -> bytes:
    """The whole file, ASCII.

    Raises:
        ValueError: a figure is not finite.
    """
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "runs": {source.run_id: _without(asdict(source), "run_id") for source in baseline.sources},
        "cells": {one.cell.id: _cell_to_json(one) for one in baseline.cells},
    }
    return (_text(document, 0) + "\n").encode("ascii")


def decode(data: bytes) -> Baseline:
    """The inverse of ``encode``.

    Raises:
        ValueError: no baseline, one of a newer schema, or a broken one; the message says where.
    """
    document = _object(
        json.loads(
            data.decode(),
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_figure,
            parse_int=_whole,
        ),
        "a baseline",
    )
    if document.get("format") != FORMAT:
        raise ValueError(f"no baseline: its `format` is not {FORMAT!r}")
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"schema_version must be a whole number from 1, not {version!r}")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"written by a newer mnist_bench (schema {version}; this one reads up to {SCHEMA_VERSION}): upgrade it"
        )
    runs, cells = (_object(document.get(name), name) for name in ("runs", "cells"))
    sources = [_placed(f"runs.{run_id}", _source, run_id, values) for run_id, values in runs.items()]
    found = [_placed(f"cells.{cell_id}", _cell_from_json, cell_id, values) for cell_id, values in cells.items()]
    for one in found:
        if one.run_id not in runs:
            raise ValueError(f"cells.{one.cell.id}.run: {one.run_id!r} is not among the runs")
    return Baseline(
        sources=tuple(sorted(sources, key=lambda source: source.run_id)),
        cells=tuple(sorted(found, key=lambda one: one.cell)),
    )


def _cell_to_json(one: BaselineCell) -> _Json:
    head: _Json = {"run": one.run_id, "status": one.status}
    if one.status == "skipped":
        return {**head, "reason": one.reason}
    return {
        **head,
        "settings": dict(one.settings or {}),
        "key": asdict(one.key) if one.key else None,
        "step_ms_p50": one.step_ms_p50,
        "seeds": [figures.seed for figures in one.seeds],
        **_training_columns([figures.training for figures in one.seeds]),
        "ratios": one.ratios and _ratios_to_json(one.ratios),
    }


def _cell_from_json(cell_id: str, values: Any) -> BaselineCell:
    rest = dict(_object(values, "a cell"))
    record: _Json = {
        "cell": asdict(cell_of(cell_id)),
        "run_id": _take(rest, "run"),
        "status": _take(rest, "status"),
    }
    if record["status"] == "skipped":
        record["reason"] = _take(rest, "reason")
    else:
        record |= {name: _take(rest, name) for name in ("settings", "key", "step_ms_p50")}
        seeds = _seeds(_take(rest, "seeds"))
        record["seeds"] = [
            {"seed": seed, "training": training}
            for seed, training in zip(seeds, _training_rows(rest, len(seeds)), strict=True)
        ]
        record["ratios"] = _ratios_from_json(_take(rest, "ratios"))
    _nothing_left(rest)
    return _sound(_CELL.validate_python(record))


def _training_columns(trainings: Sequence[Training]) -> _Json:
    rows = [asdict(training) for training in trainings]
    columns: _Json = {}
    for field in fields(Training):
        values = [row[field.name] for row in rows]
        if field.name in IN_MIB:
            values = [None if value is None else value // MIB for value in values]
        columns[_column(field.name)] = _column_to_json(values)
    return columns


def _training_rows(rest: _Json, count: int) -> list[_Json]:
    columns: dict[str, list[Any]] = {}
    for field in fields(Training):
        values = _column_from_json(rest, _column(field.name), count)
        if field.name in IN_MIB:
            values = [value * MIB if isinstance(value, int) else value for value in values]
        columns[field.name] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _ratios_to_json(ratios: CellRatios) -> _Json:
    sessions = ratios.sessions
    return {
        "reference": ratios.reference,
        "reference_sha256": ratios.reference_sha256,
        "seeds": [session.seed for session in sessions],
        # As the tables have it: above 1 this cell is faster. A person reads 0.84, not 0.174.
        "speedup": _column_to_json([rounded(math.exp(-one.log_ratio), RATIO_DIGITS) for one in sessions]),
        **{name: _column_to_json([getattr(one, name) for one in sessions]) for name in SESSION_FIELDS},
    }


def _ratios_from_json(values: Any) -> _Json | None:
    if values is None:
        return None
    rest = dict(_object(values, "ratios"))
    reference, digest = _take(rest, "reference"), _take(rest, "reference_sha256")
    seeds = _seeds(_take(rest, "seeds"), distinct=False)
    columns = {"seed": seeds, "log_ratio": [-_log(one) for one in _column_from_json(rest, "speedup", len(seeds))]}
    columns |= {name: _column_from_json(rest, name, len(seeds)) for name in SESSION_FIELDS}
    _nothing_left(rest)
    sessions = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"reference": reference, "reference_sha256": digest, "sessions": sessions}


def _source(run_id: str, values: Any) -> Source:
    return _SOURCE.validate_python({**_object(values, "a run"), "run_id": run_id})


def _sound(one: BaselineCell) -> BaselineCell:
    """What types cannot say. Raises ValueError."""
    if one.status == "ok" and not (one.seeds and one.key):
        raise ValueError("a measured cell has a key and at least one seed")
    for figures in one.seeds:
        if not 0 <= figures.training.accuracy <= 1 or figures.training.images < 1:
            raise ValueError(f"seed {figures.seed}: an accuracy lies in [0, 1], and is of 1 image at least")
    for session in one.ratios.sessions if one.ratios else ():
        if problem := session_problem(session):
            raise ValueError(f"ratios.{problem}")
    return one


def _column(name: str) -> str:
    return name.replace("_bytes", "_mib") if name in IN_MIB else name


def _column_to_json(values: Sequence[Any]) -> Any:
    return values[0] if values and all(value == values[0] for value in values) else list(values)


def _column_from_json(rest: _Json, name: str, count: int) -> list[Any]:
    value = _take(rest, name)
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name}: {len(value)} values for {count} seeds")
    return value


def _seeds(value: Any, *, distinct: bool = True) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(seed, int) for seed in value):
        raise ValueError("seeds: a list of whole numbers is wanted")
    if distinct and len(set(value)) < len(value):
        raise ValueError("seeds: one of them stands there twice")
    return value


def _log(value: Any) -> float:
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"speedup: {value!r} is no ratio: it is a number above 0")
    if not is_log_ratio(found := math.log(value)):
        raise ValueError(f"speedup: {value!r} is no ratio of two times")
    return found


def _take(rest: _Json, name: str) -> Any:
    if name not in rest:
        raise ValueError(f"{name} is missing")
    return rest.pop(name)


def _nothing_left(rest: Mapping[str, Any]) -> None:
    if rest:
        raise ValueError(f"unknown key {next(iter(rest))!r}")


def _placed(where: str, make: Callable[[str, Any], _T], name: str, values: Any) -> _T:
    try:
        return make(name, values)
    except ValueError as error:
        raise ValueError(f"{where}: {explain(error)}") from error


def _without(values: _Json, name: str) -> _Json:
    return {key: value for key, value in values.items() if key != name}


def _text(value: Any, depth: int) -> str:
    """JSON in which what holds nothing but plain values is one line where it fits."""
    compact = json.dumps(_brief(value), allow_nan=False)
    if not isinstance(value, dict | list) or not value:
        return compact
    items = value.values() if isinstance(value, dict) else value
    if not any(isinstance(item, dict | list) for item in items) and 2 * depth + len(compact) <= WIDTH:
        return compact
    inner = "  " * (depth + 1)
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(name)}: {_text(item, depth + 1)}" for name, item in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + "  " * depth + "}"
    return "[\n" + ",\n".join(inner + _text(item, depth + 1) for item in value) + "\n" + "  " * depth + "]"


def _brief(value: Any) -> Any:
    """Whole figures without ``.0``."""
    match value:
        case float() if value.is_integer() and abs(value) < 1e15:
            return int(value)
        case dict():
            return {name: _brief(item) for name, item in value.items()}
        case list():
            return [_brief(item) for item in value]
        case _:
            return value


def _object(value: Any, what: str) -> _Json:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object, not {type(value).__name__}")
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> _Json:
    found: _Json = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands there twice (a merge that went wrong?)")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a figure")


def _figure(text: str) -> float:
    return _bounded(text, float(text))


def _whole(text: str) -> int:
    return _bounded(text, int(text))


def _bounded(text: str, value: _Number) -> _Number:
    if not is_figure(value):
        raise ValueError(f"{text:.40} is too large for a figure")
    return value
