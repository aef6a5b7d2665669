"""Shards to one run: the trials, lines and tables that one run would have, or a refusal that names what differs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

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

from mnist_bench import cells as matrices
from mnist_bench.analysis.results import files
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder, known_runs
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.merge import merge
from mnist_bench.records import DataSet, Manifest, Matrix, RunOptions, Skip, trial_id
from mnist_bench.run import runner
from mnist_bench.run.runner import Options

MATRIX = make_matrix(batch_sizes=(100, 1000), seeds=(0, 1, 2))
NOW = datetime(2026, 12, 1, tzinfo=UTC)
IDS = ("20261101T000000Z-aaaaaa", "20261102T000000Z-bbbbbb", "20261103T000000Z-cccccc")


def groups(shard: tuple[int, int] | None = None, matrix: Matrix = MATRIX) -> tuple[matrices.GroupTrials, ...]:
    found = matrices.groups(matrices.expand(matrix), matrix.seeds)
    return matrices.shard(found, *shard) if shard else found


def make_run(results: Path, number: int, planned: Sequence[matrices.GroupTrials], **changes: Any) -> RunFolder:
    """A run of some groups of MATRIX, with all its files; what it measures depends on the trial alone."""
    trials = [make_trial(cell, seed) for _, pairs in planned for cell, seed in pairs]
    manifest = make_manifest(
        trials,
        run_id=IDS[number],
        matrix=MATRIX,
        matrix_sha256=matrices.fingerprint(MATRIX),
        order=tuple(group for group, _ in planned),
        started_at=f"2026-11-0{number + 1}T00:00:00Z",
        ended_at=f"2026-11-0{number + 1}T01:00:00Z",
        options=RunOptions(plugin_path="/x", shard=f"{number + 1}/2"),
    )
    folder = RunFolder.create(results, replace(manifest, **changes))
    with folder.lock():
        for group, pairs in planned:
            members = [trial_id(*pair) for pair in pairs]
            rows = [[2.0 + index + round_ / 10 for index in range(len(members))] for round_ in range(8)]
            folder.append(make_session(members, rows, group=group))
        for trial in trials:
            folder.append(trial)
            folder.samples_path(trial.id).write_bytes(trial.id.encode())
            folder.log_path(trial.id).write_text(f"log of {trial.id}")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def shards(results: Path) -> tuple[RunFolder, RunFolder]:
    return make_run(results, 0, groups((1, 2))), make_run(results, 1, groups((2, 2)))


def merged_of(results: Path, *references: str, across_machines: bool = False) -> RunFolder:
    chosen = references or IDS[:2]
    return merge(results, chosen, across_machines=across_machines, now=NOW, rng=random.Random(0)).folder


def refused(results: Path, *references: str, across_machines: bool = False) -> str:
    before = known_runs(results)
    with pytest.raises(UsageError) as caught:
        merged_of(results, *references, across_machines=across_machines)
    assert known_runs(results) == before
    assert list(results.glob(".*.tmp")) == []
    return str(caught.value)


class TestMerged:
    @pytest.mark.parametrize("references", [IDS[:2], IDS[1::-1]])
    def test_is_what_one_run_would_have_been(
        self, results: Path, tmp_path: Path, shards: tuple[RunFolder, RunFolder], references: Sequence[str]
    ) -> None:
        whole = make_run(tmp_path / "whole", 0, groups())
        merged = merged_of(results, *references)
        assert merged.manifest().trials == whole.manifest().trials
        assert sorted(merged.manifest().order) == sorted(whole.manifest().order)
        assert sorted(merged.trials(), key=attrgetter("id")) == sorted(whole.trials(), key=attrgetter("id"))
        for name in ("samples", "logs"):
            contents = [{f.name: f.read_bytes() for f in (run.path / name).iterdir()} for run in (merged, whole)]
            assert contents[0] == contents[1]
        rows = [Run.read(run).rows for run in (merged, whole)]
        assert rows[0] == rows[1]
        whole.write_tables(files(Run.read(whole)))
        assert (merged.path / "results.csv").read_text() == (whole.path / "results.csv").read_text()
        epochs = [(run.path / "epochs.csv").read_text().splitlines() for run in (merged, whole)]
        assert sorted(epochs[0]) == sorted(epochs[1])

    def test_lines_are_the_shards_own_bytes_in_the_order_of_their_start(
        self, results: Path, shards: tuple[RunFolder, RunFolder]
    ) -> None:
        with (shards[0].path / "trials.jsonl").open("ab") as file:
            file.write(b'{"torn')
        merged = merged_of(results, IDS[1], IDS[0])
        for name in ("trials.jsonl", "sessions.jsonl"):
            parts = b"".join((shard.path / name).read_bytes() for shard in shards).replace(b'{"torn', b"")
            assert (merged.path / name).read_bytes() == parts

    def test_has_an_id_of_its_own_and_latest(self, results: Path, shards: tuple[RunFolder, RunFolder]) -> None:
        merged = merged_of(results)
        assert merged.run_id.startswith("20261201T000000Z-")
        assert merged.manifest().run_id == merged.run_id
        assert RunFolder.open(results, "latest").path == merged.path
        assert set(known_runs(results)) == {*IDS[:2], merged.run_id}

    def test_says_where_it_comes_from(self, results: Path, shards: tuple[RunFolder, RunFolder]) -> None:
        manifest = merged_of(results).manifest()
        assert manifest.options.merged_from == IDS[:2]
        assert manifest.options.across_machines is False
        assert manifest.options.shard is None
        assert [source.shard for source in manifest.options.sources] == ["1/2", "2/2"]
        assert (manifest.started_at, manifest.ended_at) == ("2026-11-01T00:00:00Z", "2026-11-02T01:00:00Z")
        assert manifest.status == "complete"

    def test_shards_by_path_from_elsewhere(self, tmp_path: Path) -> None:
        paths = [str(make_run(tmp_path / f"job{n}", n, groups((n + 1, 2))).path) for n in range(2)]
        merged = merged_of(tmp_path / "results", *paths)
        assert len(merged.trials()) == 12
        assert known_runs(tmp_path / "results") == (merged.run_id,)

    def test_of_merged_runs(self, results: Path) -> None:
        for number in range(3):
            make_run(results, number, groups((number + 1, 3)))
        first = merged_of(results)
        again = merge(results, [first.run_id, IDS[2]], across_machines=False, now=NOW, rng=random.Random(1)).folder
        assert again.manifest().trials == tuple(trial_id(*pair) for _, pairs in groups() for pair in pairs)

    def test_without_any_trial_that_is_ok(self, results: Path) -> None:
        for number, seed in enumerate((0, 1)):
            folder = make_run(results, number, ())
            with folder.lock():
                folder.append(make_trial(seed=seed, outcome=Skip(reason="no device")))
                folder.update_manifest(trials=(make_trial(seed=seed).id,))
        assert [trial.status for trial in merged_of(results).trials()] == ["skipped", "skipped"]
        assert not (RunFolder.open(results, "latest").path / "sessions.jsonl").exists()

    def test_missing_shards_and_other_commits_are_noted(self, results: Path) -> None:
        make_run(results, 0, groups((1, 4)), options=RunOptions(shard="1/4"))
        make_run(
            results,
            1,
            groups((3, 4)),
            options=RunOptions(shard="3/4"),
            environment=replace(make_manifest().environment, commit="b" * 40, dirty=False),
        )
        merged = merge(results, IDS[:2], across_machines=False, now=NOW, rng=random.Random(0))
        assert any("2/4, 4/4" in note for note in merged.notes)
        assert any("different commits" in note for note in merged.notes)
        environment = merged.folder.manifest().environment
        assert (environment.commit, environment.dirty) == (None, True)

    def test_links_and_leavings_are_not_copied(
        self, results: Path, tmp_path: Path, shards: tuple[RunFolder, RunFolder]
    ) -> None:
        (tmp_path / "secret").write_text("secret")
        (shards[0].path / "logs" / "link.log").symlink_to(tmp_path / "secret")
        (shards[0].path / "logs" / ".x.log.123.abc.tmp").write_text("")
        assert {file.suffix for file in (merged_of(results).path / "logs").iterdir()} == {".log"}
        assert not (RunFolder.open(results, "latest").path / "logs" / "link.log").exists()


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"matrix_sha256": "f" * 64}, "its matrix is ffffffffffff"),
            ({"matrix": replace(MATRIX, recipe="tutorial")}, "its recipe is tutorial, that of .*aaaaaa is standard"),
            (
                {"dataset": DataSet(name="synthetic", root="/", sha256="e" * 64)},
                "its data set is synthetic eeeeeeeeeeee",
            ),
            ({"program_version": "0.0.9"}, "its program version is 0.0.9"),
            ({"status": "interrupted"}, "is interrupted, not complete: finish it .*--resume 20261102T000000Z-bbbbbb"),
            ({"status": "running"}, "is running, not complete"),
        ],
    )
    def test_what_differs_is_named(self, results: Path, changes: dict[str, Any], message: str) -> None:
        make_run(results, 0, groups((1, 2)))
        make_run(results, 1, groups((2, 2)), **changes)
        pattern = pytest.raises(UsageError, match=message)
        with pattern:
            merged_of(results)

    def test_all_differences_at_once(self, results: Path) -> None:
        make_run(results, 0, groups((1, 2)))
        make_run(results, 1, groups((2, 2)), matrix_sha256="f" * 64, program_version="0", status="stopped")
        assert len(refused(results).splitlines()) == 3

    @pytest.mark.parametrize("references", [[IDS[0]], [IDS[0], IDS[0]], [IDS[0], "latest", IDS[0]]])
    def test_fewer_than_two_runs(
        self, results: Path, shards: tuple[RunFolder, RunFolder], references: list[str]
    ) -> None:
        assert "named twice" in (text := refused(results, *references)) or "two runs at least" in text

    def test_a_trial_in_both_is_named(self, results: Path) -> None:
        for number in range(2):
            make_run(results, number, groups((1, 2)))
        text = refused(results)
        assert f"trial mlp/cpu/b100/eager/s0: is in {IDS[0]} and in {IDS[1]} (the very same measurement)" in text

    def test_a_trial_that_was_measured_twice_is_named(self, results: Path) -> None:
        for number in range(2):
            folder = make_run(results, number, (), trials=(make_trial().id,))
            with folder.lock():
                folder.append(make_trial(outcome=make_measurement(total_s=10.0 + number)))
        assert "trial mlp/cpu/b100/eager/s0" in (text := refused(results))
        assert "measured twice" in text

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"cpu": "Intel Xeon"}, "CPU is Intel Xeon"),
            ({"cores": 8}, "cores is 8"),
            ({"packages": {}}, "torch is unknown"),
        ],
    )
    def test_another_machine(self, results: Path, change: dict[str, Any], named: str) -> None:
        make_run(results, 0, groups((1, 2)))
        make_run(results, 1, groups((2, 2)), environment=replace(make_manifest().environment, **change))
        assert named in (text := refused(results))
        assert "--across-machines" in text
        manifest = merged_of(results, across_machines=True).manifest()
        assert manifest.options.across_machines is True
        recorded = [source.environment for source in manifest.options.sources]
        assert recorded[0].cpu == "AMD EPYC"
        assert recorded[1] == replace(recorded[0], **change)
        assert manifest.environment.cpu not in ("AMD EPYC", "Intel Xeon"), "comparable with neither of them"

    def test_another_gpu(self, results: Path) -> None:
        for number, gpu in enumerate(("NVIDIA H100", "NVIDIA A10")):
            trial = make_trial(make_cell(device="cuda"), number, make_measurement(device_name=gpu))
            both = replace(MATRIX, devices=("cpu", "cuda"))
            folder = make_run(results, number, (), matrix=both, trials=(trial.id,))
            with folder.lock():
                folder.append(trial)
        assert "its GPU is NVIDIA A10, that of" in refused(results)

    def test_a_group_on_two_machines(self, results: Path) -> None:
        for number, variant in enumerate(("eager", "compile")):
            environment = replace(make_manifest().environment, cores=2 + number)
            trial = make_trial(make_cell(variant=variant))
            folder = make_run(results, number, (), environment=environment, trials=(trial.id,))
            with folder.lock():
                folder.append(trial)
        assert "group mlp/b100/s0: is in" in refused(results, across_machines=True)

    def test_a_broken_line(self, results: Path, shards: tuple[RunFolder, RunFolder]) -> None:
        path = shards[1].path / "trials.jsonl"
        path.write_bytes(b"{}\n" + path.read_bytes())
        assert "trials.jsonl:1: broken line" in refused(results)

    def test_files_of_one_name(self, results: Path, shards: tuple[RunFolder, RunFolder]) -> None:
        for shard in shards:
            (shard.path / "samples" / "mine.npy").write_text("")
        assert "mine.npy: another shard has a file of this name" in refused(results)


def test_kill_leaves_no_run(
    results: Path, shards: tuple[RunFolder, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    for owner, step in [(Path, "rename"), (Path, "replace"), (os, "fsync"), (RunFolder, "write_tables")]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, kill)
            with pytest.raises(KeyboardInterrupt):
                merged_of(results)
        assert known_runs(results) == IDS[:2]
        assert list(results.glob(".*.tmp")) == []
        assert RunFolder.open(results, "latest").run_id == IDS[1]


def test_shard_that_changes_meanwhile_is_noticed(
    results: Path, shards: tuple[RunFolder, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = RunFolder.create

    def create(output_dir: Path, manifest: Manifest, fill: Callable[[Path], None]) -> RunFolder:
        path = shards[0].path / "trials.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        return usual(output_dir, manifest, fill)

    monkeypatch.setattr(RunFolder, "create", create)
    with pytest.raises(BenchError, match="changed while it was merged"):
        merged_of(results)
    assert known_runs(results) == IDS[:2]


def test_resume_of_a_merged_run_is_refused(results: Path, shards: tuple[RunFolder, RunFolder]) -> None:
    merged = merged_of(results)
    options = Options(run=RunOptions(), matrix_path="m", output_dir=results, data_root=results)
    with pytest.raises(UsageError, match=f"a merged run is complete.*{IDS[0]}, {IDS[1]}"):
        runner.resume(merged, options)
    assert main(["run", "--resume", "latest", "-o", str(results)]) == 2


class TestCommand:
    def test_prints_the_table_and_says_where_it_is(
        self, results: Path, shards: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["merge", *IDS[:2], "-o", str(results), "--json"]) == 0
        out, err = capsys.readouterr()
        document = json.loads(out)
        assert len(document["rows"]) == 4
        assert {row["seeds"] for row in document["rows"]} == {3}
        assert f"merged: {results}/{document['run_id']}/results.md" in err

    @pytest.mark.parametrize(("outcome", "code"), [("failed", 1), ("skipped", 5)])
    def test_exit_codes_are_those_of_run(self, results: Path, outcome: str, code: int) -> None:
        for number in range(2):
            matrix = replace(MATRIX, batch_sizes=(7, 100, 1000))
            trial = make_failed(make_cell(batch_size=7), number)
            planned = () if outcome == "skipped" else groups((number + 1, 2))[:1]
            names = [trial_id(*pair) for _, pairs in planned for pair in pairs]
            folder = make_run(results, number, planned, matrix=matrix, trials=(*names, trial.id))
            with folder.lock():
                folder.append(trial if outcome == "failed" else replace(trial, outcome=Skip(reason="none")))
        assert main(["merge", *IDS[:2], "-o", str(results)]) == code

    def test_refusal_is_one_line_each_without_a_traceback(
        self, results: Path, shards: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["merge", IDS[0], IDS[0], "-o", str(results)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"mnist-bench: {IDS[0]}: is named twice\n")


PLUGIN = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""

REAL_MATRIX = """
version: 1
epochs: 1
seeds: 2
models: ["tiny:build"]
devices: [cpu]
batch_sizes: [20000]
variants: [eager]
timing: {budget_seconds: 0.5}
"""


def test_a_real_matrix_in_two_shards(tmp_path: Path, bench_environ: Callable[[], dict[str, str]]) -> None:
    """Trained and timed for real, each shard with a seed of the one cell: the trials of the plan, and no other."""
    (tmp_path / "tiny.py").write_text(PLUGIN)
    (tmp_path / "matrix.yaml").write_text(REAL_MATRIX)
    results = tmp_path / "results"

    def program(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mnist_bench", *words, "-o", str(results)]
        return subprocess.run(command, env=bench_environ(), cwd=tmp_path, capture_output=True, text=True, check=False)

    for shard in ("1/2", "2/2"):
        done = program("run", "matrix.yaml", "--shard", shard, "--allow-plugins", "--offline", "-q")
        assert done.returncode == 0, done.stderr
    done = program("merge", *known_runs(results), "--json")
    assert done.returncode == 0, done.stderr
    merged = RunFolder.open(results, "latest")
    manifest = merged.manifest()
    planned = matrices.groups(matrices.expand(manifest.matrix), manifest.matrix.seeds)
    assert manifest.trials == tuple(trial_id(*pair) for _, pairs in planned for pair in pairs)
    assert sorted(trial.id for trial in merged.trials()) == sorted(manifest.trials)
    (row,) = Run.read(merged).rows
    assert (row.status, row.seeds) == ("ok", 2)
    assert all(merged.samples_path(trial.id).is_file() for trial in merged.trials())
    listed = json.loads(done.stdout)["rows"]
    assert listed[0]["train_samples_per_s"] == row["train_samples_per_s"]
    told = program("history", "--json")
    assert [point["run_id"] for point in json.loads(told.stdout)] == [merged.run_id]
