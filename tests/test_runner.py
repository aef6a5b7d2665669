"""A run with workers made up: what is left after each way to end, and that its bookkeeping does not grow."""

import errno
import os
import signal
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import group_kit
import pytest
from group_kit import CALM, FakeWorker, Script, answers, usual
from record_factory import make_manifest, make_matrix

from mnist_bench import cells
from mnist_bench.disk import files, folder
from mnist_bench.errors import BenchError, DataError, Interrupted, WorkerError
from mnist_bench.machine.forecast import Host
from mnist_bench.records import BUILTIN_VARIANTS, Matrix, RunOptions, TrialSpec, Variant
from mnist_bench.running import group, runner
from mnist_bench.running.group import Observer
from mnist_bench.running.protocol import Failed, Prepare, Request, TrainEpoch

EAGER = (BUILTIN_VARIANTS["eager"],)


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    """No data set is looked at, and no machine."""
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    monkeypatch.setattr(group.noise, "read", lambda pids: CALM)


def planned(results: Path, matrix: Matrix | None = None, **options: Any) -> runner.RunPlan:
    """Of a matrix, else of one cell and two seeds."""
    return group_kit.planned(results, matrix or make_matrix(seeds=(0, 1), variants=EAGER), RunOptions(), **options)


def execute(plan: runner.RunPlan, script: Script = usual, observer: Observer | None = None) -> Any:
    return runner.execute(plan, observer or Observer(), {}, lambda spec: FakeWorker(spec, script))  # type: ignore[arg-type,return-value]


def again(plan: runner.RunPlan, script: Script = usual) -> Any:
    return execute(runner.resume(plan.folder, plan.options), script)


def files_of(plan: runner.RunPlan) -> list[bytes]:
    return [(plan.folder.path / name).read_bytes() for name in ("trials.jsonl", "results.csv")]


def test_a_run_ends_with_its_tables_and_is_not_begun_anew(tmp_path, monkeypatch):
    plan = planned(tmp_path, make_matrix(seeds=(0, 1)))
    run = execute(plan)
    assert (run.manifest.status, len(run.trials), len(run.sessions)) == ("complete", 4, 2)
    before = files_of(plan)

    with monkeypatch.context() as patch:
        patch.setattr(runner.data, "verify", Mock(side_effect=DataError("gone")))  # a finished run needs no data set
        assert again(plan, lambda request, number: pytest.fail("measured again")).trials == run.trials
        assert files_of(plan) == before
        lines = before[0].splitlines(keepends=True)
        (plan.folder.path / "trials.jsonl").write_bytes(lines[0])
        with pytest.raises(DataError):
            again(plan)
    assert plan.folder.manifest().status == "complete"  # as it was: nothing has begun
    assert again(plan).sessions == run.sessions  # what has been timed is trained only


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        (Interrupted("interrupted"), None, "interrupted"),
        (WorkerError("the disk is full"), BenchError, "stopped"),
        (OSError(errno.ENOSPC, "No space left on device"), BenchError, "stopped"),
        (KeyboardInterrupt(), KeyboardInterrupt, "stopped"),
        (RuntimeError("a bug"), RuntimeError, "stopped"),
    ],
)
def test_no_end_leaves_a_run_running(tmp_path, error, raised, status):
    plan, prepared = planned(tmp_path), []

    def second_fails(request: Request, number: int) -> BaseException | None:
        prepared.extend([request] if isinstance(request, Prepare) else [])
        return error if len(prepared) == 2 else None

    if raised is None:
        assert len(execute(plan, second_fails).trials) == 1
        assert b"mlp" in files_of(plan)[1]
    else:
        with pytest.raises(raised, match="1 of 2 trials are kept" if raised is BenchError else None):
            execute(plan, second_fails)
    assert plan.folder.manifest().status == status
    assert len(again(plan).trials) == 2


