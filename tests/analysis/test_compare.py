"""Cells and runs against each other: the right lines, and the figures that pandas gets from the files alone."""

import json
import math
from collections import Counter
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from record_factory import keep, make_measurement
from run_factory import BF16, Trouble, matrix_of, records

from mnist_bench.analysis import compare
from mnist_bench.analysis.compare import Comparison, Line, compare_cells, compare_runs, default_by
from mnist_bench.analysis.ratios import PROCESS_SD, ratio_of
from mnist_bench.analysis.summary import Run
from mnist_bench.records import BUILTIN_VARIANTS, Matrix, Variant

BY = ("device", "variant", "batch_size", "model")
TROUBLE: Trouble = {
    "lenet5/cuda/b1000/compile": ("oom", "8.1 GiB were asked for, 4 GiB are free: take a smaller batch"),
    "mlp/cuda/b100/compile/s1": ("crashed", "signal 11: see its log"),
    "lenet5/cpu/b1000/eager": ("timeout", "over 1800 s: raise limits.timeout_seconds"),
    "mlp/cpu/b100/bf16": ("skipped", "bf16 needs AVX-512"),
}


def make_matrix(**changes: Any) -> Matrix:
    return matrix_of("mlp", "lenet5", **changes)


def make_run(matrix: Matrix | None = None, trouble: Trouble = TROUBLE, **how: Any) -> Run:
    manifest, trials, sessions = records(matrix or make_matrix(), trouble, **how)
    return Run(manifest=manifest, trials=trials, sessions=sessions)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return keep(tmp_path_factory.mktemp("results"), *records(make_matrix(), TROUBLE))


@pytest.fixture(scope="module")
def run(folder):
    return Run.read(folder)


@pytest.fixture(scope="module")
def b():
    return make_run(pace=1.1, salt=1)


class Files:
    """A run by pandas and numpy: of the package only the variance of one session computes here."""

    def __init__(self, path: Path) -> None:
        trials = pd.json_normalize(
            [json.loads(line) for line in (path / "trials.jsonl").read_text("utf-8").splitlines()]
        )
        trials.index = pd.MultiIndex.from_frame(trials["id"].str.rsplit("/s", n=1, expand=True))
        ok = trials["outcome.type"] == "measurement"
        self.good = [cell for cell, all_ok in ok.groupby(level=0).all().items() if all_ok]
        self.accuracy = trials.loc[ok, "outcome.epochs.accuracy"].str[-1]
        self.rate = 120_000 / trials.loc[ok, "outcome.epochs.train_s"].map(sum)
        self.compile_s = trials["outcome.compile_s"].dropna()
        sessions = [json.loads(line) for line in (path / "sessions.jsonl").read_text("utf-8").splitlines()]
        blocks = [
            (*member.rsplit("/s", 1), number, each["seconds"][index] / each["steps"][index])
            for session in sessions
            for number, each in enumerate(session["rounds"])
            for index, member in enumerate(session["members"])
        ]
        frame = pd.DataFrame(blocks, columns=["cell", "seed", "round", "step_s"])
        self.blocks = frame.pivot(index=["seed", "round"], columns="cell", values="step_s")
        self.step_s = self.blocks.groupby("seed").median()

    def ratio(self, reference: str, this: str) -> tuple[float, ...]:
        """The paired ratio over seeds and its interval (docs/measurement.md, Statistics)."""
        logs = np.log(self.blocks[reference] / self.blocks[this]).dropna()
        medians = logs.groupby("seed").median()
        within = logs.groupby("seed").apply(lambda rounds: ratio_of(rounds).variance).mean()
        return around(medians, math.sqrt(max(medians.var(), within + PROCESS_SD**2) / len(medians)))

    def rate_ratio(self, reference: str, this: str) -> tuple[float, ...]:
        """Samples per second of two batch sizes or models, seed by seed."""
        sizes = [int(cell.split("/b")[1].split("/")[0]) for cell in (reference, this)]
        logs = np.log(sizes[1] / self.step_s[this] / (sizes[0] / self.step_s[reference]))
        return around(logs, scipy.stats.sem(logs))


