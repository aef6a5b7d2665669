"""``run`` as a user meets it, over runs that are finished or half so: what is said, what is refused, what is shown."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_matrices import GOOD
from record_factory import RUN_ID, make_cell, make_manifest, make_matrix, make_trial

from mnist_bench import cells as matrices
from mnist_bench.cli import main
from mnist_bench.cli.progress import TimeLeft
from mnist_bench.data import Request
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import DataError, Interrupted
from mnist_bench.records import BUILTIN_VARIANTS, RunOptions
from mnist_bench.run import runner
from mnist_bench.run.group import Stage

Start = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of the test's own, no CI; the data set's files are not looked at."""
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CI", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def resume(tmp_path: Path) -> Start:
    """Makes a run of a cell and two seeds, of which ``finished`` are done; returns the command that goes on with it."""

    def make(finished: int = 2, **changes: Any) -> list[str]:
        matrix = make_matrix(seeds=(0, 1), variants=(BUILTIN_VARIANTS["eager"],))
        trials = [make_trial(make_cell(), seed) for seed in matrix.seeds]
        manifest = make_manifest(
            trials,
            matrix=matrix,
            matrix_sha256=matrices.fingerprint(matrix),
            order=("mlp/b100/s0", "mlp/b100/s1"),
            options=RunOptions(**{"solo": True, **changes}),
        )
        folder = RunFolder.create(tmp_path / "results", manifest)
        with folder.lock():
            for trial in trials[:finished]:
                folder.append(trial)
        return ["run", "--resume", "latest", "-o", str(tmp_path / "results")]

    return make


def test_what_is_finished_is_shown_again(resume: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(resume()) == 0
    out, err = capsys.readouterr()
    assert "mlp" in out
    assert err.startswith(f"run {RUN_ID}: 2 trials, 2 of them finished before; ")
    assert f"/{RUN_ID}/results.md (and .csv, .json, epochs.csv)\n" in err


def test_a_stranger_s_matrix_runs_no_code(resume: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = resume(finished=0)
    path = tmp_path / "results" / RUN_ID / "manifest.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"epochs": 2', '"epochs": 99', 1))
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "manifest.json: matrix" in err
    assert "epochs: should be less than or equal to 50" in err
    path.write_text(text.replace('"model": "mlp"', '"model": "evilmod:build"', 1))
    assert main(command) == 2
    assert "models[0].model: 'evilmod:build' is code: add --allow-plugins" in capsys.readouterr().err


def test_quiet_leaves_nothing_but_the_table(resume: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*resume(), "-q"]) == 0
    out, err = capsys.readouterr()
    assert "mlp" in out
    assert err == ""


@pytest.mark.parametrize(
    ("flags", "changes", "more"), [([], {}, ""), (["--allow-plugins"], {"allow_plugins": True}, " --allow-plugins")]
)
def test_the_command_that_goes_on_is_whole(
    resume: Start,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    changes: dict[str, Any],
    more: str,
) -> None:
    def interrupt(group: Any, **_: Any) -> Any:
        raise Interrupted("interrupted")

    monkeypatch.setattr(runner, "run_group", interrupt)
    command = resume(1, **changes)
    assert main([*command, *flags]) == 130
    where = shlex.quote(command[-1])
    assert f"go on with: mnist-bench run --resume {RUN_ID} -o {where}{more}\n" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--filter", "model=mlp"], ["--shard", "1/2"], ["--solo"], ["--strict-devices"]])
def test_a_resumed_run_goes_on_as_it_was_started(
    resume: Start, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    command = resume(solo=False)
    assert main([*command, *flags]) == 2
    assert f"{flags[0]}: a resumed run goes on as it was started; leave {flags[0]} out" in capsys.readouterr().err


def test_a_flag_that_the_run_was_started_with_may_be_said_again(resume: Start) -> None:
    assert main([*resume(strict_devices=True), "--solo", "--strict-devices"]) == 0


@pytest.mark.parametrize(
    ("flags", "terminal", "bar"),
    [([], True, True), ([], False, False), (["-q"], True, False), (["--no-progress"], True, False)],
)
def test_a_download_has_its_bar_on_a_terminal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    terminal: bool,
    bar: bool,
) -> None:
    asked: list[bool] = []

    def resolve(kind: str, request: Request) -> None:
        asked.append(request.progress)
        raise DataError("there is none")

    monkeypatch.setattr(runner.data, "resolve", resolve)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    (tmp_path / "matrix.yaml").write_text(GOOD)
    assert main(["run", str(tmp_path / "matrix.yaml"), "-o", str(tmp_path / "results"), *flags]) == 2
    assert asked == [bar]


def test_a_summary_that_cannot_be_written_keeps_the_exit_code(
    resume: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "summary.md"
    full.write_bytes(b"x" * (1 << 20))
    command = resume()
    for path, why in ((tmp_path / "gone" / "summary.md", "No such file"), (full, "more than 1 MiB")):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
        assert main(command) == 0
        assert f"warning: GITHUB_STEP_SUMMARY: {why}" in capsys.readouterr().err
    assert full.stat().st_size == 1 << 20
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "new.md"))
    assert main(command) == 0
    assert (tmp_path / "new.md").read_text().startswith("# MNIST benchmark")


def test_a_place_that_cannot_be_written_is_said_before_anything_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mnist_bench.machine.lock.alone", lambda **_: pytest.fail("waited"))
    (tmp_path / "file").write_text("")
    (tmp_path / "matrix.yaml").write_text(GOOD)
    assert main(["run", str(tmp_path / "matrix.yaml"), "-o", str(tmp_path / "file" / "results")]) == 2
    assert "a run cannot be made here" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("said", [False, True])
def test_a_manifest_that_names_code_needs_the_flag_whatever_it_says_itself(
    resume: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: bool
) -> None:
    command = resume(1, allow_plugins=said)
    path = tmp_path / "results" / RUN_ID / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["matrix"]["models"][0]["model"] = "evil:build"
    path.write_text(json.dumps(manifest))
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "--allow-plugins" in message
    assert said or "manifest.json: matrix" in message


def test_what_is_left_follows_from_the_run_s_own_stages() -> None:
    """Ten times slower than guessed in its first trial, the others are expected so too; time ticks within a stage."""
    now = [0.0]
    cells_of = {f"t{n}": make_cell(batch_size=100 * (1 + n // 2)) for n in range(4)}
    groups = {name: (name,) for name in cells_of}
    guesses: dict[str, dict[Stage, float]] = {
        name: {"preparing": 1.0, "timing": 1.0, "training": 8.0} for name in cells_of
    }
    left = TimeLeft(guesses, cells_of, groups, lambda: now[0])
    assert left.seconds() == 40.0
    expected = []
    for stage, took in (("preparing", 10.0), ("timing", 10.0), ("training", 80.0)):
        left.enter(stage, "t0")  # type: ignore[arg-type]
        now[0] += took / 2
        left.share = 0.5
        expected.append(left.seconds())
        now[0] += took / 2
    left.leave("t0")
    assert left.seconds() == pytest.approx(300.0)
    left.enter("preparing", "t1")
    now[0] += 4.0
    assert left.seconds() == pytest.approx(296.0)
    now[0] += 40.0
    assert left.seconds() == pytest.approx(290.0)  # longer than expected: no less than all other stages
    assert expected == [pytest.approx(each) for each in (44.0, 70.0, 124.0)]
