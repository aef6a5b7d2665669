"""CSV for spreadsheets: pandas reads the figures of the table, and no reader finds a formula."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pandas as pd
import pytest
from export_kit import HOSTILE, Records, every_kind, hostile, nothing_measured

from mnist_bench import tables
from mnist_bench.exporters import csv_file
from mnist_bench.rows import Row, columns

FORMULA = tuple("=+-@\t\r＝＋－＠")  # noqa: RUF001


def text(made: Records) -> str:
    return csv_file.export(*made.all).decode()


def cells(made: Records, delimiter: str) -> list[str]:
    return [cell for line in csv.reader(io.StringIO(text(made), newline=""), delimiter=delimiter) for cell in line]


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_harmless_rows_are_those_of_results_csv() -> None:
    made = every_kind()
    assert text(made) == tables.to_csv(made.rows)


def test_pandas_reads_the_figures() -> None:
    made = every_kind()
    frame = pd.read_csv(io.StringIO(text(made)))
    assert tuple(frame.columns) == columns(Row)
    expected = [math.nan if row.speedup_vs_eager is None else row.speedup_vs_eager for row in made.rows]
    assert sum(not math.isnan(value) for value in expected) == 1
    assert frame["speedup_vs_eager"].tolist() == pytest.approx(expected, nan_ok=True, rel=1e-9)
    assert frame["status"].tolist() == [row.status for row in made.rows]


def test_a_negative_figure_stays_a_number() -> None:
    row = replace(every_kind().rows[0], train_loss=-0.25, reason="-0.25 is a text here")
    data = csv_file.export(every_kind().manifest, [row], [], [])
    (line,) = csv.DictReader(io.StringIO(data.decode()))
    assert line["train_loss"] == "-0.25"
    assert line["reason"] == "'-0.25 is a text here"
    assert pd.read_csv(io.BytesIO(data))["train_loss"].tolist() == [-0.25]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_no_cell_starts_a_formula(delimiter: str) -> None:
    """Whatever a spreadsheet takes for the end of a cell."""
    made = hostile()
    assert any(cell.lstrip(' "').startswith(FORMULA) for name in HOSTILE for cell in name.split(delimiter))
    for cell in cells(made, delimiter):
        assert is_number(cell) or not cell.lstrip(' "').startswith(FORMULA), repr(cell)


def test_every_row_is_one_line_without_control_characters() -> None:
    made = hostile()
    lines = text(made).split("\n")
    assert len(lines) == len(made.rows) + 2  # a header, and the end of the last line
    assert all(line.isprintable() for line in lines)


def test_rows_without_a_figure_stand_in_it() -> None:
    (line,) = csv.DictReader(io.StringIO(text(nothing_measured())))
    assert (line["status"], line["reason"], line["test_accuracy"]) == ("skipped", "no NVIDIA driver", "")
