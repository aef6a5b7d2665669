"""Cells of a run against each other: the right lines, and the figures that pandas gets from the files alone."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from comparison_kit import TROUBLE, as_run, make_matrix, make_run, records, write
from record_factory import make_measurement, make_trial

from mnist_bench.compare import BY, compare_cells, default_by, geometric_means, marks
from mnist_bench.comparisons import Comparison, Run
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Variant
from mnist_bench.session_ratios import PROCESS_SD
from mnist_bench.speedups import SpeedUp
from mnist_bench.store import RunFolder
from mnist_bench.summary import summarise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write(tmp_path_factory.mktemp("results"), *records())


@pytest.fixture(scope="module")
def run(folder: RunFolder) -> Run:
    """As it stands on disk: figures of 6 digits."""
    return as_run(folder.manifest(), folder.trials(), folder.sessions())


class Files:
    """A run by pandas and numpy alone: nothing of the package computes here."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in (path / "trials.jsonl").read_text("utf-8").splitlines()]
        self.trials = pd.DataFrame(
            {
                "cell": f"{one['cell']['model']}/{one['cell']['device']}/b{one['cell']['batch_size']}"
                f"/{one['cell']['variant']}",
                "seed": one["seed"],
                "status": one["status"],
                "accuracy": one["outcome"]["epochs"]["accuracy"][-1] if one["status"] == "ok" else math.nan,
                "sha": one["outcome"].get("predictions_sha256"),
            }
            for one in lines
        )
        sessions = [json.loads(line) for line in (path / "sessions.jsonl").read_text("utf-8").splitlines()]
        blocks = [
            (*member.rsplit("/s", 1), number, each["seconds"][index] / each["steps"][index])
            for session in sessions
            for number, each in enumerate(session["rounds"])
            for index, member in enumerate(session["members"])
        ]
        frame = pd.DataFrame(blocks, columns=["cell", "seed", "round", "step_s"]).astype({"seed": int})
        self.blocks = frame.pivot(index=["seed", "round"], columns="cell", values="step_s")

    def good(self) -> list[str]:
        """The cells of which every seed is ok."""
        ok = (self.trials["status"] == "ok").groupby(self.trials["cell"]).all()
        return list(ok[ok].index)

    def ratio(self, reference: str, this: str) -> tuple[float, float, float]:
        """The paired ratio over seeds and its interval (docs/measurement.md, Statistics)."""
        logs = np.log(self.blocks[reference] / self.blocks[this]).dropna()
        medians = logs.groupby("seed").median()
        within = logs.groupby("seed").apply(lambda rounds: hodges_lehmann_variance(rounds.to_numpy())).mean()
        error = math.sqrt(max(medians.var(), within + PROCESS_SD**2) / len(medians))
        half = scipy.stats.t.ppf(0.975, len(medians) - 1) * error
        return tuple(np.exp([medians.mean(), medians.mean() - half, medians.mean() + half]))

    def rate_ratio(self, reference: str, this: str) -> tuple[float, float, float]:
        """Samples per second of two batch sizes, seed by seed."""
        sizes = [int(cell.split("/b")[1].split("/")[0]) for cell in (reference, this)]
        middle = self.blocks[[reference, this]].groupby("seed").median()
        logs = np.log(sizes[1] / middle[this] / (sizes[0] / middle[reference]))
        half = scipy.stats.t.ppf(0.975, len(logs) - 1) * scipy.stats.sem(logs)
        return tuple(np.exp([logs.mean(), logs.mean() - half, logs.mean() + half]))

    def accuracies(self, cell: str) -> pd.Series:
        return self.trials[self.trials["cell"] == cell].set_index("seed")["accuracy"]


