"""``compare`` as it is called: exit codes, formats, what goes where; and the sheets that it prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from comparison_kit import make_matrix, records, write
from markdown_it import MarkdownIt
from record_factory import RUN_ID

from mnist_bench.cli import main
from mnist_bench.sheets import Column, Sheet, grid, to_markdown, to_terminal

OTHER, ELSEWHERE, LONELY = "20261124T101500Z-bbbbbb", "20261125T101500Z-cccccc", "20261126T101500Z-dddddd"
HOSTILE = "=cmd|'/c calc'!A1 <script>x</script> [red]b[/] \x1b[31m| \u202e`y`\nz"

Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs A, a slower one, one of another machine, and one without anything to compare."""
    output_dir = tmp_path_factory.mktemp("results")
    manifest, trials, sessions = records()
    write(output_dir, manifest, trials, sessions)
    write(output_dir, *records(factor=1.1, salt=1), OTHER)
    environment = replace(manifest.environment, cpu="Intel Xeon", cores=8)
    write(output_dir, replace(manifest, environment=environment), trials, sessions, ELSEWHERE)
    single = make_matrix(devices=("cuda",), batch_sizes=(100,))
    write(output_dir, *records(single, {"mlp/cuda/b100/eager": ("oom", HOSTILE)}), LONELY)
    return output_dir