def around(logs: pd.Series, error: float) -> tuple[float, ...]:
    half = scipy.stats.t.ppf(0.975, len(logs) - 1) * error
    return tuple(np.exp([logs.mean(), logs.mean() - half, logs.mean() + half]))


def lines(comparison: Comparison) -> dict[str, Line]:
    return {one.cell.id: one for one in comparison.lines}


def ratios(comparison: Comparison) -> dict[str, tuple[float | None, ...]]:
    return {name: astuple(one.speed_up.interval) for name, one in lines(comparison).items() if one.speed_up}


def reference_of(cell: str, by: str) -> str:
    model, device, batch, variant = cell.split("/")
    changed = {"device": (model, "cpu", batch, variant), "variant": (model, device, batch, "eager")}
    changed |= {"batch_size": (model, device, "b100", variant), "model": ("mlp", device, batch, variant)}
    return "/".join(changed[by])


class TestAgainstPandas:
    @pytest.mark.parametrize("by", BY)
    def test_ratios_intervals_and_accuracies(self, folder, run, by):
        files = Files(folder.path)
        pairs = {cell: reference_of(cell, by) for cell in files.good}
        compute = files.ratio if by in ("device", "variant") else files.rate_ratio
        expected = {cell: compute(other, cell) for cell, other in pairs.items() if other in pairs and other != cell}
        comparison = compare_cells(run, by)
        found, rows = ratios(comparison), {row.cell.id: row for row in run.rows}
        assert len(expected) >= 5
        assert found.keys() == expected.keys()
        for cell, figures in expected.items():
            assert found[cell] == pytest.approx(figures, rel=1e-9), cell
            one, this, reference = lines(comparison)[cell].accuracy, files.accuracy[cell], files.accuracy[pairs[cell]]
            assert (one.this, one.reference) == pytest.approx((this.mean(), reference.mean()))
            assert one.difference.estimate == pytest.approx((this - reference).mean(), abs=1e-12)
            if column := {"device": "speedup_vs_cpu", "variant": "speedup_vs_eager"}.get(by):  # of the run's table
                assert found[cell] == tuple(rows[cell][column + end] for end in ("", "_low", "_high"))

    def test_break_even_is_of_what_compiling_costs_beyond_the_reference(self):
        run, late = make_run(trouble={}), make_measurement(compile_s=30.0)
        run = replace(run, trials=[replace(t, outcome=late) if "bf16" in t.id else t for t in run.trials])
        costs = {row.cell: row["compile_s"] for row in run.rows}
        found = compare_cells(run, "variant", reference="compile").break_evens
        assert {one.cell.variant for one in found} == {"bf16"}
        assert all(one.compile_s == 30.0 - costs[one.reference] < 25 for one in found)
        beside_eager = compare_cells(run, "variant").break_evens  # which compiles nothing
        assert {one.cell: one.compile_s for one in beside_eager}.items() <= costs.items()
        paid = [(one.epochs.estimate, one.steps.estimate * one.cell.batch_size) for one in beside_eager if one.steps]
        assert paid
        assert [epochs for epochs, _ in paid] == pytest.approx([samples / 60_000 for _, samples in paid])

    def test_two_runs_have_welchs_intervals(self, tmp_path):
        folders = [keep(tmp_path / f"{n}", *records(make_matrix(), TROUBLE, pace=1 + n, salt=n)) for n in (0, 1)]
        files = [Files(one.path) for one in folders]
        logs = [np.log(1 / one.step_s.T.stack()) for one in files]
        found = {name: one.speed_up for name, one in lines(compare_runs(*map(Run.read, folders))).items()}
        known = {name: speed for name, speed in found.items() if speed is not None}
        assert len(known) >= 10
        for name, speed in known.items():
            x, y = (log[name].to_numpy() for log in logs)
            low, high = scipy.stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
            assert astuple(speed.interval) == pytest.approx(tuple(np.exp([y.mean() - x.mean(), low, high])), rel=1e-9)


