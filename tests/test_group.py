"""A group from its first worker to its last, with workers made up: order, skips, failures, and that none survives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from group_kit import PREPARED, Scene, Script, make_spec, play, stream
from msgspec import structs

from mnist_bench.errors import Interrupted
from mnist_bench.machine import noise
from mnist_bench.records import Failure, ImageSets, Measurement, Skip
from mnist_bench.run import group
from mnist_bench.run.protocol import (
    Block,
    BlockDone,
    EndSession,
    EpochDone,
    Evaluate,
    Evaluated,
    Failed,
    Finish,
    Prepare,
    Reply,
    Request,
    TrainEpoch,
    Unavailable,
)

EAGER, COMPILE, PLAIN = make_spec(), make_spec(variant="compile"), make_spec(variant="tutorial")
CUDA = [make_spec("cuda", variant) for variant in ("eager", "compile")]
NO_GPU = "torch sees no GPU: check the driver"


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = noise.Counters(at_s=0.0, busy_s=0.0, steal_s=0.0, own_s=0.0, pressure_s=0.0, load_1min=0.0, throttled=None)
    monkeypatch.setattr(group.noise, "read", lambda pids: calm)
    monkeypatch.setattr(group.noise, "foreign_gpu_processes", lambda: ())


def answers(kind: type, reply: Reply | BaseException, at: int = 0) -> Script:
    """A worker that answers the ``at``-th request of a kind in its own way."""
    return lambda request, number: reply if isinstance(request, kind) and number == at else None


def lines(scene: Scene, *verbs: str) -> list[str]:
    return [line for line in scene.log if line.partition(" ")[0] in verbs]


# ── the usual course ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_are_alive_for_the_session_and_trained_one_by_one() -> None:
    scene = play([EAGER, COMPILE, PLAIN])
    verbs = [line.partition(" ")[0] for line in scene.log]
    assert verbs[:6] == ["launch", "prepare"] * 3
    session = verbs[6 : verbs.index("train_epoch")]
    assert set(session) == {"block", "end_session"}
    assert session[-3:] == ["end_session"] * 3
    training = scene.log[verbs.index("train_epoch") :]
    each = ["train_epoch", "evaluate", "train_epoch", "evaluate", "finish", "close", "kill"]
    assert [line.partition(" ")[0] for line in training] == each * 3
    for start in (0, 7, 14):
        assert len({line.partition(" ")[2] for line in training[start : start + 7]}) == 1
    assert [type(each).__name__ for each in scene.results] == ["Session", "Trial", "Trial", "Trial"]
    assert scene.survivors == set()


def test_the_session_stands_as_it_was() -> None:
    (session,) = play([EAGER, COMPILE]).sessions
    assert session.group == "mlp/b100/s0"
    assert session.members == (EAGER.id, COMPILE.id)
    assert session.paired
    assert set(session.steps) == set(session.members)
    assert session.stopped == "budget"  # 4 s of token, a second a block
    assert len(session.rounds) == 4
    assert all(each.steps == (10, 10) for each in session.rounds)


def test_the_measurement_is_made_of_what_the_worker_said() -> None:
    outcome = play([EAGER]).findings[EAGER.id]
    assert isinstance(outcome, Measurement)
    assert outcome.epochs.train_s == (1.0, 1.0)
    assert outcome.epochs.loader_s == (0.125, 0.125)
    assert outcome.epochs.loss == (1.0, 0.5)
    assert outcome.epochs.accuracy == (0.95, 0.95)
    assert (outcome.train_samples, outcome.eval_samples) == (120_000, 20_000)
    assert outcome.awake_s == outcome.token_s == pytest.approx(sum(outcome.phases.values()))
    assert outcome.total_s == pytest.approx(outcome.awake_s - 2.0)
    assert outcome.phases["teardown"] == 0.5
    assert (outcome.marks, outcome.noisy) == ((), ())
    assert (outcome.parameters, outcome.class_, outcome.time_to_first_step_s) == (623_290, "A", 1.5)


@pytest.mark.parametrize(("recipe", "train", "test"), [("standard", 0.99, 0.95), ("tutorial", 0.95, 0.99)])
def test_the_final_weights_are_scored_on_both_sets(recipe: Any, train: float, test: float) -> None:
    """Once, after the last epoch; the recipe's own set is the one that every epoch scores."""
    other = Evaluated(seconds=9.0, correct=990, samples=1_000, predictions_sha256="0" * 64)
    spec = replace(EAGER, recipe=recipe, score_both=True)
    scene = play([spec], {spec.id: answers(Evaluate, other, at=2)}, budget_s=0.0)
    outcome = scene.findings[spec.id]
    assert isinstance(outcome, Measurement)
    assert outcome.final == ImageSets(train=train, test=test)
    assert (outcome.epochs.eval_s, outcome.eval_samples) == ((0.5, 0.5), 20_000)
    assert (outcome.predictions_sha256, outcome.marks) == ("f" * 64, ())
    assert lines(scene, "evaluate", "finish") == [f"evaluate {spec.id}"] * 3 + [f"finish {spec.id}"]


