from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from record_factory import RUN_ID, make_manifest, make_matrix
from rich.console import Console

from mnist_bench import figures, tables
from mnist_bench.markdown import escape
from mnist_bench.records import DataSet
from mnist_bench.rows import EpochRow, Row, columns

PLAIN = Row(
    model="mlp",
    device="cpu",
    batch_size=1000,
    variant="eager",
    status="ok",
    reason="",
    seeds=3,
    test_accuracy=0.97531,
    test_accuracy_std=0.00123,
    train_samples_per_s=12_345.678,
    train_samples_per_s_low=11_900.0,
    train_samples_per_s_high=12_800.0,
    step_ms_p50=8.1234,
    step_ms_p95=9.0,
    step_ms_p99=12.0,
    epoch_s=4.8599,
    class_="A",
    noisy=False,
    dataset="mnist",
    recipe="standard",
    dataset_sha256="ab",
)
FASTER = replace(
    PLAIN,
    variant="compile",
    train_samples_per_s=17_000.0,
    compile_s=20.5,
    speedup_vs_eager=1.4321,
    speedup_vs_eager_low=1.38,
    speedup_vs_eager_high=1.494,
    paired="between",
)
NASTY = "no g++ | <b>x</b> `a` *b* _c_ [bold red]d[/] \\| @octocat https://x.y ~~e~~ $f$ # g & h\n\x1b[31mi\ttwo"


def failed(**changes: Any) -> Row:
    row = Row(
        model="cnn",
        device="cuda",
        batch_size=100,
        variant="compile",
        status="compile_error",
        reason=NASTY,
        seeds=0,
        dataset="mnist",
        recipe="standard",
        dataset_sha256="ab",
    )
    return replace(row, **changes)


class TestFigures:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, ""),
            (0.0, "0"),
            (12345.6, "12,346"),
            (123.4, "123"),
            (12.345, "12.3"),
            (1.2345, "1.23"),
            (0.012345, "0.0123"),
            (1e-12, "0.000000000"),
            (-1.5, "-1.50"),
        ],
    )
    def test_significant(self, value: float | None, text: str) -> None:
        assert figures.significant(value) == text

    @pytest.mark.parametrize(
        ("value", "text"), [(None, ""), (1.4321, "1.43x"), (12.0, "12.00x"), (0.5, "0.50x"), (0.0123, "0.012x")]
    )
    def test_ratio(self, value: float | None, text: str) -> None:
        assert figures.ratio(value) == text

    def test_intervals(self) -> None:
        assert figures.bounds(1.38, 1.494) == "[1.38, 1.49]"
        assert figures.rate_bounds(11_900, 12_800) == "[11,900, 12,800]"
        assert figures.bounds(None, 1.0) == figures.rate_bounds(1.0, None) == ""

    def test_accuracy(self) -> None:
        assert figures.accuracy(0.97531, 0.00123) == "0.9753 ± 0.0012"
        assert figures.accuracy(0.97531, None) == "0.9753"
        assert figures.accuracy(None, None) == ""

    def test_lists(self) -> None:
        assert figures.listed(["a", "b", "c"]) == "a, b, c"
        assert figures.listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"

    @given(st.text())
    def test_plain_text_is_one_printable_line(self, text: str) -> None:
        assert figures.plain(text).isprintable()

    def test_fastest_is_one_of_several_that_are_ok(self) -> None:
        other = replace(PLAIN, model="cnn")
        broken = replace(FASTER, variant="broken", status="crashed", train_samples_per_s=1e9)
        assert figures.fastest([PLAIN, FASTER, other, broken, failed()]) == {"mlp/cpu/b1000/compile"}
        assert figures.fastest([FASTER, PLAIN]) == {"mlp/cpu/b1000/compile"}


class TestCsv:
    def test_has_the_columns_even_without_rows(self) -> None:
        assert tables.to_csv([]) == ",".join(columns(Row)) + "\n"
        assert tables.epochs_to_csv([]) == ",".join(columns(EpochRow)) + "\n"
        assert "class" in columns(Row)

    def test_what_was_not_measured_is_empty(self) -> None:
        row = next(csv.DictReader(io.StringIO(tables.to_csv([failed()]))))
        said = {name for name, value in row.items() if value != ""}
        assert said == {
            *("model", "device", "batch_size", "variant", "status", "reason"),
            *("seeds", "dataset", "recipe", "dataset_sha256"),
        }

    def test_reason_comes_back_whole(self) -> None:
        assert next(csv.DictReader(io.StringIO(tables.to_csv([failed()]))))["reason"] == NASTY

    def test_pandas_reads_figures_and_booleans(self) -> None:
        frame = pd.read_csv(io.StringIO(tables.to_csv([PLAIN, replace(FASTER, noisy=True)])))
        assert frame["noisy"].tolist() == [False, True]
        assert frame["train_samples_per_s"].tolist() == [12_345.678, 17_000.0]
        assert frame["speedup_vs_eager"].isna().tolist() == [True, False]
        assert frame["class"].tolist() == ["A", "A"]


