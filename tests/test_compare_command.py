"""``compare`` as it is called: what it refuses, and text from strangers. The golden files have the rest."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

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
        ((LONELY, "--by", "device"), 5, "nothing comparable by device"),
        ((RUN_ID, ELSEWHERE), 5, "cores: A 2, B 8 (moves speed)"),
        ((RUN_ID, "--filter", "device=cpu"), 0, "compared by variant; choose with --by"),
    ],
)
def test_refusals(
    results: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    assert main(["compare", "-o", str(results), *words]) == code
    err = capsys.readouterr().err
    assert (says in err, "Traceback" in err) == (True, False)


def test_hostile_text_is_text(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = {}
    for name in ("table", "csv", "md", "json"):
        main(["compare", "--by", "variant", "-o", str(results), "--format", name])  # the latest
        out[name], err = capsys.readouterr()
        assert not set("\x1b\u202e") & set(out[name] + err)
    assert any(line["reason"].startswith("'=cmd") for line in csv.DictReader(io.StringIO(out["csv"])))
    html = MarkdownIt("commonmark").enable("table").render(out["md"])
    assert ("<script>" in html, html.count("<table>")) == (False, 3)
    assert HOSTILE in {one["reason"] for one in json.loads(out["json"])["cells"]}