def test_the_other_set_is_scored_only_where_asked_for() -> None:
    scene = play([EAGER])
    assert scene.findings[EAGER.id].final is None
    assert len(lines(scene, "evaluate")) == EAGER.epochs


def test_the_other_set_that_cannot_be_scored_fails_the_trial() -> None:
    spec = replace(EAGER, score_both=True)
    reply = Failed(kind="oom", reason="too large")
    scene = play([spec], {spec.id: answers(Evaluate, reply, at=2)})
    assert scene.findings[spec.id] == Failure(kind="oom", reason="too large")
    assert scene.survivors == set()


def test_what_is_told_comes_between_the_spans() -> None:
    scene = play([EAGER], budget_s=30.0)
    told = [event for event in scene.events if event[0] != "detail"]
    assert told == [("stage", "preparing"), ("stage", "timing"), ("session", "mlp/b100/s0"), ("stage", "training")]
    details = [event[1:] for event in scene.events if event[0] == "detail"]
    assert details[0][0].startswith("round 16, known to ±0.0%, ")
    assert details[-2:] == [
        ("epoch 1/2: 60,000 samples/s, loss 1.0000, accuracy 0.9500", 0.5),
        ("epoch 2/2: 60,000 samples/s, loss 0.5000, accuracy 0.9500", 1.0),
    ]


@pytest.mark.parametrize(("said_s", "believed"), [(60.0, True), (49.0, True), (46.0, False), (62.0, False)])
def test_an_epoch_that_the_runners_clock_does_not_know_fails_the_trial(said_s: float, believed: bool) -> None:
    """A plug-in may replace what its process's clock says, but not how long the runner waits."""

    def script(scene: Scene) -> Script:
        def train(request: Request, number: int) -> Reply | None:
            if not isinstance(request, TrainEpoch):
                return None
            scene.workers[EAGER.id].token_ns += 59 * 10**9  # a minute, with the second that every request costs
            return EpochDone(seconds=said_s, loader_s=0.0, loss=0.5, samples=60_000)

        return train

    scene = Scene()
    outcome = play([EAGER], {EAGER.id: script(scene)}, scene=scene).findings[EAGER.id]
    assert isinstance(outcome, Measurement) == believed
    if isinstance(outcome, Failure):
        assert outcome.reason.startswith(
            f"epoch 1 took {said_s:.2f} s by the worker's clock and 60.00 s by the runner's"
        )


def test_trials_with_a_session_are_trained_only() -> None:
    scene = play([EAGER, COMPILE], timed=frozenset({EAGER.id, COMPILE.id}))
    assert not scene.sessions
    assert not lines(scene, "block")
    assert sorted(lines(scene, "end_session")) == [f"end_session {COMPILE.id}", f"end_session {EAGER.id}"]
    assert all(isinstance(outcome, Measurement) for outcome in scene.findings.values())
    (session,) = play([EAGER, COMPILE, PLAIN], timed=frozenset({EAGER.id})).sessions
    assert session.members == (COMPILE.id, PLAIN.id)


def test_no_budget_no_session() -> None:
    scene = play([EAGER, COMPILE], budget_s=0.0)
    assert not scene.sessions
    assert isinstance(scene.findings[EAGER.id], Measurement)


def test_apart_each_trial_is_done_before_the_next_begins() -> None:
    scene = play([EAGER, COMPILE], together=False)
    assert [session.members for session in scene.sessions] == [(EAGER.id,), (COMPILE.id,)]
    assert not any(session.paired for session in scene.sessions)
    assert scene.log.index(f"kill {EAGER.id}") < scene.log.index(f"launch {COMPILE.id}")