class TestJson:
    def test_is_one_document(self) -> None:
        document = json.loads(tables.to_json(make_manifest(), [PLAIN, failed()]))
        assert (document["schema_version"], document["run_id"]) == (1, RUN_ID)
        assert document["environment"]["cores"] == 2
        first, second = document["rows"]
        assert tuple(first) == columns(Row)
        assert (first["class"], first["noisy"], first["test_accuracy"]) == ("A", False, 0.97531)
        assert (second["noisy"], second["epoch_s"], second["reason"]) == (None, None, NASTY)


def html(markdown: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def cells_of(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


class TestMarkdown:
    def page(self, *rows: Row, **changes: Any) -> str:
        return tables.to_markdown(make_manifest(**changes), rows)

    def test_says_where_it_was_measured(self) -> None:
        page = self.page(PLAIN)
        line = page.splitlines()[2]
        for word in (RUN_ID, "AMD EPYC, 2 cores", "torch 2.13.0+cpu", "data set mnist", "recipe standard", "2 epochs"):
            assert word in line
        assert "seeds 0, 1, 2" in line
        assert "commit c0ffeec0ffee with changes" in line
        assert not page.count("\n> ")

    def test_one_of_each_is_singular(self) -> None:
        manifest = make_manifest(matrix=make_matrix(epochs=1, seeds=(7,)))
        environment = replace(manifest.environment, cores=1, packages={}, commit=None)
        line = tables.to_markdown(replace(manifest, environment=environment), []).splitlines()[2]
        assert "1 core ·" in line
        assert line.endswith("1 epoch · seed 7")
        assert "torch" not in line
        assert "commit" not in line

    def test_a_table_per_model_with_the_best_in_bold(self) -> None:
        page = self.page(PLAIN, FASTER, replace(PLAIN, model="cnn"))
        assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["mlp", "cnn", "How to read this"]
        header, eager, compiled = cells_of(html(page))[:3]
        assert header[:5] == ["device", "batch", "variant", "accuracy", "samples/s"]
        assert eager == [
            *("cpu", "1,000", "eager", "0.9753 ± 0.0012", "12,346 [11,900, 12,800]", "8.12 / 9.00", "4.86"),
            *("", ""),
        ]
        assert compiled[2] == "<strong>compile</strong>"
        assert compiled[4] == "<strong>17,000 [11,900, 12,800]</strong>"
        assert compiled[-2:] == ["20.5", "1.43x [1.38, 1.49]"]

    def test_columns_without_a_figure_are_left_out(self) -> None:
        assert "compile s |" not in self.page(PLAIN)
        assert "vs cpu |" in self.page(replace(PLAIN, speedup_vs_cpu=2.0))

    def test_skipped_and_failed_stand_below_with_their_reasons(self) -> None:
        page = self.page(PLAIN, failed())
        assert "## cnn" not in page
        line = cells_of(html(page))[-1]
        assert line[:3] == ["<code>cnn/cuda/b100/compile</code>", "compile_error", "0"]
        text = line[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&quot;", '"')
        assert text.replace("\u200b", "") == figures.plain(NASTY)

    def test_nothing_measured(self) -> None:
        page = self.page(failed())
        assert "Nothing was measured." in page
        assert "How to read" not in page
        assert "## Skipped and failed" not in self.page()

    def test_doubts_are_footnotes(self) -> None:
        noisy = replace(PLAIN, noisy=True, doubts="load 3.1")
        page = self.page(noisy, replace(FASTER, paired="unpaired", class_="B", doubts="load 3.1"))
        assert "| eager † |" in page
        assert "| **compile** ‡§ |" in page
        assert re.findall(r"^- [†‡§] (\w+)", page, re.MULTILINE) == ["noisy", "unpaired", "class"]
        assert "- load 3.1: `mlp/cpu/b1000/eager`, `mlp/cpu/b1000/compile`" in page
        assert "†" not in self.page(PLAIN)

    def test_what_is_not_whole_or_not_mnist_is_said_loudly(self) -> None:
        page = self.page(PLAIN, status="interrupted", dataset=DataSet(name="synthetic", root="/", sha256="ab"))
        assert "> **Not complete**: the run is interrupted" in page
        assert "> **Synthetic data**" in page

    @given(st.text(alphabet=st.sampled_from("ab |\\`*_~[]()<>#!&@$:/-+.=\n\t"), max_size=30))
    def test_text_from_outside_shows_literally(self, text: str) -> None:
        page = html(f"| a |\n| --- |\n| x {escape(text)} y |\n")
        shown = cells_of(page)[1][0]
        for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
            shown = shown.replace(entity, char)
        assert shown.replace("\u200b", "") == f"x {figures.plain(text)} y"

    @pytest.mark.parametrize("text", ["www.example.com", "see (WWW.example.com)", "http://a.b"])
    def test_addresses_become_no_links(self, text: str) -> None:
        assert not re.search(r"www\.|://", escape(text), re.IGNORECASE)
        assert text in html(escape(text))

    def test_mentions_notify_nobody(self) -> None:
        assert "@octocat" not in escape("@octocat")


class TestTerminal:
    ROWS = (PLAIN, FASTER, failed(), replace(failed(), batch_size=10))

    def text(self, width: int, *rows: Row) -> str:
        return tables.to_text("table", make_manifest(), rows or self.ROWS, width)

    @pytest.mark.parametrize("width", [60, 80, 100, 200])
    def test_fits(self, width: int) -> None:
        text = self.text(width)
        assert max(map(len, text.splitlines())) <= width
        for word in ("compile", "17,000", "compile_error"):
            assert word in text

    def test_narrow_keeps_the_figures_that_matter(self) -> None:
        header = self.text(80).splitlines()[0].split()
        assert header[:3] == ["model", "device", "batch"]
        assert {"samples/s", "accuracy"} <= set(header)
        assert "p95" not in header

    def test_wide_shows_all(self) -> None:
        text = self.text(200)
        for word in ("[11,900, 12,800]", "[1.38, 1.49]", "0.0012", "20.5", "9.00"):
            assert word in text

    def test_best_has_a_star(self) -> None:
        starred = [line for line in self.text(80).splitlines() if line.startswith("* ")]
        assert starred[0].split()[:5] == ["*", "mlp", "cpu", "1,000", "compile"]
        assert starred[1:] == ["* the best throughput of its model"]
        assert "*" not in self.text(80, PLAIN)

    def test_status_is_shown_where_there_is_another_than_ok(self) -> None:
        assert "status" not in self.text(80, PLAIN, FASTER)
        assert "status" in self.text(80, PLAIN, failed())

    def test_reasons_stand_below_once_and_literally(self) -> None:
        text = self.text(400)
        assert text.count("no g++") == 1
        assert f"compile_error: cnn/cuda/b100/compile, cnn/cuda/b10/compile: {figures.plain(NASTY)}" in text
        assert "\x1b" not in text

    def test_signs_survive_a_narrow_terminal(self) -> None:
        text = self.text(60, replace(PLAIN, noisy=True), replace(FASTER, paired="unpaired", class_="C"))
        assert [line.split()[-1] for line in text.splitlines()[2:4]] == ["†", "‡§"]
        assert "† noisy: the machine was disturbed" in text

    def test_colours(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=100)
        skipped = replace(failed(), status="skipped")
        console.print(tables.to_rich([PLAIN, FASTER, skipped, failed()], 100))
        out = console.file.getvalue()
        for style, word in (("32", "ok"), ("1;32", "ok"), ("33", "skipped"), ("31", "compile_error")):
            assert re.search(rf"\x1b\[{style}m{word}", out), word

    def test_no_rows(self) -> None:
        assert "samples/s" in tables.to_text("table", make_manifest(), [])


@pytest.mark.parametrize(
    ("format_", "begin"), [("csv", "model,"), ("json", "{\n"), ("md", "# MNIST"), ("table", "  model")]
)
def test_every_format(format_: Any, begin: str) -> None:
    text = tables.to_text(format_, make_manifest(), [PLAIN, FASTER])
    assert text.startswith(begin)
    assert text.endswith("\n")


def test_import_is_light() -> None:
    code = "import sys, mnist_bench.tables; print(*{'numpy', 'pandas', 'scipy', 'rich', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
