"""A group from its first worker to its last, with workers made up: order, skips, failures, and that none survives."""

import threading
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from group_kit import CALM, PREPARED, Scene, Script, answers, make_spec, play
from msgspec import structs

from mnist_bench.errors import Interrupted
from mnist_bench.records import CompileOptions, Extras, Failure, ImageSets, Measurement, Skip
from mnist_bench.running import group, protocol
from mnist_bench.running.protocol import (
    Block,
    BlockDone,
    EndSession,
    Evaluate,
    Evaluated,
    Failed,
    Finish,
    Open,
    Prepare,
)

EAGER, COMPILE, PLAIN = make_spec(), make_spec(variant="compile"), make_spec(variant="tutorial")
CUDA = [make_spec("cuda", variant) for variant in ("eager", "compile")]
NO_GPU = "torch sees no GPU: check the driver"


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch):
    """One core: workers start in their order."""
    monkeypatch.setattr(group.noise, "read", lambda pids: CALM)
    monkeypatch.setattr(group.environment, "available_cores", lambda: 1)
    monkeypatch.setattr(group.noise, "foreign_gpu_processes", lambda: ())


# ── the usual course ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_are_alive_for_the_session_and_trained_one_by_one():
    scene = play([EAGER, COMPILE, PLAIN])
    verbs, names = zip(*(line.split(" ") for line in scene.log), strict=True)
    assert verbs[:9] == ("launch", "open") * 3 + ("prepare",) * 3
    first = verbs.index("train_epoch")
    assert set(verbs[9 : first - 3]) == {"block"}
    assert verbs[first - 3 : first] == ("end_session",) * 3
    each = ("train_epoch", "evaluate", "train_epoch", "evaluate", "finish", "close", "kill")
    assert verbs[first:] == each * 3
    assert all(len({*names[start : start + 7]}) == 1 for start in range(first, len(names), 7))
    assert [type(each).__name__ for each in scene.results] == ["Session", "Trial", "Trial", "Trial"]
    assert scene.survivors == set()


@pytest.mark.parametrize("train", [True, False])
def test_as_many_open_their_data_at_once_as_there_are_cores(monkeypatch, train):
    """Two of four, however long: a barrier lets each on when another is there, and counts."""
    monkeypatch.setattr(group.environment, "available_cores", lambda: 2)
    both, inside, most = threading.Barrier(2), [], []

    def script(request: protocol.Request, number: int) -> None:
        if isinstance(request, Open):
            inside.append(request.spec.id)
            most.append(len(inside))
            both.wait(30)
            inside.remove(request.spec.id)
        assert isinstance(request, Open) or not inside  # all that is timed comes after

    specs = [EAGER, COMPILE, PLAIN, make_spec(variant="channels-last")]
    scene = play(specs, {spec.id: script for spec in specs}, train=train)
    assert max(most) == 2
    assert [len(session.members) for session in scene.sessions] == [4]


def test_results_are_made_of_what_the_workers_said():
    scene = play([EAGER, COMPILE])
    (session,), outcome = scene.sessions, scene.outcomes[EAGER.id]
    assert (session.group, session.members, session.paired) == ("mlp/b100/s0", (EAGER.id, COMPILE.id), True)
    assert set(session.steps) == set(session.members)
    assert (session.stopped, len(session.rounds)) == ("budget", 4)  # 4 s of token, a second a block
    assert all(each.steps == (10, 10) for each in session.rounds)
    epochs = outcome.epochs
    assert (epochs.train_s, epochs.loader_s, epochs.loss) == ((1.0, 1.0), (0.125, 0.125), (1.0, 0.5))
    assert (epochs.eval_s, epochs.accuracy) == ((0.5, 0.5), (0.95, 0.95))
    assert (outcome.train_samples, outcome.eval_samples) == (120_000, 20_000)
    assert outcome.awake_s == outcome.token_s == pytest.approx(sum(outcome.phases.values()))
    assert outcome.total_s == pytest.approx(outcome.awake_s - 2.0)
    assert outcome.phases["teardown"] == 0.5
    assert (outcome.marks, outcome.noisy, outcome.final) == ((), (), None)
    assert (outcome.parameters, outcome.class_, outcome.loss_trace) == (623_290, "A", (2.3, 2.2))
    assert (outcome.host_peak_bytes, outcome.order_sha256, outcome.numerics) == (1 << 30, "e" * 64, {"threads": 1})
    assert len(scene.lines("evaluate")) == 2 * EAGER.epochs


