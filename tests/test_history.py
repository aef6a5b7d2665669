"""``history``: it says what the runs' files say, from the index or from the lines, and marks what stands off."""

import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import keep, make_cell, make_epochs, make_failed, make_manifest, make_measurement, make_trial

from mnist_bench.analysis import history
from mnist_bench.analysis.history import BARS, GAP, METRICS, Series, sparkline, steps
from mnist_bench.analysis.results import files
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.records import ModelEntry, RunOptions, Sides, Tree, Trial, encode

EVIL = "</script><img src=x onerror=alert(1)>"
RATE = "train_samples_per_s"


def run_id(number: int) -> str:
    return f"202611{number:02}T101500Z-a1b2c3"


def add_run(results: Path, number: int, trials: Sequence[Trial] = (), *, tables: bool = True, **changes: Any) -> Path:
    """A run of November's day ``number``, with a trial of the second seed still to come."""
    trials = trials or [timed(6.0)]
    own = {"run_id": run_id(number), "started_at": f"2026-11-{number:02}T10:15:00Z", **changes}
    folder = keep(results, make_manifest([*trials, make_trial(seed=1)], **own), trials)
    if tables:
        folder.write_tables(files(Run.read(folder)))
    return folder.path


def timed(seconds: float, seed: int = 0, accuracy: float = 0.9, **cell: Any) -> Trial:
    measurement = make_measurement(epochs=make_epochs([seconds], [accuracy]), train_samples=60_000)
    return make_trial(make_cell(**cell), seed, measurement)


def on(**changes: Any) -> Any:
    return replace(make_manifest().environment, **changes)


def gathered(results: Path, metric: str = RATE) -> tuple[tuple[Series, ...], list[str], list[str]]:
    """The series, the warnings, and what was told."""
    told: list[str] = []
    runs, warnings = history.read(results, metric, told.append)
    return history.gather(runs, METRICS[metric]), warnings, told


def values(results: Path) -> list[list[float | None]]:
    return [[point.row.value for point in one.points] for one in gathered(results)[0]]


@pytest.fixture
def results(tmp_path):
    """10,000 samples/s in the first run, 20,000 in the second."""
    add_run(tmp_path / "results", 1, [timed(6.0)])
    add_run(tmp_path / "results", 2, [timed(3.0)])
    return tmp_path / "results"


@pytest.fixture
def call(results, capsys):
    """Calls ``history``; gives stdout and stderr."""

    def call(*words: str, code: int = 0) -> tuple[str, str]:
        assert main(["history", "-o", str(results), *words]) == code
        return capsys.readouterr()

    return call


