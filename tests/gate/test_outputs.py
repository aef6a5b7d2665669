"""What a check prints and writes: the table, check.json and its replay, what GitHub shows, JUnit."""

from __future__ import annotations

import argparse
import os
import re
import stat
from pathlib import Path
from typing import Any

import junitparser
import pytest
from gate_kit import evidence, make_check, of_every_kind
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from markdown_it import MarkdownIt
from msgspec.structs import replace
from record_factory import make_cell

from mnist_bench.cli import check_output
from mnist_bench.cli.check_output import preflight, tell
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.gate import outputs
from mnist_bench.gate.evidence import CellEvidence, Check, SideEvidence
from mnist_bench.gate.judge import WORST_FIRST, Verdict, VerdictKind, judge
from mnist_bench.gate.outputs import COMMENT_BYTES, MARKER, SUMMARY_BYTES, commands, comment, page, to_junit
from mnist_bench.records import Cell
from mnist_bench.table import plain

Judged = tuple[Check, tuple[Verdict, ...]]
NASTY = (
    "<img src=x onerror=alert(1)>",
    "</details><script>alert(1)</script>",
    "a | b",
    "`code` **bold** [x](http://evil.example) ![y](z)",
    "@octocat www.evil.example",
    "two\n\n# lines\n::error::x",
    "##[error]x",
    "\x1b[31mred\x07\u202e",
    "\ud800",
    "<!-- mnist-bench check -->",
)
TAGS = {"h3", "p", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
SCHEMA = etree.XMLSchema(etree.parse(str(Path(__file__).parents[1] / "junit.xsd")))


def judged(*cells: CellEvidence, **changes: Any) -> Judged:
    check = make_check(*(cells or of_every_kind()), **changes)
    return check, judge(check)


def hostile() -> Judged:
    """Everything that comes from outside says something nasty."""
    texts = " ".join(NASTY)
    cells = [
        evidence(cell=make_cell(texts)),
        evidence(cell=make_cell("a"), b=SideEvidence(status="crashed", reason=texts)),
        evidence(cell=make_cell("b"), differences=(texts,)),
    ]
    check = make_check(*cells, notes=NASTY, matrix_path=texts, dataset=texts)
    return judged(*cells, notes=NASTY, matrix_path=texts, dataset=texts, a=replace_label(check, texts))


def replace_label(check: Check, text: str) -> Any:
    return type(check.a)(label=text, commit=None, changed=(text,))


def many(count: int, kinds: tuple[VerdictKind, ...], name: int = 64, text: int = 400) -> Judged:
    """Verdicts with names and sentences as long as asked for."""
    cells = [Cell(model=f"{n}" + "m" * name, device="cpu", batch_size=100, variant="v" * name) for n in range(count)]
    verdicts = (
        Verdict(cell=cell, kind=kinds[n % len(kinds)], text="why " * (text // 4)) for n, cell in enumerate(cells)
    )
    return make_check(*(evidence(None, cell=cell) for cell in cells)), tuple(verdicts)


def screen(made: Judged, width: int = 120) -> list[str]:
    return [line.plain for line in outputs.terminal(*made, width)]


def html(markdown: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


class TestTerminal:
    @pytest.mark.parametrize("width", [60, 80, 100, 160])
    def test_fits_and_keeps_what_decides(self, width: int) -> None:
        lines = screen(judged(evidence(1.12, -0.001)), width)
        assert max(map(len, lines)) <= width
        assert "12 % slower" in " ".join(" ".join(lines).split())
        if width >= 80:
            assert "[0." in next(line for line in lines if line.startswith("regression"))


class TestPrograms:
    def test_hostile_text_is_harmless_everywhere(self) -> None:
        made = hostile()
        lines = outputs.verdicts_table(made[0], outputs.ordered(*made))
        for text in ("\n".join(screen(made)), lines.csv(), outputs.to_json(*made), page(*made), *commands(*made)):
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert "##[" not in text or text.startswith("::")  # a command already
        assert not any(line.lstrip().startswith("::") for line in screen(made))
        found = set(re.findall(r"</?([a-z0-9]+)[^>]*>", html(comment(*made))))
        assert found <= TAGS
        assert "evil.example" not in re.sub(r"<td.*?</td>|<li.*?</li>|<p.*?</p>|<h3.*?</h3>", "", html(page(*made)))
        assert outputs.decode(outputs.encode(*made)) == made


class TestStored:
    def test_a_verdict_too_few_or_too_many(self) -> None:
        check, verdicts = judged(evidence(1.12), evidence(cell=make_cell()))
        assert len(list(outputs.disagreements(check, verdicts[:1]))) > 3
        assert len(list(outputs.disagreements(make_check(*check.cells[:1]), verdicts))) > 3

    def test_a_hair_is_rounding_and_more_is_not(self) -> None:
        check, (one,) = judged(evidence(1.12))
        assert one.speed is not None
        for factor, most in ((1 + 1e-12, 0), (1 + 1e-6, 1)):
            ratio = type(one.speed.ratio)(one.speed.ratio.estimate * factor, one.speed.ratio.low, one.speed.ratio.high)
            moved = replace(one, speed=replace(one.speed, ratio=ratio))
            assert len(list(outputs.disagreements(check, [moved]))) == most


class TestPage:
    @pytest.mark.parametrize("kinds", [("pass",), ("regression",), WORST_FIRST])
    def test_ten_thousand_cells(self, kinds: Any) -> None:
        made = many(10_000, kinds)
        for make, limit in ((page, SUMMARY_BYTES), (comment, COMMENT_BYTES)):
            text = make(*made)
            assert 0.9 * limit < len(text.encode()) <= limit
            assert "Left out for want of room: " in text

    def test_passes_are_cut_first_and_counted(self) -> None:
        text = page(*many(8_000, ("pass", "pass", "pass", "regression"), text=0))
        left_out = re.search(r"Left out for want of room: ([\d,]+) of 6,000 passes\. check\.json has them\.", text)
        assert left_out is not None
        assert len(re.findall(r"^\| regression ", text, re.MULTILINE)) == 2_000
        assert len(re.findall(r"^\| pass ", text, re.MULTILINE)) == 6_000 - int(left_out[1].replace(",", ""))

    def test_long_heads_have_their_bounds(self) -> None:
        made = judged(evidence(), notes=("n" * 5_000,) * 1_000)
        assert len(comment(*made).encode()) <= COMMENT_BYTES
        assert "more facts stand in check.json" in comment(*made)
        reasons = [SideEvidence(status="skipped", reason=f"{n} " * 500) for n in range(500)]
        cells = [evidence(a=one, b=one, cell=make_cell(batch_size=n)) for n, one in enumerate(reasons, 1)]
        assert len(comment(*judged(*cells)).encode()) <= COMMENT_BYTES


class TestAnnotations:
    COMMAND = re.compile(r"::(error|warning|notice) file=([^,]*),title=([^,]*)::(.*)")

    def read(self, line: str) -> tuple[str, ...]:
        """A command as the runner reads it: https://github.com/actions/runner, ``ActionCommand.TryParseV2``."""
        match = self.COMMAND.fullmatch(line)
        assert match is not None, line
        codes = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))
        level, *parts, text = match.groups()
        for code, char in codes:
            parts = [part.replace(code, char) for part in parts]
        return level, *parts, text.replace("%25", "%")

    @given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=30))
    def test_any_text_arrives_on_one_line(self, text: str, name: str, file: str) -> None:
        cell = Cell(model=name, device="cpu", batch_size=1, variant=name)
        check = make_check(evidence(cell=cell), matrix_path=file)
        (line,) = commands(check, (Verdict(cell=cell, kind="regression", text=text),))
        assert line.isprintable()
        if not {"%", ":", ","} & set(file + cell.id + text):
            assert self.read(line) == ("error", plain(file), plain(f"regression: {cell.id}"), plain(text))

    def test_the_tenth_of_a_level_counts_the_rest(self) -> None:
        check, verdicts = many(25, ("regression",))
        lines = list(commands(check, verdicts))
        assert len(lines) == 10
        assert "16 more cells: 16 regression" in lines[-1]


