"""Shards: every group in one of them, about the same time each, and the same on machines that are not."""

import json
from pathlib import Path

import pytest
from group_kit import planned as planned_run
from record_factory import make_matrix

from mnist_bench.cells import planned
from mnist_bench.cli import main
from mnist_bench.config import load
from mnist_bench.machine.forecast import trial_s
from mnist_bench.machine.shards import shard, split
from mnist_bench.records import RunOptions
from mnist_bench.running import runner

FILE = Path(__file__).parents[1] / "golden" / "inputs" / "first.yaml"
MATRIX = load(FILE, allow_plugins=False)
GROUPS = planned(MATRIX)
# A machine of many cores, without a compiler and a GPU.
OTHER = {"mnist_bench.machine.environment.available_cores": lambda: 64, "shutil.which": lambda name, **_: None}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 18, 19, 10**9 - 1])
def test_every_group_is_in_one_shard_and_the_first_shards_have_one(count):
    shards = split(MATRIX, GROUPS, count)
    assert all(shards)
    assert len(shards) == min(count, len(GROUPS))
    assert sorted(group for own in shards for group in own) == sorted(GROUPS)
    for number, own in enumerate(shards, 1):
        assert own == shard(MATRIX, GROUPS, f"{number}/{count}") == tuple(group for group in GROUPS if group in own)
    assert shard(MATRIX, GROUPS, "19/19") == ()


@pytest.mark.parametrize("count", [2, 4, 8])
def test_they_take_about_the_same_time(count):
    def longest(shards):
        times = [sum(trial_s(cell, MATRIX, 2, 2) for _, trials in own for cell, _ in trials) for own in shards]
        return max(times) / (sum(times) / count)

    assert longest(split(MATRIX, GROUPS, count)) < 1.07 < 1.1 < longest([GROUPS[n::count] for n in range(count)])


def test_what_plan_shows_is_what_runs_take_on_any_machine(monkeypatch, capsys):
    def told(*words):
        assert main(["plan", str(FILE), *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    def taken():
        return [runner.draft(MATRIX, RunOptions(shard=row["shard"])) for row in shards]

    shards = told("--shards", "4")["shards"]
    runs = taken()
    assert [row["groups"] for row in shards] == [len(own) for own in runs]
    assert [row["trials"] for row in shards] == [sum(len(trials) for _, trials in own) for own in runs]
    alone = [told("--shard", row["shard"])["seconds"] for row in shards]
    assert [row["seconds"] for row in shards] == pytest.approx(alone, abs=1)
    for target, answer in OTHER.items():
        monkeypatch.setattr(target, answer)
    assert told()["seconds"] < sum(alone) / 2
    assert taken() == runs


def test_a_shard_that_goes_on_has_the_groups_that_it_began_with(tmp_path, monkeypatch):
    plan = planned_run(tmp_path, make_matrix(), RunOptions(shard="1/2"))
    monkeypatch.setattr(runner, "shard", lambda *_: ())  # a later program may share out otherwise
    again = runner.resume(plan.folder, plan.options)
    assert [group.id for group in again.groups] == [*plan.manifest.order] != []
