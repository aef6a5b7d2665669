"""Where the outputs of a check go: files, the step's summary, annotations; and whether they can, beforehand."""

from __future__ import annotations

import argparse
import json
import os
import stat
from pathlib import Path

import pytest
from gate_factory import every_kind, make_check, of_kinds

from mnist_bench.cli import check_output
from mnist_bench.cli.check_output import preflight, print_check, write_outputs
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.gate.output.codec import decode
from mnist_bench.gate.output.markdown import MARKER, SUMMARY_BYTES


def args_of(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    check_output.configure(parser)
    return parser.parse_args(flags)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestPreflight:
    def test_nothing_asked_for(self, here: Path) -> None:
        preflight(args_of(), {})
        assert list(here.iterdir()) == []

    def test_makes_the_folders_and_leaves_nothing_else(self, here: Path) -> None:
        preflight(args_of("--junit", "a/b/junit.xml", "--comment", "c/comment.md"), {})
        assert sorted(str(path.relative_to(here)) for path in here.rglob("*")) == ["a", "a/b", "c"]

    def test_what_is_there_stays_as_it_is(self, here: Path) -> None:
        (here / "junit.xml").write_text("before")
        preflight(args_of("--junit", "junit.xml"), {})
        assert (here / "junit.xml").read_text() == "before"

    @pytest.mark.parametrize("flag", ["--junit", "--comment"])
    def test_a_folder_is_no_file(self, flag: str, here: Path) -> None:
        (here / "out").mkdir()
        with pytest.raises(UsageError, match=f"{flag} out: is a folder: name a file in it"):
            preflight(args_of(flag, "out"), {})

    def test_a_file_is_no_folder(self, here: Path) -> None:
        (here / "out").write_text("")
        with pytest.raises(UsageError, match=r"--junit out/junit\.xml: cannot be written: .*; name another place"):
            preflight(args_of("--junit", "out/junit.xml"), {})

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written_to(self, here: Path) -> None:
        (here / "out").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="Permission denied"):
            preflight(args_of("--junit", "out/junit.xml"), {})

    def test_a_folder_that_refuses_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("mnist_bench.disk.files.Path.touch", refuse)
        with pytest.raises(UsageError, match=r"--comment comment\.md: cannot be written: Permission denied"):
            preflight(args_of("--comment", "comment.md"), {})

    def test_two_flags_one_file(self) -> None:
        with pytest.raises(UsageError, match="--junit and --comment name the same file"):
            preflight(args_of("--junit", "out", "--comment", "./out"), {})

    def test_a_summary_that_cannot_be_written(self, here: Path) -> None:
        with pytest.raises(UsageError, match=r"GITHUB_STEP_SUMMARY: .*nowhere/summary: cannot be written"):
            preflight(args_of(), {"GITHUB_STEP_SUMMARY": str(here / "nowhere" / "summary")})