class TestJUnit:
    def read(self, made: Judged) -> junitparser.JUnitXml:
        data = to_junit(*made)
        SCHEMA.assertValid(etree.fromstring(data))
        return junitparser.JUnitXml.fromstring(data)

    def test_hostile_text_and_no_cell(self) -> None:
        assert len(list(self.read(hostile()))) == 3
        assert list(self.read((make_check(), ()))) == []


class TestWriting:
    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
            monkeypatch.delenv(name, raising=False)
        return tmp_path

    def args(self, *flags: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        check_output.configure(parser)
        return parser.parse_args(flags)

    def test_preflight_makes_the_folders_and_leaves_nothing_else(self, here: Path) -> None:
        preflight(self.args("--junit", "a/b/junit.xml", "--comment", "c/comment.md"))
        assert sorted(str(path.relative_to(here)) for path in here.rglob("*")) == ["a", "a/b", "c"]

    def test_preflight_refuses_what_cannot_be_written(self, here: Path) -> None:
        (here / "out").mkdir()
        (here / "file").write_text("")
        for flags, words in (
            (("--junit", "out"), "--junit out: is a folder: name a file in it"),
            (("--junit", "file/junit.xml"), r"--junit file/junit\.xml: cannot be written: .*; name another place"),
            (("--junit", "x", "--comment", "./x"), "--junit and --comment name the same file"),
        ):
            with pytest.raises(UsageError, match=words):
                preflight(self.args(*flags))

    def test_a_pipe_stays_a_pipe(self, here: Path) -> None:
        os.mkfifo(here / "pipe")
        reader = os.open(here / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        try:
            tell(*judged(evidence()), self.args("--comment", "pipe"))
            assert os.read(reader, 1 << 16).startswith(MARKER.encode())
        finally:
            os.close(reader)
        assert stat.S_ISFIFO((here / "pipe").stat().st_mode)

    def test_one_that_fails_does_not_keep_the_others(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (here / "file").write_text("")
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary"))
        args = self.args("--junit", "file/junit.xml", "--comment", "comment.md")
        with pytest.raises(BenchError, match=r"--junit file/junit\.xml: cannot be written") as caught:
            tell(*judged(), args)
        assert caught.value.exit_code == 1
        assert (here / "comment.md").exists()
        assert (here / "summary").exists()
        assert capsys.readouterr().out.splitlines()[-1].startswith("::notice")

    def test_the_summary_is_appended_to_what_room_is_left(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        summary = here / "summary"
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        for taken in (b"before\n", b"x" * (SUMMARY_BYTES - 40_000), b"x" * (SUMMARY_BYTES - 100)):
            summary.write_bytes(taken)
            tell(*many(1000, ("pass",)), self.args("--format", "csv"))
            assert summary.stat().st_size <= SUMMARY_BYTES
            assert summary.read_bytes().startswith(taken)
        assert "nothing is added to it" in capsys.readouterr().err

    def test_a_summary_that_cannot_be_written_is_a_warning(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "nowhere" / "summary"))
        assert tell(*judged(evidence()), self.args()) == 0
        assert "warning: GITHUB_STEP_SUMMARY: " in capsys.readouterr().err
