"""A run against a baseline: what evidence is made of it, and the verdict of every kind of cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from baseline_kit import COMPILED, EAGER, OTHER, as_run, make, make_baseline, make_run, small_matrix
from msgspec import structs

from mnist_bench.analysis.compare import Run
from mnist_bench.gate.baseline import Baseline, baseline_of
from mnist_bench.gate.baseline_check import Labels, check_baseline
from mnist_bench.gate.judge import exit_code, judge
from mnist_bench.gate.records import CellEvidence, Check, Margins, Verdict
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Floor, ModelEntry, RunOptions, Variant

LABELS = Labels(id="x", baseline="baseline.json", run="run y", at="2026-11-25T10:00:00Z", program_version="0.1.0")
ONE = {"models": small_matrix().models[:1]}  # mlp alone: two cells, one ratio


def check_of(run: Run, baseline: Baseline, chosen: Callable[[Cell], bool] | None = None) -> Check:
    return check_baseline(run, baseline, Margins(), LABELS, chosen)


def cell_in(check: Check, cell_id: str) -> CellEvidence:
    return next(one for one in check.cells if one.cell.id == cell_id)


def verdicts_of(run: Run, baseline: Baseline, **kwargs: Any) -> dict[str, Verdict]:
    return {one.cell.id: one for one in judge(check_of(run, baseline, **kwargs))}


def code_of(run: Run, baseline: Baseline) -> int:
    check = check_of(run, baseline)
    return exit_code(check, judge(check))


class TestVerdicts:
    def test_the_same_code_passes(self) -> None:
        baseline, run = make_baseline(), make_run(salt=1)
        found = verdicts_of(run, baseline)
        assert {one.kind for one in found.values()} == {"pass"}
        assert code_of(run, baseline) == 0
        text = found[COMPILED].text
        assert text.startswith(f"{COMPILED} passes; speed: a slow-down of 10 % is ruled out: measured")
        assert f"3 sessions) against the baseline, relative to {EAGER}; accuracy: equal predictions" in text
        assert "its own time is what others are held against, and not judged" in found[EAGER].text
        assert found[EAGER].speed is None

    def test_a_slower_variant_is_a_regression(self) -> None:
        baseline, run = make_baseline(), make_run(slow={COMPILED: 1.2}, salt=1)
        found = verdicts_of(run, baseline)
        assert [found[name].kind for name in (COMPILED, EAGER, OTHER)] == ["regression", "pass", "pass"]
        assert code_of(run, baseline) == 3
        assert found[COMPILED].speed is not None
        assert found[COMPILED].speed.ratio.estimate == pytest.approx(1.2, rel=0.03)
        assert " % slower (95 % interval " in found[COMPILED].text
        assert found[COMPILED].text.endswith("up to 3 % is tolerated")

    def test_what_slows_everything_down_is_not_seen_but_shown(self) -> None:
        """Said in the notes, and in docs/baselines.md: the light mode's blind spot."""
        slow = dict.fromkeys((EAGER, COMPILED), 1.5)
        check = check_of(make_run(small_matrix(**ONE), slow=slow, salt=1), make_baseline(small_matrix(**ONE)))
        assert {one.kind for one in judge(check)} == {"pass"}
        assert any("a slow-down of both alike is not seen" in note for note in check.notes)
        step = next(one for one in cell_in(check, EAGER).figures if one.name == "step")
        assert step.unit == "ms"
        assert step.b > step.a

    def test_a_faster_variant_is_an_improvement(self) -> None:
        found = verdicts_of(make_run(slow={COMPILED: 0.7}, salt=1), make_baseline())
        assert found[COMPILED].kind == "improvement"
        assert found[COMPILED].text.endswith("the baseline is stale: update it")

    def test_one_seed_says_how_many_would_do(self) -> None:
        matrix = small_matrix(seeds=(0,))
        run = make_run(matrix, slow={COMPILED: 1.06}, salt=1)
        found = verdicts_of(run, make_baseline(matrix))
        assert found[COMPILED].kind == "inconclusive"
        assert "from 1 timing session in the baseline and 1 here: about " in found[COMPILED].text
        assert "seeds in both would do" in found[COMPILED].text
        assert found[EAGER].kind == "pass"
        assert code_of(run, make_baseline(matrix)) == 4

    def test_noise_is_told_where_nothing_is_decided(self) -> None:
        manifest, trials, sessions = make(small_matrix(seeds=(0,)), slow={COMPILED: 1.06}, salt=1)
        run = as_run(manifest, trials, [replace(one, noisy=("others used 9 %",)) for one in sessions])
        found = verdicts_of(run, make_baseline(small_matrix(seeds=(0,))))
        assert "1 of them disturbed by other work on the machine" in found[COMPILED].text

    def test_less_accurate_is_a_regression_whatever_the_speed(self) -> None:
        seeds = tuple(range(6))
        baseline = make_baseline(small_matrix(seeds=seeds))
        run = make_run(small_matrix(seeds=seeds), accuracy={COMPILED: -0.05}, slow={COMPILED: 0.5}, salt=1)
        found = verdicts_of(run, baseline)
        assert found[COMPILED].kind == "regression"
        assert "pp less accurate" in found[COMPILED].text
        assert code_of(run, baseline) == 3

    def test_other_predictions_in_few_seeds_are_inconclusive(self) -> None:
        found = verdicts_of(make_run(accuracy={EAGER: -0.0002}, salt=1), make_baseline())
        assert found[EAGER].kind == "inconclusive"
        assert "its accuracy is not decided" in found[EAGER].text

    def test_missing_new_and_failed(self) -> None:
        fewer = small_matrix(**ONE)
        found = verdicts_of(make_run(fewer, salt=1), make_baseline())
        assert found[OTHER].kind == "missing"
        found = verdicts_of(make_run(salt=1), make_baseline(fewer))
        assert found[OTHER].kind == "new"
        run = make_run(trouble={f"{COMPILED}/s1": ("crashed", "signal 11: see its log")}, salt=1)
        found = verdicts_of(run, make_baseline())
        assert (found[COMPILED].kind, found[EAGER].kind) == ("failed", "pass")
        assert found[COMPILED].text == f"{COMPILED} failed (crashed): signal 11: see its log"
        assert code_of(run, make_baseline()) == 3

    def test_a_renamed_cell_is_one_missing_and_one_new(self) -> None:
        renamed = small_matrix(models=(ModelEntry(name="mlp2", model="mlp"),))
        manifest, trials, _ = make(small_matrix(**ONE), salt=1)
        trials = [
            replace(one, cell=replace(one.cell, model="mlp2"), id=one.id.replace("mlp", "mlp2")) for one in trials
        ]
        run = as_run(replace(manifest, matrix=renamed, trials=tuple(one.id for one in trials)), trials, [])
        found = verdicts_of(run, make_baseline(small_matrix(**ONE)))
        kinds = {name: one.kind for name, one in found.items()}
        assert kinds == {
            COMPILED: "missing",
            EAGER: "missing",
            "mlp2/cpu/b100/compile": "new",
            "mlp2/cpu/b100/eager": "new",
        }

    def test_skipped_here_but_measured_in_the_baseline(self) -> None:
        run = make_run(trouble={COMPILED: ("skipped", "no C++ compiler was found: install g++")}, salt=1)
        one = verdicts_of(run, make_baseline())[COMPILED]
        assert one.kind == "not_comparable"
        assert one.text.endswith(
            "it is skipped here, and the baseline measured it: no C++ compiler was found: install g++"
        )
        assert code_of(run, make_baseline()) == 0

    @pytest.mark.parametrize(
        ("there", "here", "words"),
        [
            (True, False, "the baseline skipped it (no device): update it"),
            (True, True, "it is skipped here, and the baseline skipped it too: no device"),
        ],
    )
    def test_skipped_in_the_baseline(self, there: bool, here: bool, words: str) -> None:
        skipped = {COMPILED: ("skipped", "no device")}
        run, baseline = (make_run(trouble=skipped if side else {}) for side in (here, there))
        one = verdicts_of(run, baseline_of(baseline, "why"))[COMPILED]
        assert (one.kind, one.text) == ("not_comparable", f"{COMPILED} cannot be compared: {words}")

    def test_skipped_here_and_not_in_the_baseline_at_all(self) -> None:
        run = make_run(trouble={OTHER: ("skipped", "no device")}, salt=1)
        one = verdicts_of(run, make_baseline(small_matrix(**ONE)))[OTHER]
        assert (one.kind, "the baseline lacks it" in one.text) == ("not_comparable", True)


