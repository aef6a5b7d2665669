"""Figures as people and programs read them: formats, signs, and the tables of a run. The golden files have the rest."""

from pathlib import Path

import pytest
from record_factory import make_manifest

from mnist_bench import figures
from mnist_bench.analysis import results
from mnist_bench.records import DataSet

# docs of results/ in the contract, word for word.
CONTRACT = (
    "model, device, batch_size, variant, status, reason, seeds, test_accuracy, test_accuracy_std, "
    "train_samples_per_s, train_samples_per_s_low, train_samples_per_s_high, step_ms_p50, step_ms_p95, step_ms_p99, "
    "epoch_s, eval_samples_per_s, compile_s, time_to_first_step_s, total_s, loader_share, host_peak_mib, "
    "device_peak_mib, speedup_vs_eager, speedup_vs_eager_low, speedup_vs_eager_high, speedup_vs_cpu, "
    "speedup_vs_cpu_low, speedup_vs_cpu_high, paired, noisy, class, dataset, recipe"
)


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
def test_formats(text, shown):
    assert {value: text(value) for value in shown} == shown


def test_figures_are_named_once_in_the_contracts_order_and_documented():
    keys = [column.key for column in (*figures.names(), *figures.columns()) if column.key]
    slugs = [figure.slug for figure in figures.FOLLOWED]
    assert ", ".join(keys).startswith(f"{CONTRACT}, ")
    assert (len({*keys}), len({*slugs})) == (len(keys), len(slugs))
    text = (Path(__file__).parents[1] / "docs" / "exports.md").read_text("utf-8")
    for figure in figures.FOLLOWED:
        assert f"| {figure.title} | {figure.unit} | {figure.better} | `{figure.slug}` |" in text


def test_what_is_not_whole_or_not_mnist_is_said_loudly():
    manifest = make_manifest(status="interrupted", dataset=DataSet(name="synthetic", root="/", sha256="ab"))
    page = results.document(manifest, []).markdown()
    for words in ("Not complete: the run is interrupted", "Synthetic data", "Nothing was measured."):
        assert words in page
