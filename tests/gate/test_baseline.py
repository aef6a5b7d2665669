"""A baseline: what it takes from a run, what it refuses, its file, an update, and a run held against it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from baseline_kit import COMPILED, EAGER, OTHER, check_of, make_baseline, make_run, rewritten, small_matrix
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from record_factory import RUN_ID

from mnist_bench.analysis.summary import Run
from mnist_bench.errors import UsageError
from mnist_bench.gate.baseline import Baseline, baseline_of, changed, decode, encode, updated
from mnist_bench.gate.evidence import CellEvidence, SideEvidence
from mnist_bench.gate.judge import Verdict, exit_code, judge
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Floor, Variant

ONE = {"models": small_matrix().models[:1]}  # mlp alone: two cells, one ratio
SMALL = encode(make_baseline(small_matrix(**ONE)))
LATER = "20261201T000000Z-bbbbbb"


def side_of(baseline: Baseline, cell_id: str) -> SideEvidence:
    found = next(one.a for one in baseline.cells if one.cell.id == cell_id)
    assert found is not None
    return found


def of_mlp(cell: Cell) -> bool:
    return cell.model == "mlp"


def verdicts_of(run: Run, baseline: Baseline) -> dict[str, Verdict]:
    return {one.cell.id: one for one in judge(check_of(run, baseline))}


def code_of(run: Run, baseline: Baseline) -> int:
    check = check_of(run, baseline)
    return exit_code(check, judge(check))


def evidence_of(run: Run, baseline: Baseline, cell_id: str) -> CellEvidence:
    return next(one for one in check_of(run, baseline).cells if one.cell.id == cell_id)


class TestContent:
    def test_ratios_are_those_of_the_sessions(self) -> None:
        one = side_of(make_baseline(slow={COMPILED: 2.0}), COMPILED)
        assert one.reference == EAGER
        assert [session.seed for session in one.ratios] == [0, 1, 2]
        whole = side_of(make_baseline(), COMPILED)
        for slow, session in zip(one.ratios, whole.ratios, strict=True):
            assert slow.speedup == pytest.approx(session.speedup / 2, rel=1e-4)
            assert session.sd > 0.015
            assert session.rounds == 16
        assert side_of(make_baseline(), EAGER).ratios == ()

    @pytest.mark.parametrize("change", [{"paired": False}, {"rounds": 5}])
    def test_an_unpaired_or_short_session_gives_no_ratio(self, change: dict[str, Any]) -> None:
        run = make_run()
        sessions = [
            replace(one, paired=False) if "paired" in change else replace(one, rounds=one.rounds[:5])
            for one in run.sessions
        ]
        assert side_of(baseline_of(rewritten(run, sessions=sessions), "why"), COMPILED).ratios == ()


class TestRefused:
    def test_failed_cells_are_all_named(self) -> None:
        run = make_run(trouble={COMPILED: ("oom", "take a smaller batch"), f"{OTHER}/s1": ("crashed", "signal 11")})
        with pytest.raises(UsageError) as caught:
            baseline_of(run, "why")
        lines = str(caught.value).splitlines()
        assert "leave it out with --filter" in lines[0]
        assert sorted(lines[1:]) == [f"  {OTHER}: crashed: signal 11", f"  {COMPILED}: oom: take a smaller batch"]
        assert [one.cell.id for one in baseline_of(make_run(trouble={OTHER: ("oom", "x")}), "y", of_mlp).cells] == [
            COMPILED,
            EAGER,
        ]

    def test_unfinished(self) -> None:
        run = make_run()
        run = rewritten(run, status="interrupted", trials=run.trials[:-2])
        with pytest.raises(UsageError, match=r"is interrupted, not finished: 2 trials are missing \(lenet5.*--resume"):
            baseline_of(run, "why")
        assert len(baseline_of(run, "why", of_mlp).cells) == 2

    def test_nothing_measured(self) -> None:
        ids = (EAGER, COMPILED, OTHER, "lenet5/cpu/b100/eager")
        with pytest.raises(UsageError, match="nothing was measured"):
            baseline_of(make_run(trouble=dict.fromkeys(ids, ("skipped", "no device"))), "why")


class TestUpdate:
    def test_whole_replaces_everything(self) -> None:
        old, new = make_baseline(), make_baseline(small_matrix(**ONE), salt=1)
        assert updated(old, new, None) == updated(None, new, None) == new

    def test_filtered_keeps_the_others_and_their_source(self) -> None:
        old = make_baseline()
        new = updated(old, baseline_of(make_run(salt=1, run_id=LATER), "mlp only", of_mlp), of_mlp)
        assert [(source.manifest.run_id, source.reason) for source in new.runs] == [
            (RUN_ID, "for tests"),
            (LATER, "mlp only"),
        ]
        assert side_of(new, OTHER) == side_of(old, OTHER)
        assert side_of(new, COMPILED).run_id == LATER

    def test_names_the_conditions_that_changed(self) -> None:
        run = make_run(small_matrix(seeds=(0, 1)))
        environment = replace(run.manifest.environment, packages={"torch": "2.14.0"}, cores=4)
        new = baseline_of(rewritten(run, environment=environment), "new torch")
        notes = changed(make_baseline(), new, "b.json").notes
        assert f"{COMPILED}: cores 2 → 4; torch 2.13.0+cpu → 2.14.0; seeds 0, 1, 2 → 0, 1" in notes
        old = make_baseline(trouble={COMPILED: ("skipped", "no compiler")})
        assert f"{COMPILED}: skipped → ok; seeds none → 0, 1, 2" in changed(old, make_baseline(), "b.json").notes


class TestFile:
    @given(st.text(max_size=30), st.floats(0.001, 1e3), st.floats(0, 1))
    def test_whatever_a_run_is_called_and_measured(self, text: str, speedup: float, accuracy: float) -> None:
        made = json.loads(SMALL)
        made["runs"][0]["reason"] = made["runs"][0]["manifest"]["matrix_path"] = text
        cell = next(one["a"] for one in made["cells"] if one["a"].get("ratios"))
        cell["ratios"][0]["speedup"], cell["trainings"][0]["accuracy"] = speedup, accuracy
        baseline = decode(json.dumps(made).encode())
        assert decode(encode(baseline)) == baseline

    def test_a_seed_is_a_line_and_another_time_leaves_it_alone(self) -> None:
        before, after = (encode(make_baseline(slow=slow)).decode().splitlines() for slow in ({}, {COMPILED: 1.1}))
        assert max(map(len, before)) <= 180
        lines = [line for line in before if '"accuracy"' in line]
        assert len(lines) == 12
        assert lines == [line for line in after if '"accuracy"' in line]
        assert len(before) == len(after)
        assert 0 < sum(one != other for one, other in zip(before, after, strict=True)) < 10

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            (r'"format": "[^"]*"', '"format": "x"', "format"),
            (r'"schema_version": 1', '"schema_version": 2', "schema_version: is 2, this mnist-bench reads 1"),
            (r'"accuracy": [0-9.]+', '"accuracy": 1e999', "trainings[0].accuracy"),
            (r'"accuracy": [0-9.]+', '"accuracy": null', "trainings[0].accuracy"),
            (r'"accuracy": [0-9.]+, ', "", "trainings[0]"),  # missing
            (r'"images": [0-9]+', '"images": 0', "images"),
            (r'"images": [0-9]+', '"images": ' + "9" * 400, "images"),
            (r'"speedup": [0-9.]+', '"speedup": 0', "ratios[0].speedup"),
            (r'"speedup": [0-9.]+', '"speedup": 1e99', "ratios[0].speedup"),
            (r'"sd": [0-9.]+', '"sd": -1', "ratios[0].sd"),
            (r'"status": "skipped"', '"status": "oom"', "cells[0]"),
            (r'"seed": 1,', '"seed": 0,', "a seed stands there twice"),
            (r'"step_ms_p50": [0-9.]+', '"step_ms_p50": [1]', "figures"),
            (r'"cores": 2', '"cores": "2"', "environment.cores"),
            (r'"batch_size": 100', '"batch_size": "100"', "cell.batch_size"),
            (r'"variant": "eager"', '"variant": "compile"', "a cell stands there twice"),
            (r'"trainings"', '"training"', "training"),
        ],
    )
    def test_a_broken_file_is_refused_by_its_field(self, old: str, new: str, words: str) -> None:
        text = encode(make_baseline(trouble={OTHER: ("skipped", "no compiler")})).decode()
        broken = re.sub(old, lambda _: new, text, count=1)
        assert broken != text
        with pytest.raises(ValueError, match=re.escape(words)):
            decode(broken.encode())


class TestHeldAgainst:
    def test_the_same_code_passes(self) -> None:
        baseline, run = make_baseline(), make_run(salt=1)
        found = verdicts_of(run, baseline)
        assert {one.kind for one in found.values()} == {"pass"}
        assert code_of(run, baseline) == 0
        text = found[COMPILED].text
        assert text.startswith(f"{COMPILED} passes; speed: a slow-down of 10 % is ruled out: measured")
        assert f"3 sessions) against the baseline, relative to {EAGER}; accuracy: equal predictions" in text
        assert found[EAGER].speed is None

    def test_a_slower_variant_is_a_regression(self) -> None:
        found = verdicts_of(make_run(slow={COMPILED: 1.2}, salt=1), make_baseline())
        assert [found[name].kind for name in (COMPILED, EAGER, OTHER)] == ["regression", "pass", "pass"]
        assert found[COMPILED].speed is not None
        assert found[COMPILED].speed.ratio.estimate == pytest.approx(1 / 1.2, rel=0.03)

    def test_what_slows_everything_down_is_not_seen_but_shown(self) -> None:
        """Said in the notes, and in docs/baselines.md: the light mode's blind spot."""
        slow = dict.fromkeys((EAGER, COMPILED), 1.5)
        run, baseline = make_run(small_matrix(**ONE), slow=slow, salt=1), make_baseline(small_matrix(**ONE))
        assert {one.kind for one in verdicts_of(run, baseline).values()} == {"pass"}
        assert any("a slow-down of both alike is not seen" in note for note in check_of(run, baseline).notes)
        one = evidence_of(run, baseline, EAGER)
        assert one.a is not None
        assert one.b is not None
        assert one.b.figures["step_ms_p50"] > 1.3 * one.a.figures["step_ms_p50"]

    def test_differences_are_ranked_and_in_words(self) -> None:
        run = make_run(small_matrix(epochs=5), salt=1)
        environment = replace(run.manifest.environment, cpu="Intel Xeon", cores=8, packages={"torch": "2.14.0"})
        run = rewritten(run, environment=environment)
        assert evidence_of(run, make_baseline(), COMPILED).differences == (
            "CPU: AMD EPYC in the baseline, Intel Xeon here (moves speed)",
            "cores: 2 in the baseline, 8 here (moves speed)",
            "torch: 2.13.0+cpu in the baseline, 2.14.0 here (moves speed and accuracy)",
            "epochs: 2 in the baseline, 5 here (moves accuracy)",
        )
        assert code_of(run, make_baseline()) == 5

    def test_seeds(self) -> None:
        assert evidence_of(make_run(small_matrix(seeds=(7, 8)), salt=1), make_baseline(), COMPILED).differences == (
            "seeds: 0, 1, 2 in the baseline, 7, 8 here: none in common (moves accuracy)",
        )
        one = evidence_of(make_run(small_matrix(seeds=(1, 2, 9)), salt=1), make_baseline(), COMPILED)
        assert [pair.a.seed for pair in one.seeds] == [1, 2]
        assert one.b is not None
        assert [session.seed for session in one.b.ratios] == [1, 2, 9]

    def test_a_filter_chooses_the_cells(self) -> None:
        check = check_of(make_run(salt=1), make_baseline(), chosen=of_mlp)
        assert {one.cell.id for one in check.cells} == {COMPILED, EAGER}

    def test_floors_hold_whatever_is_comparable(self) -> None:
        for floor, kinds in ((0.9, {"pass"}), (0.99, {"failed", "pass"})):
            run = make_run(small_matrix(expect=(Floor(model="mlp", min_accuracy=floor),)), salt=1)
            assert {one.kind for one in verdicts_of(run, make_baseline()).values()} == kinds
        assert verdicts_of(run, make_baseline(small_matrix(models=small_matrix().models[1:])))[EAGER].kind == "failed"
        rates = make_run(small_matrix(expect=(Floor(min_train_samples_per_s=1e9),)), salt=1)
        assert "training samples/s are under the floor 1e+09" in verdicts_of(rates, make_baseline())[COMPILED].text


