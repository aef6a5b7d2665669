"""Checks on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from check_kit import CRASH, cell, evidence, process_pair, seed_pair, training

from mnist_bench.checks.folder import CheckFolder, Head
from mnist_bench.checks.ledger import Line
from mnist_bench.disk.folder import known_runs
from mnist_bench.errors import UsageError
from mnist_bench.gate.records import Margins, SideFault, SideInfo, Solo
from mnist_bench.records import DataSet, Skip

HEAD = Head(
    id="20261123T101500Z-aaaaaa",
    schema_version=1,
    program_version="0.1.0",
    status="running",
    a=SideInfo(label="main", commit="a" * 40),
    b=SideInfo(label="working tree", commit="b" * 40, changed=("model.py",)),
    content_sha256="c" * 64,
    untracked=("new.py", "a%FFname"),
    matrix_path="bench/m.yaml",
    dataset=DataSet(name="mnist", root="/data", sha256="0" * 64),
    recipe="standard",
    margins=Margins(),
    cells=evidence("mlp", "lenet5", min_accuracy=0.9),
    seeds=(0, 1),
    options={"filter": None, "allow_plugins": False},
    budget_s=1200.0,
    started_at="2026-11-23T10:15:00Z",
)


@pytest.fixture
def folder(tmp_path: Path) -> CheckFolder:
    return CheckFolder.create(tmp_path / "results", HEAD)


def line(**found: object) -> Line:
    return Line(cell=cell(), seconds=12.0, spent_s=34.5, **found)  # type: ignore[arg-type]


LINES = (
    line(pair=process_pair(1, 0.012345678901234567)),
    line(seed=seed_pair(3)),
    line(solo=Solo(seed=0, b=training())),
    line(fault=CRASH),
    line(fault=SideFault(side="A", outcome=Skip(reason="no device"))),
)


def test_a_head_is_read_as_it_was_written(folder: CheckFolder) -> None:
    assert folder.head() == HEAD
    assert folder.update(status="complete").status == "complete"
    assert folder.head() == replace(HEAD, status="complete")


def test_a_check_is_no_run(folder: CheckFolder, tmp_path: Path) -> None:
    assert folder.path == tmp_path / "results" / "checks" / HEAD.id
    assert known_runs(tmp_path / "results") == ()
    assert known_runs(tmp_path / "results" / "checks") == ()
    assert (tmp_path / "results" / "checks" / "latest").resolve() == folder.path
    assert not (tmp_path / "results" / "latest").exists()


@pytest.mark.parametrize("one", LINES, ids=range(len(LINES)))
def test_a_line_is_read_as_it_was_written(one: Line, folder: CheckFolder) -> None:
    folder.append(one)
    assert folder.lines() == (one,)


def test_the_record_of_the_check_has_all_of_it(folder: CheckFolder) -> None:
    for one in LINES[:2]:
        folder.append(one)
    check = folder.check()
    (mlp, lenet5) = check.cells
    assert (mlp.pairs, mlp.seeds, mlp.min_accuracy) == ((LINES[0].pair,), (LINES[1].seed,), 0.9)
    assert (lenet5.pairs, lenet5.seeds) == ((), ())
    assert (check.spent_s, check.budget_s, check.mode, check.b) == (34.5, 1200.0, "against", HEAD.b)


def test_of_two_faults_of_a_side_the_first_holds(folder: CheckFolder) -> None:
    other = replace(CRASH, outcome=Skip(reason="later"))
    for fault in (CRASH, other):
        folder.append(line(fault=fault))
    assert folder.check().cells[0].faults == (CRASH,)


def test_what_is_spent_survives_a_kill(folder: CheckFolder) -> None:
    assert folder.spent_s() == 0.0
    folder.append(LINES[0])
    assert folder.spent_s() == 34.5
    folder.update(spent_s=50.0)
    assert folder.spent_s() == 50.0


def test_a_torn_last_line_is_not_read_and_the_next_replaces_it(folder: CheckFolder) -> None:
    folder.append(LINES[0])
    with (folder.path / "pairs.jsonl").open("ab") as file:
        file.write(b'{"cell": {"model"')
    assert folder.lines() == (LINES[0],)
    two = line(pair=process_pair(2))
    folder.append(two)
    assert folder.lines() == (LINES[0], two)


@pytest.mark.parametrize("broken", ["{}", "[]", "nonsense", '{"cell": 3}'])
def test_a_broken_line_is_told_with_its_place(broken: str, folder: CheckFolder) -> None:
    folder.append(LINES[0])
    with (folder.path / "pairs.jsonl").open("a") as file:
        file.write(broken + "\n")
    with pytest.raises(UsageError, match=r"pairs\.jsonl:2: broken line: "):
        folder.lines()


def test_a_line_of_another_check_is_told(folder: CheckFolder) -> None:
    folder.append(replace(LINES[0], cell=cell("cnn")))
    with pytest.raises(UsageError, match="cnn/cpu/b100/eager is no cell of this check"):
        folder.ledger()


def test_one_writer(folder: CheckFolder) -> None:
    with (
        folder.lock(),
        pytest.raises(UsageError, match="another process is at this check"),
        CheckFolder(folder.path).lock(),
    ):
        pass


def test_a_check_is_found(folder: CheckFolder, tmp_path: Path) -> None:
    out = tmp_path / "results"
    second = CheckFolder.create(out, replace(HEAD, id="20261124T101500Z-bbbbbb"))
    assert CheckFolder.open(out, "latest").path == second.path
    assert CheckFolder.open(out, HEAD.id).path == folder.path
    assert CheckFolder.open(out, "20261123").path == folder.path
    assert CheckFolder.open(tmp_path, str(folder.path)).path == folder.path
    with pytest.raises(UsageError, match=r"check '2026' is ambiguous in .* \(known: 20261124.*, 20261123"):
        CheckFolder.open(out, "2026")
    with pytest.raises(UsageError, match="no check 'nope' in"):
        CheckFolder.open(out, "nope")
    with pytest.raises(UsageError, match=r"no check 'latest' in .* \(known: none\)"):
        CheckFolder.open(tmp_path / "empty", "latest")
    (out / "checks" / "latest").unlink()
    assert CheckFolder.open(out, "latest").path == second.path


def test_a_head_of_another_version_is_told(folder: CheckFolder) -> None:
    values = json.loads((folder.path / "head.json").read_text())
    del values["margins"]
    (folder.path / "head.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"head\.json: .*margins.*another version wrote it"):
        folder.head()


def test_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UsageError, match="choose another folder with --output-dir"):
        CheckFolder.create(tmp_path / "results", HEAD)
