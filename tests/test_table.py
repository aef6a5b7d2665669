import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mnist_bench.table import Column, Document, Table, escape, harmless, inert, listed, plain, shortened

ROWS = ({"name": "mlp", "s": 1.5, "why": ""}, {"name": "層五", "s": None, "why": "no g++"})
COLUMNS = (
    Column("name", lambda row: row["name"], right=False, key="name", value=lambda row: row["name"]),
    Column("s", lambda row: f"{row['s'] or ''}", rank=1, key="seconds", value=lambda row: row["s"]),
    Column("why", lambda row: row["why"], rank=2, right=False),
    Column("never", rank=3),
    Column(None, key="ok", value=lambda row: row["s"] is not None),
)
TABLE = Table("Cells", COLUMNS, ROWS)


def test_terminal_is_aligned_by_width_on_the_screen():
    assert [line.plain for line in TABLE.terminal(100)] == [
        "Cells",
        "name    s  why",
        "─" * 14,
        "mlp   1.5",
        "層五       no g++",
    ]


def test_narrow_terminal_loses_the_least_needed_first_and_never_the_name():
    def heads(width: int) -> str:
        return [line.plain for line in TABLE.terminal(width)][1]

    assert [heads(width) for width in (15, 14, 8, 7)] == ["name   s why", "name   s", "name   s", "name"]


def test_programs_get_their_columns_and_nothing_is_empty():
    assert TABLE.csv() == "name,seconds,ok\nmlp,1.5,true\n層五,,false\n"
    assert Table("", COLUMNS, ()).csv() == "name,seconds,ok\n"
    assert TABLE.records()[1] == {"name": "層五", "seconds": None, "ok": False}


def test_no_word_is_cut():
    long = "a" * 50
    assert [line.plain for line in Document(title=f"x {long} y").terminal(20)] == ["x", f"  {long}", "  y"]


def test_lists():
    assert (listed(["a", "b", "c"]), listed(list("abcde"))) == ("a, b, c", "a, b, c and 2 more")
    assert (shortened("lenet5/cpu/eager", 11), shortened("mlp", 11)) == ("lenet…eager", "mlp")


@given(st.text())
def test_plain_text_is_one_printable_line(text):
    assert plain(text).isprintable()


@given(st.text(alphabet=st.sampled_from("<>&|`*_[]()~$#!\\@w.:/ab\n\x1b:")))
def test_markdown_shows_text_literally(text):
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"| a |\n| --- |\n| {escape(text)} |")
    cell = re.findall(r"<td>(.*?)</td>", shown, re.DOTALL)
    assert len(cell) == 1
    assert "<" not in cell[0]
    plainly = cell[0].replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    assert plainly.replace("\u200b", "").strip() == plain(text)


@pytest.mark.parametrize("text", ["https://x.y", "www.x.y", "WWW.x.y", "ftp://x", "@octocat", "a@b"])
def test_addresses_become_no_links_and_mentions_notify_nobody(text):
    assert not re.search(r"https?://|ftp://|www\.|@\w", escape(text), re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *(("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@x", "'@x"), ("＝1", "'＝1"), ("a;=1", "a;'=1")),  # noqa: RUF001
        *((' "=1', "'\"=1"), ("\t=1", "'=1"), ("a=1", "a=1"), ("a\nb", "a b")),
    ],
)
def test_no_spreadsheet_takes_text_for_a_formula(text, shown):
    assert harmless(text) == shown
    line = Table.of("", [{"a": text}]).csv().splitlines(keepends=True)
    assert next(iter(csv.reader(io.StringIO(line[1])))) == [shown]


@pytest.mark.parametrize("line", ["::error::x", "  ::error::x", "a ##[error]x"])
def test_no_runner_takes_a_line_for_a_command(line):
    assert not re.search(r"^\s*::\w|##\[", inert(line))
    table = Table.of("", [{"a": line}])
    assert not any(re.search(r"^\s*::\w|##\[", text.plain) for text in table.terminal(80))