def hodges_lehmann_variance(values: np.ndarray) -> float:
    n = len(values)
    counts = [1] + [0] * (n * (n + 1) // 2)  # subsets of the ranks 1 ... n by their sum
    for rank in range(1, n + 1):
        counts = [c + (counts[t - rank] if t >= rank else 0) for t, c in enumerate(counts)]
    below = sum(total <= 0.025 * 2**n for total in itertools.accumulate(counts))
    walsh = sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])
    low, high = min(walsh[below - 1], np.median(values)), max(walsh[-below], np.median(values))
    return ((high - low) / (2 * scipy.stats.norm.ppf(0.975))) ** 2


def ratios(comparison: Comparison) -> dict[str, tuple[float, float | None, float | None]]:
    return {
        one.cell.id: (one.speed_up.ratio, one.speed_up.low, one.speed_up.high)
        for one in comparison.cells
        if one.speed_up is not None
    }


def reference_of(cell: str, by: str) -> str:
    model, device, batch, variant = cell.split("/")
    if by == "device":
        return f"{model}/cpu/{batch}/{variant}"
    return f"{model}/{device}/{batch}/eager" if by == "variant" else f"{model}/{device}/b100/{variant}"


def independent(files: Files, by: str) -> dict[str, tuple[float, float, float]]:
    good = files.good()
    pairs = {cell: reference_of(cell, by) for cell in good}
    compute = files.rate_ratio if by == "batch_size" else files.ratio
    return {cell: compute(other, cell) for cell, other in pairs.items() if other in good and other != cell}


class TestAgainstPandas:
    @pytest.mark.parametrize("by", BY)
    def test_ratios_and_intervals(self, folder: RunFolder, run: Run, by: str) -> None:
        expected = independent(Files(folder.path), by)
        found = ratios(compare_cells(run, by))
        assert len(expected) >= 5
        assert found.keys() == expected.keys()
        for cell, figures in expected.items():
            assert found[cell] == pytest.approx(figures, rel=1e-9), cell

    @pytest.mark.parametrize("by", BY)
    def test_accuracies(self, folder: RunFolder, run: Run, by: str) -> None:
        files, seen = Files(folder.path), 0
        for one in compare_cells(run, by).cells:
            if one.accuracy is None:
                continue
            assert one.reference is not None
            this, reference = files.accuracies(one.cell.id), files.accuracies(one.reference.id)
            assert one.accuracy.this == pytest.approx(this.mean())
            assert one.accuracy.reference == pytest.approx(reference.mean())
            assert one.accuracy.difference == pytest.approx((this - reference).mean(), abs=1e-12)
            seen += 1
        assert seen >= 5

    def test_accuracy_interval(self, folder: RunFolder, run: Run) -> None:
        files = Files(folder.path)
        one = next(c for c in compare_cells(run, "variant").cells if c.cell.id == "mlp/cuda/b100/tf32")
        this, reference = files.accuracies("mlp/cuda/b100/tf32"), files.accuracies("mlp/cuda/b100/eager")
        floor = (1 - (this.mean() + reference.mean()) / 2) / (2 * 10_000)
        error = math.sqrt(max((this - reference).var(), floor) / 3)
        half = scipy.stats.t.ppf(0.975, 2) * error
        assert one.accuracy is not None
        assert (one.accuracy.low, one.accuracy.high) == pytest.approx((-0.02 - half, -0.02 + half))
        assert one.accuracy.verdict == "worse"

    def test_same_figures_as_the_run_table(self, run: Run) -> None:
        rows = {row.cell.id: row for row in summarise(run.manifest, run.trials, run.sessions)}
        full = replace(run, rows=tuple(rows.values()))
        assert [compare_cells(full, by) for by in BY] == [compare_cells(run, by) for by in BY]
        for by, column in (("device", "speedup_vs_cpu"), ("variant", "speedup_vs_eager")):
            found = ratios(compare_cells(run, by))  # type: ignore[arg-type]
            assert found
            for cell, (ratio, low, high) in found.items():
                shown = [getattr(rows[cell], column + end) for end in ("", "_low", "_high")]
                assert shown == [ratio, low, high]

    def test_break_even(self, folder: RunFolder, run: Run) -> None:
        files = Files(folder.path)
        one = next(b for b in compare_cells(run, "variant").break_evens if b.cell.id == "mlp/cpu/b100/compile")
        ratio, low, high = files.ratio("mlp/cpu/b100/eager", "mlp/cpu/b100/compile")
        eager_s = files.blocks["mlp/cpu/b100/eager"].groupby("seed").median().median()
        lines = [json.loads(line) for line in (folder.path / "trials.jsonl").read_text("utf-8").splitlines()]
        own = [line for line in lines if line["id"].startswith("mlp/cpu/b100/compile/")]
        compile_s = float(np.median([line["outcome"]["compile_s"] for line in own]))
        steps = [compile_s / (eager_s - eager_s / r) for r in (ratio, high, low)]
        assert (one.steps, one.steps_low, one.steps_high) == pytest.approx(steps)
        assert one.epochs == pytest.approx(steps[0] / 600)
        assert one.seconds == pytest.approx(steps[0] * eager_s)