class TestCells:
    @pytest.mark.parametrize("by", BY)
    def test_no_ratio_from_a_cell_that_is_not_ok_and_each_says_why(self, run, by):
        rows, found = {row.cell.id: row for row in run.rows}, lines(compare_cells(run, by))
        for one in found.values():
            assert one.speed_up is None or rows[one.cell.id].status == rows[one.reference.id].status == "ok"
            assert one.speed_up or one.reason
        bad = {name for name, row in rows.items() if row.status != "ok"}
        assert {name for name, one in found.items() if one.status != "ok"} == bad
        assert list(found) == sorted(found, key=list(rows).index)
        for name, (status, reason) in TROUBLE.items():
            one = found[name.partition("/s")[0]]
            assert (one.status, one.reason, one.speed_up, one.accuracy, one.marks) == (status, reason, None, None, "")

    def test_seeds_that_are_ok_speak_where_they_are_asked(self):
        bad, name = ("crashed", "signal 11"), "mlp/cuda/b100/compile"
        run = make_run(trouble={**TROUBLE, f"{name}/s1": bad, f"{name}/s2": bad})
        plain, asked = (lines(compare_cells(run, "variant", partial=partial)) for partial in (False, True))
        one, row = asked[name], next(row for row in run.rows if row.cell.id == name)
        assert (one.speed_up.interval.estimate, one.status, one.reason) == (row["speedup_vs_eager"], *bad)
        assert [cell for cell in asked if asked[cell] != plain[cell] or asked[cell].partial] == [name]

    def test_smallest_batch_size_that_is_ok_is_the_reference(self):
        run = make_run(make_matrix(batch_sizes=(1000, 100, 5000)), {"mlp/cpu/b100/eager": ("oom", "no memory")})
        found = lines(compare_cells(run, "batch_size"))
        assert "mlp/cpu/b1000/eager" not in found
        assert found["mlp/cpu/b5000/eager"].reference.batch_size == 1000
        assert found["mlp/cuda/b1000/eager"].reference.batch_size == 100
        assert {one.speed_up.paired for one in found.values() if one.speed_up} == {"unpaired"}

    def test_reference_is_named_or_missed(self, run):
        named = compare_cells(run, "variant", reference="compile")
        there, back = ratios(named), ratios(compare_cells(run, "variant"))
        inverse = [1 / ratio for ratio in back["mlp/cpu/b100/compile"]]
        assert named.reference == "the variant compile"
        assert there["mlp/cpu/b100/eager"] == pytest.approx((inverse[0], inverse[2], inverse[1]))
        variants = (BUILTIN_VARIANTS["compile"], BF16)
        none = compare_cells(make_run(make_matrix(variants=variants), {"mlp/cpu/b100/bf16": ("oom", "no")}), "variant")
        assert [(one.cell.id, one.reference) for one in none.lines] == [("mlp/cpu/b100/bf16", None)]
        assert (none.comparable, "--reference" in none.reference) == (False, True)

    def test_what_was_never_timed_shares_no_seed_or_has_no_reference_says_so(self):
        whole = make_run(trouble={})
        untimed = compare_cells(replace(whole, sessions=()), "variant")
        assert {"never timed" in one.reason and one.accuracy is not None for one in untimed.lines} == {True}
        kept = [t for t in whole.trials if (t.seed == 0) == (t.cell.variant == "eager")]
        apart = compare_cells(replace(whole, trials=kept), "variant")
        assert {one.reason.partition(" with ")[0] for one in apart.lines} == {"no seed in common"}
        alone = lines(compare_cells(make_run(make_matrix(devices=("cuda",))), "device"))["mlp/cuda/b100/eager"]
        assert (alone.speed_up, "mlp/cpu/b100/eager is not in this run" in alone.reason) == (None, True)

    def test_filter_does_not_take_the_reference_away(self, run):
        some, whole = compare_cells(run, "device", lambda cell: cell.device == "cuda"), compare_cells(run, "device")
        assert (ratios(some), some.crossovers) == (ratios(whole), whole.crossovers)
        assert {one.cell.device for one in some.lines} == {"cuda"}

    def test_noise_and_class_are_those_of_the_worse_side(self, run):
        classes = {one.cell.variant: one.class_ for one in compare_cells(run, "variant").lines if one.speed_up}
        assert classes == {"compile": "A", "bf16": "B"}
        quiet, noisy = make_run(trouble={}), make_measurement(noisy=("steal 9 %",))
        trials = [replace(t, outcome=noisy) if t.id == "mlp/cpu/b100/eager/s0" else t for t in quiet.trials]
        found = lines(compare_cells(replace(quiet, trials=trials), "variant"))
        assert (found["mlp/cpu/b100/compile"].noisy, found["mlp/cpu/b1000/compile"].noisy) == (True, False)

    def test_default_is_the_batch_size_where_one_variant_of_one_device_was_measured(self):
        eager = make_matrix(variants=(BUILTIN_VARIANTS["eager"],))
        gone = {f"{model}/cuda/b{size}/eager": ("skipped", "no") for model in ("mlp", "lenet5") for size in (100, 1000)}
        assert default_by(make_run(eager, gone)) == "batch_size"


