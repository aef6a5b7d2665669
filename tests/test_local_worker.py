"""The parent's side of a worker: small programs in its place, each dead, silent or babbling in its own way."""

import os
import signal
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from group_kit import make_spec

from mnist_bench.errors import Interrupted, WorkerError
from mnist_bench.records import CompileOptions, Variant
from mnist_bench.running import process
from mnist_bench.running.process import MALLOC, Interrupts, LocalWorker, worker_environment
from mnist_bench.running.protocol import Block, BlockDone, Failed

# argv: requests, replies, lifeline, scratch. Under the real guardian, as the worker is.
PRELUDE = """
import os, signal, sys, time
from mnist_bench.running import guardian
requests, replies, lifeline = map(int, sys.argv[1:4])
guardian.split(lifeline, (requests, replies), sys.argv[4])
def say(text):
    os.write(replies, text)
def done(steps):
    say(b'{"type": "block_done", "steps": %d, "seconds": 0.5}\\n' % steps)
os.read(requests, 65536)
"""
HANGS_S = 100.0  # however busy the machine is


@pytest.fixture
def interrupts():
    with Interrupts() as made:
        yield made


@pytest.fixture
def start(tmp_path, interrupts, monkeypatch):
    """Starts ``code`` in a worker's place, after it has read the first request."""
    started: list[LocalWorker] = []

    def begin(code: str, timeout_s: float = 20.0) -> LocalWorker:
        program = PRELUDE + textwrap.dedent(code)

        def command(worker: LocalWorker, requests: int, replies: int, lifeline: int) -> list[str]:
            return [sys.executable, "-c", program, *map(str, (requests, replies, lifeline)), worker._scratch]

        monkeypatch.setattr(LocalWorker, "_command", command)
        monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path))
        started.append(LocalWorker(make_spec(), tmp_path / "worker.log", os.environ, timeout_s, interrupts))
        return started[-1]

    yield begin
    for worker in started:
        worker.kill()
        assert not psutil.pid_exists(worker.pid)
    assert not list(tmp_path.glob("mnist-bench-*"))  # the scratch folders


def test_a_reply_is_read_and_its_time_counted_from_the_start(start):
    worker = start(
        """
        time.sleep(0.2); done(1); os.read(requests, 65536); time.sleep(0.2); done(2); os.read(requests, 65536)
        for byte in b'{"type": "session_ended", "step_times": null}\\n': say(bytes([byte]))
        """
    )
    assert worker.call(Block(seed=1)) == BlockDone(steps=1, seconds=0.5)
    first = worker.token_ns
    assert first >= 200_000_000
    time.sleep(0.3)  # the token is not its own
    begin = time.perf_counter_ns()
    assert worker.call(Block(seed=2)) == BlockDone(steps=2, seconds=0.5)
    assert 190_000_000 < worker.token_ns - first <= time.perf_counter_ns() - begin
    assert worker.call(Block(seed=3)).type == "session_ended"  # in pieces


@pytest.mark.parametrize(("rest", "exits"), [("time.sleep(0.3)", True), ("time.sleep(1000)", False)])
def test_close_waits_for_the_end_and_ends_one_that_lingers(rest, exits, start, monkeypatch):
    monkeypatch.setattr(process, "EXIT_SECONDS", 20 if exits else 0.5)
    worker = start(f"done(1); {rest}")
    worker.call(Block(seed=1))
    before = worker.token_ns
    waited = worker.close()
    assert worker.exited == exits
    assert worker.token_ns - before == waited >= (0 if exits else 500_000_000)
    assert not psutil.pid_exists(worker.pid)


LOG = "in block (log: worker.log)"
KILLED = "killed by SIGKILL in block; the kernel's out-of-memory killer, perhaps (log: worker.log)"
MEMORY = "out of memory in block: raise limits.memory_gib"
DEATHS = {
    "os._exit(7)": ("crashed", f"exited with 7 {LOG}"),
    "os.abort()": ("crashed", f"killed by SIGABRT {LOG}"),
    "print('rank 1 of 2: gone', flush=True); os._exit(128 + 9)": ("crashed", f"rank 1 of 2: {KILLED}"),
    "os.kill(os.getpid(), signal.SIGKILL)": ("crashed", KILLED),
    "print('std::bad_alloc'); sys.stdout.flush(); os.abort()": ("oom", MEMORY),
    "bytearray(1 << 62)": ("oom", MEMORY),
    "os.kill(os.getppid(), signal.SIGKILL); time.sleep(1000)": ("crashed", KILLED),  # the guardian; it goes too
}


@pytest.mark.parametrize("code", DEATHS, ids=range(len(DEATHS)))
def test_every_death_is_told(code, start):
    kind, reason = DEATHS[code]
    assert start(code).call(Block(seed=1)) == Failed(kind=kind, reason=reason)