class TestLines:
    @pytest.mark.parametrize("by", BY)
    def test_no_ratio_from_a_cell_that_is_not_ok(self, run: Run, by: str) -> None:
        rows = {row.cell.id: row for row in run.rows}
        cells = compare_cells(run, by).cells
        for one in cells:
            if one.speed_up is not None:
                assert one.reference is not None
                assert rows[one.cell.id].status == rows[one.reference.id].status == "ok"
        assert {one.cell.id for one in cells if one.status != "ok"} == {r for r in rows if rows[r].status != "ok"}
        assert all(one.reason for one in cells if one.speed_up is None)

    def test_status_and_reason_of_each(self, run: Run) -> None:
        cells = {one.cell.id: one for one in compare_cells(run, "device").cells}
        for name, (status, reason) in TROUBLE.items():
            one = cells[name.partition("/s")[0]]
            assert (one.status, one.reason, one.speed_up, one.accuracy) == (status, reason, None, None)

    def test_a_seed_that_crashed_takes_its_cell_out(self, run: Run) -> None:
        assert "mlp/cuda/b100/compile" not in ratios(compare_cells(run, "variant"))

    def test_seeds_that_are_ok_speak_where_they_are_asked(self, run: Run) -> None:
        plain, asked = (compare_cells(run, "variant", partial=partial) for partial in (False, True))
        cells = {one.cell.id: one for one in asked.cells}
        one = cells["mlp/cuda/b100/compile"]
        row = next(row for row in summarise(run.manifest, run.trials, run.sessions) if row.cell == one.cell)
        assert one.speed_up is not None
        assert one.speed_up.ratio == row.speedup_vs_eager
        assert (one.status, one.reason, one.partial) == ("crashed", "signal 11: see its log", True)
        assert [each.cell.id for each in asked.cells if each.partial] == [one.cell.id]
        assert [each for each in asked.cells if each.cell != one.cell] == [
            each for each in plain.cells if each.cell != one.cell
        ]

    def test_reference_that_failed_is_named(self, run: Run) -> None:
        cells = {one.cell.id: one for one in compare_cells(run, "variant").cells}
        one = cells["lenet5/cpu/b1000/compile"]
        assert (one.status, one.speed_up) == ("ok", None)
        assert "lenet5/cpu/b1000/eager is not ok: timeout: over 1800 s" in one.reason

    def test_reference_that_is_not_in_the_run(self) -> None:
        run = make_run(make_matrix(devices=("cuda",)), {})
        comparison = compare_cells(run, "device")
        assert not comparison.comparable
        assert {"not in this run" in one.reason for one in comparison.cells} == {True}

    def test_lines_keep_the_order_of_the_matrix(self, run: Run) -> None:
        order = [row.cell.id for row in run.rows]
        for by in BY:
            names = [one.cell.id for one in compare_cells(run, by).cells]
            assert names == sorted(names, key=order.index)

    def test_smallest_batch_size_that_is_ok_is_the_reference(self) -> None:
        trouble = {"mlp/cpu/b100/eager": ("oom", "no memory")}
        run = make_run(make_matrix(batch_sizes=(1000, 100, 5000)), trouble)
        cells = {one.cell.id: one for one in compare_cells(run, "batch_size").cells}
        assert cells["mlp/cpu/b100/eager"].speed_up is None
        assert "mlp/cpu/b1000/eager" not in cells
        reference = cells["mlp/cpu/b5000/eager"].reference
        assert reference is not None
        assert reference.batch_size == 1000
        assert {one.speed_up.paired for one in cells.values() if one.speed_up} == {"unpaired"}

    def test_no_reference_variant(self) -> None:
        matrix = make_matrix(variants=(BUILTIN_VARIANTS["compile"], Variant(name="tf32", precision="tf32")))
        comparison = compare_cells(make_run(matrix, {"mlp/cpu/b100/tf32": ("oom", "no memory")}), "variant")
        assert [(one.cell.id, one.reference) for one in comparison.cells] == [("mlp/cpu/b100/tf32", None)]
        assert not comparison.comparable
        assert "no variant" in comparison.reference

    def test_reference_variant_that_only_include_names(self) -> None:
        eager = Cell(model="mlp", device="cpu", batch_size=100, variant="eager")
        matrix = make_matrix(variants=(BUILTIN_VARIANTS["compile"],), include=(eager,))
        comparison = compare_cells(make_run(matrix, {}), "variant")
        assert comparison.reference == "the variant eager"
        assert [one.cell.id for one in comparison.cells if one.speed_up] == ["mlp/cpu/b100/compile"]
        assert {"not in this run" in one.reason for one in comparison.cells if not one.speed_up} == {True}

    def test_cells_never_timed_say_so(self) -> None:
        manifest, trials, _ = records(trouble={})
        comparison = compare_cells(as_run(manifest, trials, []), "variant")
        assert not comparison.comparable
        assert {"never timed" in one.reason for one in comparison.cells} == {True}
        assert all(one.accuracy is not None for one in comparison.cells)

    def test_no_common_seed(self) -> None:
        manifest, trials, sessions = records(trouble={})
        kept = [t for t in trials if (t.seed == 0) == (t.cell.variant == "eager")]
        comparison = compare_cells(as_run(manifest, kept, sessions), "variant")
        assert {one.reason.partition(" with ")[0] for one in comparison.cells} == {"no seed in common"}

    def test_filter_does_not_take_the_reference_away(self, run: Run) -> None:
        comparison = compare_cells(run, "device", lambda cell: cell.device == "cuda")
        whole = compare_cells(run, "device")
        assert ratios(comparison) == ratios(whole)
        assert comparison.crossovers == whole.crossovers
        assert {one.cell.device for one in comparison.cells} == {"cuda"}

    def test_classes_are_those_of_the_worse_side(self, run: Run) -> None:
        classes = {one.cell.variant: one.class_ for one in compare_cells(run, "variant").cells if one.speed_up}
        assert classes == {"compile": "A", "tf32": "B"}

    def test_noise_of_the_reference_counts(self) -> None:
        manifest, trials, sessions = records(trouble={})
        noisy = make_measurement(noisy=("steal 9 %",))
        trials = [make_trial(t.cell, t.seed, noisy) if t.id == "mlp/cpu/b100/eager/s0" else t for t in trials]
        cells = {one.cell.id: one for one in compare_cells(as_run(manifest, trials, sessions), "variant").cells}
        assert cells["mlp/cpu/b100/compile"].noisy
        assert not cells["mlp/cpu/b1000/compile"].noisy