@pytest.fixture
def compare(results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Compare:
    def call(*words: str, columns: int = 120) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        code = main(["compare", "-o", str(results), *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


class TestOneRun:
    def test_table_says_by_what_and_against_what(self, compare: Compare) -> None:
        code, out, err = compare(RUN_ID)
        assert code == 0
        assert out.startswith(f"Run {RUN_ID}: each cell against the same cell on the CPU\n")
        assert err == "compared by device; choose with --by\n"
        for part in ("Speed-ups by device", "Geometric means", "Crossover", "oom: 8.1 GiB were asked for"):
            assert part in out
        assert "Break-even" not in out

    def test_by_variant_has_break_even_and_marks(self, compare: Compare) -> None:
        code, out, err = compare(RUN_ID, "--by", "variant")
        assert (code, err) == (0, "")
        assert "Break-even" in out
        assert "Crossover" not in out
        (line,) = [line for line in out.splitlines() if line.startswith("mlp     cuda      100  tf32")]
        assert line.endswith("§↓")
        (mean,) = [line for line in out.splitlines() if line.startswith("tf32 ")]
        assert "↓" in mean.split()[-1]
        assert "↓ accuracy shown to be worse" in out
        assert "? accuracy not shown to be equivalent (within 0.30 pp)" in out

    def test_by_batch_size_is_unpaired(self, compare: Compare) -> None:
        code, out, _ = compare(RUN_ID, "--by", "batch_size")
        assert code == 0
        assert "Ratios of samples per second" in out
        assert "‡ unpaired" in out

    @pytest.mark.parametrize("columns", [80, 100, 120])
    def test_fits_the_terminal(self, compare: Compare, columns: int) -> None:
        for words in ((RUN_ID, "--by", "device"), (RUN_ID, "--by", "variant"), (RUN_ID, OTHER)):
            _, out, _ = compare(*words, columns=columns)
            assert max(map(len, out.splitlines())) <= columns

    def test_narrow_terminal_keeps_ratio_interval_and_accuracy(self, compare: Compare) -> None:
        _, out, _ = compare(RUN_ID, "--by", "variant", columns=80)
        header = next(line for line in out.splitlines() if "speed-up" in line and "model" in line)
        assert header.split() == ["model", "device", "batch", "variant", "status", "speed-up", "95", "%", "accuracy"]

    def test_two_runs_keep_the_step_its_interval_and_accuracy(self, compare: Compare) -> None:
        _, out, _ = compare(RUN_ID, OTHER, columns=80)
        header = next(line for line in out.splitlines() if line.startswith("model"))
        assert header.split() == ["model", "device", "batch", "variant", "status", "step", "95", "%", "accuracy"]

    def test_csv_has_every_line(self, compare: Compare) -> None:
        code, out, _ = compare(RUN_ID, "--by", "variant", "--format", "csv")
        lines = list(csv.DictReader(io.StringIO(out)))
        assert code == 0
        assert len(lines) == 17
        by_cell = {(line["model"], line["device"], line["batch_size"], line["variant"]): line for line in lines}
        failed = by_cell["lenet5", "cuda", "1000", "compile"]
        assert (failed["status"], failed["speedup"], failed["accuracy"], failed["paired"]) == ("oom", "", "", "")
        good = by_cell["mlp", "cuda", "100", "tf32"]
        assert (good["status"], good["paired"], good["class"], good["noisy"]) == ("ok", "between", "B", "false")
        assert float(good["accuracy_difference"]) == pytest.approx(-0.02)
        assert float(good["speedup_low"]) < float(good["speedup"]) < float(good["speedup_high"])

    def test_json_is_one_document(self, compare: Compare) -> None:
        code, out, _ = compare(RUN_ID, "--json", "--by", "device")
        document = json.loads(out)
        assert code == 0
        assert (document["run_id"], document["by"]) == (RUN_ID, "device")
        assert document["geometric_means"][0].keys() == {"of", "class", "cells", "ratio", "low", "high", "marks"}
        crossover = next(one for one in document["crossovers"] if (one["model"], one["variant"]) == ("mlp", "eager"))
        assert crossover["where"] == "at"
        assert 100 < crossover["batch_size_low"] < crossover["batch_size"] < crossover["batch_size_high"] < 1000
        assert document["break_evens"] == []
        by_variant = json.loads(compare(RUN_ID, "--json", "--by", "variant")[1])
        assert "after" in {one["verdict"] for one in by_variant["break_evens"]} <= {"after", "unproven"}
        assert by_variant["break_evens"][0]["reference"] == "mlp/cpu/b100/eager"

    def test_markdown_is_tables(self, compare: Compare) -> None:
        _, out, _ = compare(RUN_ID, "--format", "md", "--by", "variant")
        html = MarkdownIt("commonmark").enable("table").render(out)
        assert html.count("<table>") == 3
        assert html.count("<tr>") == 1 + 17 + 1 + 2 + 1 + 5

    def test_filter(self, compare: Compare) -> None:
        code, out, _ = compare(RUN_ID, "--by", "device", "--filter", "model=mlp,device=cuda", "--format", "csv")
        lines = list(csv.DictReader(io.StringIO(out)))
        assert code == 0
        assert {(line["model"], line["device"]) for line in lines} == {("mlp", "cuda")}
        assert sum(line["speedup"] != "" for line in lines) == 3

    def test_filter_decides_by_what_is_compared(self, compare: Compare) -> None:
        code, out, err = compare(RUN_ID, "--filter", "device=cpu")
        assert (code, err) == (0, "compared by variant; choose with --by\n")
        assert "mlp     cpu" in out

    def test_filter_that_matches_nothing_is_refused(self, compare: Compare) -> None:
        code, out, err = compare(RUN_ID, "--filter", "model=cnn")
        assert (code, out) == (2, "")
        assert "cnn" in err


class TestTwoRuns:
    def test_cell_by_cell(self, compare: Compare) -> None:
        code, out, err = compare(RUN_ID, OTHER)
        assert (code, err) == (0, "")
        assert out.startswith(f"Run {OTHER} (B) against run {RUN_ID} (A)\n")
        assert "lie apart in time" in out
        assert "Across machines" not in out

    def test_json(self, compare: Compare) -> None:
        document = json.loads(compare(RUN_ID, OTHER, "--json")[1])
        assert (document["run_a"], document["run_b"], document["differences"]) == (RUN_ID, OTHER, [])
        assert len(document["cells"]) == 24
        assert document["geometric_means_of_steps"][0]["ratio"] == pytest.approx(1 / 1.1, rel=0.01)

    def test_another_machine_is_refused_with_the_fields_and_a_hint(self, compare: Compare) -> None:
        code, out, err = compare(RUN_ID, ELSEWHERE)
        assert code == 5
        assert "not comparable: CPU, cores" in out
        lines = err.splitlines()
        assert lines[1:3] == [
            "mnist-bench:   CPU: A AMD EPYC, B Intel Xeon (moves speed)",
            "mnist-bench:   cores: A 2, B 8 (moves speed)",
        ]
        assert "--across-machines" in lines[3]
        assert "nothing comparable" in lines[4]

    def test_across_machines_under_a_heading_that_ranks(self, compare: Compare) -> None:
        code, out, err = compare(RUN_ID, ELSEWHERE, "--across-machines")
        assert (code, err) == (0, "")
        heading, _, cells = out.partition("Cell by cell")
        ranks = [line.split()[0] for line in heading.partition("Across machines")[2].splitlines()[3:] if line]
        assert ranks == ["CPU", "cores"]
        assert "1.00x" in cells

    def test_csv_names_the_fields(self, compare: Compare) -> None:
        _, out, _ = compare(RUN_ID, ELSEWHERE, "--across-machines", "--format", "csv")
        assert {line["differs"] for line in csv.DictReader(io.StringIO(out))} == {"cpu, cores", ""}


class TestRefusals:
    def test_nothing_comparable(self, compare: Compare) -> None:
        code, out, err = compare(LONELY, "--by", "device")
        assert code == 5
        assert "not in this run" in out
        assert "nothing comparable by device" in err

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            ((RUN_ID, RUN_ID), "the same run"),
            ((RUN_ID, OTHER, "--by", "device"), "--by"),
            ((RUN_ID, "--across-machines"), "--across-machines"),
            (("nowhere",), "no run 'nowhere'"),
            ((RUN_ID, "nowhere"), "no run 'nowhere'"),
        ],
    )
    def test_usage(self, compare: Compare, words: tuple[str, ...], what: str) -> None:
        code, out, err = compare(*words)
        assert (code, out) == (2, "")
        assert what in err
        assert "Traceback" not in err

    def test_unknown_axis(self, compare: Compare) -> None:
        with pytest.raises(SystemExit) as raised:
            compare(RUN_ID, "--by", "colour")
        assert raised.value.code == 2

    def test_run_by_path_and_latest(self, compare: Compare, results: Path) -> None:
        assert compare(str(results / RUN_ID), "--by", "variant")[1] == compare(RUN_ID, "--by", "variant")[1]
        assert f"Run {LONELY}" in compare("latest", "--by", "variant")[1]


class TestHostileText:
    @pytest.mark.parametrize("format_", ["table", "csv", "md"])
    def test_is_text(self, compare: Compare, format_: str) -> None:
        _, out, err = compare(LONELY, "--by", "variant", "--format", format_)
        for nasty in ("\x1b", "\u202e"):
            assert nasty not in out + err
        if format_ == "csv":
            reasons = [line["reason"] for line in csv.DictReader(io.StringIO(out))]
            assert any(reason.startswith("'=cmd") for reason in reasons)
            assert not any(reason.startswith("=") for reason in reasons)
        if format_ == "md":
            assert "<script>" not in MarkdownIt("commonmark").enable("table").render(out)

    def test_json_keeps_it_whole(self, compare: Compare) -> None:
        document = json.loads(compare(LONELY, "--by", "variant", "--json")[1])
        assert HOSTILE in {one["reason"] for one in document["cells"]}


class TestSheets:
    COLUMNS = (
        Column("name", lambda row: row[0], right=False),
        Column("much", lambda row: row[1]),
        Column("more", lambda row: row[2], rank=1),
    )

    def lines(self, rows: list[tuple[str, str, str]], width: int = 80) -> list[str]:
        sheet = Sheet(title="title", grids=(grid("table", self.COLUMNS, rows),), notes=("note",))
        return [line.plain for line in to_terminal(sheet, width)]

    def test_columns_are_aligned(self) -> None:
        lines = self.lines([("a", "1", "x"), ("日本", "100", "yyyyyy")])
        assert lines[3:] == [
            "name  much    more",
            "──────────────────",
            "a        1       x",
            "日本   100  yyyyyy",
            "",
            "note",
        ]

    def test_least_needed_column_goes_first_and_only_that(self) -> None:
        assert self.lines([("a", "1", "x" * 30)], width=20)[3] == "name  much"
        assert self.lines([("a" * 40, "1", "")], width=20)[3] == "name" + " " * 38 + "much"

    def test_column_without_a_word_is_left_out(self) -> None:
        assert self.lines([("a", "", "")])[3] == "name  much"

    def test_markdown_escapes_everything(self) -> None:
        text = to_markdown(Sheet(title="<t>", facts=("*f*",), grids=(grid("|g|", self.COLUMNS, [("<b>", "|", "`")]),)))
        html = MarkdownIt("commonmark").enable("table").render(text)
        for tag in ("<t>", "<em>", "<b>", "<code>"):
            assert tag not in html
        assert html.count("<td") == 3
