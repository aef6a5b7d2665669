"""Parquet, read by pyarrow and by pandas."""

from __future__ import annotations

import io
from dataclasses import astuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_kit import Records, every_kind, hostile, nothing_measured, records

from mnist_bench.exporters import parquet
from mnist_bench.rows import Row, columns


def table(made: Records) -> pa.Table:
    return pq.read_table(io.BytesIO(parquet.export(*made.all)))


@pytest.mark.parametrize("made", [every_kind(), nothing_measured(), records([])], ids=["all", "skipped", "none"])
def test_types_do_not_depend_on_what_was_measured(made: Records) -> None:
    schema = table(made).schema
    assert tuple(schema.names) == columns(Row)
    kinds = {
        "model": pa.string(),
        "batch_size": pa.int64(),
        "status": pa.string(),
        "test_accuracy": pa.float64(),
        "paired": pa.string(),
        "noisy": pa.bool_(),
        "class": pa.string(),
        "parameters": pa.int64(),
        "doubts": pa.string(),
    }
    assert {name: schema.field(name).type for name in kinds} == kinds
    assert schema.field("test_accuracy").nullable
    assert not schema.field("model").nullable


def test_rows_come_back_as_they_were() -> None:
    made = every_kind()
    assert [tuple(row.values()) for row in table(made).to_pylist()] == [astuple(row) for row in made.rows]


def test_pandas_reads_it() -> None:
    made = every_kind()
    frame = pd.read_parquet(io.BytesIO(parquet.export(*made.all)))
    assert frame.set_index(["model", "device", "batch_size", "variant"]).loc[
        ("mlp", "cpu", 100, "compile"), "speedup_vs_eager"
    ] == pytest.approx(made.rows[1].speedup_vs_eager)
    assert frame["compile_s"].isna().sum() == len(made.rows) - 1


def test_metadata_name_the_run() -> None:
    found = table(every_kind()).schema.metadata
    assert found[b"mnist_bench.run_id"] == b"20261123T101500Z-a1b2c3"
    assert found[b"mnist_bench.schema_version"] == b"1"
    assert found[b"mnist_bench.status"] == b"complete"


def test_hostile_texts_stay_as_they_are() -> None:
    made = hostile()
    models = table(made).column("model").to_pylist()
    assert models == [row.model.encode("utf-8", "backslashreplace").decode() for row in made.rows]
    assert "</script><img src=x onerror=alert(1)>" in models