@pytest.mark.parametrize(("recipe", "train", "test"), [("standard", 0.99, 0.95), ("tutorial", 0.95, 0.99)])
def test_the_final_weights_are_scored_on_both_sets(recipe, train, test):
    """Once, after the last epoch; the recipe's own set is the one that every epoch scores."""
    other = Evaluated(seconds=9.0, correct=990, samples=1_000, predictions_sha256="0" * 64)
    spec = replace(EAGER, recipe=recipe, score_both=True)
    scene = play([spec], {spec.id: answers(Evaluate, other, at=2)}, budget_s=0.0)
    outcome = scene.outcomes[spec.id]
    assert outcome.final == ImageSets(train=train, test=test)
    assert (outcome.epochs.eval_s, outcome.eval_samples) == ((0.5, 0.5), 20_000)
    assert (outcome.predictions_sha256, outcome.marks) == ("f" * 64, ())
    assert scene.lines("evaluate", "finish") == [f"evaluate {spec.id}"] * 3 + [f"finish {spec.id}"]


def test_extras_are_no_part_of_the_total_and_energy_is_that_of_the_epochs(monkeypatch):
    scene, extras, meter = Scene(), Extras(kernels=7.0), MagicMock(joules=12.5)
    meter.__enter__.side_effect = meter.__exit__.side_effect = lambda *_: scene.log.append("read")

    def script(request: protocol.Request, number: int) -> protocol.Reply | None:
        if isinstance(request, Prepare):
            return structs.replace(PREPARED, gpu="GPU-1")
        if not isinstance(request, Finish):
            return None
        done = scene.workers[EAGER.id].finished()
        return structs.replace(done, phases=done.phases | {"extras": 0.75}, extras=extras, missed=("no latency",))

    monkeypatch.setattr(group, "Meter", Mock(return_value=meter))
    outcome = scene.play([EAGER], {EAGER.id: script}).outcomes[EAGER.id]
    group.Meter.assert_called_once_with("cpu", "GPU-1")  # type: ignore[attr-defined]
    assert (outcome.energy_j, outcome.extras) == (12.5, extras)
    assert outcome.marks[0] == "no latency"
    assert outcome.total_s == pytest.approx(outcome.awake_s - 2.0 - 0.75)
    around = [scene.log[n - 1 : n + 2] for n, line in enumerate(scene.log) if line.startswith("train_epoch")]
    assert around == [["read", f"train_epoch {EAGER.id}", "read"]] * 2


@pytest.mark.parametrize(("said_s", "believed"), [(60.0, True), (49.0, True), (46.0, False), (62.0, False)])
def test_an_epoch_that_the_runners_clock_does_not_know_fails_the_trial(said_s, believed):
    """A plug-in may replace what its process's clock says, but not how long the runner waits."""
    scene = Scene()

    def script(request: protocol.Request, number: int) -> protocol.Reply | None:
        if not isinstance(request, protocol.TrainEpoch):
            return None
        scene.workers[EAGER.id].token_ns += 59 * 10**9  # a minute, with the second that every request costs
        return protocol.EpochDone(seconds=said_s, loader_s=0.0, loss=0.5, samples=60_000)

    outcome = scene.play([EAGER], {EAGER.id: script}).outcomes[EAGER.id]
    assert isinstance(outcome, Measurement) == believed
    words = f"epoch 1 took {said_s:.2f} s by the worker's clock and 60.00 s by the runner's"
    assert believed or outcome.reason.startswith(words)


