"""One cell on several machines: here each is a launcher of its own on loopback, as `mnist-bench join` starts it."""

import os
import signal
import socket
import sys
from dataclasses import replace

import psutil
import pytest
from test_ranks import through
from torch.distributed import TCPStore
from worker_kit import LINEAR, carry_out, make_spec, write_plugin

from mnist_bench.errors import DataError, TrialError
from mnist_bench.records import encode
from mnist_bench.running import protocol
from mnist_bench.running.process import Interrupts, LocalWorker
from mnist_bench.running.protocol import PROTOCOL_VERSION, Failed
from mnist_bench.worker.launcher import Call, Machine, _gathered
from mnist_bench.worker.loop import Waterfall, clock
from mnist_bench.worker.ranks import Ranks
from mnist_bench.worker.trial import LiveTrial

HERE = socket.gethostname()


@pytest.fixture
def place():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def joiner(place, tmp_path):
    """Another machine. Afterwards nothing of it is left, however it ends."""
    with (tmp_path / "joiner").open("w") as log:
        command = [sys.executable, "-m", "mnist_bench", "join", place]
        other = psutil.Popen(command, stdout=log, stderr=log)
        yield other
        tree = other.children(recursive=True) if other.is_running() else []
        other.terminate()
        assert psutil.wait_procs([other, *tree], timeout=60)[1] == []


@pytest.fixture
def start(place, tmp_path):
    """Starts a worker of two processes, which has opened its data."""
    made: list[LocalWorker] = []

    def begin(data, model="mlp", **settings):
        where = {"rendezvous": place, "join_seconds": 60.0} if "nodes" in settings else {}
        spec = make_spec(data, model, processes=2, batch_size=50, plugin_path=str(tmp_path), **where, **settings)
        made.append(LocalWorker(spec, tmp_path / "log", os.environ, 60.0, interrupts))
        assert made[-1].call(protocol.Open(spec=spec)) == protocol.Opened()
        return made[-1]

    with Interrupts() as interrupts:
        yield begin
        for worker in made:
            worker.kill()


def ranks_of(process):
    return [one for one in process.children(recursive=True) if "RANK" in one.environ()]


@pytest.mark.usefixtures("hasty")
def test_two_machines_train_as_one_process(tiny, start, joiner):
    alone = carry_out(make_spec(tiny, batch_size=50))
    apart = start(tiny, nodes=2)
    assert len(ranks_of(psutil.Process(apart.pid))) == len(ranks_of(joiner)) == 1
    done = through(apart)
    assert done.ready.loss_trace == pytest.approx(alone.ready.loss_trace, rel=1e-4)
    assert (done.trained.loss, done.finished.order_sha256) == (pytest.approx(alone.trained.loss, rel=1e-3), alone.order)
    assert (done.finished.numerics["nodes"], done.exited) == (f"{HERE} + {HERE}", True)


@pytest.mark.bars
def test_it_makes_no_difference_where_the_processes_are(tiny, start, joiner):
    together, apart = (through(start(tiny, **on)) for on in ({}, {"nodes": 2}))
    assert (apart.ready.loss_trace, apart.trained.loss) == (together.ready.loss_trace, together.trained.loss)
    assert apart.scored.predictions_sha256 == together.scored.predictions_sha256
    assert "nodes" not in together.finished.numerics


def test_a_machine_that_dies_is_named(tiny, start, joiner):
    apart = start(tiny, nodes=2)
    theirs = joiner.children(recursive=True)
    joiner.kill()
    assert psutil.wait_procs(theirs, timeout=60)[1] == []
    reply = apart.call(protocol.Prepare())
    assert (reply.kind, reply.reason.partition(":")[0]) == ("crashed", f"{HERE} is gone")


@pytest.mark.bars
def test_what_fails_elsewhere_is_told_here_and_the_machine_joins_the_next_trial(tiny, tmp_path, start, joiner):
    write_plugin(tmp_path, "one_sided", LINEAR + "\n    import os\n    1 // (1 - int(os.environ['RANK']))\n")
    reply = start(tiny, "one_sided:build", nodes=2).call(protocol.Prepare())
    assert reply.reason.startswith(f"rank 1 on {HERE}: ZeroDivisionError: ")
    killed = start(tiny, nodes=2)
    ranks_of(joiner)[0].kill()
    reason = f"rank 1 of 2 on {HERE}: killed by SIGKILL"
    assert killed.call(protocol.Prepare()) == Failed(kind="crashed", reason=reason)
    left = start(tiny, nodes=2)
    processes = [*ranks_of(joiner), *psutil.Process(left.pid).children(recursive=True)]
    os.kill(left.pid, signal.SIGKILL)  # the run's machine is gone
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    start(tiny, nodes=2)


def test_nobody_comes(tiny, tmp_path, place):
    spec = make_spec(tiny, processes=2, nodes=2, rendezvous=place, join_seconds=0.5)
    with Interrupts() as interrupts:
        worker = LocalWorker(spec, tmp_path / "log", os.environ, 60.0, interrupts)
        reply = worker.call(protocol.Open(spec=spec))
    mend = f"start `mnist-bench join {place}` on another"
    assert reply == Failed(kind="failed", reason=f"{place}: 1 of 2 machines after 0.5 s ({HERE}): {mend}")


def test_a_machine_with_other_software_is_refused(place):
    host, port = place.split(":")
    store = TCPStore(host, int(port), is_master=True, wait_for_workers=False, multi_tenant=True)
    store.set("1", encode(Machine("other", "a CPU", "torch 1.0")))
    with pytest.raises(TrialError, match=rf"other has torch 1.0, and {HERE} has torch \d.*: install the same on both"):
        _gathered(Call(cell="mlp", nodes=2, each=1, wait_s=9.0, environ={}), place)


def test_each_machine_finds_the_same_data_set(tiny, tiniest, monkeypatch):
    moved = make_spec(replace(tiny, root="/nowhere"))
    trial = LiveTrial(Waterfall(clock, clock()), Ranks(1, 2, 0, node=1))
    monkeypatch.setenv("MNIST_BENCH_DATA", tiny.root)
    assert trial.open(moved, PROTOCOL_VERSION) == protocol.Opened()
    monkeypatch.setenv("MNIST_BENCH_DATA", tiniest.root)
    with pytest.raises(DataError, match="not the data set that was checked at the start"):
        trial.open(moved, PROTOCOL_VERSION)