class TestComparability:
    def test_differences_are_ranked_and_in_words(self) -> None:
        manifest, trials, sessions = make(salt=1)
        environment = replace(manifest.environment, cpu="Intel Xeon", cores=8, packages={"torch": "2.14.0"})
        matrix = replace(manifest.matrix, epochs=5)
        run = as_run(replace(manifest, environment=environment, matrix=matrix), trials, sessions)
        assert cell_in(check_of(run, make_baseline()), COMPILED).differences == (
            "CPU: AMD EPYC in the baseline, Intel Xeon here (moves speed)",
            "cores: 2 in the baseline, 8 here (moves speed)",
            "torch: 2.13.0+cpu in the baseline, 2.14.0 here (moves speed and accuracy)",
            "epochs: 2 in the baseline, 5 here (moves accuracy)",
        )
        assert {one.kind for one in verdicts_of(run, make_baseline()).values()} == {"not_comparable"}
        assert code_of(run, make_baseline()) == 5

    def test_settings_are_named_not_hashed(self) -> None:
        faster = replace(BUILTIN_VARIANTS["compile"], precision="bf16")
        matrix = small_matrix(variants=(BUILTIN_VARIANTS["eager"], faster))
        manifest, trials, sessions = make(salt=1)
        run = as_run(replace(manifest, matrix=matrix), trials, sessions)
        assert cell_in(check_of(run, make_baseline()), COMPILED).differences == (
            "settings of the cell: precision as eager has it in the baseline, precision bf16 here "
            "(moves speed and accuracy)",
        )

    def test_no_seed_in_common(self) -> None:
        run = make_run(small_matrix(seeds=(7, 8)), salt=1)
        assert cell_in(check_of(run, make_baseline()), COMPILED).differences == (
            "seeds: 0, 1, 2 in the baseline, 7, 8 here: none in common (moves accuracy)",
        )

    def test_accuracy_is_of_the_common_seeds(self) -> None:
        run = make_run(small_matrix(seeds=(1, 2, 9)), salt=1)
        one = cell_in(check_of(run, make_baseline()), COMPILED)
        assert [pair.seed for pair in one.seeds] == [1, 2]
        assert one.ratios is not None
        assert [session.seed for session in one.ratios.b] == [1, 2, 9]

    def test_a_filter_chooses_the_cells(self) -> None:
        check = check_of(make_run(salt=1), make_baseline(), lambda cell: cell.model == "mlp")
        assert {one.cell.id for one in check.cells} == {COMPILED, EAGER}


