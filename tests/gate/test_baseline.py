"""A baseline: what it takes from a run, what it refuses, an update, a run held against it."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import record_factory
from baseline_kit import COMPILED, EAGER, OTHER, make_baseline, make_run, rewritten, small_matrix
from msgspec import structs

from mnist_bench.analysis.summary import Run
from mnist_bench.errors import UsageError
from mnist_bench.gate.baseline import Baseline, baseline_of, changed, held_against
from mnist_bench.gate.evidence import CellEvidence, Margins, SideEvidence
from mnist_bench.gate.judge import Verdict, judge
from mnist_bench.records import BUILTIN_VARIANTS, Floor, GateRule, Variant

ALONE = small_matrix(variants=(BUILTIN_VARIANTS["compile"],))
FIRST, SECOND = "20261124T101500Z-aaaaaa", "20261125T101500Z-bbbbbb"


def side_of(baseline: Baseline, cell_id: str) -> SideEvidence:
    return next(one.a for one in baseline.cells if one.cell.id == cell_id)


def found(run: Run, baseline: Baseline | None = None) -> dict[str, tuple[CellEvidence, Verdict]]:
    check = held_against(run, baseline or make_baseline(), "baseline.json")
    return {one.cell.id: (one, verdict) for one, verdict in zip(check.cells, judge(check), strict=True)}


def kinds(run: Run, baseline: Baseline | None = None) -> list[str]:
    by_cell = found(run, baseline)
    return [by_cell[name][1].kind for name in (COMPILED, EAGER, OTHER) if name in by_cell]


def solo(run: Run) -> Run:
    return rewritten(run, sessions=[replace(one, paired=False) for one in run.sessions])


# ── a run -> a baseline ──────────────────────────────────────────────────────────────────────────────────────────────


def test_ratios_are_those_of_the_sessions():
    whole, one = (side_of(make_baseline(slow=slow), COMPILED) for slow in ({}, {COMPILED: 2.0}))
    assert (one.reference, [session.seed for session in one.ratios]) == (EAGER, [0, 1, 2])
    for slow, session in zip(one.ratios, whole.ratios, strict=True):
        assert slow.speedup == pytest.approx(session.speedup / 2, rel=1e-4)
        assert (session.sd > 0.015, session.rounds) == (True, 12)
    assert side_of(make_baseline(), EAGER).ratios == ()


def test_a_run_that_measured_nothing_is_no_baseline():
    """Nor one that is not finished, or has failed: tests/golden/stored, check-refused.txt and baseline-changed.txt."""
    trouble = dict.fromkeys((EAGER, COMPILED, OTHER, "lenet5/cpu/b100/eager"), ("skipped", "x"))
    with pytest.raises(UsageError, match="nothing was measured"):
        baseline_of(make_run(trouble=trouble), "why")


def test_an_update_names_the_conditions_that_changed():
    run = make_run(small_matrix(seeds=(0, 1)))
    environment = replace(run.manifest.environment, packages={"torch": "2.14.0"}, cores=4)
    new = baseline_of(rewritten(run, environment=environment), "new torch")
    (note,) = {one.partition(": ")[2] for one in changed(make_baseline(), new, "b.json").notes}
    assert note == "cores 2 → 4; torch 2.13.0+cpu → 2.14.0"


# ── a run against a baseline ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["pass", "pass", "pass"]),
        ({"slow": {COMPILED: 1.2}}, ["regression", "pass", "pass"]),
        # What slows everything down is not seen: the light mode's blind spot (docs/baselines.md).
        ({"slow": dict.fromkeys((EAGER, COMPILED), 1.5)}, ["pass", "pass", "pass"]),
        ({"matrix": small_matrix(expect=(Floor(model="mlp", min_accuracy=0.99),))}, ["failed", "failed", "pass"]),
        ({"matrix": small_matrix(seeds=(0,)), "slow": {COMPILED: 1.06}}, ["inconclusive", "pass", "pass"]),
    ],
)
def test_verdicts(changes, expected):
    assert kinds(make_run(salt=1, **changes)) == expected


def test_margins_are_those_of_the_run_s_matrix_and_memory_is_not_judged():
    """1.2x is within what the first rule tolerates; the second, of all other cells, asks for memory."""
    rules = (GateRule(model="mlp", margin=0.3, detect=0.6), GateRule(memory=0.1))
    run = make_run(small_matrix(gate=rules), salt=1, slow={COMPILED: 1.2})
    assert kinds(run) == ["pass", "pass", "pass"]
    check = held_against(run, make_baseline(), "b.json")
    assert "Memory is not judged here: `check --against` does it, over process pairs." in check.notes
    assert {one.margins for one in check.cells if one.cell.model == "mlp"} == {Margins(margin=0.3, detect=0.6)}


def test_floors_hold_of_cells_that_the_baseline_has_not():
    run = make_run(small_matrix(expect=(Floor(model="mlp", min_accuracy=0.99),)), salt=1)
    assert kinds(run, make_baseline(small_matrix(models=small_matrix().models[1:])))[:2] == ["failed", "failed"]


def test_seeds_are_those_in_common():
    none, some = (found(make_run(small_matrix(seeds=seeds), salt=1))[COMPILED][0] for seeds in ((7, 8), (1, 2, 9)))
    assert none.differences == ("seeds: 0, 1, 2 in the baseline, 7, 8 here: none in common (moves accuracy)",)
    assert [pair.a.seed for pair in some.seeds] == [1, 2]
    assert [session.seed for session in some.b.ratios] == [1, 2, 9]


def without_reference() -> Run:
    run = make_run(salt=1)
    kept = [one for one in run.trials if one.cell.id != EAGER]
    return replace(run, trials=kept, manifest=replace(run.manifest, trials=tuple(one.id for one in kept)))


def other_threads() -> Run:
    """The cell is what it was; what it is held against is not."""
    run = make_run(salt=1)
    return rewritten(
        run,
        trials=[
            replace(one, outcome=structs.replace(one.outcome, numerics={"threads": 1})) if one.cell.id == EAGER else one
            for one in run.trials
        ],
    )


@pytest.mark.parametrize(
    ("run", "baseline", "why"),
    [
        (make_run(trouble={EAGER: ("oom", "less")}, salt=1), None, f"it was never timed with {EAGER} here"),
        (without_reference(), None, f"it was never timed with {EAGER} here"),
        (solo(make_run(salt=1)), None, f"it was never timed with {EAGER} here (which failed, --solo"),
        (make_run(), baseline_of(solo(make_run()), "x"), f"the baseline has no ratio to {EAGER}: never timed together"),
        (make_run(), make_baseline(ALONE), "the baseline holds it against no reference variant: update it"),
        (
            make_run(ALONE, salt=1),
            None,
            "this run has no reference variant to hold it against: name one with --reference",
        ),
        (other_threads(), None, f"the settings of its reference {EAGER} are others than in the baseline"),
    ],
)
def test_a_cell_whose_time_cannot_be_judged_is_no_pass(run, baseline, why):
    one, verdict = found(run, baseline)[COMPILED]
    assert one.why_no_ratio.startswith(why)
    assert verdict.kind == "inconclusive"
    assert f"its speed cannot be judged: {why}" in verdict.text


def test_a_cell_that_became_the_reference_is_no_pass():
    like = Variant(name="tf32")  # in name alone
    baseline = make_baseline(small_matrix(variants=(BUILTIN_VARIANTS["eager"], like)))
    _, verdict = found(make_run(small_matrix(variants=(like,)), salt=1), baseline)["mlp/cpu/b100/tf32"]
    assert "it is itself the reference variant here, and in the baseline it is not" in verdict.text


# ── as it is called ──────────────────────────────────────────────────────────────────────────────────────────────────


def keep(run: Run, run_id: str = FIRST) -> None:
    record_factory.keep(Path("results"), replace(run.manifest, run_id=run_id), run.trials, run.sessions)


def test_an_update_makes_the_folder_and_warns_of_what_cannot_be_judged(call):
    run = make_run(small_matrix(seeds=(0,)))
    keep(rewritten(run, sessions=[one for one in run.sessions if "mlp" in one.group]))
    code, _, err = call("baseline", "update", "--reason", "x", "--output", "ci/cpu.json")
    assert (code, Path("ci/cpu.json").exists()) == (0, True)
    assert "fewer than 3 seeds" in err
    assert f"no speed can be judged of {OTHER}: never timed" in err


def test_a_filter_updates_and_checks_these_cells_alone(call):
    keep(make_run())
    call("baseline", "update", "--reason", "first")
    before = json.loads(Path("baseline.json").read_bytes())["cells"]
    keep(make_run(slow={COMPILED: 1.5}, trouble={OTHER: ("oom", "less")}), SECOND)
    _, out, _ = call("check", "--baseline", "--filter", "model=mlp")
    assert "1 regression, 1 pass" in out
    _, out, _ = call("baseline", "update", SECOND, "--filter", "model=mlp", "--reason", "mlp")
    assert "2 changed, 2 same" in out.splitlines()[0]
    written = json.loads(Path("baseline.json").read_bytes())
    assert [(run["manifest"]["run_id"], run["reason"]) for run in written["runs"]] == [
        (FIRST, "first"),
        (SECOND, "mlp"),
    ]
    after = written["cells"]
    assert [one for one in after if one["cell"]["model"] == "lenet5"] == before[:2]
    assert after[2]["a"]["run_id"] == SECOND


@pytest.mark.parametrize("inside", [True, False])
def test_annotations_name_the_matrix_from_the_root(call, tmp_path, monkeypatch, inside):
    """GitHub finds files from the root of the repository, wherever the run and the check were called."""
    folder = tmp_path / "the repo" / "bench"
    folder.mkdir(parents=True)
    (folder / "m.yaml").write_text("")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    if inside:
        subprocess.run(["git", "init", "--quiet", str(folder.parent)], check=True)
    keep(make_run())
    call("baseline", "update", "--reason", "first")
    keep(make_run(slow={COMPILED: 1.3}, salt=1, matrix_path="m.yaml"), SECOND)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.chdir(folder)
    _, out, _ = call("check", "--baseline", str(tmp_path / "baseline.json"), "-o", str(tmp_path / "results"))
    assert f"::error file={'bench/m.yaml' if inside else 'm.yaml'},title=regression" in out
