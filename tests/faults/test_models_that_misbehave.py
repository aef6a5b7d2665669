"""Models that do their worst, under the real program: each gets its status and a reason, the others run on."""

import os
import sys

import psutil
import pytest
from fault_kit import Bench

FAULTS = """
import atexit, ctypes, os, signal, subprocess, sys, threading, time
from functools import partial
import torch
from torch import nn

class Faulty(nn.Linear):
    def __init__(self, fault):
        super().__init__(784, 10)
        self.fault = fault

    def forward(self, images):
        logits = super().forward(images.flatten(1))
        return self.fault(logits) if self.training else logits


segfaults = partial(Faulty, lambda logits: ctypes.string_at(0))
leaves = partial(Faulty, lambda logits: os._exit(0))
raises = partial(Faulty, lambda logits: {}["lost"])
diverges = partial(Faulty, lambda logits: logits * float("nan"))
hangs = partial(Faulty, lambda logits: time.sleep(1000))
hangs_in_c = partial(Faulty, lambda logits: ctypes.PyDLL(None).sleep(1000))  # and holds the interpreter's lock

def hoards():
    hoard = []
    def more(logits):
        while True:
            hoard.append(torch.ones(64 << 20, dtype=torch.uint8))
    return Faulty(more)

def chatters():
    fake = '{"type": "block_done", "steps": 1, "seconds": 1e-9}\\n{"type": "failed"'
    for stream in (sys.stdout, sys.stderr):
        stream.write(fake + "\\n\\x1b[2J\\x00garbage\\n" * 1000)
        stream.flush()
    def chatter(logits):
        for descriptor in (1, 2):
            os.write(descriptor, b"\\xff\\xfe\\x00" + fake.encode())
        return logits
    return Faulty(chatter)

def lingers():
    threading.Thread(target=time.sleep, args=(1000,)).start()
    atexit.register(print, "its last word", end="")
    return good()

def daemonises():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open("DAEMON", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(1000)
        os._exit(0)
    os.wait()
    return good()
"""


def test_each_gets_its_status_and_the_others_run_on(bench):
    models = ["segfaults", "leaves", "raises", "diverges", "hoards", "chatters", "lingers", "daemonises", "good"]
    plugin = FAULTS.replace("DAEMON", str(bench.folder / "daemon.pid"))
    bench.write(
        plugin,
        models,
        variants="[eager, {name: unheard-of, execution: compile, compile: {backend: no_such_backend}}]",
        more="""
        exclude: [{variant: unheard-of}, {model: faulty.good}]  # the one that daemonises is as good
        include:
          - {model: faulty.good, device: cpu, batch_size: 20000, variant: unheard-of}
          - {model: lenet5, device: cpu, batch_size: 2000, variant: compile}
        """,
    )
    done = bench.run(environ=bench.environ(CXX="/bin/false"))
    assert done.returncode == 1, done
    trials = bench.by_model()
    expected = {
        "chatters": ("ok", ""),
        "daemonises": ("ok", ""),
        "lingers": ("ok", ""),
        "segfaults": ("crashed", "killed by SIGSEGV in prepare (log: "),
        "leaves": ("crashed", "exited with 0 in prepare (log: "),
        "raises": ("failed", f"KeyError: 'lost' ({bench.folder}/faulty.py:"),
        "diverges": ("diverged", "the mean training loss of epoch 1 is nan: lower the learning rate"),
        "hoards": ("oom", "memory"),
        "good/unheard-of": ("compile_error", "no_such_backend"),
        "lenet5/compile": ("compile_error", "InvalidCxxCompiler"),
    }
    assert trials.keys() == expected.keys()
    for name, trial in trials.items():
        status, words = expected[name]
        reason = trial["outcome"].get("reason", "")
        assert (trial["status"], words in reason) == (status, True), (name, trial["status"], reason)
        bench.log(trial)  # it is there, and may be empty
        assert status == "ok" or status in done.stdout
    for name in ("daemonises", "lingers"):
        assert trials[name]["outcome"]["marks"] == []  # its worker did exit by itself
    assert bench.log(trials["lingers"]) == "its last word"
    assert "Fatal Python error: Segmentation fault" in bench.log(trials["segfaults"])
    assert "Traceback" in bench.log(trials["raises"])
    assert "garbage" in bench.log(trials["chatters"])
    _nothing_is_left(bench)
    daemon = int((bench.folder / "daemon.pid").read_text())
    assert not psutil.pid_exists(daemon)
    assert bench.manifest()["status"] == "complete"


def test_hangs_end_at_their_time(bench):
    bench.write(FAULTS, ["hangs", "hangs_in_c"])
    done = bench.run("--timeout", "20")  # torch is imported in less
    assert done.returncode == 1, done
    for name, trial in bench.by_model().items():
        assert trial["status"] == "timeout", (name, trial)
        assert "no answer to prepare within the trial's 20 s: it hangs, or it is slow" in trial["outcome"]["reason"]
    _nothing_is_left(bench)


@pytest.mark.skipif(sys.platform == "darwin", reason="every name is Unicode there")
def test_a_folder_whose_name_is_no_unicode(bench):
    bench.folder = bench.folder / os.fsdecode(b"caf\xe9")
    bench.results = bench.folder / "results"
    bench.folder.mkdir()
    bench.write("", ["good"])
    done = bench.run()
    assert done.returncode == 0, done
    (trial,) = bench.trials()
    assert trial["status"] == "ok"
    assert bench.run("--resume", "latest").returncode == 0


def _nothing_is_left(bench: Bench) -> None:
    assert bench.alive() == []
    assert bench.left_in_temp() == []
    assert bench.left_in_results() == []
