"""``run`` as a user meets it, over runs that are finished or half so: what is said, what is refused, what is shown."""

import shlex
from typing import Any
from unittest.mock import Mock

import pytest
from bad_matrices import GOOD
from record_factory import RUN_ID, keep, make_cell, make_manifest, make_matrix, make_trial

from mnist_bench import cells as matrices
from mnist_bench.cli import main
from mnist_bench.cli.progress import TimeLeft
from mnist_bench.errors import Interrupted
from mnist_bench.records import BUILTIN_VARIANTS, RunOptions
from mnist_bench.running import runner
from mnist_bench.running.group import Stage


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """A cache folder of the test's own, no CI; the data set's files are not looked at."""
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CI", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def resume(tmp_path):
    """Makes a run of a cell and two seeds, of which ``finished`` are done; returns the command that goes on with it."""

    def make(finished: int = 2, **changes: Any) -> list[str]:
        matrix = make_matrix(seeds=(0, 1), variants=(BUILTIN_VARIANTS["eager"],))
        trials = [make_trial(make_cell(), seed) for seed in matrix.seeds]
        manifest = make_manifest(
            trials,
            matrix=matrix,
            matrix_sha256=matrices.fingerprint(matrix),
            order=("mlp/b100/s0", "mlp/b100/s1"),
            options=RunOptions(**changes),
        )
        keep(tmp_path / "results", manifest, trials[:finished])
        return ["run", "--resume", "latest", "-o", str(tmp_path / "results")]

    return make


CODE = ('"model": "mlp"', '"model": "evilmod:build"')


SET = ('"name": "mnist"', '"name": "evilmod:load"')


@pytest.mark.parametrize(
    ("options", "edit", "words"),
    [
        ({"allow_plugins": True}, SET, "manifest.json: dataset: evilmod:load is code that the matrix does not name"),
        ({}, ('"name": "mnist"', '"name": "evil"'), "manifest.json: Expected `str` matching regex"),
        ({}, ('"dataset": "auto"', '"dataset": "evilmod:load"'), "matrix: dataset: 'evilmod:load' is code"),
        ({}, ('"epochs": 2', '"epochs": 99'), "epochs: should be less than or equal to 50"),
        ({}, CODE, "manifest.json: matrix: models[0].model: 'evilmod:build' is code: add --allow-plugins"),
        ({"allow_plugins": True}, CODE, "models[0].model: 'evilmod:build' is code: add --allow-plugins"),
    ],
)
def test_a_resumed_run_is_what_it_was_and_a_stranger_s_runs_no_code(resume, tmp_path, capsys, options, edit, words):
    command, path = resume(1, **options), tmp_path / "results" / RUN_ID / "manifest.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace(*edit, 1))
    assert main(command) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--allow-plugins"]])
def test_the_command_that_goes_on_is_whole(resume, monkeypatch, capsys, flags):
    monkeypatch.setattr(runner, "run_group", Mock(side_effect=Interrupted("interrupted")))
    command = resume(1, allow_plugins=bool(flags))
    assert main([*command, *flags]) == 130
    again = " ".join(["mnist-bench run --resume", RUN_ID, "-o", shlex.quote(command[-1]), *flags])
    assert f"go on with: {again}\n" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["run matrix.yaml", "check matrix.yaml --against HEAD", "reproduce"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_waited_for(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mnist_bench.machine.noise.alone", lambda **_: pytest.fail("waited"))
    (tmp_path / "file").write_text("")
    (tmp_path / "matrix.yaml").write_text(GOOD)
    assert main([*words.split(), "-o", "file/results"]) == 2
    assert "a run cannot be made here" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == ""


def test_what_is_left_follows_from_the_run_s_own_stages():
    """Ten times slower than guessed in its first trial, the others are expected so too; time ticks within a stage."""
    now = 0.0
    names = [f"t{n}" for n in range(4)]
    stages: dict[Stage, float] = {"preparing": 1.0, "timing": 1.0, "training": 8.0}
    guesses = dict.fromkeys(names, stages)
    left = TimeLeft(dict(guesses), lambda: now)
    assert left.seconds() == 40.0
    for stage, took_s, expected_s in (("preparing", 10.0, 39.0), ("timing", 10.0, 65.0), ("training", 80.0, 84.0)):
        left.enter(stage, "t0")
        now += took_s
        assert left.seconds() == pytest.approx(expected_s)
    left.leave("t0")
    assert left.seconds() == pytest.approx(300.0)
    left.enter("preparing", "t1")
    for more_s, expected_s in ((4.0, 296.0), (40.0, 290.0)):  # longer than expected: no less than all other stages
        now += more_s
        assert left.seconds() == pytest.approx(expected_s)
    together = TimeLeft(dict(guesses), lambda: now)
    for stage, name in (("preparing", "t1"), ("preparing", "t2"), ("timing", "t1"), ("training", "t2")):
        together.enter(stage, name)
        now += 1.0
    timed = {name for name in names if "timing" not in together.guesses[name]}
    assert timed == {"t1", "t2"}  # the others were not ready


def test_what_is_left_is_told_without_going_over_all_trials():
    class Guesses(dict):
        def __iter__(self):
            pytest.fail("went over all trials")

        values = items = keys = __iter__

    stages: tuple[Stage, ...] = ("preparing", "timing", "training")
    left = TimeLeft(dict.fromkeys([f"t{n}" for n in range(9)], dict.fromkeys(stages, 1.0)), lambda: 0.0)
    left.guesses = Guesses(left.guesses)
    for name in ("t0", "t1"):
        for stage in stages:
            left.enter(stage, name)
        left.leave(name)
    assert (left.seconds(), left.words()[:5]) == (0.0, "about")