def test_one_that_died_before_it_was_asked(start):
    worker = start("done(1)")
    worker.call(Block(seed=1))
    worker._process.wait(10)
    assert worker.call(Block(seed=2)) == Failed(kind="crashed", reason=f"exited with 0 {LOG}")


BABBLE = {
    "say(b'\\xff\\n'); time.sleep(1000)": "the worker broke the protocol: ",
    "while True: say(b'x' * 65536)": "killed by SIGKILL in block",
}


@pytest.mark.parametrize("babble", BABBLE)
def test_one_that_breaks_the_protocol_is_ended(babble, start, monkeypatch):
    monkeypatch.setattr(process, "DEATH_SECONDS", 0.2)
    begin, worker = time.monotonic(), start(babble)
    assert worker.call(Block(seed=1)).reason.startswith(BABBLE[babble])
    assert not psutil.pid_exists(worker.pid)
    assert time.monotonic() - begin < HANGS_S


def test_the_time_limit_is_over_all_calls_and_half_an_answer_is_none(start):
    answers = "for _ in range(2): time.sleep(2); done(1); os.read(requests, 65536)"
    worker = start(f"{answers}\nsay(b'{{\"type\": '); time.sleep(1000)", timeout_s=5.0)
    replies = [worker.call(Block(seed=number)).type for number in range(3)]
    assert (replies[0], replies[-1]) == ("block_done", "failed")


def test_an_interrupt_wakes_the_wait(start, interrupts):
    worker = start("time.sleep(1000)")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        worker.call(Block(seed=1))
    assert time.monotonic() - begin < HANGS_S
    assert interrupts.requested
    with pytest.raises(Interrupted):  # and no other is begun
        start("done(1)").call(Block(seed=1))


def test_the_environment_is_the_parents_but_for_what_is_the_trials_own():
    spec, theirs = make_spec(), {"PATH": "/bin", "OMP_NUM_THREADS": "64", "TORCHINDUCTOR_CACHE_DIR": "/home"}
    found = worker_environment({**theirs, "PYTORCH_ENABLE_MPS_FALLBACK": "1", "MALLOC_TRIM_THRESHOLD_": "1"}, spec, "")
    assert found["PATH"] == "/bin"
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "1"
    assert found["TORCHINDUCTOR_CACHE_DIR"] != "/home"
    assert found["PYTORCH_ENABLE_MPS_FALLBACK"] == "0"  # what MPS lacks is never computed on the CPU
    assert found["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert "CUBLAS_WORKSPACE_CONFIG" not in found
    free = worker_environment({}, replace(spec, variant=Variant(name="free", deterministic=True)), "/own")
    assert "OMP_NUM_THREADS" not in free
    kept = replace(spec, variant=Variant(name="kept", execution="compile", compile=CompileOptions(cache="warm")))
    home, names = {**theirs, "XDG_CACHE_HOME": "/own"}, ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    folders = [f"/own/mnist_bench/compiled/{name}" for name in ("inductor", "triton")]
    of_a_race = replace(spec, cache_dir="/race")
    assert [worker_environment(theirs, of_a_race, "/own")[name] for name in names] == ["/race/inductor", "/race/triton"]
    assert [worker_environment(home, kept, "/own")[name] for name in names] == folders
    assert worker_environment(home, replace(kept, side="A"), "/own")[names[0]] == "/home"  # the side's own
    assert worker_environment(home, replace(spec, side="A"), "/own")[names[0]] == "/own/inductor"
    assert free.items() >= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTORCH_ENABLE_MPS_FALLBACK": "0", **MALLOC}.items()


def test_a_worker_that_cannot_be_started_leaves_nothing(tmp_path, interrupts, monkeypatch):
    monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path))
    before = len([*Path("/dev/fd").iterdir()])
    (tmp_path / "link.log").symlink_to("elsewhere")
    for log, python in (("gone/worker.log", ""), ("link.log", ""), ("worker.log", "no-python")):
        monkeypatch.setattr(process.sys, "executable", python or sys.executable)
        with pytest.raises(WorkerError, match=f"its worker cannot be started: .*{python}"):
            LocalWorker(make_spec(), tmp_path / log, os.environ, 1.0, interrupts)
    assert len([*Path("/dev/fd").iterdir()]) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.log", "worker.log"]


@pytest.mark.parametrize(
    "code",
    [
        'say(b\'{"type": "failed", "kind": "failed", "reason": "OSError: [Errno 28] No space left on device"}\\n\')',
        "print('OSError: [Errno 28] No space left on device', flush=True); os._exit(1)",
    ],
)
def test_a_full_disk_is_no_fault_of_the_model(code, start, tmp_path):
    with pytest.raises(WorkerError, match="the disk is full"):
        start(code).call(Block(seed=1))
    again = start("os._exit(7)")  # what an earlier attempt printed says nothing of this one
    assert again.call(Block(seed=1)) == Failed(kind="crashed", reason=f"exited with 7 {LOG}")
