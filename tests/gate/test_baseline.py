"""What a baseline takes from a run, what it refuses, and what an update leaves and replaces."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from typing import Any

import pytest
from baseline_kit import COMPILED, EAGER, OTHER, as_run, make, make_baseline, make_run, small_matrix
from record_factory import RUN_ID

from mnist_bench import stats
from mnist_bench.analysis import ratios
from mnist_bench.errors import UsageError
from mnist_bench.gate.baseline import Baseline, BaselineCell, baseline_of, updated
from mnist_bench.gate.baseline_tables import baseline_records, baseline_sheet, change_records, changes, to_csv
from mnist_bench.gate.run_figures import cell_of
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Measurement
from mnist_bench.sheets import to_markdown


def cell_in(baseline: Baseline, cell_id: str) -> BaselineCell:
    return next(one for one in baseline.cells if one.cell.id == cell_id)


def of_mlp(cell: Cell) -> bool:
    return cell.model == "mlp"


class TestContent:
    def test_is_where_it_comes_from_and_why(self) -> None:
        (source,) = make_baseline().sources
        assert (source.run_id, source.reason, source.date) == (RUN_ID, "for tests", "2026-11-23T10:15:00Z")
        assert (source.machine, source.torch, source.dirty) == ("AMD EPYC, 2 cores", "2.13.0+cpu", True)

    def test_has_the_figures_of_every_seed(self) -> None:
        run = make_run()
        one = cell_in(baseline_of(run, "why"), EAGER)
        trials = [trial for trial in run.trials if trial.cell.id == EAGER]
        for seed, trial in zip(one.seeds, trials, strict=True):
            outcome = trial.outcome
            assert isinstance(outcome, Measurement)
            assert seed.seed == trial.seed
            assert seed.training.accuracy == outcome.epochs.accuracy[-1]
            assert seed.training.predictions_sha256 == outcome.predictions_sha256
            assert seed.training.images == 10_000
            rate = outcome.train_samples / sum(outcome.epochs.train_s)
            assert seed.training.train_samples_per_s == pytest.approx(rate, rel=1e-3)

    def test_ratio_is_that_of_the_sessions_upside_down(self) -> None:
        run = make_run()
        one = cell_in(baseline_of(run, "why"), COMPILED)
        assert one.ratios is not None
        assert one.ratios.reference == EAGER
        assert [session.seed for session in one.ratios.sessions] == [0, 1, 2]
        for session, measured in zip(one.ratios.sessions, (s for s in run.sessions if "mlp" in s.group), strict=True):
            seed = session.seed
            logs = log_ratios_of(measured, f"{COMPILED}/s{seed}", f"{EAGER}/s{seed}")
            assert session.log_ratio == pytest.approx(stats.median(logs), abs=1e-4)
            assert session.sd > ratios.PROCESS_SD
            assert session.rounds == 16
        assert cell_in(baseline_of(run, "why"), EAGER).ratios is None

    def test_an_unpaired_session_gives_no_ratio(self) -> None:
        manifest, trials, sessions = make()
        solo = [replace(session, paired=False) for session in sessions]
        one = cell_in(baseline_of(as_run(manifest, trials, solo), "why"), COMPILED)
        assert one.ratios is not None
        assert one.ratios.sessions == ()

    def test_few_rounds_give_no_ratio(self) -> None:
        manifest, trials, sessions = make()
        short = [replace(session, rounds=session.rounds[:5]) for session in sessions]
        one = cell_in(baseline_of(as_run(manifest, trials, short), "why"), COMPILED)
        assert one.ratios is not None
        assert one.ratios.sessions == ()

    def test_settings_are_those_that_tell_it_apart(self) -> None:
        baseline = make_baseline()
        assert cell_in(baseline, COMPILED).settings == {
            "model": "mlp",
            "optimizer": "sgd",
            "lr": 0.01,
            "execution": "compile",
        }
        assert cell_in(baseline, EAGER).settings == {"model": "mlp", "optimizer": "sgd", "lr": 0.01}

    def test_without_a_reference_variant_no_cell_has_a_ratio(self) -> None:
        baseline = make_baseline(small_matrix(variants=(BUILTIN_VARIANTS["compile"],)))
        assert [one.ratios for one in baseline.cells] == [None, None]


class TestRefused:
    @pytest.mark.parametrize("reason", ["", "  \n\x1b"])
    def test_without_a_reason(self, reason: str) -> None:
        with pytest.raises(UsageError, match="--reason: a baseline needs one"):
            baseline_of(make_run(), reason)

    def test_failed_cells_are_all_named(self) -> None:
        run = make_run(trouble={COMPILED: ("oom", "take a smaller batch"), f"{OTHER}/s1": ("crashed", "signal 11")})
        with pytest.raises(UsageError) as caught:
            baseline_of(run, "why")
        lines = str(caught.value).splitlines()
        assert "leave it out with --filter" in lines[0]
        assert sorted(lines[1:]) == [f"  {OTHER}: crashed: signal 11", f"  {COMPILED}: oom: take a smaller batch"]

    def test_a_filter_leaves_failed_cells_out(self) -> None:
        run = make_run(trouble={OTHER: ("oom", "take a smaller batch")})
        assert [one.cell.id for one in baseline_of(run, "why", of_mlp).cells] == [COMPILED, EAGER]

    def test_unfinished(self) -> None:
        manifest, trials, sessions = make()
        run = as_run(replace(manifest, status="interrupted"), trials[:-2], sessions)
        with pytest.raises(UsageError, match=r"is interrupted, not finished: 2 trials are missing \(lenet5.*--resume"):
            baseline_of(run, "why")
        assert len(baseline_of(run, "why", of_mlp).cells) == 2

    def test_nothing_measured(self) -> None:
        ids = ("mlp/cpu/b100/eager", "mlp/cpu/b100/compile", "lenet5/cpu/b100/eager", "lenet5/cpu/b100/compile")
        run = make_run(trouble=dict.fromkeys(ids, ("skipped", "no device")))
        with pytest.raises(UsageError, match="nothing was measured"):
            baseline_of(run, "why")


class TestUpdate:
    def test_whole_replaces_everything(self) -> None:
        old, new = make_baseline(), make_baseline(small_matrix(models=small_matrix().models[:1]), salt=1)
        assert updated(old, new, None) == new
        assert updated(None, new, None) == new

    def test_filtered_keeps_the_others_and_their_source(self) -> None:
        old = make_baseline()
        manifest, trials, sessions = make(salt=1)
        run = as_run(replace(manifest, run_id="20261201T000000Z-bbbbbb"), trials, sessions)
        new = updated(old, baseline_of(run, "mlp only", of_mlp), of_mlp)
        assert [source.run_id for source in new.sources] == [RUN_ID, "20261201T000000Z-bbbbbb"]
        assert [source.reason for source in new.sources] == ["for tests", "mlp only"]
        assert cell_in(new, OTHER) == cell_in(old, OTHER)
        assert new.source_of(cell_in(new, COMPILED)).reason == "mlp only"

    def test_filtered_drops_what_the_run_no_longer_has(self) -> None:
        old = make_baseline()
        run = make_run(small_matrix(variants=(BUILTIN_VARIANTS["eager"],)))
        new = updated(old, baseline_of(run, "no compile", of_mlp), of_mlp)
        assert [one.cell.id for one in new.cells] == [OTHER, "lenet5/cpu/b100/eager", EAGER]

    def test_sources_that_no_cell_needs_go(self) -> None:
        old = make_baseline(small_matrix(models=small_matrix().models[:1]))
        manifest, trials, sessions = make(salt=1)
        run = as_run(replace(manifest, run_id="20261201T000000Z-bbbbbb"), trials, sessions)
        new = updated(old, baseline_of(run, "mlp only", of_mlp), of_mlp)
        assert [source.run_id for source in new.sources] == ["20261201T000000Z-bbbbbb"]


class TestChanges:
    def test_are_told_cell_by_cell(self) -> None:
        old = baseline_of(make_run(), "mlp alone", of_mlp)
        new = make_baseline(slow={COMPILED: 1.5})
        found = {one.cell.id: one.change for one in changes(old, new)}
        assert found == {COMPILED: "changed", EAGER: "same", OTHER: "new", "lenet5/cpu/b100/eager": "new"}
        assert {one.change for one in changes(new, old)} == {"changed", "same", "removed"}
        record = next(one for one in change_records(changes(old, new)) if one["change"] == "changed")
        assert record["speedup_before"] / record["speedup_after"] == pytest.approx(1.5, rel=1e-3)
        assert record["test_accuracy_before"] == record["test_accuracy_after"]

    def test_name_the_conditions_that_changed(self) -> None:
        manifest, trials, sessions = make(small_matrix(seeds=(0, 1)))
        environment = replace(manifest.environment, packages={"torch": "2.14.0"}, cores=4)
        new = baseline_of(as_run(replace(manifest, environment=environment), trials, sessions), "new torch")
        one = next(one for one in changes(make_baseline(), new) if one.cell.id == COMPILED)
        assert one.differs == "cores 2 → 4; torch 2.13.0+cpu → 2.14.0; seeds 0, 1, 2 → 0, 1"

    def test_a_skipped_cell_that_is_measured_now(self) -> None:
        old = make_baseline(trouble={COMPILED: ("skipped", "no compiler")})
        one = next(one for one in changes(old, make_baseline()) if one.cell.id == COMPILED)
        assert one.differs == "skipped → ok; seeds none → 0, 1, 2"


class TestShown:
    def test_speedup_has_an_interval_about_it(self) -> None:
        record = next(one for one in baseline_records(make_baseline()) if one["variant"] == "compile")
        assert record["speedup_low"] < record["speedup"] < record["speedup_high"]
        one = cell_in(make_baseline(), OTHER)
        assert one.ratios is not None
        logs = [session.log_ratio for session in one.ratios.sessions]
        assert record["speedup"] == pytest.approx(math.exp(-sum(logs) / 3))

    def test_hostile_text_is_harmless(self) -> None:
        baseline = make_baseline(trouble={COMPILED: ("skipped", "=cmd|'/c calc'!A1 <b>x</b>\x1b[31m")})
        (row,) = [row for row in csv.DictReader(io.StringIO(to_csv(baseline_records(baseline)))) if row["reason"]]
        assert row["reason"].startswith("'=cmd")
        text = to_markdown(baseline_sheet(baseline, "<i>.json"))
        assert "<b>" not in text
        assert "<i>" not in text
        assert "\x1b" not in text

    def test_cells_that_were_skipped_alike_share_a_note(self) -> None:
        reason = ("skipped", "no compiler")
        notes = baseline_sheet(make_baseline(trouble={COMPILED: reason, OTHER: reason}), "x").notes
        assert notes[0] == f"skipped: {OTHER}, {COMPILED}: no compiler"

    def test_nothing_is_an_empty_csv(self) -> None:
        assert to_csv([]) == ""


@pytest.mark.parametrize(
    "text", ["", "mlp", "mlp/cpu/100/eager", "/cpu/b1/x", "a/b/b1/", "a/b/b-1/c", "a/b/b1/c/d", "a/b/b²/c"]
)
def test_what_is_no_cell(text: str) -> None:
    with pytest.raises(ValueError, match="is no cell"):
        cell_of(text)


def log_ratios_of(session: Any, numerator: str, denominator: str) -> Any:
    members = session.members
    return ratios.round_log_ratios(session.rounds, members.index(numerator), members.index(denominator))
