"""The verbs of ``data``, beside what the golden transcripts show of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_bench.cli import main
from mnist_bench.data.mnist import SUMS_FILE
from mnist_bench.data.synthetic import cached_root

pytestmark = pytest.mark.usefixtures("world")


def test_fetch_says_what_it_did_on_stdout_and_what_it_does_on_stderr(world, server, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_BENCH_MIRROR", server.url("good"))
    for count in (4, 0):
        assert main(["data", "fetch"]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[0] == f"{world.raw}:"
        assert (out.count(" ok"), err.count("downloading")) == (4, count)


def test_verify_of_a_synthetic_set_needs_its_sums(world, capsys):
    sums = cached_root(0, world.environ) / "MNIST" / SUMS_FILE
    assert main(["data", "synthesize"]) == main(["data", "verify", "--dataset", "synthetic"]) == 0
    sums.unlink()
    assert main(["data", "verify", "--dataset", "synthetic"]) == 2
    assert f"{sums}: missing or incomplete: nothing to check the set against" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_fetch_that_is_ended_ends_at_once_and_leaves_nothing(world, server, number):
    environ = {**os.environ, "MNIST_BENCH_MIRROR": server.url("trickle")}
    command = [sys.executable, "-m", "mnist_bench", "data", "fetch"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert server.asked
    assert process.returncode == 130
    assert "Traceback" not in err
    assert world.files() == []


@pytest.mark.parametrize(
    ("words", "made"), [("data synthesize --data-dir set", "set/MNIST/raw"), ("doctor", "tmp/mnist-bench-doctor-*/*")]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(tmp_path, words, made, number):
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "mnist_bench", *words.split()]
    environ = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any(tmp_path.glob(made)):
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=100)
    assert (process.returncode, err.splitlines()[-1]) == (130, "mnist-bench: interrupted")
    assert not any(tmp_path.glob(made))
    assert not any((tmp_path / "tmp").iterdir())