@pytest.mark.parametrize(
    ("changes", "sessions"),
    [
        ({"timed": frozenset({EAGER.id, COMPILE.id, PLAIN.id})}, []),
        ({"timed": frozenset({EAGER.id})}, [(COMPILE.id, PLAIN.id)]),
        ({"budget_s": 0.0}, []),
        ({"together": False}, [(EAGER.id,), (COMPILE.id,), (PLAIN.id,)]),
        ({}, [(EAGER.id, COMPILE.id), (PLAIN.id,)]),
    ],
)
def test_who_is_timed_with_whom(changes, sessions):
    """Each without a session yet, together where they can pair; all are trained, from their restored states."""
    alone = structs.replace(PREPARED, pairable=False)  # it has loader processes
    scripts = {} if changes else {PLAIN.id: answers(Prepare, alone)}
    scene = play([EAGER, COMPILE, PLAIN], scripts, **changes)
    assert [session.members for session in scene.sessions] == sessions
    assert [session.paired for session in scene.sessions] == [len(members) > 1 for members in sessions]
    assert len(scene.lines("end_session")) == 3
    assert all(isinstance(outcome, Measurement) for outcome in scene.outcomes.values())
    apart = scene.log.index(f"kill {EAGER.id}") < scene.log.index(f"launch {COMPILE.id}")
    assert apart == ("together" in changes)


# ── what this machine cannot do ──────────────────────────────────────────────────────────────────────────────────────


def gone(*specs: Any, scope: Any = "device", reason: str = NO_GPU) -> dict[str, Script]:
    return {spec.id: answers(Prepare, protocol.Unavailable(scope=scope, reason=reason)) for spec in specs}


@pytest.mark.parametrize(
    ("strict", "outcome"),
    [(False, Skip(reason=NO_GPU)), (True, Failure(kind="failed", reason=f"{NO_GPU} (--strict-devices)"))],
)
def test_a_missing_device_is_asked_once(strict, outcome):
    missing: dict[str, str] = {}
    scene = play([EAGER, *CUDA], gone(*CUDA), unavailable=missing, strict_devices=strict)
    assert [scene.outcomes[spec.id] for spec in CUDA] == [outcome] * 2
    assert isinstance(scene.outcomes[EAGER.id], Measurement)
    assert scene.lines("prepare") == [f"prepare {EAGER.id}", f"prepare {CUDA[0].id}"]
    assert scene.survivors == set()
    later = play([CUDA[0], make_spec("cuda:1")], unavailable=missing)  # another group of the same run, another GPU
    assert later.outcomes[CUDA[0].id] == Skip(reason=NO_GPU)
    assert later.lines("launch") == ["launch mlp/cuda:1/b100/eager/s0"]


def test_a_missing_compiler_spares_the_other_variants():
    scene = play([COMPILE, EAGER, COMPILE], gone(COMPILE, scope="variant", reason="no g++"))
    assert scene.outcomes[COMPILE.id] == Skip(reason="no g++")
    assert isinstance(scene.outcomes[EAGER.id], Measurement)
    assert len(scene.lines("prepare")) == 2


def test_a_cold_cache_is_filled_by_a_process_that_does_no_more():
    """What the trial says is the second process's, which is asked for its figures whether it is cold or not."""
    warm = replace(COMPILE, variant=replace(COMPILE.variant, execution="compile", compile=CompileOptions(cache="warm")))
    asked: list[Prepare] = []

    def script(request: protocol.Request, number: int) -> protocol.Reply | None:
        if not isinstance(request, Prepare):
            return None
        asked.append(request)
        return protocol.Filled() if request.fill else None

    scene = play([EAGER, warm], {warm.id: script})
    assert [request.fill for request in asked] == [True, False]
    verbs = ("prepare", "kill", "launch", "open", "prepare")
    assert scene.lines("launch", "open", "prepare", "kill")[5:10] == [f"{verb} {warm.id}" for verb in verbs]
    assert all(isinstance(outcome, Measurement) for outcome in scene.outcomes.values())
    assert scene.outcomes[warm.id].token_s < scene.outcomes[EAGER.id].token_s + 1
    assert scene.survivors == set()


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "at"), [(Block, 2), (EndSession, 0), (protocol.TrainEpoch, 1), (Evaluate, 0), (Evaluate, 2), (Finish, 0)]
)
def test_one_that_fails_leaves_the_session_and_the_training_to_the_others(kind, at):
    spec, reply = replace(EAGER, score_both=True), Failed(kind="oom", reason="raise limits.memory_gib")
    scene = play([spec, COMPILE, PLAIN], {spec.id: answers(kind, reply, at)})
    assert scene.outcomes[spec.id] == Failure(kind="oom", reason=reply.reason)
    assert isinstance(scene.outcomes[COMPILE.id], Measurement)
    assert scene.survivors == set()
    (session,) = scene.sessions
    assert session.members == (spec.id, COMPILE.id, PLAIN.id)
    assert [each.steps[0] for each in session.rounds] == ([10, 10, 0, 0] if kind is Block else [10] * 4)
    assert all(each.steps[1:] == (10, 10) for each in session.rounds)
    assert (spec.id in session.steps) == (kind not in (Block, EndSession))
    assert (f"end_session {spec.id}" in scene.log) == (kind is not Block)
    assert (f"train_epoch {spec.id}" in scene.log) == (kind not in (Block, EndSession))


