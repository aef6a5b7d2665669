"""Figures as people and programs read them: formats, signs, and the tables of a run. The golden files have the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparison_kit import run_of
from record_factory import make_cell, make_failed, make_manifest, make_measurement, make_session, make_trial

from mnist_bench import figures
from mnist_bench.analysis import results
from mnist_bench.records import DataSet, Skip
from mnist_bench.table import plain

# docs of results/ in the contract, word for word.
CONTRACT = (
    "model, device, batch_size, variant, status, reason, seeds, test_accuracy, test_accuracy_std, "
    "train_samples_per_s, train_samples_per_s_low, train_samples_per_s_high, step_ms_p50, step_ms_p95, step_ms_p99, "
    "epoch_s, eval_samples_per_s, compile_s, time_to_first_step_s, total_s, loader_share, host_peak_mib, "
    "device_peak_mib, speedup_vs_eager, speedup_vs_eager_low, speedup_vs_eager_high, speedup_vs_cpu, "
    "speedup_vs_cpu_low, speedup_vs_cpu_high, paired, noisy, class, dataset, recipe"
)
NASTY = "no g++ | <b>x</b> `a` @octocat https://x.y\n\x1b[31mi\ttwo"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (figures.significant, {None: "", 0.0: "0", 12345.6: "12,346", 12.345: "12.3", 0.012345: "0.0123"}),
        (figures.significant, {1e-12: "0.000000000", -1.5: "-1.50", 999.9: "1,000", 100.0: "100"}),
        (figures.ratio, {None: "", 1.4321: "1.43x", 12.0: "12.00x", 0.1: "0.10x", 0.0123: "0.012x"}),
        (figures.accuracy, {None: "", 0.97531: "0.9753"}),
        (lambda value: figures.bounds(1.38, value), {None: "", 1.494: "[1.38, 1.49]"}),
    ],
)
def test_formats(text: Any, shown: dict[float | None, str]) -> None:
    assert {value: text(value) for value in shown} == shown


def test_figures_are_named_once_in_the_contracts_order_and_documented() -> None:
    keys = [column.key for column in (*figures.names(), *figures.columns()) if column.key]
    slugs = [figure.slug for figure in figures.FOLLOWED]
    assert ", ".join(keys).startswith(f"{CONTRACT}, ")
    assert (len({*keys}), len({*slugs})) == (len(keys), len(slugs))
    text = (Path(__file__).parents[1] / "docs" / "exports.md").read_text("utf-8")
    for figure in figures.FOLLOWED:
        assert f"| {figure.title} | {figure.unit} | {figure.better} | `{figure.slug}` |" in text


def test_what_is_not_whole_or_not_mnist_is_said_loudly() -> None:
    manifest = make_manifest(status="interrupted", dataset=DataSet(name="synthetic", root="/", sha256="ab"))
    page = results.document(manifest, []).markdown()
    for words in ("Not complete: the run is interrupted", "Synthetic data", "Nothing was measured."):
        assert words in page


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_narrow_terminal_keeps_what_decides_and_cuts_no_word(width: int) -> None:
    """Two cells of three seeds, one of them noisy; one that failed, one that was skipped."""
    trials, sessions = [], []
    for seed in range(3):
        noisy = make_measurement(compile_s=9.5, noisy=("load 3.1",))
        pair = [make_trial(seed=seed), make_trial(make_cell(variant="compile"), seed, noisy)]
        trials += pair
        sessions.append(make_session(pair, [[8.0, 5.0]] * 8, group=f"mlp/b100/s{seed}"))
    failed = make_failed(make_cell("cnn"), kind="compile_error", reason=NASTY)
    rows = run_of(
        [*trials, failed, make_trial(make_cell("cnn", "cuda"), outcome=Skip(reason="no driver"))], sessions
    ).rows
    assert [figures.signs(row) for row in rows] == ["", "*†", "", ""]
    lines = [line.plain for line in results.screen(rows).terminal(width)]
    head = next(line for line in lines if line.startswith("model"))
    table = "\n".join(lines[lines.index(head) : lines.index("", lines.index(head))])
    decides = ["vs eager", "95 %", "accuracy", "samples/s", "step ms", "compile s", "epoch s", "p95", "host MiB"]
    shown = [name for name in decides if name in head]
    assert shown == decides[: len(shown)]
    assert len(shown) >= {40: 0, 60: 1, 80: 3, 100: 5, 120: 7, 200: 9}[width]
    assert head.split()[:4] == ["model", "device", "batch", "variant"]
    assert ("[1.54, 1.66]" in table) == ("95 %" in shown)
    assert "cuda" not in table  # what was skipped is a line below
    said = " ".join(line.strip() for line in lines)
    for whole in (f"cnn/cpu/b100/eager: compile_error: {plain(NASTY)}", "skipped: no driver", "compile: load 3.1"):
        assert whole in said


def test_signs_are_explained_where_they_are_used() -> None:
    assert figures.marks(noisy=True, unpaired=True, class_="C") == "†‡§"
    assert [note.split()[0] for note in figures.footnotes(["§", "†§"])] == ["†", "§"]
