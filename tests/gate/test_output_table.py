"""The table of a check on a terminal, and its rows as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from gate_factory import (
    KINDS,
    every_kind,
    hostile,
    make_accuracy,
    make_check,
    make_evidence,
    make_speed,
    make_verdict,
    of_kinds,
)
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell
from rich.cells import cell_len

from mnist_bench.gate.judge import exit_code
from mnist_bench.gate.output import rows, table, words
from mnist_bench.gate.records import Advisory, CellEvidence, Check, RatioEvidence, SessionLogRatio, SideInfo, Verdict
from mnist_bench.records import Cell
from mnist_bench.stats import Interval

NASTY = (
    "::error::x",
    "##[error]y",
    "\x1b[31mred\x07",
    "two\nlines",
    "=1+1",
    "\ud800",
    "[bold]x[/bold]",
    "a::b",
    "\u202eabc",
)
LONG = Cell(model="m" * 64, device="cuda:0", batch_size=100_000, variant="v" * 64)


def lines_of(check: Check, verdicts: tuple[Verdict, ...], width: int = 120) -> list[str]:
    return [line.plain for line in table.to_terminal(check, verdicts, width)]


def body(lines: list[str]) -> list[str]:
    """The rows of the first table."""
    start = next(number for number, line in enumerate(lines) if line.startswith("─")) + 1
    return lines[start : lines.index("", start)]


class TestOrder:
    def test_worst_first(self) -> None:
        kinds = [line[:14].strip() for line in body(lines_of(*every_kind()))]
        assert kinds == [kind.replace("_", " ") for kind in words.WORST_FIRST]
        assert set(words.WORST_FIRST) == set(KINDS)

    def test_among_regressions_the_slowest(self) -> None:
        verdicts = tuple(
            make_verdict("regression", make_cell(batch_size=number), speed=make_speed(ratio))
            for number, ratio in enumerate((1.1, 1.4, 1.2))
        )
        found = [one.cell.batch_size for one in words.sorted_worst_first(verdicts)]
        assert found == [1, 2, 0]

    def test_else_by_name(self) -> None:
        verdicts = [make_verdict("pass", make_cell(name), speed=None) for name in ("mlp", "cnn", "lenet5")]
        assert [one.cell.model for one in words.sorted_worst_first(verdicts)] == ["cnn", "lenet5", "mlp"]


class TestWords:
    @pytest.mark.parametrize(
        ("ratio", "shown"),
        [
            (Interval(1.12, 1.10, 1.14), "12 % slower (10-14 %)"),
            (Interval(1.012, 0.99, 1.031), "1.2 % slower (-1 to +3.1 %)"),
            (Interval(0.8, 0.75, 0.9), "25 % faster (11-33 %)"),
            (Interval(1.0, 0.98, 1.02), "as fast (-2 to +2 %)"),
            (Interval(1.0001, 1.0, 1.0002), "as fast (0-0 %)"),
            (Interval(1.05), "5 % slower"),
            (Interval(25.0, 20.0, 30.0), "2,400 % slower (1,900-2,900 %)"),
        ],
    )
    def test_speed(self, ratio: Interval, shown: str) -> None:
        assert words.speed(make_verdict(speed=replace(make_speed(), ratio=ratio))) == shown

    @given(st.floats(1.001, 50))
    def test_slower_and_faster_are_of_one_size(self, ratio: float) -> None:
        slower = words.slower(make_verdict(speed=make_speed(ratio)))
        faster = words.slower(make_verdict(speed=make_speed(1 / ratio)))
        assert slower.endswith("slower")
        assert faster.endswith("faster")
        sizes = [float(text.partition(" ")[0].replace(",", "")) for text in (slower, faster)]
        assert sizes[0] == pytest.approx(sizes[1], abs=1.01)  # a figure on the edge may round either way

    @pytest.mark.parametrize(
        ("finding", "shown"),
        [
            (make_accuracy(-0.0031), "-0.31 pp (-0.40 to -0.22)"),
            (make_accuracy(0.0), "+0.00 pp (-0.09 to +0.09)"),
            (replace(make_accuracy(), change=Interval(-0.00001)), "+0.00 pp"),
            (make_accuracy(identical=3), "identical"),
            (make_accuracy(identical=2), "+0.00 pp (-0.09 to +0.09)"),
            (None, ""),
        ],
    )
    def test_accuracy(self, finding: Any, shown: str) -> None:
        assert words.accuracy(make_verdict(accuracy=finding)) == shown

    @pytest.mark.parametrize(
        ("a", "b", "shown"), [(10.4, 11.1, "10.4 → 11.1 (+7 %)"), (0, 5, "0 → 5.00"), (2, 1, "2.00 → 1.00 (-50 %)")]
    )
    def test_advisory(self, a: float, b: float, shown: str) -> None:
        assert words.advisory(Advisory(name="x", unit="s", a=a, b=b)) == shown

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_has_a_verdict_on_the_whole(self, kind: Any) -> None:
        check, verdicts = of_kinds(kind)
        code = exit_code(check, verdicts)
        assert f"1 {kind.replace('_', ' ')}. Exit code {code}: " in words.overall(verdicts, code)


class TestTerminal:
    @pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
    def test_fits(self, width: int) -> None:
        for made in (every_kind(), of_kinds("regression"), of_kinds(), of_kinds(*["pass"] * 200)):
            assert max(map(cell_len, lines_of(*made, width=width))) <= width

    @pytest.mark.parametrize("width", [80, 120])
    def test_speed_and_accuracy_stand_beside_each_verdict(self, width: int) -> None:
        made = of_kinds("regression", "pass")
        (worse, same) = body(lines_of(*made, width=width))
        assert worse.split() == ["regression", "mlp/cpu/b100/eager", "12", "%", "slower", *worse.split()[5:]]
        assert re.search(r"\(?10-14 %\)? +identical", worse)
        assert re.search(r"0.2 % slower +\(?-1.8 to \+2.2 %\)? +identical", same)

    def test_pairs_seeds_and_noise_where_there_is_room(self) -> None:
        lines = lines_of(*of_kinds("pass"), width=120)
        assert re.split(r"\s{2,}", body(lines)[0])[-3:] == ["16", "†", "3"]
        assert "† noisy: other work disturbed 1 of 16 pairs" in lines
        quiet = make_check([make_evidence(pairs=())])
        assert "†" not in "\n".join(lines_of(quiet, (make_verdict(),)))

    def test_head_says_what_was_compared(self) -> None:
        changed = tuple(f"file_{number}.py" for number in range(9))
        check, verdicts = every_kind(b=SideInfo(label="working tree", commit="f00d" * 10, changed=changed))
        head = " ".join(" ".join(lines_of(check, verdicts)[:8]).split())
        for part in (
            f"Check {check.id}: working tree (B) against main (A)",
            "A: main, commit c0ffeec0ffee",
            "B: working tree, commit f00df00df00d, changed: file_0.py, file_1.py, file_2.py, file_3.py, file_4.py and "
            "4 more",
            "Matrix benchmarks.yaml, data mnist, recipe standard; 12.5 min spent of 20",
            "3 % slower is tolerated, and a pass says that 10 % would have been seen",
        ):
            assert part in head

    def test_notes_and_an_unfinished_check_are_said(self) -> None:
        head = lines_of(*every_kind(notes=("the reference has no matrix",), status="interrupted"))
        assert "the reference has no matrix" in head
        assert "The check is interrupted: samples may be missing." in head

    def test_a_sentence_for_each_that_is_no_pass(self) -> None:
        check, verdicts = every_kind()
        text = " ".join(" ".join(lines_of(check, verdicts, 80)).split())
        assert [one.text in text for one in verdicts] == [one.kind != "pass" for one in verdicts]

    def test_advisories_are_dim_and_said_to_be_advisory(self) -> None:
        found = list(table.to_terminal(*every_kind(), 120))
        plain = [line.plain for line in found]
        start = plain.index(table.ADVISORY)
        assert "none of this decides" in table.ADVISORY
        rest = found[start:-3]
        assert "compile time, s" in plain[start + 2]
        assert "10.4 → 11.1 (+7 %)" in plain[start + 4]
        assert {line.style for line in rest if line.plain} == {"dim"}

    def test_without_advisories_no_such_table(self) -> None:
        verdicts = (make_verdict(advisories=()),)
        assert table.ADVISORY not in lines_of(make_check([make_evidence()]), verdicts)

    @pytest.mark.parametrize("width", [80, 120])
    def test_last_is_the_verdict_on_the_whole(self, width: int) -> None:
        last = " ".join(" ".join(lines_of(*of_kinds("pass", "regression", "pass"), width=width)[-2:]).split())
        assert last.endswith(
            "FAIL: 1 regression, 2 pass. Exit code 3: something is slower, less accurate, missing or broken."
        )

    def test_no_cell(self) -> None:
        lines = lines_of(make_check(), ())
        assert lines[-1] == "NOTHING COMPARED: no cell. Exit code 5: no cell could be compared."
        assert "verdict" not in "\n".join(lines[:-1])

    @pytest.mark.parametrize("kind", KINDS)
    def test_colours_follow_the_verdict(self, kind: Any) -> None:
        check, verdicts = of_kinds(kind)
        (line,) = [
            one for one in table.to_terminal(check, verdicts, 80) if one.plain.startswith(kind.replace("_", " "))
        ]
        assert str(line.style) == table.STYLES.get(kind, "")

    @pytest.mark.parametrize("width", [80, 120])
    def test_a_long_name_is_cut_in_the_table_and_whole_in_its_sentence(self, width: int) -> None:
        made = make_check([make_evidence(LONG)]), (make_verdict("regression", LONG),)
        lines = lines_of(*made, width=width)
        assert max(map(len, lines)) <= width
        (row,) = body(lines)
        assert "…" in row
        assert "12 % slower" in row
        assert "identical" in row
        assert LONG.id.replace("/", "") in "".join("".join(lines).split()).replace("/", "")

    def test_hostile_texts_stay_texts(self) -> None:
        lines = lines_of(*hostile(NASTY))
        assert all(line.isprintable() for line in lines)
        assert not [line for line in lines if line.lstrip().startswith("::") or "##[" in line]
        assert any("[bold]x[/bold]" in line for line in lines)

    def test_baseline_mode_says_what_its_ratio_is(self) -> None:
        lines = lines_of(*every_kind(mode="baseline"))
        assert any("seconds per step relative to eager" in line for line in lines)
        (header,) = [line for line in lines if line.startswith("verdict ")]
        assert header.split()[-2:] == ["sessions", "seeds"]

    def test_disturbed_sessions_of_either_side_mark_a_cell(self) -> None:
        quiet = SessionLogRatio(seed=0, log_ratio=0.1, sd=0.02, rounds=20)
        noisy = replace(quiet, noisy=True)
        cells = [make_cell("mlp", variant=name) for name in ("a", "b", "c", "reference")]
        ratios = [
            RatioEvidence(reference="mlp/cpu/b100/reference", a=a, b=b)
            for a, b in (((noisy, quiet), (quiet,)), ((quiet,), (noisy, noisy)), ((quiet,), (quiet,)))
        ]
        evidence = [CellEvidence(cell=cell, ratios=ratio) for cell, ratio in zip(cells, [*ratios, None], strict=True)]
        check = make_check(evidence, mode="baseline")
        verdicts = tuple(make_verdict("pass", cell) for cell in cells)
        lines = lines_of(check, verdicts)
        assert ["†" in line for line in body(lines)] == [True, True, False, False]
        assert "† noisy: other work disturbed 3 of 8 sessions" in lines
        found = list(csv.DictReader(io.StringIO(rows.to_csv(check, verdicts))))
        assert [row["noisy_pairs"] for row in found] == ["1", "2", "0", "0"]


class TestCsv:
    def test_rows_worst_first(self) -> None:
        check, verdicts = every_kind()
        found = list(csv.DictReader(io.StringIO(rows.to_csv(check, verdicts))))
        assert [row["verdict"] for row in found] == list(words.WORST_FIRST)
        (worse,) = [row for row in found if row["verdict"] == "regression"]
        assert (worse["time_ratio"], worse["time_ratio_low"], worse["time_ratio_high"]) == ("1.12", "1.1", "1.14")
        assert (worse["pairs"], worse["noisy_pairs"], worse["identical_seeds"]) == ("16", "1", "3")
        (missing,) = [row for row in found if row["verdict"] == "missing"]
        assert {missing[name] for name in ("time_ratio", "pairs", "accuracy_a", "seeds")} == {""}

    def test_nothing_without_cells(self) -> None:
        assert rows.to_csv(make_check(), ()) == ""

    def test_no_formula_and_no_command(self) -> None:
        text = rows.to_csv(*hostile(NASTY))
        assert not [line for line in text.splitlines() if line.startswith("::") or "##[" in line]
        models = {row["model"] for row in csv.DictReader(io.StringIO(text))}
        assert "'=1+1" in models
        assert all(model.isprintable() for model in models)


class TestJson:
    def test_document(self) -> None:
        check, verdicts = every_kind()
        document = json.loads(rows.to_json(check, verdicts))
        assert document["exit_code"] == exit_code(check, verdicts)
        assert document["b"]["changed"] == ["mnist_bench/models/lenet5.py"]
        assert [cell["verdict"] for cell in document["cells"]] == list(words.WORST_FIRST)
        assert document["cells"][2]["advisories"][0] == {"name": "compile time", "unit": "s", "a": 10.4, "b": 11.1}
        assert document["cells"][0]["time_ratio"] is None

    def test_hostile_texts_are_whole_and_no_command(self) -> None:
        made = hostile(NASTY)
        text = rows.to_json(*made)
        assert "##[" not in text
        assert json.loads(text)["notes"] == list(NASTY)
