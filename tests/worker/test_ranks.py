"""One cell trained by several processes: torch's own launcher and gloo, for real, on the tiny set."""

import os
import random
import signal
import sys
import time
from argparse import Namespace
from typing import Any

import psutil
import pytest
import torch
from worker_kit import LINEAR, TRAIN, carry_out, make_spec, write_plugin

from mnist_bench.records import TrialSpec
from mnist_bench.running import protocol
from mnist_bench.running.process import Interrupts, LocalWorker
from mnist_bench.running.protocol import Failed, Opened
from mnist_bench.worker import ranks
from mnist_bench.worker.loop import Waterfall, clock
from mnist_bench.worker.process import on_random_core
from mnist_bench.worker.ranks import Ranks
from mnist_bench.worker.trial import LiveTrial


class Started:
    """A worker of several processes. ``tree``: its guardian, launcher and ranks.

    It has opened its data, unless ``early``: its ranks have just been started then (they import torch for seconds).
    """

    def __init__(self, spec: TrialSpec, log: Any, interrupts: Interrupts, *, early: bool) -> None:
        self.worker = LocalWorker(spec, log, {**os.environ, "OMP_NUM_THREADS": "1"}, 200.0, interrupts)
        self.opened = None if early else self.worker.call(protocol.Open(spec=self.worker.spec))
        guardian, ranks = psutil.Process(self.worker.pid), set[str | None]()
        while not ranks >= {"0", "1"}:
            time.sleep(0.05)
            self.tree = [guardian, *guardian.children(recursive=True)]
            ranks = {process.environ().get("RANK") for process in self.tree}

    def rank(self, number: int) -> psutil.Process:
        (found,) = (process for process in self.tree if process.environ().get("RANK") == str(number))
        return found


@pytest.fixture
def start(tmp_path):
    """Starts two ranks. Afterwards nothing of them is left."""
    made: list[Started] = []

    def begin(spec: TrialSpec, *, early: bool = False) -> Started:
        made.append(Started(spec, tmp_path / "log", interrupts, early=early))
        return made[-1]

    with Interrupts() as interrupts:
        yield begin
        for one in made:
            one.worker.kill()
            assert psutil.wait_procs(one.tree, timeout=60)[1] == []


def through(worker: LocalWorker) -> Namespace:
    """A whole trial."""
    ready = worker.call(protocol.Prepare())
    blocks = [worker.call(protocol.Block(seed=seed)) for seed in range(2)]
    ended = worker.call(protocol.EndSession())
    trained, scored = worker.call(protocol.TrainEpoch(epoch=0)), worker.call(protocol.Evaluate())
    finished = worker.call(protocol.Finish())
    worker.close()
    return Namespace(
        ready=ready, blocks=blocks, ended=ended, trained=trained, scored=scored, finished=finished, exited=worker.exited
    )


LOADED = {"pipeline": "tensors", "workers": 1}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("settings", [{}, pytest.param(LOADED, marks=pytest.mark.bars)], ids=["resident", "loaders"])
def test_two_ranks_train_as_one_process_with_the_same_batches(settings, tiny, tmp_path, start):
    same = {"batch_size": 64, "extras": not settings, "samples_path": str(tmp_path / "samples.npy"), **settings}
    alone = carry_out(make_spec(tiny, "lenet5", **same))  # 35 batches and one of 60
    (tmp_path / "samples.npy").unlink()
    two = start(make_spec(tiny, "lenet5", processes=2, **same))
    assert (two.opened, len(two.tree)) == (Opened(), 4)
    done = through(two.worker)
    assert done.ready.loss_trace == pytest.approx(alone.ready.loss_trace, rel=1e-4)
    assert (done.ready.class_, done.ready.pairable) == ("A", not settings)
    assert done.trained.loss == pytest.approx(alone.trained.loss, rel=1e-3)
    assert (done.trained.samples, done.finished.order_sha256) == (TRAIN, alone.order)
    assert done.scored.correct == pytest.approx(alone.scored.correct, abs=10)
    assert done.ended.step_times.count == sum(block.steps for block in done.blocks)
    said = done.finished
    assert sum(said.phases.values()) == pytest.approx(said.elapsed_s - said.asleep_s, rel=0.02)
    assert (said.numerics["processes"], said.numerics["threads"], done.exited) == (2, 1, True)
    assert (tmp_path / "samples.npy").exists()
    found = said.extras and (len(said.extras.rank_step_ms), len(said.extras.rank_alone_ms), said.missed)
    assert found == (None if settings else (2, 2, ()))
    assert said.host_peak_bytes > 2 * 200 << 20  # of all of them


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.bars), 1])
def test_a_rank_that_dies_is_named(rank, tiny, start):
    two = start(make_spec(tiny, "mlp", processes=2))
    two.rank(rank).kill()
    assert two.worker.call(protocol.Prepare()) == gone(rank, "prepare")


