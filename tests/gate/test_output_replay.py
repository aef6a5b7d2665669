"""A stored check is judged again: as stored, or told apart, place by place."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gate_factory import EVIDENCE, every_kind, make_check, make_evidence, make_verdict
from record_factory import make_cell

from mnist_bench.cli import check_output, check_replay
from mnist_bench.errors import UsageError
from mnist_bench.gate.judge import exit_code, judge
from mnist_bench.gate.output.codec import encode
from mnist_bench.gate.output.differences import differences
from mnist_bench.gate.output.replay import disagreements
from mnist_bench.gate.records import Check, Verdict


def found(check: Check, stored: tuple[Verdict, ...], judged: tuple[Verdict, ...]) -> list[str]:
    return list(disagreements(check, stored, judge=lambda _: judged))


class TestDisagreements:
    def test_none(self) -> None:
        check, verdicts = every_kind()
        assert found(check, verdicts, verdicts) == []

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"kind": "pass"}, "kind: stored 'pass', judged 'regression'"),
            ({"text": "is fine"}, "text: stored 'is fine', judged"),
            ({"accuracy": None}, "accuracy: stored nothing, judged {"),
            ({"advisories": ()}, "advisories[0]: stored nothing"),
        ],
    )
    def test_cell_and_field_are_named(self, changes: dict[str, Any], words: str) -> None:
        verdict = make_verdict("regression")
        lines = found(make_check(), (replace(verdict, **changes),), (verdict,))
        assert lines
        assert lines[0].startswith("mlp/cpu/b100/eager: ")
        assert words in lines[0]

    def test_figures_may_round_otherwise_on_another_machine_but_no_more(self) -> None:
        verdict = make_verdict("regression")
        assert verdict.speed is not None

        def with_p(factor: float) -> Verdict:
            assert verdict.speed is not None
            return replace(verdict, speed=replace(verdict.speed, p_slower=verdict.speed.p_slower * factor))

        assert found(make_check(), (with_p(1 + 1e-12),), (verdict,)) == []
        (line,) = found(make_check(), (with_p(1 + 1e-6),), (verdict,))
        assert "speed.p_slower" in line

    def test_counts_must_be_the_same(self) -> None:
        verdict = make_verdict("pass")
        assert verdict.speed is not None
        other = replace(verdict, speed=replace(verdict.speed, pairs=17))
        assert found(make_check(), (other,), (verdict,)) == ["mlp/cpu/b100/eager: speed.pairs: stored 17, judged 16"]

    def test_a_verdict_too_few_or_too_many(self) -> None:
        verdict = make_verdict("pass")
        assert found(make_check(), (), (verdict,)) == ["mlp/cpu/b100/eager: judged pass, but no verdict is stored"]
        assert found(make_check(), (verdict,), ()) == ["mlp/cpu/b100/eager: stored as pass, judged not at all"]

    def test_a_ratio_that_is_not_that_of_its_rounds(self) -> None:
        evidence = make_evidence()
        pairs = (replace(evidence.pairs[0], log_ratio=0.5), *evidence.pairs[1:])
        check = make_check([replace(evidence, pairs=pairs)])
        (line,) = found(check, (), ())
        assert line.startswith("mlp/cpu/b100/eager: pair 0: log_ratio: stored 0.5, by its rounds")
        assert found(replace(check, mode="baseline"), (), ()) == []

    def test_pairs_without_a_common_round_are_left_alone(self) -> None:
        evidence = make_evidence()
        pairs = (replace(evidence.pairs[0], rounds=()),)
        assert found(make_check([replace(evidence, pairs=pairs)]), (), ()) == []


class TestDifferences:
    @pytest.mark.parametrize(
        ("left", "right", "places"),
        [
            ({"a": 1}, {"a": 1}, []),
            ({"a": 1}, {"a": 2}, ["a"]),
            ({"a": 1}, {}, ["a"]),
            ({}, {"a": 1}, ["a"]),
            ({"a": [1, 2]}, {"a": [1]}, ["a[1]"]),
            ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 0}, {"b": 3}]}, ["a[0].b", "a[1].b"]),
            ({"a": None}, {"a": 0}, ["a"]),
            ({"a": True}, {"a": 1}, ["a"]),
            ({"a": []}, {"a": {}}, ["a"]),
            ({"a": 1.0}, {"a": 1.0 + 1e-12}, ["a"]),
        ],
    )
    def test_places(self, left: Any, right: Any, places: list[str]) -> None:
        assert [one.where for one in differences(left, right)] == places

    def test_with_room_for_rounding(self) -> None:
        assert not list(differences([1.0, 0.0], [1.0 + 1e-12, 1e-12], relative=1e-9))
        assert [one.where for one in differences([1.0, 2], [1.1, 3], relative=1e-9)] == ["[0]", "[1]"]


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[Check], Path]:
    def store(check: Check) -> Path:
        path = tmp_path / "check.json"
        path.write_bytes(encode(check, judge(check)))
        return path

    return store


def args_of(path: Path, *flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replay", type=Path)
    check_output.configure(parser)
    return parser.parse_args(["--replay", str(path), *flags])


@pytest.fixture(autouse=True)
def no_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (check_output.SUMMARY, check_output.ACTIONS, "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


class TestCommand:
    @pytest.mark.parametrize("kind", EVIDENCE)
    def test_a_cell_of_each_kind(
        self, kind: Any, stored: Callable[[Check], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        check = make_check([make_evidence(make_cell("cnn"), **EVIDENCE[kind])])
        (verdict,) = judge(check)
        assert verdict.kind == kind, "the factory's evidence leads to the verdict that it is for"
        assert check_replay.execute(args_of(stored(check))) == exit_code(check, (verdict,))
        out, err = capsys.readouterr()
        assert verdict.kind.replace("_", " ") in out
        assert "cnn/cpu/b100/eager" in out
        assert "every verdict follows from the samples" in err

    @pytest.mark.parametrize("mode", ["against", "baseline"])
    def test_all_of_them(self, mode: Any, stored: Callable[[Check], Path], capsys: pytest.CaptureFixture[str]) -> None:
        check = replace(every_kind()[0], mode=mode)
        path = stored(check)
        assert check_replay.execute(args_of(path, "--json")) == exit_code(check, judge(check))
        assert len(json.loads(capsys.readouterr().out)["cells"]) == len(check.cells)

    def test_no_cell_at_all(self, stored: Callable[[Check], Path]) -> None:
        assert check_replay.execute(args_of(stored(make_check()))) == 5

    def test_an_interrupted_check(self, stored: Callable[[Check], Path], capsys: pytest.CaptureFixture[str]) -> None:
        assert check_replay.execute(args_of(stored(make_check([make_evidence()], status="interrupted")))) == 130
        assert "The check is interrupted" in capsys.readouterr().out

    def test_an_edited_verdict(self, stored: Callable[[Check], Path], capsys: pytest.CaptureFixture[str]) -> None:
        path = stored(make_check([make_evidence(ratio=1.12)]))
        path.write_bytes(path.read_bytes().replace(b'"kind": "regression"', b'"kind": "pass"'))
        assert check_replay.execute(args_of(path, "--junit", str(path.with_name("junit.xml")))) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "mlp/cpu/b100/eager: kind: stored 'pass', judged 'regression'" in err
        assert "the file was edited" in err
        assert not path.with_name("junit.xml").exists()

    def test_an_edited_sample(self, stored: Callable[[Check], Path], capsys: pytest.CaptureFixture[str]) -> None:
        path = stored(make_check([make_evidence(ratio=1.12)]))
        document = json.loads(path.read_bytes())
        for pair in document["check"]["cells"][0]["pairs"]:
            pair["log_ratio"] = 0.0
        path.write_bytes(json.dumps(document).encode())
        assert check_replay.execute(args_of(path)) == 1
        err = capsys.readouterr().err
        assert "pair 0: log_ratio: stored 0.0, by its rounds 0.1" in err
        assert len(err.splitlines()) <= check_replay.MOST + 3

    def test_a_file_of_another_version_says_which(
        self, stored: Callable[[Check], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = stored(make_check([make_evidence()], program_version="9.9"))
        path.write_bytes(path.read_bytes().replace(b'"kind": "pass"', b'"kind": "improvement"'))
        assert check_replay.execute(args_of(path)) == 1
        assert "mnist-bench 9.9 wrote the file" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["nowhere.json", "."])
    def test_no_such_file(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"cannot be read: .*; name a check\.json"):
            check_replay.execute(args_of(tmp_path / name))

    def test_files_that_are_asked_for_are_written(self, stored: Callable[[Check], Path], tmp_path: Path) -> None:
        path = stored(make_check([make_evidence()]))
        wanted = ("--junit", str(tmp_path / "new" / "junit.xml"), "--comment", str(tmp_path / "new" / "comment.md"))
        assert check_replay.execute(args_of(path, *wanted)) == 0
        assert sorted(one.name for one in (tmp_path / "new").iterdir()) == ["comment.md", "junit.xml"]
