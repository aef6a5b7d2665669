"""``compare`` as it is called: exit codes, formats, what goes where."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparison_kit import make_matrix, records, write
from markdown_it import MarkdownIt
from record_factory import RUN_ID

from mnist_bench.cli import main

OTHER, ELSEWHERE, LONELY = "20261124T101500Z-bbbbbb", "20261125T101500Z-cccccc", "20261126T101500Z-dddddd"
HOSTILE = "=cmd|'/c calc'!A1 <script>x</script> [red]b[/] \x1b[31m| \u202e`y`\nz"


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
def compare(results: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["compare", "-o", str(results), *words])
        except SystemExit as error:  # argparse
            code = error.code
        return code, *capsys.readouterr()

    return call


def test_filter_and_the_choice_of_what_is_compared(compare: Any) -> None:
    code, out, err = compare(RUN_ID, "--filter", "device=cpu")
    assert (code, err) == (0, "mnist-bench: compared by variant; choose with --by\n")
    assert "against the variant compile" in compare(RUN_ID, "--by", "variant", "--reference", "compile")[1]
    code, out, _ = compare(RUN_ID, "--filter", "model=mlp,device=cuda", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert {(line["model"], line["device"]) for line in lines} == {("mlp", "cuda")}
    assert sum(line["speedup"] != "" for line in lines) == 3


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((RUN_ID, RUN_ID), 2, "the same run"),
        ((RUN_ID, OTHER, "--by", "device"), 2, "--by"),
        ((RUN_ID, OTHER, "--reference", "eager"), 2, "--reference"),
        ((RUN_ID, "--reference", "nothing"), 2, "unknown variant 'nothing'"),
        ((RUN_ID, "--across-machines"), 2, "--across-machines"),
        (("nowhere",), 2, "no run 'nowhere'"),
        ((RUN_ID, "--filter", "model=cnn"), 2, "cnn"),
        ((RUN_ID, "--by", "colour"), 2, "colour"),
        ((LONELY, "--by", "device"), 5, "nothing comparable by device"),
        ((RUN_ID, ELSEWHERE), 5, "cores: A 2, B 8 (moves speed)"),
    ],
)
def test_refusals(compare: Any, words: tuple[str, ...], code: int, says: str) -> None:
    found, _, err = compare(*words)
    assert (found, says in err, "Traceback" in err) == (code, True, False)


@pytest.mark.parametrize("format_", ["table", "csv", "md", "json"])
def test_hostile_text_is_text(compare: Any, format_: str) -> None:
    _, out, err = compare("--by", "variant", "--format", format_)  # the latest
    assert not set("\x1b\u202e") & set(out + err)
    match format_:
        case "csv":
            assert any(line["reason"].startswith("'=cmd") for line in csv.DictReader(io.StringIO(out)))
        case "md":
            html = MarkdownIt("commonmark").enable("table").render(out)
            assert ("<script>" in html, html.count("<table>")) == (False, 3)
        case "json":
            assert HOSTILE in {one["reason"] for one in json.loads(out)["cells"]}
