"""A race with workers made up: who is timed, who leaves, who is trained, and what is said of it."""

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import group_kit
import pytest
from group_kit import CALM, FakeWorker, Script, answers, usual
from record_factory import make_matrix

from mnist_bench import cells
from mnist_bench.analysis import race
from mnist_bench.cli import main
from mnist_bench.cli import race as command
from mnist_bench.errors import Interrupted, UsageError
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Matrix, Race, RunOptions, Selector, TrialSpec, Variant
from mnist_bench.running import group, protocol, runner
from mnist_bench.running.group import Observer
from mnist_bench.running.race import conduct

VARIANTS = (BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"])
NAMES = ("eager", "compile", "channels-last", "tutorial")
STEP_S = {"eager": 0.0100, "compile": 0.0101, "channels-last": 0.0090, "tutorial": 0.0300}


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """No data set is looked at, and no machine."""
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    monkeypatch.setattr(runner, "fits", lambda *_: True)
    monkeypatch.setattr(group.noise, "read", lambda pids: CALM)


class Paced(FakeWorker):
    """Its steps take as long as its variant's, give or take what differs between processes, and between blocks."""

    draws = random.Random(7)

    def __init__(self, spec: TrialSpec, script: Script = usual, log: list[str] | None = None) -> None:
        super().__init__(spec, script, log)
        self._step_s = STEP_S[spec.variant.name] * self.draws.lognormvariate(0, 0.008)

    def _usual(self, request: Any) -> Any:
        if isinstance(request, protocol.Block):
            self.token_ns -= 900_000_000  # a block takes a tenth of a second
            return protocol.BlockDone(steps=10, seconds=10 * self._step_s * self.draws.lognormvariate(0, 0.003))
        return super()._usual(request)


def planned(results: Path, matrix: Matrix | None = None, **kind: Any) -> runner.RunPlan:
    """A race of a matrix, else of four variants with two seeds; its time does not end."""
    matrix = matrix or make_matrix(seeds=(0, 1), variants=tuple(BUILTIN_VARIANTS[name] for name in NAMES))
    return group_kit.planned(results, matrix, RunOptions(race=Race(**{"budget_s": 1e6, **kind})))


def execute(
    plan: runner.RunPlan, scripts: Any = None, log: list[str] | None = None, launched: list[TrialSpec] | None = None
) -> Any:
    def launch(spec: TrialSpec) -> FakeWorker:
        (launched if launched is not None else []).append(spec)
        return Paced(spec, (scripts or {}).get(spec.variant.name, usual), log)

    return runner.execute(plan, Observer(), {}, launch, conduct)  # type: ignore[arg-type]


def statuses(run: Any) -> dict[str, str]:
    return {trial.id.partition("b100/")[2]: trial.status for trial in run.trials}


def test_the_slower_leave_and_the_rest_is_trained_beside_the_reference(tmp_path):
    log: list[str] = []
    run = execute(planned(tmp_path), log=log)
    (heat,) = race.heats(run)
    assert heat.standing.alive == ["mlp/cpu/b100/channels-last/s0"]
    assert statuses(run) == {
        f"{name}/s{seed}": "ok" if name in ("eager", "channels-last") else "skipped"
        for name in NAMES
        for seed in (0, 1)
    }
    timed = [set(session.members) for session in run.sessions]
    assert all(later <= earlier for earlier, later in pairwise(timed))
    assert run.sessions[0].rounds[-1].steps[run.sessions[0].members.index("mlp/cpu/b100/tutorial/s0")] == 0
    assert sum(line.startswith("launch") and "tutorial" in line for line in log) == 1  # once, and never trained
    (reason,) = {trial.reason for trial in run.trials if trial.cell.variant == "tutorial"}
    assert reason.startswith("left the race after 1 process group: 0.30x")


def test_what_it_says_is_the_same_from_disk(tmp_path):
    plan = planned(tmp_path)
    run = execute(plan)
    said = race.document(run)
    assert said.answers[0].startswith("mlp on cpu, batch 100: channels-last is the fastest, 1.1")
    assert said.answers[1] == 'To paste into a matrix: variants: ["channels-last"]'
    (table,) = said.tables
    first, *_, last = table.records()
    assert (first["variant"], first["word"], last["variant"], last["word"]) == (
        *("channels-last", "fastest"),
        *("tutorial", "slower"),
    )
    assert first["vs_reference_low"] < STEP_S["eager"] / STEP_S["channels-last"] < first["vs_reference_high"]
    assert first["test_accuracy"] == 0.95
    assert last["test_accuracy"] is None
    document = json.loads(race.to_json(run))
    assert document["variants"] == ["channels-last"]
    assert document["races"][0]["cells"] == table.records()
    assert race.to_json(type(run).read(plan.folder)) == race.to_json(run)


def test_it_goes_on_where_it_was_interrupted(tmp_path):
    plan = planned(tmp_path)
    run = execute(plan, {"eager": answers(protocol.Block, Interrupted("interrupted"), at=3)})
    assert (run.manifest.status, run.sessions) == ("interrupted", ())
    run = execute(runner.resume(plan.folder, plan.options), {"eager": answers(protocol.TrainEpoch, Interrupted("i"))})
    assert run.manifest.status == "interrupted"
    before = run.sessions
    assert before
    run = execute(runner.resume(plan.folder, plan.options))
    assert (run.manifest.status, run.sessions) == ("complete", before)
    assert len(run.trials) == 8


def test_one_that_fails_is_out_and_no_winner(tmp_path):
    broken = answers(protocol.Prepare, protocol.Failed(kind="compile_error", reason="no"))
    run = execute(planned(tmp_path), {"channels-last": broken})
    (heat,) = race.heats(run)
    assert {one.rpartition("/s")[0][13:] for one in heat.standing.alive} <= {"eager", "compile"}
    assert statuses(run)["channels-last/s0"] == "compile_error"
    assert statuses(run)["channels-last/s1"] == "skipped"


def test_the_only_one_that_runs_is_not_called_the_fastest(tmp_path):
    broken = answers(protocol.Prepare, protocol.Failed(kind="failed", reason="no"))
    run = execute(planned(tmp_path), dict.fromkeys(NAMES[1:], broken))
    assert race.document(run).answers[0] == "mlp on cpu, batch 100: eager is the only one that ran."
    assert {one["word"] for one in race.table(run).records()} == {"only one that ran", "failed"}
    run = execute(planned(tmp_path / "b"), dict.fromkeys(("eager", *NAMES[2:]), broken))
    assert race.document(run).answers[0] == "mlp on cpu, batch 100: compile is the only one that ran."


def test_other_losses_are_another_class(tmp_path):
    other = protocol.Prepared(**{**_fields(Paced), "loss_trace": (2.3, 2.4)})
    script = {"channels-last": lambda request, number: other if isinstance(request, protocol.Prepare) else None}
    run = execute(planned(tmp_path), script)
    (heat,) = race.heats(run)
    assert [heat.cells[one].variant for one in heat.others] == ["channels-last"]
    assert "channels-last" not in {heat.cells[one].variant for one in heat.standing.alive}
    assert "left the race: its first losses are not the reference's" in race.document(run).notes[0]
    admitted = execute(planned(tmp_path / "b", admitted="B"), script)
    assert "channels-last" in {
        race.heats(admitted)[0].cells[one].variant for one in race.heats(admitted)[0].standing.alive
    }


def _fields(_: Any) -> dict[str, Any]:
    from group_kit import PREPARED

    return {name: getattr(PREPARED, name) for name in PREPARED.__struct_fields__}


def test_its_time_ends_it(tmp_path):
    run = execute(planned(tmp_path, budget_s=0.0))
    assert run.sessions == ()
    assert {trial.status for trial in run.trials} == {"ok"}


def test_what_one_process_group_cannot_tell_more_seeds_would_not(tmp_path):
    plan = planned(tmp_path, make_matrix(seeds=(0,), variants=VARIANTS), budget_s=1e-9)
    assert len(execute(plan).sessions) == 1
    (said,) = [line for line in (plan.folder.path / "results.md").read_text().split("\n") if "cannot be told" in line]
    assert "seeds" not in said


def test_process_groups_share_a_compilers_cache_and_trainings_begin_without(tmp_path):
    launched: list[TrialSpec] = []
    STEP_S["tuned"] = 0.0102
    tuned = replace(VARIANTS[1], name="tuned", compile=replace(VARIANTS[1].compile, options={"max_autotune": True}))
    run = execute(planned(tmp_path, make_matrix(seeds=(0,), variants=(*VARIANTS, tuned))), launched=launched)
    assert len(run.sessions) > 1
    caches = {name: [one.cache_dir for one in launched if one.variant.name == name] for name in ("compile", "tuned")}
    assert caches["compile"][0] == caches["compile"][1] != ""
    assert not Path(caches["compile"][0]).parent.exists()
    assert {*caches["tuned"]} == {""}  # what it finds to be the fastest differs from process to process
    assert launched[-1].cache_dir == ""


def test_batch_sizes_race_each_other_by_seconds_an_image(tmp_path):
    matrix = make_matrix(
        seeds=(0,), batch_sizes=(100, 200), variants=(BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["channels-last"])
    )
    run = execute(planned(tmp_path, matrix, across_batch_sizes=True))
    (heat,) = race.heats(run)
    assert [heat.cells[one].batch_size for one in heat.standing.alive] == [200]  # the same step, of twice the images
    assert heat.name == "mlp on cpu"
    assert race.sentence(heat).startswith("mlp on cpu: channels-last at batch 200 ")
    assert "as fast as eager at batch 100" in race.sentence(heat)
    assert "as fast as channels-last at batch 200" in race.why_left(heat, "mlp/cpu/b100/eager/s0")


def test_without_the_memory_there_is_no_race(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "fits", lambda *_: False)
    with pytest.raises(UsageError, match="not the memory"):
        execute(planned(tmp_path))


def test_a_run_is_no_race(tmp_path):
    plan = planned(tmp_path)
    run = execute(plan)
    plain = replace(run, manifest=replace(run.manifest, options=RunOptions()))
    with pytest.raises(UsageError, match="is no race"):
        race.heats(plain)


def test_a_winner_of_ones_own_is_pasted_with_its_settings(tmp_path):
    mine = Variant(name="mine", channels_last=True, threads=1)
    STEP_S["mine"] = 0.005
    matrix = make_matrix(seeds=(0,), variants=(BUILTIN_VARIANTS["eager"], mine))
    run = execute(planned(tmp_path, matrix))
    assert json.loads(race.paste(race.heats(run))) == [{"name": "mine", "channels_last": True, "threads": 1}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variants", "eager"], "a race needs two or more"),
        (["--variants", "eager,compile", "--budget", "soon"], "is no time"),
        (["--variants", "eager,compile", "--threads", "0"], "--threads: '0'"),
        (["--resume", "latest", "--threads", "1"], "--threads: a resumed race goes on as it was started"),
        (["--resume", "latest"], "no run in"),
    ],
)
def test_what_cannot_race_is_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["race", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_run_and_a_race_go_on_by_their_own_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = planned(tmp_path / "results")
    assert main(["run", "--resume", plan.folder.run_id]) == 2
    assert f"mnist-bench race --resume {plan.folder.run_id}" in capsys.readouterr().err


def test_every_variant_races_with_each_number_of_threads():
    matrix = command._with_threads(
        make_matrix(variants=(BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"])), (1, 2)
    )
    assert [(one.name, one.threads) for one in matrix.variants] == [
        *(("eager-t1", 1), ("eager-t2", 2)),
        *(("compile-t1", 1), ("compile-t2", 2)),
    ]
    assert cells.reference_variant(matrix) == "eager-t2"
    without = Selector(device="cpu", variant="compile")
    matrix = command._with_threads(replace(make_matrix(variants=VARIANTS), exclude=(without,)), (1, 2))
    assert [cell.variant for cell in cells.expand(matrix)] == ["eager-t1", "eager-t2"]
    beside = Cell(model="mlp", device="cpu", batch_size=200, variant="eager")
    with pytest.raises(UsageError, match="remove include"):
        command._with_threads(replace(make_matrix(variants=VARIANTS), include=(beside,)), (1, 2))


def test_class_b_must_be_admitted_and_loaders_cannot_take_turns(capsys):
    bf16 = Variant(name="bf16", precision="bf16")
    loaders = Variant(name="loaders", pipeline="tensors", workers=2)
    matrix = make_matrix(variants=(BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"], bf16, loaders))
    assert [one.name for one in command._entered(matrix, Race(budget_s=1.0)).variants] == ["eager", "compile"]
    said = capsys.readouterr().err
    assert "bf16: class B" in said
    assert "loaders: does not race" in said
    admitted = command._entered(matrix, Race(admitted="B", budget_s=1.0))
    assert [one.name for one in admitted.variants] == ["eager", "compile", "bf16"]