def test_a_rank_that_dies_before_it_can_speak_is_named(tiny, start):
    two = start(make_spec(tiny, "mlp", processes=2), early=True)
    two.rank(0).kill()
    assert two.worker.call(protocol.Open(spec=two.worker.spec)) == gone(0, "open")


def gone(rank: int, stage: str) -> Failed:
    hint = "; the kernel's out-of-memory killer, perhaps"
    return Failed(kind="crashed", reason=f"rank {rank} of 2: killed by SIGKILL in {stage}{hint} (log: log)")


@pytest.mark.bars
def test_an_error_of_one_rank_is_told_by_it(tiny, tmp_path, start):
    code = LINEAR + "\n    import os\n    limit = 1 // (1 - int(os.environ['RANK']))\n"
    write_plugin(tmp_path, "one_sided", code)
    reply = start(make_spec(tiny, "one_sided:build", processes=2, plugin_path=str(tmp_path))).worker.call(
        protocol.Prepare()
    )
    assert isinstance(reply, Failed)
    assert reply.kind == "failed"
    assert reply.reason.startswith("rank 1: ZeroDivisionError: ")


@pytest.mark.skipif(sys.platform != "linux", reason="this system ends no process with its parent")
def test_no_rank_outlives_the_guardian(tiny, start):
    two = start(make_spec(tiny, "mlp", processes=2), early=True)
    os.kill(two.worker.pid, signal.SIGKILL)
    assert psutil.wait_procs(two.tree[1:], timeout=60)[1] == []


# ── without processes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("count", "size"), [(2, 10), (3, 6), (4, 20), (1, 7)])
def test_shares_are_equal_and_make_up_each_batch(count, size):
    order = torch.randperm(5 * size + count)
    shares = [Ranks(rank, count).share(order, size) for rank in range(count)]
    assert {len(share) for share in shares} == {len(order) // count}
    for number, batch in enumerate(order.split(size)):
        own = [share.split(size // count)[number] for share in shares]
        assert torch.equal(torch.cat(own), batch)


def test_ranks_have_a_gpu_and_a_core_each():
    assert [Ranks(rank, 2, rank).device(name) for name in ("cpu", "cuda", "cuda:1") for rank in (0, 1)] == [
        *("cpu", "cpu"),
        *("cuda", "cuda:1"),
        *("cuda:1", "cuda:2"),
    ]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    held = set[int]()
    for rank in range(len(cores)):
        with on_random_core(random.Random(1), rank):
            held |= os.sched_getaffinity(0) if len(cores) > 1 else {*cores}
    assert held == {*cores}


def test_a_gpu_that_is_missing_to_another_rank_is_not_missing_to_all(tiny):
    for rank, scope in ((0, "device"), (1, "variant")):
        trial = LiveTrial(Waterfall(clock, clock()), Ranks(rank, 2, rank))
        trial.open(make_spec(tiny, device="cuda:98", processes=2), protocol.PROTOCOL_VERSION)
        assert trial._open_device().scope == scope
        assert trial._device.torch_device.index == 98 + rank


def test_an_error_waits_for_what_caused_it_elsewhere(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(ranks.time, "sleep", slept.append)
    error = Failed(kind="failed", reason="connection closed")
    told = [Ranks(rank, count).failure(error).reason for rank, count in ((0, 1), (0, 2), (1, 2))]
    assert told == ["connection closed", "connection closed", "rank 1: connection closed"]
    assert slept == [ranks.NOTICE_S, 2 * ranks.NOTICE_S]
    assert min(slept) > ranks.LOOK_S