class TestFiles:
    def test_written_whole_and_nothing_temporary_left(self, here: Path) -> None:
        write_outputs(*every_kind(), args_of("--junit", "new/junit.xml", "--comment", "comment.md"), {})
        assert (here / "new" / "junit.xml").read_bytes().startswith(b"<?xml")
        assert (here / "comment.md").read_text().startswith(MARKER)
        assert sorted(path.name for path in here.rglob("*")) == ["comment.md", "junit.xml", "new"]

    def test_a_pipe_stays_a_pipe(self, here: Path) -> None:
        os.mkfifo(here / "pipe")
        preflight(args_of("--comment", "pipe"), {})
        reader = os.open(here / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        try:
            write_outputs(*of_kinds("pass"), args_of("--comment", "pipe"), {})
            assert os.read(reader, 1 << 16).startswith(MARKER.encode())
        finally:
            os.close(reader)
        assert stat.S_ISFIFO((here / "pipe").stat().st_mode)

    def test_one_that_fails_does_not_keep_the_others(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (here / "file").write_text("")
        summary = here / "summary"
        with pytest.raises(BenchError) as caught:
            write_outputs(
                *of_kinds("regression"),
                args_of("--junit", "file/junit.xml", "--comment", "comment.md"),
                {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true"},
            )
        assert caught.value.exit_code == 1
        assert str(caught.value).startswith("--junit file/junit.xml: cannot be written")
        assert (here / "comment.md").exists()
        assert summary.exists()
        assert "::error" in capsys.readouterr().out

    def test_check_json_that_cannot_be_written_does_not_keep_the_others(self, here: Path) -> None:
        (here / "file").write_text("")
        with pytest.raises(BenchError, match=r"check\.json: file/check\.json: cannot be written") as caught:
            write_outputs(*of_kinds("pass"), args_of("--comment", "c.md"), {}, Path("file/check.json"))
        assert (caught.value.exit_code, (here / "c.md").exists()) == (1, True)
        write_outputs(*of_kinds("pass"), args_of(), {}, Path("check.json"))
        assert decode((here / "check.json").read_bytes()) == of_kinds("pass")


class TestSummary:
    def test_is_appended(self, here: Path) -> None:
        summary = here / "summary"
        summary.write_text("before\n")
        environ = {"GITHUB_STEP_SUMMARY": str(summary)}
        preflight(args_of(), environ)
        assert summary.read_text() == "before\n"
        write_outputs(*of_kinds("pass"), args_of(), environ)
        assert summary.read_text().startswith("before\n\n### PASS")

    @pytest.mark.parametrize("value", [None, ""])
    def test_none_without_its_variable(self, value: str | None, here: Path) -> None:
        write_outputs(*of_kinds("pass"), args_of(), {} if value is None else {"GITHUB_STEP_SUMMARY": value})
        assert list(here.iterdir()) == []

    def test_what_others_wrote_is_counted(self, here: Path) -> None:
        summary = here / "summary"
        summary.write_bytes(b"x" * (SUMMARY_BYTES - 40_000))
        write_outputs(*of_kinds(*["pass"] * 1_000), args_of(), {"GITHUB_STEP_SUMMARY": str(summary)})
        assert SUMMARY_BYTES - 10_000 < summary.stat().st_size <= SUMMARY_BYTES
        assert "Left out for want of room" in summary.read_text()

    def test_a_full_one_is_left_alone_and_said(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        summary = here / "summary"
        summary.write_bytes(b"x" * (SUMMARY_BYTES - 100))
        write_outputs(*of_kinds("pass"), args_of(), {"GITHUB_STEP_SUMMARY": str(summary)})
        assert summary.stat().st_size == SUMMARY_BYTES - 100
        assert "nothing is added to it" in capsys.readouterr().err


class TestAnnotations:
    ACTIONS = {"GITHUB_ACTIONS": "true"}  # noqa: RUF012

    def test_on_stdout_after_a_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        made = of_kinds("regression")
        print_check(*made, args_of())
        write_outputs(*made, args_of(), self.ACTIONS)
        out, err = capsys.readouterr()
        assert out.splitlines()[-1].startswith("::error file=benchmarks.yaml,")
        assert err == ""

    @pytest.mark.parametrize("format_", ["json", "csv", "md"])
    def test_on_stderr_beside_a_document(self, format_: str, capsys: pytest.CaptureFixture[str]) -> None:
        made = of_kinds("regression")
        args = args_of("--format", format_)
        print_check(*made, args)
        write_outputs(*made, args, self.ACTIONS)
        out, err = capsys.readouterr()
        assert "::error" not in out
        assert err.startswith("::error file=benchmarks.yaml,")
        if format_ == "json":
            assert json.loads(out)["exit_code"] == 3

    @pytest.mark.parametrize("value", [{}, {"GITHUB_ACTIONS": "false"}, {"CI": "true"}])
    def test_none_elsewhere(self, value: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        write_outputs(*of_kinds("regression"), args_of(), value)
        assert capsys.readouterr() == ("", "")


class TestPrint:
    @pytest.mark.parametrize(
        ("format_", "beginning"),
        [("table", "Check 2026"), ("csv", "model,device"), ("json", "{"), ("md", "### FAIL")],
    )
    def test_in_every_format(self, format_: str, beginning: str, capsys: pytest.CaptureFixture[str]) -> None:
        print_check(*every_kind(), args_of("--format", format_))
        out, err = capsys.readouterr()
        assert out.startswith(beginning)
        assert err == ""

    @pytest.mark.parametrize("format_", ["table", "csv", "json", "md"])
    def test_no_cell(self, format_: str, capsys: pytest.CaptureFixture[str]) -> None:
        print_check(make_check(), (), args_of("--format", format_))
        assert ("no cell" in capsys.readouterr().out) is (format_ != "csv")
