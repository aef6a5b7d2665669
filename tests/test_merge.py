"""Shards to one run: the trials, lines and tables that one run would have, or a refusal that names what differs."""

import os
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from record_factory import keep, make_cell, make_manifest, make_matrix, make_measurement, make_session, make_trial

from mnist_bench import cells as matrices
from mnist_bench.disk.folder import RunFolder, known_runs
from mnist_bench.errors import UsageError
from mnist_bench.machine.shards import shard as part
from mnist_bench.records import DataSet, RunOptions, Sides, Tree, Trial, trial_id
from mnist_bench.running.merge import merge
from mnist_bench.running.runner import write_tables

MATRIX = make_matrix(batch_sizes=(100, 1000), seeds=(0, 1, 2))
IDS = ("20261101T000000Z-aaaaaa", "20261102T000000Z-bbbbbb", "20261103T000000Z-cccccc")
ENVIRONMENT = make_manifest().environment
TREE = Tree(label="main", commit=None)


def make_run(results: Path, number: int, shard: str | None = None, **changes: Any) -> RunFolder:
    """A run of some groups of MATRIX, with all its files; what it measures depends on the trial alone."""
    planned = part(MATRIX, matrices.planned(MATRIX), shard)
    trials = [make_trial(cell, seed) for _, pairs in planned for cell, seed in pairs]
    folder = make_folder(results, number, trials, shard=shard, **changes)
    with folder.lock():
        for group, pairs in planned:
            members = [trial_id(*pair) for pair in pairs]
            rows = [[2.0 + index + round_ / 10 for index in range(len(members))] for round_ in range(8)]
            folder.append(make_session(members, rows, group=group))
    for trial in trials:
        folder.samples_path(trial.id).write_bytes(trial.id.encode())
        folder.log_path(trial.id).write_text(f"log of {trial.id}")
    return folder


def make_folder(results: Path, number: int, trials: list[Trial], shard: str | None = None, **changes: Any) -> RunFolder:
    manifest = make_manifest(
        trials,
        run_id=IDS[number],
        matrix=MATRIX,
        matrix_sha256=matrices.fingerprint(MATRIX),
        started_at=f"2026-11-0{number + 1}T00:00:00Z",
        ended_at=f"2026-11-0{number + 1}T01:00:00Z",
        options=RunOptions(plugin_path="/x", shard=shard, solo=True),
    )
    return keep(results, replace(manifest, **changes), trials)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def shards(results):
    return make_run(results, 0, "1/2"), make_run(results, 1, "2/2")


def merged(results: Path, *references: str, across_machines: bool = False) -> RunFolder:
    """The first two runs in one, unless others are named."""
    return merge(results, references or IDS[:2], across_machines=across_machines)[0]


def refused(results: Path, *, across_machines: bool = False) -> str:
    before = known_runs(results)
    with pytest.raises(UsageError) as caught:
        merged(results, across_machines=across_machines)
    assert known_runs(results) == before
    assert list(results.glob(".*.tmp")) == []
    return str(caught.value)