class TestNoRatio:
    """A cell whose time cannot be judged is not a pass."""

    def why(self, run: Run, baseline: Baseline | None = None) -> str:
        check = check_of(run, baseline or make_baseline())
        found = next(one for one in judge(check) if one.cell.id == COMPILED)
        assert found.kind == "inconclusive"
        ratios = cell_in(check, COMPILED).ratios
        assert ratios is not None
        assert f"its speed cannot be judged: {ratios.why_none}" in found.text
        return ratios.why_none

    def test_reference_failed(self) -> None:
        run = make_run(trouble={EAGER: ("oom", "take less")}, salt=1)
        assert self.why(run) == f"its reference {EAGER} is oom here: take less"

    def test_reference_left_out(self) -> None:
        manifest, trials, sessions = make(salt=1)
        trials = [one for one in trials if one.cell.id != EAGER]
        run = as_run(replace(manifest, trials=tuple(one.id for one in trials)), trials, sessions)
        assert self.why(run) == f"its reference {EAGER} is not in this run"

    def test_never_timed_together(self) -> None:
        manifest, trials, sessions = make(salt=1)
        solo = as_run(manifest, trials, [replace(one, paired=False) for one in sessions])
        assert self.why(solo).startswith(f"it was never timed together with {EAGER} here (--solo")
        why = self.why(make_run(), baseline_of(solo, "solo"))
        assert why == f"the baseline has no ratio to {EAGER}: never timed together, or in too few rounds"

    def test_no_reference_variant(self) -> None:
        alone = small_matrix(variants=(BUILTIN_VARIANTS["compile"],))
        why = self.why(make_run(salt=1), make_baseline(alone))
        assert why == "the baseline holds it against no reference variant: update it"
        run = make_run(alone, salt=1)
        for baseline in (make_baseline(), make_baseline(alone)):
            why = self.why(run, baseline)
            assert why.startswith("this run has no reference variant to hold it against: add one with eager's settings")
        assert code_of(run, make_baseline(alone)) == 4

    def test_a_reference_that_was_none_in_the_baseline(self) -> None:
        """The run's only plain variant is one that the baseline held against ``eager``."""
        like = Variant(name="tf32")  # in name alone
        baseline = make_baseline(small_matrix(variants=(BUILTIN_VARIANTS["eager"], like)))
        found = verdicts_of(make_run(small_matrix(variants=(like,)), salt=1), baseline)["mlp/cpu/b100/tf32"]
        assert found.kind == "inconclusive"
        assert "it is itself the reference variant here, and in the baseline it is not" in found.text

    def test_another_reference(self) -> None:
        """The cell is what it was; what it is held against is not."""
        manifest, trials, sessions = make(salt=1)
        outcomes = [
            replace(one, outcome=structs.replace(one.outcome, numerics={"threads": 1}))  # type: ignore[type-var]
            if one.cell.id == EAGER
            else one
            for one in trials
        ]
        run = as_run(manifest, outcomes, sessions)
        assert self.why(run) == f"the settings of its reference {EAGER} are others than in the baseline"


