"""``mnist-bench selftest`` as a user meets it, its gate and its workers replaced by doubles."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from selftest_kit import made_check

from mnist_bench.cli import main
from mnist_bench.cli import selftest as command
from mnist_bench.errors import Interrupted, UsageError, WorkerError
from mnist_bench.gate.records import Check, Verdict, VerdictKind
from mnist_bench.records import Cell, DataSet
from mnist_bench.selftest import conduct
from mnist_bench.selftest.instruments import VARIABLE
from mnist_bench.selftest.records import Mislabelled, Side, Slowed
from mnist_bench.stats import Interval

MATRIX = """
version: 1
seeds: 1
models: [mlp, lenet5]
devices: [cpu]
batch_sizes: [100]
variants: [eager]
"""


class Gate:
    """Finds slow-downs of 10 % and more, and mislabelled data; raises ``error`` in its ``stop``-th check."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.checks = stop, 0
        self.error: Exception = Interrupted("interrupted")

    def __call__(self, a: Side, b: Side, cells: Sequence[Cell], budget_s: float) -> tuple[Check, Sequence[Verdict]]:
        self.checks += 1
        if self.checks == self.stop:
            raise self.error
        work = sum(rows for _, rows in json.loads(b.environ.get(VARIABLE, "{}")).values())
        kind: VerdictKind = "pass" if a == b else "inconclusive" if 0 < work < 20 else "regression"
        return made_check(dict.fromkeys(cells, kind))


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """In a folder with a matrix, on a machine where calibration is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "benchmarks.yaml").write_text(MATRIX)
    found = DataSet(name="mnist", root=str(tmp_path), sha256="0" * 64)
    monkeypatch.setattr("mnist_bench.data.resolve", lambda *args, **kwargs: found)
    monkeypatch.setattr(conduct, "measurable", lambda workshop, cells, say: tuple(cells))
    monkeypatch.setattr(
        conduct,
        "slow_down",
        lambda workshop, cells, say: tuple(
            Slowed(cell=cell, aim=aim, rows=rows, measured=Interval(aim), sessions=4)
            for cell in cells
            for aim, rows in ((1.05, 5), (1.10, 10), (1.20, 20))
        ),
    )
    monkeypatch.setattr(
        conduct,
        "mislabel",
        lambda workshop, cells, say: Mislabelled(
            data=DataSet(name="mislabelled", root="/x", sha256="1" * 64), fraction=0.2, drops=dict.fromkeys(cells, 0.01)
        ),
    )
    double = Gate()
    monkeypatch.setattr(command, "_gate", lambda args, folder: double)
    return double


def test_the_table_has_a_line_for_each_condition(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--checks", "2"]) == 0
    screen = capsys.readouterr()
    assert gate.checks == 10
    assert "at most 10 checks of 2 cells, 8m each: 1.3 h" in screen.err
    lines = screen.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        "identical",
        "5 % slower",
        "10 % slower",
        "20 % slower",
        "mislabelled",
    ]
    assert "0/2" in lines[1]
    assert "0/4" in lines[2]
    assert "4/4" in lines[3]


def test_json_has_every_check(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--checks", "1", "--filter", "model=mlp", "--json", "--budget", "90s"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["budget_s"] == 90.0
    assert [one["condition"] for one in found["conditions"]] == [one["condition"] for one in found["checks"]]
    assert {cell["cell"] for check in found["checks"] for cell in check["cells"]} == {"mlp/cpu/b100/eager"}


def test_csv_keeps_notes_off_stdout(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--checks", "1", "--format", "csv"]) == 0
    screen = capsys.readouterr()
    assert [row["red"] for row in csv.DictReader(io.StringIO(screen.out))] == ["0/1", "0/2", "2/2", "2/2", "2/2"]
    assert "identical: 1 check cannot rule out" in screen.err


def test_interrupted_it_prints_what_it_knows(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    gate.stop = 4
    assert main(["selftest", "--checks", "2", "--json"]) == 130
    assert len(json.loads(capsys.readouterr().out)["checks"]) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerError("a worker left"), 1),
        (UsageError("the matrix has gone"), 2),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_an_error_loses_nothing_that_was_measured(
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the logs of a worker that failed stay
    gate.stop, gate.error = 4, error
    assert main(["selftest", "--checks", "2", "--json"]) == code
    screen = capsys.readouterr()
    assert len(json.loads(screen.out)["checks"]) == 3
    assert str(error) in screen.err


def test_nothing_that_can_be_measured_is_exit_code_5(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conduct, "measurable", lambda workshop, cells, say: ())
    assert main(["selftest"]) == 5
    assert gate.checks == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--budget", "8"], "--budget: '8' is no time"),
        (["--budget", "0m"], "--budget: '0m' is no time"),
        (["--filter", "model=cnn"], "unknown model 'cnn'"),
        (["missing.yaml"], "no such file"),
    ],
)
def test_bad_input_is_refused_at_once(
    gate: Gate, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(["selftest", *words]) == 2
    assert problem in capsys.readouterr().err
    assert gate.checks == 0


@pytest.mark.parametrize("count", ["0", "-1", "many", "1001"])
def test_a_count_of_checks_is_a_number(gate: Gate, capsys: pytest.CaptureFixture[str], count: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["selftest", "--checks", count])
    assert left.value.code == 2
    assert "is not a whole number" in capsys.readouterr().err
