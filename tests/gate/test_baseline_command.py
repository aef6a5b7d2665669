"""``baseline`` and ``check --baseline`` as they are called: files, formats, what goes where, exit codes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from baseline_kit import COMPILED, EAGER, OTHER, make, small_matrix
from comparison_kit import write

from mnist_bench.cli import main
from mnist_bench.gate.judge import judge
from mnist_bench.gate.output.codec import decode
from mnist_bench.records import Floor

FIRST, SECOND = "20261124T101500Z-aaaaaa", "20261125T101500Z-bbbbbb"
HOSTILE = "=cmd|'/c calc'!A1 <script>x</script> [red]b[/] \x1b[31m| \u202e`y`"

Call = Callable[..., tuple[int, str, str]]


class Place:
    """A folder with runs and a baseline of the first."""

    def __init__(self, path: Path) -> None:
        self.results, self.file = path / "results", path / "baseline.json"

    def run(self, run_id: str, *args: Any, changes: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        manifest, trials, sessions = make(*args, **kwargs)
        write(self.results, replace(manifest, **(changes or {})), trials, sessions, run_id)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def call(place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    def call(*words: str, columns: int = 120) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        try:
            code = main([*words])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def update(place: Place, call: Call) -> Call:
    def update(run: str, *words: str, reason: str = "first", **kwargs: Any) -> tuple[int, str, str]:
        where = ("--output", str(place.file), "--output-dir", str(place.results))
        return call("baseline", "update", run, "--reason", reason, *where, *words, **kwargs)

    return update


@pytest.fixture
def check(place: Place, call: Call) -> Call:
    def check(*words: str, **kwargs: Any) -> tuple[int, str, str]:
        where = ("--baseline", str(place.file), "-o", str(place.results))
        return call("check", *words, *where, **kwargs)

    return check


class TestUpdate:
    def test_writes_the_file_and_tells_what_is_new(self, place: Place, update: Call) -> None:
        place.run(FIRST)
        code, out, err = update("latest")
        assert code == 0
        assert out.startswith("Baseline baseline.json: 4 new\n")
        assert "→" not in out.partition("cell ")[2]
        assert COMPILED in out
        assert err == f"mnist-bench: wrote {place.file}\n"
        document = json.loads(place.file.read_bytes())
        assert document["runs"][FIRST]["reason"] == "first"

    def test_tells_old_and_new_cell_by_cell(self, place: Place, update: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, slow={COMPILED: 1.5}, accuracy={EAGER: -0.01})
        code, out, _ = update(SECOND, reason="a slower compiler")
        assert code == 0
        assert "4 changed" in out.splitlines()[0]
        line = next(line for line in out.splitlines() if line.startswith(COMPILED))
        assert " 1.2" in line
        assert "x → 0.8" in line
        line = next(line for line in out.splitlines() if line.startswith(EAGER))
        assert "0.9720 → 0.9620" in line

    @pytest.mark.parametrize("format_", ["csv", "json", "md"])
    def test_tells_programs_too(self, place: Place, update: Call, format_: str) -> None:
        place.run(FIRST)
        _, out, _ = update(FIRST, "--format", format_)
        if format_ == "csv":
            assert [row["change"] for row in csv.DictReader(io.StringIO(out))] == ["new"] * 4
        elif format_ == "json":
            assert {one["change"] for one in json.loads(out)} == {"new"}
        else:
            assert out.startswith("# Baseline baseline.json: 4 new\n")

    @pytest.mark.parametrize("columns", [80, 120])
    def test_fits_the_terminal(self, place: Place, update: Call, call: Call, columns: int) -> None:
        place.run(FIRST)
        _, out, _ = update(FIRST, columns=columns)
        _, shown, _ = call("baseline", "show", str(place.file), columns=columns)
        assert max(map(len, (out + shown).splitlines())) <= columns

    def test_few_seeds_are_warned_of(self, place: Place, update: Call) -> None:
        place.run(FIRST, small_matrix(seeds=(0,)))
        assert "fewer than 3 seeds" in update(FIRST)[2]

    def test_cells_without_a_ratio_are_warned_of(self, place: Place, update: Call, call: Call) -> None:
        manifest, trials, sessions = make()
        write(place.results, manifest, trials, [one for one in sessions if "mlp" in one.group], FIRST)
        assert f"no speed can be judged of {OTHER}: never timed" in update(FIRST)[2]
        assert f"too few rounds): {OTHER}" in call("baseline", "show", str(place.file), columns=200)[1]

    def test_filter_touches_no_other_cell(self, place: Place, update: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        before = json.loads(place.file.read_bytes())["cells"]
        place.run(SECOND, slow={COMPILED: 1.5}, trouble={OTHER: ("oom", "less")})
        code, out, _ = update(SECOND, "--filter", "model=mlp", reason="mlp")
        after = json.loads(place.file.read_bytes())["cells"]
        assert code == 0
        assert "2 changed, 2 same" in out.splitlines()[0]
        assert after[OTHER] == before[OTHER]
        assert after[COMPILED]["run"] == SECOND

    def test_leaves_the_file_alone_when_it_refuses(self, place: Place, update: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        before = place.file.read_bytes()
        place.run(SECOND, trouble={OTHER: ("oom", "less")})
        code, out, err = update(SECOND)
        assert (code, out) == (2, "")
        assert err.splitlines()[1] == f"mnist-bench:   {OTHER}: oom: less"
        assert place.file.read_bytes() == before

    @pytest.mark.parametrize("words", [[], ["--reason", ""]])
    def test_wants_a_reason(self, place: Place, call: Call, words: list[str]) -> None:
        place.run(FIRST)
        code, _, err = call("baseline", "update", FIRST, "--output-dir", str(place.results), *words)
        assert code == 2
        assert "--reason" in err

    def test_refuses_a_folder_and_a_foreign_file(self, place: Place, update: Call, call: Call, tmp_path: Path) -> None:
        place.run(FIRST)
        where = ("--reason", "x", "--output-dir", str(place.results))
        code, _, err = call("baseline", "update", FIRST, *where, "--output", str(tmp_path))
        assert code == 2
        assert str(tmp_path) in err
        place.file.write_text('{"name": "package"}', "utf-8")
        code, _, err = update(FIRST)
        assert code == 2
        assert "its `format` is not 'mnist-bench baseline'" in err
        assert "delete it and write it anew with `mnist-bench baseline update`" in err  # which replaces no such file
        assert json.loads(place.file.read_bytes()) == {"name": "package"}

    def test_makes_the_folder(self, place: Place, call: Call, tmp_path: Path) -> None:
        place.run(FIRST)
        file = tmp_path / "ci" / "cpu.json"
        words = ("--reason", "x", "--output-dir", str(place.results), "--output", str(file))
        assert call("baseline", "update", FIRST, *words)[0] == 0
        assert file.exists()


class TestShow:
    def test_table(self, place: Place, update: Call, call: Call) -> None:
        place.run(FIRST)
        update(FIRST, reason="the first one")
        code, out, err = call("baseline", "show", str(place.file))
        assert (code, err) == (0, "")
        assert out.startswith("Baseline baseline.json: 4 cells\n")
        assert ": the first one" in out
        header = next(line for line in out.splitlines() if line.startswith("cell"))
        assert header.split()[:4] == ["cell", "accuracy", "vs", "ref."]

    def test_json_and_csv_have_every_cell(self, place: Place, update: Call, call: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        document = json.loads(call("baseline", "show", str(place.file), "--json")[1])
        rows = list(csv.DictReader(io.StringIO(call("baseline", "show", str(place.file), "--format", "csv")[1])))
        assert len(document["cells"]) == len(rows) == 4
        assert list(document["cells"][0]) == list(rows[0])
        assert document["runs"][0]["run_id"] == FIRST

    def test_there_is_none(self, call: Call, tmp_path: Path) -> None:
        code, out, err = call("baseline", "show", str(tmp_path / "no.json"))
        assert (code, out) == (2, "")
        assert "there is no such baseline" in err
        assert "baseline update latest --reason" in err

    @pytest.mark.parametrize("data", [b"", b"[" * 100_000, b"\xff", b'{"format": "mnist-bench baseline"}'])
    def test_broken(self, place: Place, call: Call, data: bytes) -> None:
        place.file.write_bytes(data)
        code, out, err = call("baseline", "show", str(place.file))
        assert (code, out) == (2, "")
        assert err.startswith(f"mnist-bench: {place.file}: ")
        assert "Traceback" not in err

    def test_hostile_reasons_are_shown_literally(self, place: Place, update: Call, call: Call) -> None:
        place.run(FIRST, trouble={OTHER: ("skipped", HOSTILE)})
        update(FIRST, reason=HOSTILE)
        for format_ in ("table", "csv", "json", "md"):
            _, out, _ = call("baseline", "show", str(place.file), "--format", format_)
            assert "\x1b" not in out
            assert "\u202e" not in out
        assert "<script>" not in call("baseline", "show", str(place.file), "--format", "md")[1]


class TestCheck:
    def test_the_same_code_exits_0(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, salt=1)
        code, out, err = check(SECOND)
        assert code == 0
        assert "PASS: 4 pass" in out
        assert err.endswith(f"mnist-bench: check: {place.results / SECOND / 'check.json'}\n")

    def test_run_is_the_latest_unless_named(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, salt=1)
        assert f"run {SECOND}" in check()[1]

    def test_a_regression_exits_3(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, slow={COMPILED: 1.3}, salt=1)
        code, out, _ = check(SECOND)
        assert code == 3
        assert "FAIL: 1 regression, 3 pass" in out

    def test_a_missed_floor_exits_3(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        expect = (Floor(model="mlp", min_accuracy=0.999),)
        place.run(SECOND, small_matrix(expect=expect), salt=1)
        assert check(SECOND)[0] == 3

    def test_one_seed_exits_4(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST, small_matrix(seeds=(0,)))
        update(FIRST)
        place.run(SECOND, small_matrix(seeds=(0,)), slow={COMPILED: 1.06}, salt=1)
        code, out, _ = check(SECOND)
        assert code == 4
        assert "INCONCLUSIVE" in out

    def test_another_machine_exits_5(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        environment = replace(make()[0].environment, cpu="Intel Xeon")
        place.run(SECOND, changes={"environment": environment}, salt=1)
        code, out, _ = check(SECOND, columns=200)
        assert code == 5
        assert "CPU: AMD EPYC in the baseline, Intel Xeon here (moves speed)" in out

    @pytest.mark.parametrize("inside", [True, False])
    def test_annotations_name_the_matrix_from_the_root(
        self, place: Place, update: Call, check: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
    ) -> None:
        """GitHub finds files from the root of the repository, wherever the run and the check were called."""
        folder = tmp_path / "the repo" / "bench"
        folder.mkdir(parents=True)
        (folder / "m.yaml").write_text("")
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        if inside:
            subprocess.run(["git", "init", "--quiet", str(folder.parent)], check=True)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.chdir(folder)
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, slow={COMPILED: 1.3}, salt=1, changes={"matrix_path": "m.yaml"})
        _, out, _ = check(SECOND)
        file = "bench/m.yaml" if inside else "m.yaml"
        assert f"::error file={file},title=regression" in out

    def test_filter(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, slow={COMPILED: 1.3}, salt=1)
        assert check(SECOND, "--filter", "model=lenet5")[0] == 0
        code, _, err = check(SECOND, "--filter", "model=resnet")
        assert code == 2
        assert "resnet" in err

    def test_an_unfinished_run_exits_2(self, place: Place, update: Call, check: Call) -> None:
        place.run(FIRST)
        update(FIRST)
        manifest, trials, sessions = make(salt=1)
        write(place.results, replace(manifest, status="interrupted"), trials[:-1], sessions, SECOND)
        code, out, err = check(SECOND)
        assert (code, out) == (2, "")
        assert "is interrupted, not finished: 1 trials are missing" in err
        assert f"run --resume {SECOND}" in err

    @pytest.mark.parametrize(
        ("words", "message"), [(["nosuchrun"], "no run 'nosuchrun'"), (["--budget", "5m"], "--budget")]
    )
    def test_bad_usage_exits_2(self, place: Place, update: Call, check: Call, words: list[str], message: str) -> None:
        place.run(FIRST)
        update(FIRST)
        code, out, err = check(*words)
        assert (code, out) == (2, "")
        assert message in err

    def test_no_baseline_exits_2(self, place: Place, check: Call) -> None:
        place.run(FIRST)
        code, out, err = check(FIRST)
        assert (code, out) == (2, "")
        assert "there is no such baseline" in err

    def test_stored_check_is_judged_again_identically(
        self, place: Place, update: Call, check: Call, call: Call
    ) -> None:
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, slow={COMPILED: 1.3}, trouble={OTHER: ("skipped", "no compiler")}, salt=1)
        assert check(SECOND)[0] == 3
        file = place.results / SECOND / "check.json"
        stored, verdicts = decode(file.read_bytes())
        assert judge(stored) == verdicts
        assert call("check", "--replay", str(file))[0] == 3

    def test_stored_check_with_an_impossible_error_is_refused(
        self, place: Place, update: Call, check: Call, call: Call
    ) -> None:
        place.run(FIRST)
        update(FIRST)
        check(FIRST)
        file = place.results / FIRST / "check.json"
        document = json.loads(file.read_bytes())
        ratios = next(one["ratios"] for one in document["check"]["cells"] if one["ratios"])
        ratios["b"][0]["sd"] = 0.0
        file.write_text(json.dumps(document), "utf-8")
        code, _, err = call("check", "--replay", str(file))
        assert code == 2
        assert "is no standard error" in err

    @pytest.mark.parametrize("format_", ["csv", "json", "md"])
    def test_other_outputs(self, place: Place, update: Call, check: Call, tmp_path: Path, format_: str) -> None:
        place.run(FIRST)
        update(FIRST)
        place.run(SECOND, slow={COMPILED: 1.3}, salt=1)
        junit, comment = tmp_path / "junit.xml", tmp_path / "comment.md"
        code, out, _ = check(SECOND, "--format", format_, "--junit", str(junit), "--comment", str(comment))
        assert code == 3
        assert COMPILED in out or "compile" in out
        assert "slower" in junit.read_text("utf-8")
        assert "slower" in comment.read_text("utf-8")