class TestNoRatio:
    """A cell whose time cannot be judged is not a pass."""

    def why(self, run: Run, baseline: Baseline | None = None) -> str:
        baseline = baseline or make_baseline()
        found = verdicts_of(run, baseline)[COMPILED]
        why = evidence_of(run, baseline, COMPILED).why_no_ratio
        assert found.kind == "inconclusive"
        assert f"its speed cannot be judged: {why}" in found.text
        return why

    def test_reference_failed_or_left_out(self) -> None:
        run = make_run(trouble={EAGER: ("oom", "take less")}, salt=1)
        assert self.why(run) == f"its reference {EAGER} is oom here: take less"
        run = make_run(salt=1)
        kept = [one for one in run.trials if one.cell.id != EAGER]
        run = replace(run, trials=kept, manifest=replace(run.manifest, trials=tuple(one.id for one in kept)))
        assert self.why(run) == f"its reference {EAGER} is not in this run"

    def test_never_timed_together(self) -> None:
        run = make_run(salt=1)
        solo = rewritten(run, sessions=[replace(one, paired=False) for one in run.sessions])
        assert self.why(solo).startswith(f"it was never timed together with {EAGER} here (--solo")
        why = self.why(make_run(), baseline_of(solo, "solo"))
        assert why == f"the baseline has no ratio to {EAGER}: never timed together, or in too few rounds"

    def test_no_reference_variant(self) -> None:
        alone = small_matrix(variants=(BUILTIN_VARIANTS["compile"],))
        why = self.why(make_run(salt=1), make_baseline(alone))
        assert why == "the baseline holds it against no reference variant: update it"
        for baseline in (make_baseline(), make_baseline(alone)):
            why = self.why(make_run(alone, salt=1), baseline)
            assert why == "this run has no reference variant to hold it against: name one with --reference"

    def test_another_reference(self) -> None:
        """The cell is what it was; what it is held against is not."""
        like = Variant(name="tf32")  # in name alone
        baseline = make_baseline(small_matrix(variants=(BUILTIN_VARIANTS["eager"], like)))
        found = verdicts_of(make_run(small_matrix(variants=(like,)), salt=1), baseline)["mlp/cpu/b100/tf32"]
        assert "it is itself the reference variant here, and in the baseline it is not" in found.text
        run = make_run(salt=1)
        trials = [
            replace(one, outcome=structs.replace(one.outcome, numerics={"threads": 1})) if one.cell.id == EAGER else one
            for one in run.trials
        ]
        why = self.why(rewritten(run, trials=trials))
        assert why == f"the settings of its reference {EAGER} are others than in the baseline"
