"""Parquet: the rows of ``results.csv`` with their types, for pandas, DuckDB, Polars and the like. Texts stay as are."""

from __future__ import annotations

import io
import types
import typing
from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, Literal

from mnist_bench.records import Manifest, Session, Trial
from mnist_bench.rows import Row, columns

if TYPE_CHECKING:
    import pyarrow as pa


def export(manifest: Manifest, rows: Sequence[Row], trials: Sequence[Trial], sessions: Sequence[Session]) -> bytes:
    """One row per cell; a column has its type even where nothing was measured. The file's metadata name the run."""
    import pyarrow as pa  # a third of a second, as pandas: not before it is needed
    import pyarrow.parquet as pq

    records = [dict(zip(columns(Row), map(_storable, astuple(row)), strict=True)) for row in rows]
    table = pa.Table.from_pylist(records, schema=_schema().with_metadata(_metadata(manifest)))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _schema() -> pa.Schema:
    """The columns of ``Row``, from its annotations: a column can be null where ``None`` is allowed."""
    import pyarrow as pa

    hints = typing.get_type_hints(Row)
    named = zip(columns(Row), fields(Row), strict=True)
    return pa.schema([_column(name, hints[field.name]) for name, field in named])


def _column(name: str, hint: Any) -> pa.Field[Any]:
    import pyarrow as pa

    storage = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    allowed = typing.get_args(hint) if union else (hint,)
    (kind,) = (one for one in allowed if one is not type(None))
    words = typing.get_origin(kind) is Literal
    return pa.field(name, storage[str if words else kind], nullable=type(None) in allowed)


def _metadata(manifest: Manifest) -> dict[str, str]:
    environment = manifest.environment
    facts = {
        "run_id": manifest.run_id,
        "schema_version": str(manifest.schema_version),
        "program_version": manifest.program_version,
        "status": manifest.status,
        "started_at": manifest.started_at,
        "matrix": manifest.matrix.name,
        "matrix_sha256": manifest.matrix_sha256,
        "commit": environment.commit or "",
        "cpu": environment.cpu,
    }
    return {f"mnist_bench.{name}": _storable(text) for name, text in facts.items()}


def _storable(value: Any) -> Any:
    """A lone surrogate, which UTF-8 does not have, becomes its escape."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
