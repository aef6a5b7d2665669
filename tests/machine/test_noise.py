"""What else the machine does: made-up counters, a made-up /proc and /sys; and one run at a time, the others wait."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnist_bench.errors import UsageError
from mnist_bench.machine import noise
from mnist_bench.machine.noise import Counters, alone, compare, foreign_gpu_processes, read

CALM = Counters(at_s=100.0, busy_s=50.0, steal_s=1.0, own_s=20.0, pressure_s=3.0, load_1min=0.5, throttled=7)


def after(seconds: float, **more: float) -> Counters:
    """The counters ``seconds`` later; ``more``: by how much they rose."""
    values = {name: getattr(CALM, name) + rise for name, rise in more.items()}
    return replace(CALM, at_s=CALM.at_s + seconds, **values)


def test_a_machine_of_our_own_is_not_noisy():
    found, noisy = compare(CALM, after(10.0, busy_s=20.0, own_s=19.9, pressure_s=1.0), cores=2)
    assert noisy == ()
    assert found == pytest.approx(
        {"span_s": 10.0, "steal": 0.0, "others": 0.005, "load_1min": 0.5, "cpu_pressure": 0.1, "throttled": 0.0}
    )


@pytest.mark.parametrize(
    ("later", "cores", "words"),
    [
        (after(10.0, steal_s=1.0), 2, ["the hypervisor took 5% of the cores' time"]),
        (after(10.0, busy_s=14.0, own_s=10.0), 2, ["other processes used 20% of the cores' time"]),
        (after(10.0, busy_s=2.0), 64, []),
        (after(10.0, throttled=3), 2, ["the processor throttled 3 times"]),
        (after(10.0, steal_s=4.0, busy_s=4.0, throttled=1), 2, ["throttled 1", "took 20%", "used 20%"]),
        (after(10.0, steal_s=0.39), 2, []),
        (after(10.0, busy_s=0.99), 2, []),
        (after(0.1, steal_s=0.1, busy_s=0.1), 2, []),  # too short for ticks of 10 ms
        (after(0.1, throttled=1), 2, ["throttled 1 times"]),
        # Our own trees lose what their ended members had used; steal is known to step back.
        (after(10.0, own_s=5.0, steal_s=-1.0), 2, []),
        (CALM, 2, []),  # no time at all
    ],
)
def test_disturbances_are_said(later, cores, words):
    found, noisy = compare(CALM, later, cores)
    assert len(noisy) == len(words)
    assert all(word in said for word, said in zip(words, noisy, strict=True))
    assert min(found.values()) >= 0


def test_what_a_short_span_had_is_kept_and_what_the_system_does_not_keep_is_left_out():
    assert compare(CALM, after(0.1, steal_s=0.1), cores=2)[0]["steal"] == pytest.approx(0.5)
    found, _ = compare(replace(CALM, pressure_s=None, throttled=None), after(10.0), cores=2)
    assert not found.keys() & {"cpu_pressure", "throttled"}


def test_files_of_the_kernel(tmp_path):
    assert (read((), tmp_path).pressure_s, read((), tmp_path).throttled) == (None, None)
    pressure = tmp_path / "proc/pressure/cpu"
    pressure.parent.mkdir(parents=True)
    pressure.write_text("some avg10=0.00 avg60=0.10 total=2500000\nfull avg10=0.00 avg60=0.00 total=7\n")
    for core, count in ((0, 3), (1, 4)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")
    found = read((), tmp_path)
    assert (found.pressure_s, found.throttled) == (2.5, 7)
    assert min(found.busy_s, found.own_s) > 0
    pressure.write_text("some avg10=0.00\n")
    assert read((), tmp_path).pressure_s is None


def test_a_trials_processes_are_our_own():
    burn = "import time, sys\nwhile time.process_time() < 0.5: pass\nprint('burnt', flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"burnt\n"
        assert read((child.pid,)).own_s - read(()).own_s >= 0.4
        child.communicate()
    assert read((child.pid,)).own_s - read(()).own_s < 0.1, "a process that is gone counts nothing"


@pytest.mark.parametrize(
    ("printed", "expected"), [(None, ()), ("41\n42\n", (41, 42)), ("OURS\n43\n", (43,)), ("[N/A]\n", ())]
)
def test_others_on_the_gpu(printed, expected, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        said = printed and f"{printed.replace('OURS', str(os.getpid()))}{child.pid}\n"  # ours, on the GPU too
        monkeypatch.setattr(noise.environment, "run_command", lambda *_: said)
        assert foreign_gpu_processes() == expected
        child.communicate(b"\n")


HOLD = (
    "from mnist_bench.machine.noise import alone\n"
    "with alone(wait=False, tell=print):\n    print('held', flush=True)\n    input()"
)


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """Another run, which ends at a line of input."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_no_wait_says_whose_run_it_is(holder):
    told = rf"another run .* \(process {holder.pid} in {Path.cwd()}, since \d+-\d+-\d+ \d+:\d+\), and --no-wait"
    with pytest.raises(UsageError, match=told), alone(wait=False, tell=print):
        pass


def test_a_waiter_is_told_and_goes_on_when_the_other_has_ended(holder):
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        holder.kill()  # not even a kill leaves the lock behind

    with alone(wait=True, tell=tell):
        assert f"process {holder.pid}" in said[0]
    with alone(wait=False, tell=tell):
        assert len(said) == 1


def test_another_machine_that_shares_the_home_is_not_waited_for(holder, monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="other"))
    with alone(wait=False, tell=print):
        assert holder.poll() is None


def test_where_there_is_no_place_for_the_lock_a_run_goes_on_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # root may write to any folder, and nobody below a file
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    with alone(wait=False, tell=said.append):
        assert said == [
            f"warning: {tmp_path}/file/mnist_bench/machine-{os.uname().nodename}.lock: Not a directory: runs are not "
            "kept apart; set XDG_CACHE_HOME to a folder that can be written"
        ]
