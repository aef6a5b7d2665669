"""Annotations of GitHub Actions: their form, their levels, their number."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gate_factory import every_kind, hostile, make_check, make_verdict, of_kinds
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell

from mnist_bench.gate.output.annotations import MOST, commands, inert
from mnist_bench.records import Cell
from mnist_bench.table import plain

COMMAND = re.compile(r"::(error|warning|notice) file=([^,:]*),title=([^,:]*)::(.*)")


def read(line: str) -> tuple[str, str, str, str]:
    """A command as the runner reads it: https://github.com/actions/runner, ``ActionCommand.TryParseV2``."""
    match = COMMAND.fullmatch(line)
    assert match is not None, line
    level, file, title, text = match.groups()

    def unescape(value: str, *, prop: bool) -> str:
        for code, char in (("%0D", "\r"), ("%0A", "\n"), *([("%3A", ":"), ("%2C", ",")] if prop else []), ("%25", "%")):
            value = value.replace(code, char)
        return value

    return level, unescape(file, prop=True), unescape(title, prop=True), unescape(text, prop=False)


def test_one_for_each_that_should_be_looked_at() -> None:
    check, verdicts = every_kind()
    found = [read(line) for line in commands(check, verdicts)]
    assert [(level, title.partition(":")[0]) for level, _, title, _ in found] == [
        ("error", "failed"),
        ("error", "missing"),
        ("error", "regression"),
        ("warning", "inconclusive"),
        ("warning", "not comparable"),
        ("notice", "improvement"),
    ]
    assert {file for _, file, _, _ in found} == {"benchmarks.yaml"}
    assert {text for *_, text in found} <= {one.text for one in verdicts}


@pytest.mark.parametrize("kind", ["pass", "new"])
def test_none_for_what_is_well(kind: Any) -> None:
    assert commands(*of_kinds(kind)) == []


def test_none_without_cells() -> None:
    assert commands(make_check(), ()) == []


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=30))
def test_any_text_arrives_on_one_line(text: str, name: str, file: str) -> None:
    cell = Cell(model=name, device="cpu", batch_size=1, variant=name)
    check = make_check(matrix_path=file)
    (line,) = commands(check, (make_verdict("regression", cell, text=text),))
    assert line.isprintable()
    assert read(line) == (
        "error",
        plain(file),
        plain(f"regression: {cell.id}"),
        plain(text),
    )


def test_escapes_are_those_of_github() -> None:
    verdict = make_verdict("regression", make_cell("a,b:c"), text="12 % slower:\r\nby, far %0A")
    (line,) = commands(make_check(matrix_path="a:b,c%.yaml"), (verdict,))
    assert line == (
        "::error file=a%3Ab%2Cc%25.yaml,title=regression%3A a%2Cb%3Ac/cpu/b100/eager::12 %25 slower: by, far %250A"
    )


@pytest.mark.parametrize("count", [1, MOST - 1, MOST, MOST + 1, 200])
def test_at_most_ten_of_a_level_and_the_rest_is_counted(count: int) -> None:
    lines = commands(*of_kinds(*["regression"] * count, *["inconclusive"] * 3))
    errors = [line for line in lines if line.startswith("::error")]
    assert len(errors) == min(count, MOST)
    assert len(lines) == len(errors) + 3
    if count > MOST:
        assert f"::{count - MOST + 1} more cells: {count - MOST + 1} regression." in errors[-1]
        assert "GitHub shows 10 annotations of a kind" in errors[-1]
    else:
        assert "more cells" not in errors[-1]


def test_hostile_texts_make_no_command_of_their_own() -> None:
    for line in commands(*hostile(["x\n::error::y", "a\r::stop-commands::t", "%0A::error::z"])):
        read(line)


@given(st.text(alphabet=":#[]ab \t", max_size=12))
def test_inert(text: str) -> None:
    found = inert(text)
    assert not found.lstrip().startswith("::")
    assert "##[" not in found
    assert inert(found) == found
    if not text.lstrip().startswith("::") and "##[" not in text:
        assert found == text