class TestRuns:
    @pytest.mark.parametrize(("seeds", "half"), [((0,), math.sqrt(2)), ((0, 1), 1.0)])
    def test_few_seeds_have_what_a_session_can_show(self, seeds, half):
        made = [make_run(make_matrix(seeds=seeds), {}, pace=factor, salt=2) for factor in (1.0, 1.0, 1.1)]
        same, slower = (lines(compare_runs(made[0], other))["mlp/cpu/b100/eager"] for other in made[1:])
        width = math.exp(scipy.stats.norm.ppf(0.975) * PROCESS_SD * half)
        assert astuple(same.speed_up.interval) == pytest.approx((1.0, 1 / width, width))
        assert (same.shown, slower.shown) == ("not told apart", "slower")

    def test_what_one_run_never_timed_says_so(self, run, b):
        untimed = replace(b, sessions=())
        for pair in ((run, untimed), (untimed, run)):
            one = lines(compare_runs(*pair))["mlp/cpu/b100/eager"]
            assert (one.speed_up, one.marks, one.reason) == (None, "", "one of the runs never timed it")

    def test_only_the_cells_that_differ_are_left_out(self, run):
        variants = (BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"], Variant(name="bf16", precision="tf32"))
        comparison = compare_runs(run, make_run(make_matrix(variants=variants), salt=1))
        known = ratios(comparison)
        assert ("mlp/cuda/b100/eager" in known, "mlp/cuda/b100/bf16" in known) == (True, False)
        (difference,) = comparison.differences
        assert (difference.field, difference.a, difference.b) == ("settings", "precision bf16", "precision tf32")

    def test_accuracies_on_other_images_show_nothing(self, run, b):
        dataset = replace(b.manifest.dataset, name="synthetic", sha256="f" * 64)
        other = replace(b, manifest=replace(b.manifest, dataset=dataset))
        comparison = compare_runs(run, other, across_machines=True)
        assert {one.accuracy.verdict for one in comparison.lines if one.accuracy} == {"incomparable"}


def test_of_very_many_cells_people_are_shown_the_two_ends_and_programs_all(run, b, monkeypatch):
    monkeypatch.setattr(compare, "MOST_LINES", 4)
    comparison = compare_runs(run, b)
    ratios = sorted(line.speed_up.interval.estimate for line in comparison.lines if line.speed_up)
    found, said = compare.document(comparison), json.loads(compare.to_json(comparison))["cells"]
    (table,) = [one for one in found.tables if one.title == "By run"]
    assert [line.speed_up.interval.estimate for line in table.rows] == ratios[:2] + ratios[-2:]
    assert len(said) == len(comparison.lines) > len(ratios)
    told = [line for line in comparison.lines if line.status != "skipped"]
    counts = Counter(line.shown or "without a ratio" for line in told)
    assert all(f"{counts[word]} {word}" in found.facts[-1] for word in (*counts, "faster"))
    assert found.facts[-1].startswith(f"{len(told)} cells: ")
