"""What pytest-benchmark itself reads and computes is the judge."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from export_kit import Records, every_kind, hostile, records
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.logger import Logger
from pytest_benchmark.stats import Stats
from pytest_benchmark.storage.file import FileStorage
from record_factory import RUN_ID, make_cell, make_session, make_trial

from mnist_bench.exporters import pytest_benchmark

STEP_MS = {  # every_kind(), by hand: seeds one after the other, rounds in order, the missed ones left out
    "mlp/cpu/b100/eager": [3.0, 3.2, 2.9, 3.4, 3.1, 3.2, 2.9, 3.4, 3.2, 3.2, 2.9, 3.4],
    "mlp/cpu/b100/compile": [2.0, 2.1, 2.2] * 3,
}


def written(folder: Path, made: Records, name: str = "run.json") -> Path:
    path = folder / name
    path.write_bytes(pytest_benchmark.export(*made.all))
    return path


def compare(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_read_back_by_its_storage(tmp_path: Path) -> None:
    written(tmp_path, every_kind())
    (tmp_path / "run.json").rename(tmp_path / "0001_run.json")
    benchmarks = list(FileStorage(str(tmp_path), Logger(Logger.QUIET)).load_benchmarks())
    assert {bench["name"]: [round(1000 * one, 9) for one in bench["data"]] for bench in benchmarks} == STEP_MS
    for bench in benchmarks:
        assert bench["mean"] == pytest.approx(statistics.mean(STEP_MS[bench["name"]]) / 1000)
        assert bench["iterations"] == 10
        assert bench["rounds"] == len(bench["data"])


def test_compare_shows_cells_side_by_side(tmp_path: Path) -> None:
    out = compare(written(tmp_path, every_kind()))
    assert "benchmark 'mlp/b100': 2 tests" in out
    assert re.search(r"^Name \(time in ms\) +Min +Max", out, re.MULTILINE)
    assert re.search(r"^mlp/cpu/b100/compile \S+ +2\.0000 \(1\.0\) +2\.2000 ", out, re.MULTILINE)
    assert re.search(r"^mlp/cpu/b100/eager \S+ +2\.9000 \(1\.45\) +3\.4000 ", out, re.MULTILINE)


def test_two_runs_compare_between(tmp_path: Path) -> None:
    one, two = written(tmp_path, every_kind(), "one.json"), written(tmp_path, every_kind(), "two.json")
    out = compare(one, two, "--between", "mean")
    assert "2 tests, 2 sources" in out
    assert out.count("+0.0%") == 2


def test_compare_writes_csv_by_parameter(tmp_path: Path) -> None:
    compare(written(tmp_path, every_kind()), "--group-by", "param:variant", "--csv", tmp_path / "out.csv")
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("name,param:batch_size,param:device,param:model,param:variant,min,max,mean")
    assert len(lines) == 2


def test_same_fields_as_its_own_file_and_loaded_by_benchmark_compare(tmp_path: Path) -> None:
    """pytest with the plug-in reads our file, and what it then writes has our keys."""
    ours = written(tmp_path, every_kind())
    (tmp_path / "test_it.py").write_text("def test_it(benchmark):\n    benchmark.pedantic(int, rounds=3)\n")
    command = [sys.executable, "-m", "pytest", "test_it.py", "-p", "no:cacheprovider", "--benchmark-json=theirs.json"]
    command += [f"--benchmark-compare={ours}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Comparing against benchmarks from: {ours}" in done.stdout + done.stderr

    mine, theirs = json.loads(ours.read_text()), json.loads((tmp_path / "theirs.json").read_text())
    assert set(mine) == set(theirs)
    assert set(mine["commit_info"]) == set(theirs["commit_info"])
    assert set(mine["benchmarks"][0]) == set(theirs["benchmarks"][0])
    assert set(mine["benchmarks"][0]["stats"]) == set(theirs["benchmarks"][0]["stats"])


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_statistics_are_its_own(seconds: list[float]) -> None:
    theirs = Stats()
    for one in seconds:
        theirs.update(one)
    mine = pytest_benchmark.statistics_of(seconds)
    assert mine.pop("data") == seconds
    assert mine.pop("outliers") == theirs.outliers
    assert mine == pytest.approx({name: value for name, value in theirs.as_dict().items() if name != "outliers"})


def test_only_what_was_timed_and_is_ok() -> None:
    made = every_kind()
    assert [row.cell.id for row in pytest_benchmark.timed(*made.all[1:])] == list(STEP_MS)
    names = [bench["name"] for bench in json.loads(pytest_benchmark.export(*made.all))["benchmarks"]]
    assert names == list(STEP_MS)


def test_blocks_of_several_lengths_have_their_middle_one() -> None:
    trials = [make_trial(seed=seed) for seed in range(3)]
    sessions = []
    for trial, steps in zip(trials, (5, 20, 30), strict=True):
        session = make_session([trial], [(2.0,)], paired=False, group=trial.id)
        one = replace(session.rounds[0], steps=(steps,), seconds=(0.002 * steps,))
        sessions.append(replace(session, rounds=(one,)))
    (bench,) = json.loads(pytest_benchmark.export(*records(trials, sessions).all))["benchmarks"]
    assert bench["stats"]["iterations"] == 20
    assert bench["stats"]["data"] == pytest.approx([0.002] * 3)


def test_says_where_it_comes_from() -> None:
    document = json.loads(pytest_benchmark.export(*every_kind().all))
    assert document["commit_info"]["id"] == "c0ffee" * 6 + "beef"
    assert document["commit_info"]["dirty"] is True
    assert document["machine_info"]["cpu"] == {"brand_raw": "AMD EPYC", "count": 2}
    bench = document["benchmarks"][1]
    assert bench["params"] == {"model": "mlp", "device": "cpu", "batch_size": 100, "variant": "compile"}
    assert bench["extra_info"]["run_id"] == RUN_ID
    assert bench["extra_info"]["noisy"] is True
    assert bench["extra_info"]["speedup_vs_eager"] > 1.3


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    made = hostile()
    out = compare(written(tmp_path, made))
    assert out.isprintable() or set(filter(lambda c: not c.isprintable(), out)) == {"\n"}
    document = json.loads((tmp_path / "run.json").read_text())
    names = [bench["name"] for bench in document["benchmarks"]]
    assert len(names) == len(set(names)) == len(made.sessions)
    assert all(name.isprintable() for name in names)


def test_nothing_timed_is_still_a_file_of_it() -> None:
    assert json.loads(pytest_benchmark.export(*records([make_trial(make_cell())]).all))["benchmarks"] == []