def test_a_trial_with_loader_processes_has_a_session_of_its_own() -> None:
    alone = structs.replace(PREPARED, pairable=False)
    scene = play([EAGER, PLAIN, COMPILE], {PLAIN.id: answers(Prepare, alone)})
    assert [session.members for session in scene.sessions] == [(EAGER.id, COMPILE.id), (PLAIN.id,)]
    assert [session.paired for session in scene.sessions] == [True, False]


# ── what this machine cannot do ──────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_device_is_asked_once() -> None:
    missing: dict[str, str] = {}
    gone = {spec.id: answers(Prepare, Unavailable(scope="device", reason=NO_GPU)) for spec in CUDA}
    scene = play([EAGER, *CUDA], gone, unavailable=missing)
    assert [scene.findings[spec.id] for spec in CUDA] == [Skip(reason=NO_GPU)] * 2
    assert isinstance(scene.findings[EAGER.id], Measurement)
    assert lines(scene, "launch") == [f"launch {EAGER.id}", f"launch {CUDA[0].id}"]
    assert scene.survivors == set()
    later = play([CUDA[0]], unavailable=missing)  # another group of the same run
    assert later.findings == {CUDA[0].id: Skip(reason=NO_GPU)}
    assert later.log == []


def test_a_missing_compiler_spares_the_other_variants() -> None:
    reply = Unavailable(scope="compile", reason="no g++")
    scene = play([COMPILE, EAGER, COMPILE], {COMPILE.id: answers(Prepare, reply)})
    assert scene.findings[COMPILE.id] == Skip(reason="no g++")
    assert isinstance(scene.findings[EAGER.id], Measurement)
    assert len(lines(scene, "launch")) == 2


def test_another_device_of_that_kind_is_asked_for_itself() -> None:
    scene = play([make_spec("cuda:1"), make_spec("cuda:0")], unavailable={"cuda:1": NO_GPU})
    assert lines(scene, "launch") == ["launch mlp/cuda:0/b100/eager/s0"]


def test_strict_devices_make_it_a_failure() -> None:
    gone = {CUDA[0].id: answers(Prepare, Unavailable(scope="device", reason=NO_GPU))}
    scene = play(CUDA, gone, strict_devices=True)
    failure = Failure(kind="failed", reason=f"{NO_GPU} (--strict-devices)")
    assert list(scene.findings.values()) == [failure, failure]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

OOM = Failed(kind="oom", reason="out of memory: raise limits.memory_gib")


def test_one_that_cannot_prepare_leaves_before_the_session() -> None:
    scene = play([EAGER, COMPILE, PLAIN], {COMPILE.id: answers(Prepare, Failed(kind="compile_error", reason="no"))})
    assert scene.results[0].outcome == Failure(kind="compile_error", reason="no")  # type: ignore[union-attr]
    assert scene.log.index(f"kill {COMPILE.id}") < scene.log.index(f"launch {PLAIN.id}")
    assert scene.sessions[0].members == (EAGER.id, PLAIN.id)


def test_one_that_fails_in_a_block_leaves_the_session_to_the_others() -> None:
    scene = play([EAGER, COMPILE, PLAIN], {EAGER.id: answers(Block, OOM, at=2)})
    (session,) = scene.sessions
    assert session.members == (EAGER.id, COMPILE.id, PLAIN.id)
    assert [each.steps[0] for each in session.rounds] == [10, 10, 0, 0]
    assert all(each.steps[1:] == (10, 10) for each in session.rounds)
    assert set(session.steps) == {COMPILE.id, PLAIN.id}
    assert scene.findings[EAGER.id] == Failure(kind="oom", reason=OOM.reason)
    assert isinstance(scene.findings[COMPILE.id], Measurement)
    assert f"end_session {EAGER.id}" not in scene.log
    assert f"train_epoch {EAGER.id}" not in scene.log


@pytest.mark.parametrize(("kind", "at"), [(EndSession, 0), (TrainEpoch, 1), (Evaluate, 0), (Finish, 0)])
def test_one_that_fails_later_leaves_the_others_alone(kind: type, at: int) -> None:
    reply = Failed(kind="diverged", reason="the loss is nan")
    scene = play([EAGER, COMPILE], {EAGER.id: answers(kind, reply, at)})
    assert scene.findings[EAGER.id] == Failure(kind="diverged", reason="the loss is nan")
    assert isinstance(scene.findings[COMPILE.id], Measurement)
    assert scene.survivors == set()


