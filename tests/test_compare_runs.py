"""Two runs cell by cell: what pandas gets from their files, and who is compared with whom."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from comparison_kit import as_run, make_matrix, make_run, records, write
from hypothesis import given
from hypothesis import strategies as st

from mnist_bench import stats
from mnist_bench.compare_runs import compare_runs
from mnist_bench.comparisons import MatchedCell, Run, RunComparison
from mnist_bench.records import BUILTIN_VARIANTS, Variant


@pytest.fixture(scope="module")
def a() -> Run:
    return make_run()


@pytest.fixture(scope="module")
def b() -> Run:
    return make_run(factor=1.1, salt=1)


def by_id(comparison: RunComparison) -> dict[str, MatchedCell]:
    return {one.cell.id: one for one in comparison.cells}


def on(run: Run, **environment: Any) -> Run:
    changed = replace(run.manifest.environment, **environment)
    return replace(run, manifest=replace(run.manifest, environment=changed))


class TestAgainstPandas:
    @pytest.mark.parametrize(("figure", "sign"), [("throughput", 1), ("step", -1)])
    def test_ratios_and_welch_intervals(self, tmp_path: Path, figure: str, sign: int) -> None:
        folders = [
            write(tmp_path / name, *records(factor=f, salt=n)) for n, (name, f) in enumerate([("a", 1), ("b", 2)])
        ]
        read = self.rates if figure == "throughput" else self.step_seconds
        logs = [np.log(read(folder.path)) * sign for folder in folders]
        runs = [as_run(f.manifest(), f.trials(), f.sessions()) for f in folders]
        seen = 0
        for one in compare_runs(*runs).cells:
            speed = getattr(one, figure)
            if speed is None:
                continue
            x, y = (log[one.cell.id].to_numpy() for log in logs)
            low, high = scipy.stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
            expected = np.exp([y.mean() - x.mean(), low, high])
            assert (speed.ratio, speed.low, speed.high) == pytest.approx(tuple(expected), rel=1e-9)
            seen += 1
        assert seen >= 10

    def rates(self, path: Path) -> pd.Series:
        lines = [json.loads(line) for line in (path / "trials.jsonl").read_text("utf-8").splitlines()]
        return pd.Series(
            {
                (one["id"].rpartition("/s")[0], one["seed"]): one["outcome"]["train_samples"]
                / sum(one["outcome"]["epochs"]["train_s"])
                for one in lines
                if one["status"] == "ok"
            }
        )

    def step_seconds(self, path: Path) -> pd.Series:
        sessions = [json.loads(line) for line in (path / "sessions.jsonl").read_text("utf-8").splitlines()]
        return pd.Series(
            {
                tuple(member.rsplit("/s", 1)): np.median([r["seconds"][n] / r["steps"][n] for r in one["rounds"]])
                for one in sessions
                for n, member in enumerate(one["members"])
            }
        )


class TestLines:
    def test_slower_run(self, a: Run, b: Run) -> None:
        comparison = compare_runs(a, b)
        assert (comparison.run_a, comparison.differences) == (a.manifest.run_id, ())
        for one in comparison.cells:
            if one.step is not None:
                assert one.step.paired == "unpaired"
                assert one.step.ratio == pytest.approx(1 / 1.1, rel=0.03)
        assert [mean.class_ for mean in comparison.step_means] == ["A", "B"]
        assert comparison.step_means[0].ratio == pytest.approx(1 / 1.1, rel=0.01)

    def test_swapping_the_runs_inverts_every_ratio(self, a: Run, b: Run) -> None:
        there, back = by_id(compare_runs(a, b)), by_id(compare_runs(b, a))
        assert there.keys() == back.keys()
        for name, one in there.items():
            for figure in ("throughput", "step"):
                this, that = getattr(one, figure), getattr(back[name], figure)
                assert (this is None) == (that is None)
                if this is not None:
                    assert (that.ratio, that.low, that.high) == pytest.approx(
                        (1 / this.ratio, 1 / this.high, 1 / this.low)
                    )

    def test_no_ratio_from_a_cell_that_is_not_ok(self, a: Run, b: Run) -> None:
        one = by_id(compare_runs(a, b))["lenet5/cuda/b1000/compile"]
        assert (one.status_a, one.throughput, one.step, one.accuracy) == ("oom", None, None, None)
        assert one.reason.startswith("run A: oom: 8.1 GiB")

    def test_failed_in_one_run_alone(self, a: Run) -> None:
        one = by_id(compare_runs(a, make_run(trouble={}, salt=1)))["lenet5/cuda/b1000/compile"]
        assert (one.status_a, one.status_b, one.step) == ("oom", "ok", None)
        assert "run B" not in one.reason

    def test_cells_of_one_run_alone_are_listed(self, a: Run) -> None:
        found = by_id(compare_runs(a, make_run(make_matrix(batch_sizes=(100, 5000)), {}, salt=1)))
        assert (found["mlp/cpu/b1000/eager"].status_b, found["mlp/cpu/b1000/eager"].reason) == (None, "only in run A")
        assert (found["mlp/cpu/b5000/eager"].status_a, found["mlp/cpu/b5000/eager"].reason) == (None, "only in run B")
        assert found["mlp/cpu/b100/eager"].step is not None

    def test_two_seeds_bound_nothing(self, a: Run) -> None:
        two = make_run(make_matrix(seeds=(0, 1)), salt=1)
        one = by_id(compare_runs(a, two))["mlp/cpu/b100/eager"]
        assert one.step is not None
        assert (one.step.low, one.step.high) == (None, None)

    def test_filter(self, a: Run, b: Run) -> None:
        cells = compare_runs(a, b, chosen=lambda cell: cell.model == "mlp").cells
        assert {one.cell.model for one in cells} == {"mlp"}


class TestComparability:
    def test_another_machine_is_not_compared(self, a: Run, b: Run) -> None:
        comparison = compare_runs(a, on(b, cpu="Intel", cores=8))
        assert not comparison.comparable
        assert [one.field for one in comparison.differences] == ["cpu", "cores"]
        reasons = {one.reason for one in comparison.cells if one.status_a == one.status_b == "ok"}
        assert reasons == {"not comparable: CPU, cores"}

    def test_across_machines_it_is(self, a: Run, b: Run) -> None:
        comparison = compare_runs(a, on(b, cpu="Intel", cores=8), across_machines=True)
        assert comparison.comparable
        assert [one.field for one in comparison.differences] == ["cpu", "cores"]
        assert by_id(comparison)["mlp/cpu/b100/eager"].step == by_id(compare_runs(a, b))["mlp/cpu/b100/eager"].step

    def test_only_the_cells_that_differ_are_left_out(self, a: Run) -> None:
        variants = (BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"], Variant(name="tf32", precision="bf16"))
        comparison = compare_runs(a, make_run(make_matrix(variants=variants), salt=1))
        found = by_id(comparison)
        assert found["mlp/cuda/b100/eager"].step is not None
        assert found["mlp/cuda/b100/tf32"].step is None
        assert comparison.comparable
        (difference,) = comparison.differences
        assert (difference.field, difference.a, difference.b) == ("cell_sha256", "precision tf32", "precision bf16")

    def test_accuracies_on_other_images_show_nothing(self, a: Run, b: Run) -> None:
        dataset = replace(b.manifest.dataset, name="synthetic", sha256="f" * 64)
        other = replace(b, manifest=replace(b.manifest, dataset=dataset))
        comparison = compare_runs(a, other, across_machines=True)
        (difference,) = comparison.differences
        assert (difference.a, difference.b) == ("mnist (0123456789ab)", f"synthetic ({'f' * 12})")
        assert {one.accuracy.verdict for one in comparison.cells if one.accuracy} == {"incomparable"}


samples = st.lists(st.floats(-3, 3), min_size=1, max_size=8)


class TestWelch:
    @given(samples, samples)
    def test_swapping_negates(self, x: list[float], y: list[float]) -> None:
        there, back = stats.welch_interval(x, y), stats.welch_interval(y, x)
        assert back.estimate == pytest.approx(-there.estimate)
        assert (there.low is None) == (back.low is None) == (min(len(x), len(y)) < 3)
        if there.low is not None and there.high is not None:
            assert (back.low, back.high) == pytest.approx((-there.high, -there.low))

    def test_equal_values_have_no_width(self) -> None:
        assert stats.welch_interval([1.0] * 3, [2.0] * 4) == stats.Interval(1.0, 1.0, 1.0)

    @pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, where all values of a side are equal
    @given(samples.filter(lambda x: len(x) > 2 and np.ptp(x) > 0.01), samples.filter(lambda x: len(x) > 2))
    def test_is_scipys(self, x: list[float], y: list[float]) -> None:
        found = stats.welch_interval(x, y)
        low, high = scipy.stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
