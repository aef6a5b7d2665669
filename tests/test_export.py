"""Exports, read by the tools that they are for: pytest-benchmark, Bencher's and the action's rules, JUnit, parquet."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import jsonschema
import junitparser
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from pytest_benchmark.stats import Stats
from record_factory import RUN_ID, keep, make_cell, make_epochs, make_failed, make_measurement, make_session, make_trial
from run_factory import run_of

from mnist_bench import figures
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import export as command
from mnist_bench.cli import main
from mnist_bench.export import EXPORTERS, statistics_of
from mnist_bench.records import BUILTIN_VARIANTS, Floor, Skip

ROOT = Path(__file__).resolve().parents[1]
JUNIT = etree.XMLSchema(etree.parse(str(Path(__file__).with_name("junit.xsd"))))
ACTION = "github-action-benchmark"
HOSTILE = (
    *('=HYPERLINK("http://evil.example","click")', "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1:A9)", "\t=1+1"),
    *("\r=1+1", " =1+1", '"=1+1', "a;=1+1", 'a; "@SUM(A1)', "＝1+1", "</script><img src=x onerror=alert(1)>"),  # noqa: RUF001
    *("]]><!-- & -->", "two\nlines", "\x00\x1b[31mred\x07", "\ud800\ufffe", "\n", "\r"),
)
STEP_MS = {  # of EVERY, by hand: seeds one after the other, rounds in order, the missed ones left out
    "mlp/cpu/b100/eager": [3.0, 3.2, 2.9, 3.4, 3.1, 3.2, 2.9, 3.4, 3.2, 3.2, 2.9, 3.4],
    "mlp/cpu/b100/compile": [2.0, 2.1, 2.2] * 3,
}
COMPILE, SKIPPED = make_cell(variant="compile"), make_trial(make_cell(device="cuda"), outcome=Skip(reason="no driver"))


def every_kind() -> Run:
    """Two cells timed over three seeds, one of them under a floor; one never timed, one skipped, one failed."""
    trials, sessions = [], []
    for seed in range(3):
        epochs = make_epochs(train_s=(2.0, 4.0 + seed * 20), accuracy=(0.9, 0.95 + seed / 100))
        pair = make_trial(seed=seed), make_trial(COMPILE, seed, make_measurement(epochs=epochs, compile_s=9.5))
        trials += pair
        rounds = [(3.0 + 0.1 * seed, 2.0), (3.2, 2.1), (2.9, 0.0), (3.4, 2.2)]  # compile misses one round
        sessions.append(make_session(pair, rounds, group=f"mlp/b100/s{seed}"))
    failed = make_failed(make_cell(batch_size=1000), kind="oom", reason="out of memory: use less")
    trials += [make_trial(make_cell("cnn")), SKIPPED, failed]
    return run_of(trials, sessions, expect=(Floor(variant="compile", min_accuracy=0.99),))


def hostile() -> Run:
    """A cell for each hostile name, which is its model, its variant and its reason; with a session where it is ok."""
    trials, sessions = [], []
    for number, name in enumerate(HOSTILE):
        ok = make_trial(make_cell(model=name, variant=name), outcome=make_measurement(device_name=name, marks=(name,)))
        trials += [ok, make_failed(make_cell(model=name, variant=f"{number}"), reason=name)]
        sessions.append(make_session([ok], [(2.0 + number,), (3.0,)], paired=False, group=f"{name}/b100/s0"))
    run = run_of([], name=HOSTILE[0], variants=(BUILTIN_VARIANTS["eager"],))
    return Run(manifest=run.manifest, trials=trials, sessions=sessions)


EVERY, EVIL, NOTHING = every_kind(), hostile(), run_of([SKIPPED])


def exported(name: str, run: Run = EVERY, file: int = 0) -> bytes:
    exporter = EXPORTERS[name]
    rows = run.rows if exporter.all_rows else exporter.known(run, run.rows)
    return list(exporter.files.values())[file](run, rows)


class TestPytestBenchmark:
    def python(self, *words: str | Path, cwd: Path | None = None) -> str:
        command = [sys.executable, "-m", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def test_compare_shows_cells_side_by_side_and_two_runs(self, tmp_path):
        one, two, evil = (tmp_path / f"{name}.json" for name in ("one", "two", "evil"))
        for path, run in ((one, EVERY), (two, EVERY), (evil, EVIL)):
            path.write_bytes(exported("pytest-benchmark", run))
        compare = ("pytest_benchmark", "compare")
        out = self.python(*compare, one, "--group-by", "param:variant,group")
        assert re.search(r"^mlp/cpu/b100/compile \S+ +2\.0000 .* 2\.2000 ", out, re.MULTILINE)
        assert "benchmark 'mlp/b100': 4 tests" in self.python(*compare, one, two)
        assert set(filter(lambda c: not c.isprintable(), self.python(*compare, evil))) == {"\n"}
        names = [bench["name"] for bench in json.loads(evil.read_text())["benchmarks"]]
        assert len(names) == len({*names}) == len(HOSTILE)

    def test_loaded_by_its_plug_in_whose_own_file_has_our_fields(self, tmp_path):
        (tmp_path / "ours.json").write_bytes(exported("pytest-benchmark"))
        (tmp_path / "test_it.py").write_text("def test_it(benchmark):\n    benchmark.pedantic(int, rounds=3)\n")
        options = ("--benchmark-json=theirs.json", f"--benchmark-compare={tmp_path / 'ours.json'}")
        out = self.python("pytest", "test_it.py", "-p", "no:cacheprovider", *options, cwd=tmp_path)
        assert "Comparing against benchmarks from:" in out
        mine, theirs = (json.loads((tmp_path / name).read_text()) for name in ("ours.json", "theirs.json"))
        assert set(mine) == set(theirs)
        assert set(mine["benchmarks"][0]) == set(theirs["benchmarks"][0])
        assert set(mine["benchmarks"][0]["stats"]) < set(theirs["benchmarks"][0]["stats"])
        for bench in mine["benchmarks"]:
            assert [1000 * one for one in bench["stats"]["data"]] == pytest.approx(STEP_MS[bench["name"]])

    @given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
    def test_statistics_are_its_own_but_for_the_quartiles(self, seconds):
        theirs, mine = Stats(), statistics_of(seconds)
        for one in seconds:
            theirs.update(one)
        low, high = np.percentile(seconds, [25, 75])
        assert (mine.pop("data"), mine.pop("iqr")) == (seconds, pytest.approx(high - low, abs=1e-9))
        assert mine.pop("outliers").split(";")[0] == theirs.outliers.split(";")[0]
        assert mine == pytest.approx({name: theirs.as_dict()[name] for name in mine})
        assert statistics_of([1.0, 1.0, 1.1, 1.1, 9.0])["outliers"] == "1;1"


# Written after https://bencher.dev/docs/reference/bencher-metric-format (an object of benchmarks, of measures, with
# ``value`` required), and stricter: no other keys, and the lengths that the page gives for names.
METRIC = {"type": "object", "required": ["value"], "additionalProperties": False}
METRIC |= {"properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")}}
SLUG = {"pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "maxLength": 64}
MEASURES = {"type": "object", "minProperties": 1, "propertyNames": SLUG, "additionalProperties": METRIC}
BMF = {"type": "object", "propertyNames": {"minLength": 1, "maxLength": 1024}, "additionalProperties": MEASURES}


def test_bmf():
    found, evil, nothing = (json.loads(exported("bmf", run)) for run in (EVERY, EVIL, NOTHING))
    for document in (found, evil, nothing):
        jsonschema.Draft7Validator(BMF).validate(document)
    assert found["mlp/cpu/b100/compile"]["latency"] == {"value": pytest.approx(2.0e6)}  # nanoseconds: 2 ms a step
    bounded = [metric for cell in found.values() for metric in cell.values() if "lower_value" in metric]
    assert all(metric["lower_value"] <= metric["value"] <= metric["upper_value"] for metric in bounded)
    assert (len(bounded), len(evil), nothing) == (4, len(HOSTILE), {})
    assert all(name.isprintable() and name == name.strip() for name in evil)


@pytest.mark.parametrize("file", [0, 1])
def test_github_action(file):
    """The action is no package of npm: this is what ``src/extract.ts`` (custom tools) and
    ``src/extractRangeInfo.ts`` say."""
    assert json.loads(exported(ACTION, NOTHING, file)) == []
    for entries in (json.loads(exported(ACTION, run, file)) for run in (EVERY, EVIL)):
        assert len({entry["name"] for entry in entries}) == len(entries) > 0  # it finds the value before by its name
        for entry in entries:
            assert {"name", "value", "unit"} <= set(entry) <= {"name", "value", "unit", "range", "extra"}
            assert isinstance(entry["value"], int | float)
            assert all(isinstance(entry[key], str) for key in set(entry) - {"value"})
            assert all(line.isprintable() for line in [entry["name"], *entry["extra"].split("\n")])
            assert "range" not in entry or re.fullmatch(r"± \d+\.\d+", entry["range"])


def test_range_of_an_interval_that_was_cut_off_at_0_is_its_whole_half():
    (rate,) = (e for e in json.loads(exported(ACTION, file=1)) if e["name"] == "mlp/cpu/b100/compile · samples/s")
    row = next(row for row in EVERY.rows if row.cell.variant == "compile")
    low, high = row["train_samples_per_s_low"], row["train_samples_per_s_high"]
    assert (low, float(rate["range"].removeprefix("± "))) == (0.0, pytest.approx(high - row["train_samples_per_s"]))


class TestJunit:
    def cases(self, run: Run) -> dict[str, junitparser.TestCase]:
        data = exported("junit", run)
        JUNIT.assertValid(etree.fromstring(data))
        return {f"{suite.name}/{case.name}": case for suite in junitparser.JUnitXml.fromstring(data) for case in suite}

    def test_of_a_cell_that_failed_a_missed_floor_is_not_the_worst(self):
        everywhere = replace(EVERY.manifest.matrix, expect=(Floor(min_accuracy=0.99),))
        found = self.cases(replace(EVERY, manifest=replace(EVERY.manifest, matrix=everywhere)))
        kinds = {name: type(case.result[0]) for name, case in found.items()}
        assert set(kinds) == {row.cell.id for row in EVERY.rows}
        assert kinds["mlp/cpu/b1000/eager"] is junitparser.Error
        assert kinds["mlp/cpu/b100/eager"] is junitparser.Failure
        assert self.cases(run_of([])) == {}

    def test_hostile_names_stay_text_and_seconds_are_decimal(self):
        self.cases(EVIL)
        texts = [
            value for element in etree.fromstring(exported("junit", EVIL)).iter() for value in element.attrib.values()
        ]
        assert all(text.isprintable() for text in texts)
        assert any("</script><img src=x onerror=alert(1)>" in text for text in texts)
        for seconds in (0.0, 0.0004, 123456.7894):
            self.cases(run_of([make_trial(outcome=make_measurement(total_s=seconds))]))


class TestParquet:
    @pytest.mark.parametrize("run", [EVERY, NOTHING, run_of([])], ids=["all", "skipped", "none"])
    def test_types_do_not_depend_on_what_was_measured(self, run):
        table = pq.read_table(io.BytesIO(exported("parquet", run)))
        kinds = {"model": "string", "batch_size": "int64", "test_accuracy": "double", "noisy": "bool"}
        found = {name: str(table.schema.field(name).type).removeprefix("large_") for name in kinds}
        assert found == kinds
        assert table.to_pylist() == figures.table_of(run.rows).records()
        assert pd.read_parquet(io.BytesIO(exported("parquet", run))).attrs["run_id"] == RUN_ID

    def test_hostile_texts_stay_as_they_are(self):
        models = pq.read_table(io.BytesIO(exported("parquet", EVIL)))["model"].to_pylist()
        assert models == [row.cell.model.encode("utf-8", "backslashreplace").decode() for row in EVIL.rows]


class TestCommand:
    @pytest.fixture
    def here(self, tmp_path, monkeypatch):
        """A folder with a run in ``results/``, which is the current one."""
        monkeypatch.chdir(tmp_path)
        keep(tmp_path / "results", EVERY.manifest, EVERY.trials, EVERY.sessions)
        return tmp_path

    def test_formats_are_documented(self):
        assert (*EXPORTERS, *command.TRACKERS) == command.FORMATS
        text = (ROOT / "docs" / "exports.md").read_text("utf-8")
        for name, exporter in EXPORTERS.items():
            assert f"## {name}" in text
            assert all(f"`{file}`" in text for file in exporter.files)

    def test_a_link_is_followed_a_pipe_stays_and_a_failed_write_leaves_what_was_there(self, here, capsys, monkeypatch):
        (here / "link").symlink_to("target.csv")
        assert main(["export", "--format", "csv", "--output", "link"]) == 0
        before = (here / "target.csv").read_bytes()
        assert (here / "link").is_symlink()
        os.mkfifo(here / "pipe")
        reader = os.open(here / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        assert main(["export", "--format", "csv", "--output", "pipe"]) == 0
        assert os.read(reader, 1 << 16) == before
        os.close(reader)
        monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        assert main(["export", "--format", "bmf", "--output", "target.csv"]) == 2
        assert "No space left on device" in capsys.readouterr().err
        assert (here / "target.csv").read_bytes() == before
        assert sorted(path.name for path in here.iterdir()) == ["link", "pipe", "results", "target.csv"]

    def test_a_binary_format_does_not_go_to_a_terminal(self, here, capsys, monkeypatch):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["export", "--format", "parquet"]) == 2
        assert "is binary: name a file with --output" in capsys.readouterr().err

    def test_parquet_says_what_it_lacks(self, here, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        assert main(["export", "--format", "parquet", "--output", "run.parquet"]) == 2
        assert "--format parquet needs pyarrow, which is not installed here" in capsys.readouterr().err