class TestDefault:
    def test_devices_where_several_were_measured(self, run: Run) -> None:
        assert default_by(run.rows) == "device"

    def test_variants_where_the_other_device_was_skipped(self, run: Run) -> None:
        rows = [replace(row, status="skipped") if row.device == "cuda" else row for row in run.rows]
        assert default_by(rows) == "variant"

    def test_of_the_chosen_cells_with_the_cpu_at_hand(self, run: Run) -> None:
        assert default_by(run.rows, lambda cell: cell.device == "cuda") == "device"
        assert default_by(run.rows, lambda cell: cell.device == "cpu") == "variant"
        assert default_by([row for row in run.rows if row.device == "cuda"]) == "variant"

    def test_batch_sizes_else(self, run: Run) -> None:
        assert default_by(row for row in run.rows if (row.device, row.variant) == ("cpu", "eager")) == "batch_size"
        assert default_by([]) == "batch_size"


class TestGeometricMeans:
    def test_of_each_class_apart(self, run: Run) -> None:
        comparison = compare_cells(run, "variant")
        assert [(mean.of, mean.class_, mean.cells) for mean in comparison.means] == [
            ("compile", "A", 5),
            ("tf32", "B", 4),
        ]
        own = [one.speed_up.ratio for one in comparison.cells if one.speed_up and one.cell.variant == "compile"]
        assert comparison.means[0].ratio == pytest.approx(scipy.stats.gmean(own))

    def test_carries_the_signs_of_its_cells(self, run: Run) -> None:
        comparison = compare_cells(run, "variant")
        for mean in comparison.means:
            own = [one for one in comparison.cells if one.speed_up and one.cell.variant == mean.of]
            assert set(mean.marks) == {sign for one in own for sign in marks(one)}
        assert "↓" in comparison.means[1].marks

    def test_each_sign_once_in_the_order_of_a_cells_own(self) -> None:
        ratio = SpeedUp(ratio=2.0, low=1.9, high=2.1, paired="between")
        (mean,) = geometric_means(("x", "B", ratio, signs) for signs in ("§?", "", "§↓", "†§?"))
        assert mean.marks == "†§↓?"

    def test_interval_is_that_of_independent_errors(self) -> None:
        pair = [SpeedUp(ratio=2.0, low=2 / 1.1, high=2 * 1.1, paired="between")] * 4
        (mean,) = geometric_means(("x", "A", one, "") for one in pair)
        assert (mean.ratio, mean.low, mean.high) == pytest.approx((2.0, 2 / 1.1**0.5, 2 * 1.1**0.5))

    def test_no_interval_where_one_is_missing(self) -> None:
        known = SpeedUp(ratio=2.0, low=1.9, high=2.1, paired="within")
        pair = [known, replace(known, ratio=8.0, low=None, high=None)]
        (mean,) = geometric_means(("x", "A", one, "") for one in pair)
        assert (mean.ratio, mean.low, mean.high) == (pytest.approx(4.0), None, None)

    def test_interval_covers_the_truth(self) -> None:
        """Cells of 4 seeds each with known true ratios: the mean's 95 % interval holds the true mean about as often."""
        rng, held, draws = np.random.default_rng(3), 0, 2000
        for _ in range(draws):
            truth = rng.normal(0.3, 0.2, 6)
            seeds = truth + rng.normal(0.0, 0.03, (4, 6))
            half = scipy.stats.t.ppf(0.975, 3) * seeds.std(axis=0, ddof=1) / 2
            found = [
                SpeedUp(ratio=math.exp(m), low=math.exp(m - h), high=math.exp(m + h), paired="between")
                for m, h in zip(seeds.mean(axis=0), half, strict=True)
            ]
            (mean,) = geometric_means(("x", "A", one, "") for one in found)
            assert mean.low is not None
            assert mean.high is not None
            held += mean.low <= math.exp(truth.mean()) <= mean.high
        assert held / draws > 0.95