class TestMerged:
    @pytest.mark.parametrize("references", [IDS[:2], IDS[1::-1]])
    def test_is_what_one_run_would_have_been(self, results, tmp_path, shards, references):
        with (shards[0].path / "trials.jsonl").open("ab") as file:
            file.write(b'{"torn')
        folders = merged(results, *references), make_run(tmp_path / "whole", 0)
        one, whole = map(write_tables, folders)
        assert one.manifest.trials == whole.manifest.trials
        assert sorted(one.manifest.order) == sorted(whole.manifest.order)
        assert sorted(one.trials, key=attrgetter("id")) == sorted(whole.trials, key=attrgetter("id"))
        assert one.rows == whole.rows
        contents = [{p.name: p.read_bytes() for p in f.path.glob("*/*")} for f in folders]
        assert contents[0] == contents[1] != {}
        for name in ("trials.jsonl", "sessions.jsonl"):  # byte for byte, in the order of their start
            parts = b"".join((shard.path / name).read_bytes() for shard in shards).replace(b'{"torn', b"")
            assert (folders[0].path / name).read_bytes() == parts

    @pytest.mark.usefixtures("shards")
    def test_says_who_it_is_and_where_it_comes_from(self, results):
        one = merged(results)
        manifest, options = one.manifest(), one.manifest().options
        assert manifest.run_id == one.run_id
        assert RunFolder.open(results, "latest").path == one.path
        assert set(known_runs(results)) == {*IDS[:2], one.run_id}
        assert options == RunOptions(plugin_path="/x", solo=True, merged_from=IDS[:2])  # what the shards share
        assert (manifest.started_at, manifest.ended_at) == ("2026-11-01T00:00:00Z", "2026-11-02T01:00:00Z")

    def test_links_and_what_is_no_trials_are_not_copied(self, results, tmp_path, shards):
        (tmp_path / "secret").write_text("secret")
        link, pipe = (shards[0].log_path(trial) for trial in shards[0].manifest().trials[:2])
        link.unlink(), pipe.unlink()
        link.symlink_to(tmp_path / "secret")
        os.mkfifo(pipe)
        (shards[0].path / "logs" / "mine").write_text("")
        logs = {path.name for path in (merged(results).path / "logs").iterdir()}
        assert len(logs) == 10
        assert not logs & {link.name, pipe.name, "mine"}

    def test_merged_runs_and_shards_by_path(self, results, tmp_path):
        paths = [str(make_run(tmp_path / f"job{n}", n, f"{n + 1}/3").path) for n in range(3)]
        again = merged(results, merged(results, *paths[:2]).run_id, paths[2])
        assert again.manifest().trials == tuple(trial_id(*pair) for _, own in matrices.planned(MATRIX) for pair in own)
        assert len(known_runs(results)) == 2


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dataset": DataSet(name="synthetic", root="/", sha256="e" * 64)}, "data set: synthetic, and mnist in"),
            ({"check": Sides(a=TREE, b=TREE, matrix=None, cells=(), budget_s=1.0)}, "is a check, not a run"),
        ],
    )
    def test_what_differs_is_named(self, results, changes, message):
        make_run(results, 0, "1/2")
        make_run(results, 1, "2/2", **changes)
        assert message in refused(results)

    def test_shards_of_other_cells(self, results):
        """Half of some cells and half of others are no run; without shards, each has said itself what it is."""
        for number, cells in enumerate(("variant=eager", "variant=compile")):
            options = RunOptions(plugin_path="/x", shard=f"{number + 1}/2", solo=True, filter=cells)
            make_run(results, number, f"{number + 1}/2", options=options)
        assert "--filter: variant=compile, and variant=eager in" in refused(results)

    @pytest.mark.parametrize(
        ("gpu", "change", "named"),
        [
            ("A10", {"details": {"nvidia_driver": "2"}}, "NVIDIA driver is 2"),
            ("H100", {}, "GPU is H100, that of"),
        ],
    )
    def test_another_machine(self, results, gpu, change, named):
        known, matrix = replace(ENVIRONMENT, details={"nvidia_driver": "1"}), replace(MATRIX, devices=("cpu", "cuda"))
        for number, where in enumerate((known, replace(known, **change))):
            trial = make_trial(make_cell(device="cuda"), number, make_measurement(device_name=("A10", gpu)[number]))
            make_folder(results, number, [trial], matrix=matrix, environment=where)
        assert named in (text := refused(results))
        assert "--across-machines" in text
        manifest = merged(results, across_machines=True).manifest()
        assert manifest.options.across_machines is True
        assert manifest.environment.cpu not in ("AMD EPYC", "Intel Xeon"), "comparable with neither of them"

    @pytest.mark.parametrize("cores", [2, 3])
    def test_a_group_on_two_machines(self, results, cores):
        for number, variant in enumerate(("eager", "compile")):
            # That a driver is known on one side alone is no difference.
            where = replace(ENVIRONMENT, cores=(2, cores)[number], details={"nvidia_driver": "1"} if number else {})
            trial, matrix = make_trial(make_cell(device="cuda", variant=variant)), replace(MATRIX, devices=("cuda",))
            make_folder(results, number, [trial], matrix=matrix, environment=where)
        if cores == 2:
            assert len(merged(results, across_machines=True).trials()) == 2, "one machine after all"
        else:
            assert "group mlp/b100/s0: is in" in refused(results, across_machines=True)

    @pytest.mark.parametrize("name", ["samples", "logs"])
    def test_a_folder_that_is_a_link(self, results, shards, name):
        path = shards[1].path / name
        path.rename(results.parent / name)
        path.symlink_to(results.parent / name)
        assert f"{path}: must be a folder of the run's own, and no link" in refused(results)


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize(("owner", "step"), [(Path, "replace"), (os, "fsync"), (RunFolder, "write_tables")])
def test_kill_leaves_no_run(results, monkeypatch, owner, step):
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merged(results)
    assert known_runs(results) == IDS[:2]
    assert list(results.glob(".*.tmp")) == []
    assert RunFolder.open(results, "latest").run_id == IDS[1]
