"""Records to JSON and back: what the lines of ``trials.jsonl`` and ``sessions.jsonl`` and the manifest look like.

A trial's line carries ``status``, which tells its outcome apart (``ok``: Measurement, ``skipped``: Skip, else a
Failure of that kind). Floats are rounded to 6 significant digits: finer than any clock here, and 50 epochs fit 4 KB.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypeVar, get_type_hints

import msgspec

from mnist_bench.errors import BenchError
from mnist_bench.records import Failure, Manifest, Measurement, Outcome, Session, Side, Skip, Status, Trial

SCHEMA_VERSION = 2  # 2: ``Measurement.final``, which a line of version 1 lacks
SIGNIFICANT_DIGITS = 6
LINE_LIMIT = 4096  # bytes of a line of trials.jsonl, newline included
# What a measurement can move to a file of its own when its line is too long, in this order.
SPILLABLE = ("loss_trace", "epochs", "interference", "numerics", "noisy", "marks")

# A trial but for its outcome, whose type the status tells.
_HINTS = {name: hint for name, hint in get_type_hints(Trial).items() if name not in ("outcome", "side")}
_Line = msgspec.defstruct("_Line", [*_HINTS.items(), ("status", Status), ("side", Side | None, None)])

_T = TypeVar("_T")


def to_json(record: Any) -> bytes:
    """A record as one compact line of UTF-8, without its newline.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate (bytes that were no UTF-8 in a worker's message) becomes the JSON escape of itself.
    return text.encode("utf-8", "backslashreplace")


def from_json(data: bytes) -> Any:
    """The inverse of ``to_json``.

    Raises:
        ValueError: not JSON, or a number in it is not finite (NaN, Infinity, 1e999).
    """
    try:
        return msgspec.json.decode(data)  # three times as fast as json
    except (msgspec.DecodeError, UnicodeDecodeError):
        # It refuses lone surrogates, which ``to_json`` may have written; of all else json says what is wrong.
        return json.loads(data, parse_constant=_refuse_constant, parse_float=_finite)


def encode_trial(trial: Trial) -> dict[str, Any]:
    """A trial as JSON values, ``status`` right after ``id``; ``Measurement.class_`` is written ``class``.

    Raises:
        ValueError: a float is not finite.
    """
    record = _rounded(_values(trial), "trial")
    outcome = record.pop("outcome")
    if trial.side is None:
        del record["side"]
    if isinstance(trial.outcome, Measurement):
        outcome["class"] = outcome.pop("class_")
    return {"id": record.pop("id"), "status": trial.status, **record, "outcome": outcome}


def decode_trial(record: dict[str, Any]) -> Trial:
    """The inverse of ``encode_trial``.

    Raises:
        ValueError: a key is missing or of a wrong type, or the status does not fit the outcome.
    """
    line = msgspec.structs.asdict(_valid(_Line, _mapping(record, "a trial")))
    outcome = _decode_outcome(line.pop("status"), dict(_mapping(record.get("outcome"), "outcome")))
    return Trial(**line, outcome=outcome)


def fit_line(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An encoded trial as a line of at most 4,096 bytes, and the figures that had to leave it (mostly none).

    Raises:
        BenchError: the line is too long all the same.
    """
    more: dict[str, Any] = {}
    if not _fits(record) and "reason" in record["outcome"]:
        record = _with_short_reason(record)
    elif not _fits(record):
        outcome = {**record["outcome"], "more": True}
        for key in SPILLABLE:
            more[key] = outcome.pop(key)
            record = {**record, "outcome": outcome}
            if _fits(record):
                break
    if not _fits(record):
        raise BenchError(f"trial {record['id']}: its line is over {LINE_LIMIT} bytes: use shorter names")
    return record, more


def is_partial(record: Any) -> bool:
    """Whether figures of this line stand in a file of their own."""
    outcome = record.get("outcome") if isinstance(record, dict) else None
    return isinstance(outcome, dict) and outcome.get("more") is True


def merge_line(record: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The inverse of ``fit_line``."""
    outcome = {key: value for key, value in record["outcome"].items() if key != "more"}
    return {**record, "outcome": {**outcome, **_mapping(more, "the file of its figures")}}


def encode_session(session: Session) -> dict[str, Any]:
    """A session as JSON values.

    Raises:
        ValueError: a float is not finite.
    """
    record: dict[str, Any] = _rounded(_values(session), "session")
    return record


def decode_session(record: dict[str, Any]) -> Session:
    """The inverse of ``encode_session``; ValueError as in ``decode_trial``."""
    session = _valid(Session, record)
    count = len(session.members)
    for number, one in enumerate(session.rounds):
        fits = not one.order or (min(one.order) >= 0 and max(one.order) < count)
        if len(one.steps) != count or len(one.seconds) != count or not fits:
            raise ValueError(f"rounds[{number}] does not fit the {count} members")
    return session


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as indented JSON, for people as much as for programs."""
    values = _values(manifest)
    return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def decode_manifest(data: bytes) -> Manifest:
    """The inverse of ``encode_manifest``.

    Raises:
        ValueError: not a manifest, or one of a newer schema; the message says which.
    """
    values = _mapping(from_json(data), "a manifest")
    version = values.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"schema_version must be a whole number from 1, not {version!r}")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"written by a newer mnist_bench (schema {version}; this one reads up to {SCHEMA_VERSION}): upgrade it"
        )
    return _valid(Manifest, values)


def _decode_outcome(status: Any, outcome: dict[str, Any]) -> Outcome:
    if status == "ok":
        if "class" in outcome:
            outcome["class_"] = outcome.pop("class")
        measurement = _valid(Measurement, outcome, "outcome: ")
        epochs = measurement.epochs
        if len({len(epochs.train_s), *map(len, (epochs.loader_s, epochs.loss, epochs.eval_s, epochs.accuracy))}) != 1:
            raise ValueError("outcome.epochs: its lists differ in length")
        return measurement
    if status == "skipped":
        return _valid(Skip, outcome, "outcome: ")
    failure = _valid(Failure, outcome, "outcome: ")
    if failure.kind != status:
        raise ValueError(f"status {status!r} does not fit the outcome's kind {failure.kind!r}")
    return failure


def _values(record: Any) -> Any:
    return msgspec.to_builtins(record, enc_hook=lambda scalar: scalar.item())  # of NumPy


def _valid(kind: type[_T], value: Any, where: str = "") -> _T:
    """JSON values as a record: nothing that comes from a file is believed unchecked."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}{error}") from error


def _with_short_reason(record: dict[str, Any]) -> dict[str, Any]:
    reason = record["outcome"]["reason"]

    def shortened(length: int) -> dict[str, Any]:
        return {**record, "outcome": {**record["outcome"], "reason": reason[:length].rstrip() + "…"}}

    fits, over = 0, len(reason)
    while over - fits > 1:  # the length in bytes grows with that in characters: bisect
        middle = (fits + over) // 2
        fits, over = (middle, over) if _fits(shortened(middle)) else (fits, middle)
    return shortened(fits)


def _fits(record: dict[str, Any]) -> bool:
    return len(to_json(record)) < LINE_LIMIT


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object, not {type(value).__name__}")
    return value


def _rounded(value: Any, path: str) -> Any:
    match value:
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{path} is {value}: only finite figures are stored")
            return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        case dict():
            return {key: _rounded(item, f"{path}.{key}") for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item, f"{path}[{index}]") for index, item in enumerate(value)]
        case _:
            return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a figure")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is not a figure")
    return number