# How a results.json may come not to fit: each gets the run's folder.
STALE: dict[str, Callable[[Path], object]] = {
    "missing": lambda run: (run / "results.json").unlink(),
    "older than the trials": lambda run: edit(run / "trials.jsonl", "}\n", f"}}\n{encode(timed(3.0, 1)).decode()}"),
    "older than the manifest": lambda run: edit(run / "manifest.json", '"status": "complete"', '"status": "stopped"'),
    "of another schema": lambda run: edit(run / "results.json", '"schema_version": 2', '"schema_version": 99'),
    "without a figure": lambda run: edit(run / "results.json", RATE, "speed"),
    "with an infinite figure": lambda run: edit(run / "results.json", f'"{RATE}": 20000.0', f'"{RATE}": 1e999'),
    "nested deeply": lambda run: (run / "results.json").write_text('{"rows":' + "[" * 200_000),
    "a link": lambda run: (run / "results.json").replace(run / "x") and (run / "results.json").symlink_to(run / "x"),
}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestRead:
    @pytest.mark.parametrize("metric", METRICS)
    def test_index_and_lines_say_the_same(self, results, metric):
        def shown() -> tuple[list[Any], list[str]]:
            found, _, told = gathered(results, metric)
            return [(point.run.run_id, point.row.value, point.series) for one in found for point in one.points], told

        from_index = shown()
        for table in results.glob("*/results.json"):
            table.unlink()
        assert from_index == (shown()[0], [])
        assert shown()[1] == ["reading the lines of 2 runs, whose results.json is missing or older"]

    def test_an_index_that_fits_is_all_that_is_read(self, results, monkeypatch):
        monkeypatch.delattr(RunFolder, "manifest")
        assert values(results) == [[10_000.0, 20_000.0]]

    @pytest.mark.parametrize("spoil", STALE.values(), ids=STALE)
    def test_one_that_does_not_is_told(self, results, spoil):
        spoil(results / run_id(2))
        assert gathered(results)[1:] == ([], ["reading the lines of 1 run, whose results.json is missing or older"])
        assert values(results) == [[10_000.0, 20_000.0]]

    @pytest.mark.parametrize(("file", "text"), [("manifest.json", "{"), ("trials.jsonl", "{}\n")])
    def test_broken_runs_are_named_and_left_out(self, results, file, text):
        (results / run_id(1) / file).write_text(text)
        _, (warning,), _ = gathered(results)
        assert warning.startswith(f"run {run_id(1)} is left out: {results / run_id(1) / file}")
        assert values(results) == [[20_000.0]]

    def test_what_is_no_finished_run(self, results):
        """A check, one that has not ended, a folder whose name is no Unicode; and no folder at all."""
        tree = Tree(label="main", commit=None)
        add_run(results, 3, tables=False, check=Sides(a=tree, b=tree, matrix=None, cells=(), budget_s=1.0))
        add_run(results, 4, [timed(2.0)], status="running")
        (results / run_id(2)).rename(results / os.fsdecode(b"run-\xff"))
        (series,), warnings, _ = gathered(results)
        assert warnings == [
            f"run {run_id(3)} is left out: it is a check, not a run",
            f"run {run_id(4)} is running: 1 of 2 trials are finished",
        ]
        assert (series.points[-1].status, series.values) == ("running", [10_000.0, 20_000.0, 30_000.0])
        assert gathered(results / "nowhere") == ((), [], [])
        assert not (results / "nowhere").exists()

    def test_merged_runs_stand_for_their_sources(self, results):
        merged = add_run(results, 3, [timed(1.0)], options=RunOptions(merged_from=(run_id(1), run_id(2))))
        assert values(results) == [[60_000.0]]
        shutil.rmtree(merged)
        assert values(results) == [[10_000.0, 20_000.0]]


class TestSeries:
    @pytest.mark.parametrize(
        "change",
        [
            {"environment": on(cores=4)},
            {"matrix": replace(make_manifest().matrix, models=(ModelEntry(name="mlp", model="mlp", lr=0.5),))},
        ],
    )
    def test_another_machine_or_setting_is_another(self, results, change):
        add_run(results, 3, [timed(1.0)], **change)
        assert values(results) == [[60_000.0], [10_000.0, 20_000.0]]
        labels = [one.label for one in gathered(results)[0]]
        assert len(set(labels)) == 2, "where the words are the same they get a digest"

    def test_what_was_not_measured_goes_with_the_series_of_its_machine(self, tmp_path):
        def gpu(name: str) -> Trial:
            return make_trial(make_cell(device="cuda"), 0, make_measurement(device_name=name))

        failed = make_failed(make_cell(device="cuda"))
        for number, (trial, cores) in enumerate([(failed, 2), (gpu("L4"), 2), (failed, 2), (failed, 8)], start=1):
            add_run(tmp_path, number, [trial], environment=on(cores=cores))
        found, _, _ = gathered(tmp_path)
        assert [[point.run.started_at[8:10] for point in one.points] for one in found] == [["04"], ["01", "02", "03"]]
        assert found[1].label.startswith("L4, torch")

    @pytest.mark.parametrize(
        ("metric", "found", "changes"),
        [
            (RATE, (None, 100.0, None, 150.0, 75.0), [None, None, None, 0.5, -0.5]),
            ("test_accuracy", (0.5, 0.75, 0.0, 0.25), [None, 0.25, -0.75, 0.25]),
            ("compile_s", (0.0, 1.0), [None, None]),
        ],
    )
    def test_changes_are_against_the_one_before_that_is_known(self, metric, found, changes):
        assert history.changes(found, METRICS[metric]) == changes


