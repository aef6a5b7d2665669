"""No text that is printed as CSV starts a formula, whichever command prints it."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import pytest
from record_factory import (
    make_cell,
    make_failed,
    make_manifest,
    make_matrix,
    make_measurement,
    make_session,
    make_trial,
)

from mnist_bench import comparison_tables, tables
from mnist_bench.cli import console, main
from mnist_bench.compare import compare_cells
from mnist_bench.comparisons import Run
from mnist_bench.records import ModelEntry
from mnist_bench.spreadsheets import harmless
from mnist_bench.store import RunFolder
from mnist_bench.summary import summarise

EVIL = "=cmd()"
SEMICOLON = "a;@SUM(A1)"


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def run() -> Run:
    """A cell with a hostile name, timed beside its reference, and one that failed with a hostile reason."""
    names = [make_cell(model=EVIL), make_cell(model=EVIL, variant="compile")]
    trials = (*(make_trial(cell, outcome=make_measurement()) for cell in names), make_failed(reason=SEMICOLON))
    sessions = (make_session(trials[:2], [(2.0, 1.0)] * 8),)
    models = tuple(ModelEntry(name=name, model=name) for name in (EVIL, "mlp"))
    manifest = make_manifest(trials, matrix=make_matrix(models=models))
    return Run(manifest=manifest, trials=trials, sessions=sessions, rows=summarise(manifest, trials, sessions))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("-2", "'-2"),
        ("\t=1", "'=1"),
        ("a;=1", "a;'=1"),
        ('a; "=1', "a;' \"=1"),
        (";;@x", ";;'@x"),
        ("lenet5", "lenet5"),
        ("a=b, c-d; e+f", "a=b, c-d; e+f"),
        ("", ""),
    ],
)
def test_harmless(given: str, shown: str) -> None:
    assert harmless(given) == shown
    assert harmless(shown) == shown


def test_rows_of_any_command(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"model": EVIL, "change": -0.25, "seeds": [-1, 2], "noisy": None, "skip": "two\nlines"}]
    console.print_rows(rows, argparse.Namespace(format="csv"))
    assert capsys.readouterr().out == "model,change,seeds,noisy,skip\n'=cmd(),-0.25,\"'-1, 2\",,two lines\n"


def test_table_of_a_run(run: Run) -> None:
    found = lines(tables.to_text("csv", run.manifest, run.rows))
    assert {line["model"] for line in found} == {"'=cmd()", "mlp"}
    assert {line["reason"] for line in found} == {"", "a;'@SUM(A1)"}
    assert {line["model"] for line in lines(tables.to_csv(run.rows))} == {EVIL, "mlp"}, "the file is for programs"


def test_comparison(run: Run) -> None:
    found = lines(comparison_tables.to_csv(compare_cells(run, "variant")))
    assert {line["model"] for line in found} == {"'=cmd()", "mlp"}
    assert "a;'@SUM(A1)" in {line["reason"] for line in found}


def test_history(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(tmp_path, run.manifest)
    with folder.lock():
        for trial in run.trials:
            folder.append_trial(trial)
    assert main(["history", "-o", str(tmp_path), "--format", "csv"]) == 0
    found = lines(capsys.readouterr().out)
    assert {line["model"] for line in found} == {"'=cmd()", "mlp"}
    assert "a;'@SUM(A1)" in {line["reason"] for line in found}
