"""What a check prints and writes: documents, annotations, JUnit, and the files that ``check`` was asked for."""

import re
from pathlib import Path
from typing import Any

import junitparser
import pytest
from gate_kit import evidence, make_check
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from markdown_it import MarkdownIt
from msgspec.structs import replace
from record_factory import make_cell

from mnist_bench.cli.console import SUMMARY_BYTES
from mnist_bench.gate import outputs
from mnist_bench.gate.evidence import CellEvidence, Check, SideEvidence
from mnist_bench.gate.judge import WORST_FIRST, Verdict, VerdictKind, judge
from mnist_bench.gate.outputs import COMMENT_BYTES, commands, comment, document, page, to_junit
from mnist_bench.records import Cell, Tree
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
TAGS = {"h1", "h2", "p", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
SCHEMA = etree.XMLSchema(etree.parse(str(Path(__file__).parents[1] / "junit.xsd")))


def judged(*cells: CellEvidence, **changes: Any) -> Judged:
    check = make_check(*cells, **changes)
    return check, judge(check)


def hostile() -> Judged:
    """Everything that comes from outside says something nasty."""
    texts = " ".join(NASTY)
    cells = [
        evidence(cell=make_cell(texts)),
        evidence(cell=make_cell("a"), b=SideEvidence(status="crashed", reason=texts)),
        evidence(cell=make_cell("b"), differences=(texts,)),
    ]
    tree = Tree(label=texts, commit=None, changed=(texts,))
    return judged(*cells, notes=NASTY, matrix_path=texts, dataset=texts, a=tree)


def many(count: int, kinds: tuple[VerdictKind, ...]) -> Judged:
    """Verdicts with long names and sentences."""
    cells = [Cell(model=f"{n}" + "m" * 64, device="cpu", batch_size=100, variant="v" * 64) for n in range(count)]
    verdicts = (Verdict(cell=cell, kind=kinds[n % len(kinds)], text="why " * 100) for n, cell in enumerate(cells))
    return make_check(*(evidence(None, cell=cell) for cell in cells)), tuple(verdicts)


def test_hostile_text_is_harmless_everywhere():
    made = hostile()
    screen = [line.plain for line in document(*made).terminal(120)]
    markdown = comment(*made).decode()
    for text in (*screen, outputs.rows(*made).csv(), outputs.to_json(*made), markdown, *commands(*made)):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "##[" not in text or text.startswith("::")  # a command already
    assert not any(line.lstrip().startswith("::") for line in screen)
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    assert set(re.findall(r"</?([a-z0-9]+)[^>]*>", html)) <= TAGS
    assert "evil.example" not in re.sub(r"<td.*?</td>|<li.*?</li>|<p.*?</p>|<h1.*?</h1>", "", html)
    assert outputs.decode(outputs.encode(*made)) == made


class TestReplay:
    def test_a_cell_that_came_out_otherwise_is_named(self):
        check, (one, other) = judged(evidence(1.12), evidence(cell=make_cell()))
        assert outputs.disagreements((one, other), judge(check)) == []
        moved = replace(one, text="passes")
        (said,) = outputs.disagreements((moved, other), (one, other))
        assert said.startswith(f"{one.cell.id}: stored '{one.kind}: passes', judged '{one.kind}: ")
        assert [len(outputs.disagreements(*pair)) for pair in (((), (one,)), ((one,), ()))] == [1, 1]

    def test_a_check_of_another_version_names_it(self, call):
        check, _ = judged(evidence(1.12), program_version="0.0.1")
        Path("check.json").write_bytes(outputs.encode(check, ()))
        code, out, err = call("check", "--replay", "check.json")
        assert (code, out) == (1, "")
        assert "mnist-bench 0.0.1 wrote the file" in err


class TestPage:
    @pytest.mark.parametrize("kinds", [("pass",), ("regression",), WORST_FIRST])
    def test_the_mildest_of_thousands_are_left_out_and_counted(self, kinds):
        made = many(1_500, kinds)
        for text, limit in ((page(*made, 100_000).encode(), 100_000), (comment(*made), COMMENT_BYTES)):
            assert 0.95 * limit < len(text) <= limit
            assert (left_out := re.search(rb"room: the mildest ([\d,]+) of 1,500 cells", text)) is not None
            rows = re.findall(rb"^\| (pass|new|regression|failed|missing) ", text, re.MULTILINE)
            assert len(rows) == 1_500 - int(left_out[1].replace(b",", b""))
            assert kinds != WORST_FIRST or b"pass" not in rows

    def test_long_heads_have_their_bounds(self):
        made = judged(evidence(), notes=("|" * 5_000,) * 1_000)
        assert len(comment(*made)) <= COMMENT_BYTES
        assert b"more stand in check.json" in comment(*made)
        reasons = [SideEvidence(status="skipped", reason=f"{n} " * 500) for n in range(500)]
        cells = [evidence(a=one, b=one, cell=make_cell(batch_size=n)) for n, one in enumerate(reasons, 1)]
        assert len(comment(*judged(*cells))) <= COMMENT_BYTES


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
    def test_any_text_arrives_on_one_line(self, text, name, file):
        cell = Cell(model=name, device="cpu", batch_size=1, variant=name)
        check = make_check(evidence(cell=cell), matrix_path=file)
        (line,) = commands(check, (Verdict(cell=cell, kind="regression", text=text),))
        assert line.isprintable()
        if not {"%", ":", ","} & set(file + cell.id + text):
            assert self.read(line) == ("error", plain(file), plain(f"regression: {cell.id}"), plain(text))

    def test_the_tenth_of_a_level_counts_the_rest(self):
        for count, last in ((10, "why"), (25, "16 more cells: 16 regression")):
            lines = list(commands(*many(count, ("regression",))))
            assert len(lines) == 10
            assert last in lines[-1]


def test_junit_of_hostile_text_and_of_no_cell():
    for made, suites in ((hostile(), 3), ((make_check(), ()), 0)):
        data = to_junit(*made)
        SCHEMA.assertValid(etree.fromstring(data))
        assert len(list(junitparser.JUnitXml.fromstring(data))) == suites


class TestFiles:
    @pytest.fixture(autouse=True)
    def stored(self, call):
        Path("file").write_text("")
        Path("check.json").write_bytes(outputs.encode(*judged(evidence(1.25 / 1.5))))

    def test_one_that_fails_does_not_keep_the_others(self, call, monkeypatch):
        monkeypatch.setattr("mnist_bench.cli.check.try_out", lambda *_: None)  # as if the disk became full meanwhile
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary")
        code, out, err = call("check", "--replay", "check.json", "--junit", "file/junit.xml", "--comment", "comment.md")
        assert code == 1
        assert "--junit file/junit.xml: cannot be written" in err
        assert out.splitlines()[-1].startswith("::notice")
        assert Path("comment.md").exists()
        assert Path("summary").exists()

    @pytest.mark.parametrize(("taken", "added"), [(b"before\n", True), (b"x" * (SUMMARY_BYTES - 100), False)])
    def test_the_summary_is_appended_to_what_room_is_left(self, call, monkeypatch, taken, added):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary")
        Path("summary").write_bytes(taken)
        _, _, err = call("check", "--replay", "check.json")
        found = Path("summary").read_bytes()
        assert found.startswith(taken)
        assert len(found) <= SUMMARY_BYTES
        assert (len(found) > len(taken), "nothing is added: it holds 1,048,476 bytes" in err) == (added, not added)