@pytest.mark.parametrize("kind", [Prepare, Block, EndSession, TrainEpoch, Evaluate, Finish])
def test_an_answer_to_another_question_is_a_failure(kind: type) -> None:
    wrong: Reply = BlockDone(steps=1, seconds=0.1) if kind is not Block else PREPARED
    scene = play([EAGER], {EAGER.id: answers(kind, wrong)})
    outcome = scene.findings[EAGER.id]
    assert isinstance(outcome, Failure)
    assert outcome.kind == "failed"
    assert outcome.reason == f"the worker broke the protocol: an unexpected {wrong.type}"


@pytest.mark.parametrize("error", [Interrupted("interrupted"), KeyboardInterrupt(), RuntimeError("a bug")])
@pytest.mark.parametrize(("kind", "at"), [(Prepare, 0), (Block, 1), (EndSession, 0), (TrainEpoch, 0), (Finish, 0)])
def test_no_worker_survives_an_exception(kind: type, at: int, error: BaseException) -> None:
    scene = Scene()
    with pytest.raises(type(error)):
        play([EAGER, COMPILE, PLAIN], {COMPILE.id: answers(kind, error, at)}, scene=scene)
    assert len(scene.workers) >= 2
    assert scene.survivors == set()


def test_no_worker_survives_a_reader_that_goes_away() -> None:
    scene = Scene()
    results = stream([EAGER, COMPILE], None, scene)
    next(results)
    assert len(scene.survivors) == 2
    results.close()  # type: ignore[attr-defined]
    assert scene.survivors == set()


# ── doubts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def marks_when(change: Callable[[Scene], Script]) -> tuple[str, ...]:
    scene = Scene()
    outcome = play([EAGER], {EAGER.id: change(scene)}, scene=scene).findings[EAGER.id]
    assert isinstance(outcome, Measurement)
    return outcome.marks


def finishing(scene: Scene, **disagreement: float) -> Script:
    def script(request: Request, number: int) -> Reply | None:
        return scene.workers[EAGER.id].finished(**disagreement) if isinstance(request, Finish) else None

    return script


def test_phases_that_do_not_add_up_are_marked() -> None:
    (mark,) = marks_when(lambda scene: finishing(scene, phases_s=9.0))
    assert mark == "the phases add up to 9.50 s of 11.50 s awake"


def test_clocks_that_disagree_are_marked() -> None:
    (mark,) = marks_when(lambda scene: finishing(scene, awake_s=10.0))
    assert mark == "the worker was awake 10.50 s by its own clock, 11.50 s by the runner's"


def test_two_per_cent_are_allowed() -> None:
    assert marks_when(lambda scene: finishing(scene, awake_s=10.8, phases_s=10.85)) == ()


def test_a_worker_that_had_to_be_ended_is_marked() -> None:
    def script(scene: Scene) -> Script:
        def lingering(request: Request, number: int) -> None:
            scene.workers[EAGER.id].exited = not isinstance(request, Finish)

        return lingering

    assert marks_when(script) == ("the worker did not exit by itself",)


def test_disturbances_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("other processes used 20% of the cores' time",)
    monkeypatch.setattr(group.noise, "compare", lambda before, after, cores: ({"others": 0.2}, words))
    scene = play([EAGER])
    assert scene.findings[EAGER.id].noisy == words
    assert scene.findings[EAGER.id].interference == {"others": 0.2}
    assert scene.sessions[0].noisy == words


def test_others_on_the_gpu_make_a_trial_noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are all below this process: while one is trained, the others of the group are on the GPU too."""
    monkeypatch.setattr(group.noise, "foreign_gpu_processes", lambda: (4711,))
    scene = play([EAGER, *CUDA])
    assert all(scene.findings[spec.id].noisy == ("1 other processes were on the GPU",) for spec in CUDA)
    assert scene.findings[EAGER.id].noisy == ()


# ── which ratios ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ratios_are_against_the_reference_and_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Any] = []
    original = group.time_session

    def spy(*members: Any, pairs: Any, **rest: Any) -> Any:
        plans.append(pairs)
        return original(*members, pairs=pairs, **rest)

    monkeypatch.setattr(group, "time_session", spy)
    play([EAGER, COMPILE, *CUDA])  # 0 cpu/eager, 1 cpu/compile, 2 cuda/eager, 3 cuda/compile
    assert set(plans[0]) == {(0, 1), (2, 3), (0, 2), (1, 3)}
    play([EAGER, COMPILE], reference=None)
    assert plans[1] == []