def test_a_line_that_does_not_fit_the_disk_is_not_a_finished_trial(tmp_path, monkeypatch):
    plan = planned(tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "append_line", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(BenchError, match=r"No space left .* 0 of 2 trials"):
            execute(plan)
    assert plan.folder.trials() == ()
    assert again(plan).manifest.status == "complete"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_between_two_trials(tmp_path, number):
    run = execute(planned(tmp_path), observer=Mock(finished=lambda trial: os.kill(os.getpid(), number)))
    assert (run.manifest.status, len(run.trials)) == ("interrupted", 1)


def test_the_second_signal_leaves_its_word(tmp_path):
    plan = planned(tmp_path)
    if (child := os.fork()) == 0:

        def twice(request: Request, number: int) -> None:
            if isinstance(request, Prepare):
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(60)

        execute(plan, twice)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert plan.folder.manifest().status == "interrupted"


def test_fail_fast_stops_at_the_first_failure(tmp_path):
    plan = planned(tmp_path, fail_fast=True)
    run = execute(plan, answers(TrainEpoch, Failed(kind="failed", reason="mine")))
    assert (run.manifest.status, [trial.status for trial in run.trials]) == ("stopped", ["failed"])


def test_only_trials_that_will_live_count_for_memory(tmp_path, monkeypatch):
    """Two of four are on a GPU that is not here: with memory for two they are timed together."""
    host = Host(platform="linux", torch_version="2.10.0+cpu", find_program=lambda name: name, environ={})
    monkeypatch.setattr(runner, "this_host", lambda: host)
    monkeypatch.setattr(runner, "WORKER_BYTES", make_manifest().environment.memory_bytes // 2)

    memory, observer = Mock(available=make_manifest().environment.memory_bytes), Mock()
    monkeypatch.setattr(runner.psutil, "virtual_memory", lambda: memory)
    variants = (*EAGER, Variant(name="plain", fused_optimizer=False))
    plan = planned(tmp_path, make_matrix(devices=("cpu", "cuda"), variants=variants, seeds=(0,)))
    assert runner.fits(plan.groups, plan.manifest, observer)
    memory.available = 1
    assert not runner.fits(plan.groups, plan.manifest, observer)
    assert observer.notice.call_args.args[0].startswith("2 live trials need about")


def test_a_run_without_a_reference_says_so(tmp_path):
    others = (Variant(name="plain", fused_optimizer=False), Variant(name="nhwc", channels_last=True))
    for variants, said in ((others, [cells.NO_REFERENCE]), ((*EAGER, *others), []), (others[:1], [])):
        observer, results = Mock(), tmp_path / variants[0].name / str(len(variants))
        execute(planned(results, make_matrix(variants=variants)), observer=observer)
        assert [call.args[0] for call in observer.notice.call_args_list if "reference" in call.args[0]] == said


def test_the_first_seed_of_a_cell_measures_the_extras(tmp_path):
    plan = planned(tmp_path, make_matrix(seeds=(7, 0), variants=EAGER))
    assert {spec.seed: spec.extras for spec in plan.specs} == {7: True, 0: False}


def test_a_link_where_samples_go_is_removed_not_followed(tmp_path, monkeypatch):
    plan = planned(tmp_path / "results", make_matrix(seeds=(0,), variants=EAGER))
    (spec,) = plan.specs
    samples = Path(spec.samples_path)
    samples.symlink_to(tmp_path / "elsewhere")
    assert samples.parent == plan.folder.path.resolve() / "samples"
    started: list[TrialSpec] = []
    monkeypatch.setattr(runner, "LocalWorker", lambda spec, *_: (started.append(spec), FakeWorker(spec))[1])
    runner.execute(plan, Observer(), {})
    assert started == [spec]
    assert not samples.is_symlink()


def test_the_bookkeeping_of_a_trial_does_not_grow(tmp_path, monkeypatch):
    """5,000 trials: the last 500 cost what the first 500 did, in bytes written, files read and records made."""
    work = Counter[str]()

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            work[name] += len(arguments[1]) if name == "write" else 1
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for owner, name in ((os, "write"), (folder.msgspec, "to_builtins")):
        counted(owner, name)
    for name in ("read_regular", "read_lines", "write_atomically"):
        counted(files, name)
    counts: list[Counter[str]] = []

    matrix = make_matrix(batch_sizes=tuple(range(1, 51)), variants=EAGER, seeds=tuple(range(100)))
    matrix = replace(matrix, timing=replace(matrix.timing, budget_seconds=0.001))
    run = execute(planned(tmp_path, matrix), observer=Mock(finished=lambda trial: counts.append(Counter(work))))
    assert len(run.trials) == len(counts) == 5000
    first, last = (counts[end] - counts[begin] for begin, end in ((0, 500), (-501, -1)))
    assert first["write"] > 0
    assert first["to_builtins"] > 0
    for what in {*first, *last}:
        assert last[what] <= 1.2 * first[what], (what, first, last)
    assert last["write_atomically"] == last["read_regular"] == last["read_lines"] == 0


# ── cells on several machines ────────────────────────────────────────────────────────────────────────────────────────

APART = tuple(Variant(name=name, processes=4, nodes=2) for name in ("apart", "again"))


def test_trials_on_several_machines_that_are_live_together_meet_at_ports_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.environment, "available_cores", lambda: 6)
    plan = planned(tmp_path, make_matrix(seeds=(0, 1), variants=(*EAGER, *APART)), rendezvous="here:29400")
    meet = ["", "here:29400", "here:29401"]
    assert [[spec.rendezvous for spec in each.specs] for each in plan.groups] == [meet, meet]
    assert [spec.variant.threads for spec in plan.groups[0].specs] == [6, 3, 3]


def test_without_an_address_they_are_skipped(tmp_path):
    run = execute(planned(tmp_path, make_matrix(seeds=(0,), variants=(*EAGER, *APART[:1]))))
    found = {trial.cell.variant: getattr(trial.outcome, "reason", "ok") for trial in run.trials}
    why = "apart: on 2 machines, skipped without --rendezvous HOST:PORT, an address of this machine where they meet"
    assert found == {"eager": "ok", "apart": why}
