"""``baseline``, ``check --baseline`` and ``check --replay`` as they are called: files, what goes where, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from baseline_kit import COMPILED, OTHER, make_run, rewritten, small_matrix
from comparison_kit import write
from gate_kit import Call, evidence, logs, make_check, pair
from msgspec import structs

from mnist_bench.analysis.summary import Run
from mnist_bench.gate.judge import judge
from mnist_bench.gate.outputs import encode
from mnist_bench.records import Floor

FIRST, SECOND = "20261124T101500Z-aaaaaa", "20261125T101500Z-bbbbbb"
HOSTILE = "=cmd|'/c calc'!A1 <script>x</script> [red]b[/] \x1b[31m| \u202e`y`"


def keep(run: Run, run_id: str) -> None:
    write(Path("results"), run.manifest, run.trials, run.sessions, run_id)


@pytest.fixture
def first(call: Call) -> Path:
    """A run, and the baseline of it."""
    keep(make_run(), FIRST)
    assert call("baseline", "update", "--reason", "first")[0] == 0
    return Path("baseline.json")


class TestBaseline:
    def test_filter_touches_no_other_cell(self, call: Call, first: Path) -> None:
        before = json.loads(first.read_bytes())["cells"]
        keep(make_run(slow={COMPILED: 1.5}, trouble={OTHER: ("oom", "less")}), SECOND)
        code, out, _ = call("baseline", "update", SECOND, "--filter", "model=mlp", "--reason", "mlp")
        after = json.loads(first.read_bytes())["cells"]
        assert code == 0
        assert "2 changed, 2 same" in out.splitlines()[0]
        assert [one for one in after if one["cell"]["model"] == "lenet5"] == before[:2]
        assert after[2]["a"]["run_id"] == SECOND

    def test_update_makes_the_folder_and_warns_of_what_cannot_be_judged(self, call: Call) -> None:
        run = make_run(small_matrix(seeds=(0,)))
        keep(rewritten(run, sessions=[one for one in run.sessions if "mlp" in one.group]), FIRST)
        code, _, err = call("baseline", "update", "--reason", "x", "--output", "ci/cpu.json")
        assert code == 0
        assert Path("ci/cpu.json").exists()
        assert "fewer than 3 seeds" in err
        assert f"no speed can be judged of {OTHER}: never timed" in err

    @pytest.mark.parametrize(
        "data", [b"", b"[" * 100_000, b"\xff", b'{"schema_version": 1}', b'{"format": 3, "schema_version": 1}', None]
    )
    def test_a_broken_file_is_refused(self, call: Call, data: bytes | None) -> None:
        if data is None:
            os.mkfifo("baseline.json")
        else:
            Path("baseline.json").write_bytes(data)
        code, out, err = call("baseline", "show")
        assert (code, out) == (2, "")
        assert err.startswith("mnist-bench: baseline.json: ")

    def test_hostile_reasons_are_shown_literally(self, call: Call) -> None:
        keep(make_run(trouble={OTHER: ("skipped", HOSTILE)}), FIRST)
        call("baseline", "update", "--reason", HOSTILE)
        for format_ in ("table", "csv", "json", "md"):
            out = call("baseline", "show", "--format", format_)[1]
            assert "\x1b" not in out
            assert "\u202e" not in out
        assert "<script>" not in out


class TestCheckBaseline:
    @pytest.mark.parametrize(
        ("changes", "code", "words"),
        [
            ({}, 0, "PASS: 4 pass"),
            ({"slow": {COMPILED: 1.3}}, 3, "FAIL: 1 regression, 3 pass"),
            ({"matrix": small_matrix(expect=(Floor(model="mlp", min_accuracy=0.999),))}, 3, "FAIL: 2 failed"),
            ({"slow": {COMPILED: 1.06}, "matrix": small_matrix(seeds=(0,))}, 4, "INCONCLUSIVE"),
        ],
    )
    def test_exit_codes(self, call: Call, first: Path, changes: dict[str, Any], code: int, words: str) -> None:
        keep(make_run(salt=1, **changes), SECOND)
        found, out, err = call("check", "--baseline")
        assert found == code
        assert words in out
        assert err.endswith(f"results/{SECOND}/check.json\n")

    @pytest.mark.parametrize("inside", [True, False])
    def test_annotations_name_the_matrix_from_the_root(
        self, call: Call, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
    ) -> None:
        """GitHub finds files from the root of the repository, wherever the run and the check were called."""
        folder = tmp_path / "the repo" / "bench"
        folder.mkdir(parents=True)
        (folder / "m.yaml").write_text("")
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        if inside:
            subprocess.run(["git", "init", "--quiet", str(folder.parent)], check=True)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        keep(make_run(slow={COMPILED: 1.3}, salt=1, matrix_path="m.yaml"), SECOND)
        monkeypatch.chdir(folder)
        _, out, _ = call("check", "--baseline", str(tmp_path / first), "-o", str(tmp_path / "results"))
        assert f"::error file={'bench/m.yaml' if inside else 'm.yaml'},title=regression" in out


class TestReplay:
    def test_an_edited_verdict_is_told(self, call: Call) -> None:
        check = make_check(evidence(1.12))
        data = encode(check, judge(check)).replace(b'"regression"', b'"pass"')
        Path("check.json").write_bytes(data)
        code, out, err = call("check", "--replay", "check.json")
        assert (code, out) == (1, "")
        assert "judged again, it differs from what is stored in 1 place:" in err
        assert "kind: stored 'pass', judged 'regression'" in err
        assert "the file was edited" in err
        check = structs.replace(check, program_version="0.0.1")
        Path("check.json").write_bytes(encode(check, ()))
        assert "mnist-bench 0.0.1 wrote the file" in call("check", "--replay", "check.json")[2]

    @pytest.mark.parametrize(
        ("old", "new", "field"),
        [
            ('"seconds": [0.1', '"seconds": [-1', "check.cells[0].pairs[0]"),
            ('"accuracy": 0.97', '"accuracy": 97', "check.cells[0].a.trainings[0].accuracy"),
            ('"kind": "regression"', '"kind": "bad"', "verdicts[0].kind"),
            ('"schema_version": 1', '"schema_version": 2', "schema_version: is 2"),
            ('"mode": "against"', '"mode": "x"', "check.mode"),
            ('"device": "cpu"', '"device": null', "cell.device"),
        ],
    )
    def test_a_broken_file_is_refused_by_its_field(self, call: Call, old: str, new: str, field: str) -> None:
        check = make_check(evidence(pairs=[pair(log) for log in logs(1.12)]))
        text = encode(check, judge(check)).decode()
        assert old in text
        Path("check.json").write_text(text.replace(old, new, 1))
        code, out, err = call("check", "--replay", "check.json")
        assert (code, out) == (2, "")
        assert err.startswith("mnist-bench: check.json: ")
        assert field in err