@pytest.mark.parametrize("kind", [Open, Prepare, Block, EndSession, protocol.TrainEpoch, Evaluate, Finish])
def test_an_answer_to_another_question_is_a_failure(kind):
    wrong: protocol.Reply = BlockDone(steps=1, seconds=0.1) if kind is not Block else PREPARED
    outcome = play([EAGER], {EAGER.id: answers(kind, wrong)}).outcomes[EAGER.id]
    assert outcome == Failure(kind="failed", reason=f"the worker broke the protocol: an unexpected {wrong.type}")


@pytest.mark.parametrize("error", [Interrupted("interrupted"), KeyboardInterrupt(), RuntimeError("a bug")])
@pytest.mark.parametrize(
    ("kind", "at"), [(Open, 0), (Prepare, 0), (Block, 1), (EndSession, 0), (protocol.TrainEpoch, 0), (Finish, 0)]
)
def test_no_worker_survives_an_exception(kind, at, error):
    scene = Scene()
    with pytest.raises(type(error)):
        scene.play([EAGER, COMPILE, PLAIN], {COMPILE.id: answers(kind, error, at)})
    assert len(scene.workers) >= 2
    assert scene.survivors == set()


def test_no_worker_survives_a_reader_that_goes_away():
    scene = Scene()
    results = scene.stream([EAGER, COMPILE])
    next(results)
    assert len(scene.survivors) == 2
    results.close()
    assert scene.survivors == set()


# ── doubts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "exited", "marks"),
    [
        ({"phases_s": 9.0}, True, ("the phases add up to 9.50 s of 12.50 s awake",)),
        ({"awake_s": 11.0}, True, ("the worker was awake 11.50 s by its own clock, 12.50 s by the runner's",)),
        ({"awake_s": 11.8, "phases_s": 11.85}, True, ()),  # two per cent are allowed
        ({}, False, ("the worker did not exit by itself",)),
    ],
)
def test_doubts_about_a_trials_own_clocks_are_marked(said, exited, marks):
    scene = Scene()

    def script(request: protocol.Request, number: int) -> protocol.Reply | None:
        worker = scene.workers[EAGER.id]
        worker.exited = exited
        return worker.finished(**said) if isinstance(request, Finish) else None

    assert scene.play([EAGER], {EAGER.id: script}).outcomes[EAGER.id].marks == marks


def test_disturbances_are_said_once(monkeypatch):
    """Processes of ours are all below this one: while one is trained, the others of the group are on the GPU too."""
    words = "other processes used 20% of the cores' time"
    monkeypatch.setattr(group.noise, "compare", lambda before, after, cores: ({"others": 0.2}, (words,)))
    monkeypatch.setattr(group.noise, "foreign_gpu_processes", lambda: (4711,))
    scene = play([EAGER, *CUDA])
    assert scene.outcomes[EAGER.id].noisy == scene.sessions[0].noisy == (words,)
    assert scene.outcomes[EAGER.id].interference == {"others": 0.2}
    assert all(scene.outcomes[spec.id].noisy == (words, "1 other processes were on the GPU") for spec in CUDA)


@pytest.mark.parametrize(
    ("reference", "pairs"), [("eager", {(0, 1), (2, 3), (0, 2), (1, 3)}), (None, {(0, 2), (1, 3)})]
)
def test_ratios_are_against_the_reference_and_the_cpu(monkeypatch, reference, pairs):
    asked: list[Any] = []
    original = group.time_session
    monkeypatch.setattr(group, "time_session", lambda *a, **b: (asked.append(b["pairs"]), original(*a, **b))[1])
    play([EAGER, COMPILE, *CUDA], reference=reference)  # 0 cpu/eager, 1 cpu/compile, 2 cuda/eager, 3 cuda/compile
    assert set(asked[0]) == pairs
