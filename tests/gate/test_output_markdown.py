"""The step's summary and the comment on a pull request, as GitHub renders them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from gate_factory import KINDS, every_kind, hostile, make_check, make_evidence, make_verdict, of_kinds
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from record_factory import make_cell

from mnist_bench.gate.output.markdown import COMMENT_BYTES, HEAD_BYTES, MARKER, SUMMARY_BYTES, comment, page
from mnist_bench.gate.records import Check, SideInfo, Verdict
from mnist_bench.records import Cell

NASTY = (
    "<img src=x onerror=alert(1)>",
    "</details><script>alert(1)</script>",
    "a | b",
    "`code` **bold** _it_ ~~no~~",
    "[x](http://evil.example) ![y](z)",
    "@octocat #1 www.evil.example https://evil.example",
    "two\n\n# lines",
    "\x1b[31mred\x07",
    "\ud800",
    "<!-- mnist-bench check -->",
    "$x$ \\",
)

TAGS = {"h3", "p", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "strong", "ul", "li"}


def html(markdown: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def tables(page_html: str) -> list[list[list[str]]]:
    """Every table as its lines of cells, the header first."""
    return [
        [
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
            for row in re.findall(r"<tr>(.*?)</tr>", one, re.DOTALL)
        ]
        for one in re.findall(r"<table>(.*?)</table>", page_html, re.DOTALL)
    ]


def size(text: str) -> int:
    return len(text.encode())


class TestPage:
    def test_verdict_first_then_what_is_no_pass_then_passes_folded(self) -> None:
        shown = html(page(*every_kind()))
        assert shown.startswith("<h3>FAIL: working tree against main</h3>")
        others, passes, advisories = tables(shown)
        assert others[0] == ["verdict", "cell", "speed", "accuracy", "pairs", "seeds", "why"]
        assert [row[0] for row in others[1:]] == [
            f"<strong>{kind}</strong>"
            for kind in ("failed", "missing", "regression", "inconclusive", "not comparable", "improvement", "new")
        ]
        assert others[3][1:] == [
            "lenet5/cpu/b103/eager †",
            "12 % slower (10-14 %)",
            "identical",
            "16",
            "3",
            "lenet5/cpu/b103/eager is 12 % slower (95 % interval 10-14 %, 16 pairs)",
        ]
        assert passes[1][0] == "lenet5/cpu/b100/eager †"
        assert advisories[1] == ["lenet5/cpu/b103/eager", "compile time, s", "10.4 → 11.1 (+7 %)"]
        assert re.findall(r"<summary>(.*?)</summary>", shown) == [
            "1 pass",
            "Advisory figures (A → B): none of them decides",
            "What was compared",
        ]

    def test_the_sentence_has_counts_and_exit_code(self) -> None:
        text = page(*of_kinds("pass", "regression", "pass"))
        assert text.splitlines()[2] == (
            "FAIL: 1 regression, 2 pass. Exit code 3: something is slower, less accurate, missing or broken."
        )

    def test_all_pass(self) -> None:
        text = page(*of_kinds(*["pass"] * 20))
        assert text.startswith("### PASS: working tree against main\n")
        passes, _ = tables(html(text))
        assert passes[0] == ["cell", "speed", "accuracy", "pairs", "seeds"]
        assert len(passes) == 21

    def test_no_cell(self) -> None:
        text = page(make_check(), ())
        assert text.startswith("### NOTHING COMPARED")
        assert tables(html(text)) == []

    def test_what_was_compared(self) -> None:
        text = page(*of_kinds("pass", notes=("the reference has no matrix",)))
        for fact in ("A: main, commit c0ffeec0ffee", "changed: mnist", "the reference has no matrix", "12.5 min spent"):
            assert fact in text

    def test_an_unfinished_check_says_so_in_the_open(self) -> None:
        text = page(*of_kinds("pass", status="interrupted"))
        assert "The check is interrupted" in text.partition("<details>")[0]


class TestComment:
    def test_marker_first(self) -> None:
        text = comment(*every_kind())
        assert text.splitlines()[0] == MARKER == "<!-- mnist-bench check -->"
        assert text.splitlines()[1].startswith("### FAIL")
        assert "mnist-bench" not in re.sub(r"<!--.*?-->", "", html(text), flags=re.DOTALL)

    def test_two_hundred_cells(self) -> None:
        text = comment(*of_kinds(*["pass"] * 150, *["regression"] * 50))
        assert size(text) <= COMMENT_BYTES
        others = tables(html(text))[0]
        assert len(others) == 51


def many(count: int, name: int, text: int, kinds: tuple[Any, ...] = ("pass",)) -> tuple[Check, tuple[Verdict, ...]]:
    """Verdicts with names and sentences as long as asked for."""
    cells = [Cell(model=f"{n}" + "m" * name, device="cpu", batch_size=100, variant="v" * name) for n in range(count)]
    templates = {kind: make_verdict(kind, text="why " * (text // 4)) for kind in kinds}
    return make_check(), tuple(replace(templates[kinds[n % len(kinds)]], cell=cell) for n, cell in enumerate(cells))


class TestLimits:
    @pytest.mark.parametrize("kinds", [("pass",), ("regression",), KINDS])
    @pytest.mark.parametrize("make", [page, comment])
    def test_ten_thousand_cells(self, kinds: Any, make: Any) -> None:
        text = make(*many(10_000, 64, 400, kinds))
        limit = SUMMARY_BYTES if make is page else COMMENT_BYTES
        assert 0.9 * limit < size(text) <= limit
        assert "Left out for want of room: " in text
        assert len(tables(html(text[:200_000]))) >= 1

    def test_passes_are_cut_first_and_counted(self) -> None:
        check, verdicts = many(10_000, 64, 0, ("pass", "pass", "pass", "regression"))
        text = page(check, verdicts)
        left_out = re.search(r"Left out for want of room: (.*)\. check\.json has them\.", text)
        assert left_out is not None
        assert "of 2,500 cells" not in left_out[1]
        match = re.search(r"([\d,]+) of 7,500 passes", left_out[1])
        assert match is not None
        cut = int(match[1].replace(",", ""))
        assert len(re.findall(r"^\| \*\*regression\*\* ", text, re.MULTILINE)) == 2_500
        passes = text.partition("<summary>7,500 pass</summary>")[2].partition("</details>")[0]
        assert len(re.findall(r"^\| \d", passes, re.MULTILINE)) == 7_500 - cut

    def test_nothing_is_cut_where_there_is_room(self) -> None:
        assert "Left out" not in page(*of_kinds(*["pass"] * 200))

    def test_long_texts_and_heads_have_their_bounds(self) -> None:
        check, verdicts = many(3, 50_000, 200_000, ("failed",))
        files = tuple("f" * 4_000 + str(number) for number in range(500))
        check = replace(
            check, notes=("note " * 10_000,) * 100, b=SideInfo(label="b" * 50_000, commit=None, changed=files)
        )
        text = comment(check, verdicts)
        assert size(text) <= COMMENT_BYTES
        assert len(tables(html(text))[0]) == 4
        assert "more facts stand in check.json" in text

    @settings(max_examples=25, deadline=None)
    @given(st.integers(HEAD_BYTES + 8_000, 200_000), st.integers(0, 300), st.integers(0, 60))
    def test_never_longer_than_told(self, limit: int, count: int, name: int) -> None:
        assert size(page(*many(count, name, 80, KINDS), limit)) <= limit


class TestHostile:
    def test_texts_show_literally(self) -> None:
        check, verdicts = hostile(NASTY)
        text = comment(check, verdicts)
        shown = html(text)
        text.encode()  # no lone surrogate
        assert all(line.isprintable() for line in text.replace("\u200b", "").splitlines())
        plain = re.sub(r"<!--.*?-->", "", shown, flags=re.DOTALL)
        tags = set(re.findall(r"</?([a-z0-9]+)", plain))
        assert tags <= TAGS
        assert text.count("<!--") == 1
        assert text.count("<details>") == text.count("</details>") == 3
        for word in ("@octocat", "www.", "https://"):
            assert word not in text

    @given(st.text(alphabet=st.sampled_from("ab |\\`*_~[]()<>#!&@$:/-+.=w\n\t"), max_size=30))
    def test_one_cell_is_one_line_of_the_table(self, name: str) -> None:
        cell = make_cell(name or "x")
        others, *_ = tables(html(page(make_check([make_evidence(cell)]), (make_verdict("regression", cell),))))
        assert [len(row) for row in others] == [7, 7]