@given(st.lists(st.none() | st.floats(0, 1e300)))
def test_a_sparkline_rises_with_its_values(known):
    line = sparkline(known)
    assert [bar == GAP for bar in line] == [value is None for value in known]
    pairs = [(value, BARS.index(bar)) for value, bar in zip(known, line, strict=True) if value is not None]
    for value, bar in pairs:
        assert all(other_bar <= bar for other, other_bar in pairs if other <= value)
    if len({value for value, _ in pairs}) > 1:
        assert {0, len(BARS) - 1} <= {bar for _, bar in pairs}, "the lowest and the highest are at the ends"


class TestSteps:
    """A run that stands off the noise of its own series is marked; one that does not is not (by simulation)."""

    @pytest.mark.parametrize(("runs", "most"), [(8, 0.015), (20, 0.006), (100, 0.002)])
    @pytest.mark.parametrize("sd", [0.003, 0.05])
    def test_quiet_series_have_few(self, runs, most, sd):
        rng = random.Random(runs)
        series = [[1000 * math.exp(rng.gauss(0, sd)) for _ in range(runs)] for _ in range(4000 // runs + 200)]
        marked = [any_step is not None for one in series for any_step in steps(one, METRICS[RATE])]
        assert statistics.fmean(marked) < most

    @pytest.mark.parametrize(("runs", "least"), [(12, 0.95), (40, 0.99)])
    def test_a_step_of_ten_standard_deviations_is_found_where_it_is(self, runs, least):
        rng, found = random.Random(0), []
        for _ in range(300):
            known = [1000 * math.exp(rng.gauss(0, 0.01) - 0.1 * (n >= runs - 3)) for n in range(runs)]
            found.append(steps(known, METRICS[RATE])[-3] == "worse")
        assert statistics.fmean(found) > least

    def test_which_way_is_better_is_the_figures(self):
        known = [10.0, 10.1, 9.9, 10.0, 10.1, 10.0, 9.9, 10.0, None, 20.0, 20.1, 10.0]
        assert steps(known, METRICS[RATE])[8:] == [None, "better", None, "worse"]
        assert steps(known, METRICS["epoch_s"])[8:] == [None, "worse", None, "better"]
        assert set(steps(known[2:], METRICS[RATE])) > {None}
        assert set(steps(known[6:], METRICS[RATE])) == {None}, "too few runs to know the noise"

    def test_of_what_never_changes_any_change_is_one(self):
        assert steps([0.97] * 9 + [0.9701], METRICS["test_accuracy"]) == [None] * 9 + ["better"]


class TestCommand:
    def test_a_step_is_marked_in_words(self, call, tmp_path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        for number, seconds in enumerate((6.0, 6.1, 5.9, 6.0, 6.1, 6.0, 5.9, 6.1, 9.0), start=1):
            add_run(tmp_path, number, [timed(seconds)])
        out, _ = call("-o", str(tmp_path))
        assert ("-32.2 %  step: worse" in out, out.count("step:")) == (True, 2)  # in the list, and in the note
        assert json.loads(call("-o", str(tmp_path), "--json")[0])[0]["step"] == "worse"

    def test_hostile_names_stay_text(self, call, tmp_path):
        evil = f"{EVIL}\x1b[31m\n[bold]|=1+1"
        matrix = replace(make_manifest().matrix, models=(ModelEntry(name=evil, model="mlp"),))
        trials = [timed(1.0, model=evil), make_failed(make_cell(model=evil, batch_size=7), reason=evil)]
        add_run(tmp_path, 1, trials, matrix=matrix, environment=on(cpu=evil, commit=evil))
        for words in ([], ["--format", "md"], ["--format", "csv"]):
            out, _ = call("-o", str(tmp_path), *words)
            assert all(line.isprintable() for line in out.splitlines())
            assert "<img" not in out or "md" not in words
        assert json.loads(call("-o", str(tmp_path), "--json")[0])[0]["model"] == evil

    def test_query_loads_nothing_slow(self, results):
        slow = ("torch", "pydantic", "numpy", "pandas", "scipy", "yaml", "filelock", "altair", "jinja2", "sqlite3")
        code = (
            f"import sys\nfrom mnist_bench.cli import main\nmain(['history', '-o', {str(results)!r}])\n"
            f"sys.exit(' '.join(m for m in {slow} if m in sys.modules) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "mlp/cpu/b100/eager" in done.stdout