class TestFloors:
    def run(self, floor: float, **changes: Any) -> Run:
        expect = (Floor(model="mlp", min_accuracy=floor),)
        return make_run(small_matrix(expect=expect, **changes), salt=1)

    def test_hold(self) -> None:
        assert {one.kind for one in verdicts_of(self.run(0.9), make_baseline()).values()} == {"pass"}

    def test_missed_is_failed(self) -> None:
        found = verdicts_of(self.run(0.99), make_baseline())
        assert [found[name].kind for name in (COMPILED, EAGER, OTHER)] == ["failed", "failed", "pass"]
        assert found[EAGER].text == f"{EAGER} failed: test accuracy 0.972 is below the floor 0.99 of the matrix"
        assert code_of(self.run(0.99), make_baseline()) == 3

    def test_missed_where_nothing_is_comparable(self) -> None:
        baseline = make_baseline(small_matrix(models=small_matrix().models[1:]))
        found = verdicts_of(self.run(0.99), baseline)
        assert found[COMPILED].kind == "failed"  # new, and under its floor
        found = verdicts_of(self.run(0.99, epochs=5), make_baseline())
        assert (found[COMPILED].kind, found[OTHER].kind) == ("failed", "not_comparable")

    def test_a_rate_has_a_floor_too(self) -> None:
        expect = (Floor(min_train_samples_per_s=1e9),)
        found = verdicts_of(make_run(small_matrix(expect=expect), salt=1), make_baseline())
        assert "training samples per second" in found[COMPILED].text
        assert {one.kind for one in found.values()} == {"failed"}


def test_a_run_against_itself_has_not_changed() -> None:
    run = make_run()
    for one in check_of(run, baseline_of(run, "itself")).cells:
        assert {figure.name for figure in one.figures} >= {"step", "training throughput", "evaluation throughput"}
        for figure in one.figures:
            assert figure.b == pytest.approx(figure.a, rel=1e-3)


def test_notes_say_where_the_baseline_is_from_and_what_the_run_left_out() -> None:
    manifest, trials, sessions = make(small_matrix(**ONE), salt=1)
    run = as_run(replace(manifest, options=RunOptions(filter="model=mlp")), trials, sessions)
    notes = check_of(run, make_baseline()).notes
    assert notes[0].startswith("The baseline is of 2026-11-23, run 20261123T101500Z-a1b2c3, commit c0ffeec0ffee")
    assert notes[1] == "The run was made with --filter model=mlp: cells that it left out are missing here."
    assert len(notes) == 3


def test_commit_is_that_of_all_cells_or_none() -> None:
    one = make_baseline()
    assert check_of(make_run(), one).a.commit == one.sources[0].commit
    two = replace(one, sources=(*one.sources, replace(one.sources[0], run_id="z", commit="abc")))
    assert check_of(make_run(), two).a.commit is None
