"""``check.json``: a check with every sample and its verdicts, and back.

What is read must be what was written: the values are decoded, encoded again, and compared. So an unknown key, one that
is missing though it has a default, or a text where a figure belongs is refused, not guessed at. Figures keep all their
digits: a verdict that is judged again from rounded samples might be another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mnist_bench.errors import UsageError
from mnist_bench.gate.bounds import is_figure, is_log_ratio, session_problem
from mnist_bench.gate.output.differences import Difference, differences
from mnist_bench.gate.output.layout import laid_out
from mnist_bench.gate.records import CHECK_SCHEMA_VERSION, CellEvidence, Check, Margins, Verdict
from mnist_bench.records import Round
from mnist_bench.table import plain
from mnist_bench.validation import explain

_VERSION = "schema_version"
AS_WRITTEN = "it was edited or cut short: take the file again as the check wrote it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    check: Check
    verdicts: tuple[Verdict, ...]


_DOCUMENT = TypeAdapter(_Document)
_VERDICTS = TypeAdapter(tuple[Verdict, ...])


def encode(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    """The document as UTF-8: ``schema_version``, then ``check``, then ``verdicts``, indented.

    Raises:
        ValueError: a figure is not finite, or the check has another schema version than this program writes.
    """
    if check.schema_version != CHECK_SCHEMA_VERSION:
        raise ValueError(f"check.schema_version is {check.schema_version}, not {CHECK_SCHEMA_VERSION}")
    values = _DOCUMENT.dump_python(_Document(check=check, verdicts=tuple(verdicts)), mode="json")
    for where, figure in _no_figures(values, ""):
        raise ValueError(f"{where} is {figure}: only finite figures are stored")
    version = values["check"].pop(_VERSION)
    text = laid_out({_VERSION: version, **values}) + "\n"
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes the JSON escape of itself


def decode(data: bytes, source: str = "check.json") -> tuple[Check, tuple[Verdict, ...]]:
    """The inverse of ``encode``.

    Args:
        source: the file's name, for errors.

    Raises:
        UsageError: no JSON, another schema version, a key that is missing or unknown, a figure that is none or out of
            bounds; the message says where, and what to do.
    """
    try:
        values = _with_version(_parsed(data))
        document = _DOCUMENT.validate_python(values)
        for one in differences(values, _DOCUMENT.dump_python(document, mode="json")):
            raise ValueError(f"{one.where}: {_misread(one)}; {AS_WRITTEN}")
        for problem in _out_of_bounds(document.check):
            raise ValueError(f"{problem}; {AS_WRITTEN}")
    except (ValidationError, RecursionError) as error:
        raise UsageError(f"{source}: {plain(explain(error))}; {AS_WRITTEN}") from error
    except ValueError as error:
        raise UsageError(f"{source}: {plain(str(error))}") from error
    return document.check, document.verdicts


def verdict_values(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Verdicts as the JSON values that stand in the document."""
    values: list[dict[str, Any]] = _VERDICTS.dump_python(tuple(verdicts), mode="json")
    return values


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except RecursionError:
        raise
    except ValueError as error:  # UnicodeDecodeError too
        raise ValueError(f"is not JSON: {error}; {AS_WRITTEN}") from error
    if not isinstance(values, dict) or _VERSION not in values:
        raise ValueError(f"is no check.json: it has no {_VERSION}; name the file that a check wrote")
    return values


def _with_version(values: dict[str, Any]) -> dict[str, Any]:
    """The values as ``_Document`` has them, of this program's version, finite."""
    version = values[_VERSION]
    if version != CHECK_SCHEMA_VERSION or isinstance(version, bool):
        raise ValueError(
            f"has {_VERSION} {version!r}, but this mnist-bench reads {CHECK_SCHEMA_VERSION}: "
            "read it with the version that wrote it (check.program_version names it)"
        )
    for where, figure in _no_figures(values, ""):
        raise ValueError(f"{where} is {figure!r:.40}, which is no figure; {AS_WRITTEN}")
    check = values.get("check")
    if not isinstance(check, dict) or _VERSION in check:
        raise ValueError(f"check: is missing, or not as written; {AS_WRITTEN}")
    rest = {key: value for key, value in values.items() if key != _VERSION}
    return {**rest, "check": {**check, _VERSION: version}}


def _misread(one: Difference) -> str:
    if one.right is None:
        return "an unknown key" if one.missing == "right" else f"{one.left!r:.60} is not what belongs here"
    return "is missing" if one.missing == "left" else f"{one.left!r:.60} is not what belongs here"


def _no_figures(value: Any, where: str) -> Iterator[tuple[str, float]]:
    """Numbers that are not finite, or beyond anything that was measured."""
    match value:
        case float() | int():
            if not is_figure(value):
                yield where, value
        case dict():
            for key, item in value.items():
                yield from _no_figures(item, f"{where}.{key}" if where else str(key))
        case list():
            for number, item in enumerate(value):
                yield from _no_figures(item, f"{where}[{number}]")


def _out_of_bounds(check: Check) -> Iterator[str]:
    """What no check writes and no judge could work with."""
    yield from (f"check.margins.{problem}" for problem in _margin_problems(check.margins))
    for number, cell in enumerate(check.cells):
        yield from (f"check.cells[{number}].{problem}" for problem in _cell_problems(cell))
    names = [cell.cell for cell in check.cells]
    if len(set(names)) < len(names):
        yield "check.cells: a cell stands there twice"


def _margin_problems(margins: Margins) -> Iterator[str]:
    if not 0 <= margins.margin < margins.detect:
        yield f"margin {margins.margin} must lie between 0 and detect ({margins.detect})"
    if not 0 <= margins.drop < margins.drop_detect:
        yield f"drop {margins.drop} must lie between 0 and drop_detect ({margins.drop_detect})"
    for name in ("alpha", "drop_alpha"):
        if not 0 < getattr(margins, name) < 1:
            yield f"{name} {getattr(margins, name)} must lie between 0 and 1"


def _cell_problems(cell: CellEvidence) -> Iterator[str]:
    for number, pair in enumerate(cell.pairs):
        if not is_log_ratio(pair.log_ratio):
            yield f"pairs[{number}].log_ratio: {pair.log_ratio} is no ratio of two times"
        if not all(map(_sound, pair.rounds)):
            yield f"pairs[{number}].rounds: a round has an order, and steps and seconds of A and of B"
    for number, seed in enumerate(cell.seeds):
        for side in (seed.a, seed.b):
            if not (0 <= side.accuracy <= 1 and side.images > 0):
                yield f"seeds[{number}]: an accuracy lies between 0 and 1, of one image or more"
    if cell.solo and not (0 <= cell.solo.b.accuracy <= 1 and cell.solo.b.images > 0):
        yield "solo: an accuracy lies between 0 and 1, of one image or more"
    for session in (*cell.ratios.a, *cell.ratios.b) if cell.ratios else ():
        if problem := session_problem(session):
            yield f"ratios.{problem}"
    if len({pair.number for pair in cell.pairs}) < len(cell.pairs):
        yield "pairs: a number stands there twice"
    if len({seed.seed for seed in cell.seeds}) < len(cell.seeds):
        yield "seeds: a seed stands there twice"


def _sound(one: Round) -> bool:
    members = len(one.steps)
    fits = members == 2 and len(one.seconds) == members and set(one.order) <= set(range(members))
    return fits and all(
        steps > 0 < seconds or steps == 0 <= seconds for steps, seconds in zip(one.steps, one.seconds, strict=True)
    )
