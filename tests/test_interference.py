"""What else the machine did: pure comparisons of readings made up, and files of a /proc and /sys made up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mnist_bench import interference
from mnist_bench.interference import Reading, compare, foreign_gpu_processes, read

CALM = Reading(at_s=100.0, busy_s=50.0, steal_s=1.0, own_s=20.0, pressure_s=3.0, load_1min=0.5, throttled=7)


def after(seconds: float, **more: float) -> Reading:
    """A reading ``seconds`` later; ``more``: by how much counters rose (``load_1min``: what it then is)."""
    values = {name: getattr(CALM, name) + more.get(name, 0) for name in ("busy_s", "steal_s", "own_s", "pressure_s")}
    throttled = int(7 + more.get("throttled", 0))
    return Reading(at_s=100.0 + seconds, throttled=throttled, load_1min=more.get("load_1min", 0.5), **values)


def test_a_machine_of_our_own_is_not_noisy() -> None:
    found, noisy = compare(CALM, after(10.0, busy_s=20.0, own_s=19.9, pressure_s=1.0), cores=2)
    assert noisy == ()
    assert found == pytest.approx(
        {"span_s": 10.0, "steal": 0.0, "others": 0.005, "load_1min": 0.5, "cpu_pressure": 0.1, "throttled": 0.0}
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"steal_s": 1.0}, "the hypervisor took 5% of the cores' time"),
        ({"busy_s": 14.0, "own_s": 10.0}, "other processes used 20% of the cores' time"),
        ({"throttled": 3}, "the processor throttled 3 times"),
    ],
)
def test_every_disturbance_is_said(more: dict[str, float], words: str) -> None:
    assert compare(CALM, after(10.0, **more), cores=2)[1] == (words,)


def test_all_disturbances_are_said_at_once() -> None:
    _, noisy = compare(CALM, after(10.0, steal_s=4.0, busy_s=4.0, throttled=1), cores=2)
    assert len(noisy) == 3


@pytest.mark.parametrize(("steal_s", "busy_s"), [(0.39, 0.0), (0.0, 0.99)])
def test_a_little_is_no_noise(steal_s: float, busy_s: float) -> None:
    assert compare(CALM, after(10.0, steal_s=steal_s, busy_s=busy_s), cores=2)[1] == ()


def test_the_same_disturbance_weighs_less_on_more_cores() -> None:
    assert compare(CALM, after(10.0, busy_s=2.0), cores=2)[1]
    assert not compare(CALM, after(10.0, busy_s=2.0), cores=64)[1]


def test_a_short_span_says_nothing_of_ticks() -> None:
    found, noisy = compare(CALM, after(0.1, steal_s=0.1, busy_s=0.1), cores=2)
    assert noisy == ()
    assert found["steal"] == pytest.approx(0.5)  # kept all the same
    assert compare(CALM, after(0.1, throttled=1), cores=2)[1] == ("the processor throttled 1 times",)


def test_counters_that_run_backwards_are_no_negative_time() -> None:
    """Our own trees lose what their ended members had used; steal is known to step back."""
    found, noisy = compare(CALM, after(10.0, own_s=5.0, steal_s=-1.0), cores=2)
    assert (found["others"], found["steal"], noisy) == (0.0, 0.0, ())


def test_no_time_at_all_divides_by_nothing() -> None:
    found, noisy = compare(CALM, CALM, cores=2)
    assert noisy == ()
    assert found["others"] == found["steal"] == found["cpu_pressure"] == 0.0


def test_what_the_system_does_not_keep_is_left_out() -> None:
    bare = replace(CALM, pressure_s=None, throttled=None)
    found, _ = compare(bare, after(10.0), cores=2)
    assert "cpu_pressure" not in found
    assert "throttled" not in found


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_the_kernel(tmp_path: Path) -> None:
    proc, system = tmp_path / "proc", tmp_path / "sys"
    (proc / "pressure").mkdir(parents=True)
    (proc / "pressure" / "cpu").write_text(
        "some avg10=0.00 avg60=0.10 avg300=0.05 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    )
    for core, count in ((0, 3), (1, 4)):
        folder = system / "devices/system/cpu" / f"cpu{core}" / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")
    reading = read((), proc=proc, sys=system)
    assert (reading.pressure_s, reading.throttled) == (2.5, 7)
    assert reading.busy_s > 0
    assert reading.own_s > 0
    assert reading.load_1min >= 0


def test_a_system_without_them(tmp_path: Path) -> None:
    reading = read((), proc=tmp_path, sys=tmp_path)
    assert (reading.pressure_s, reading.throttled) == (None, None)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text("some avg10=0.00\n")
    assert read((), proc=tmp_path, sys=tmp_path).pressure_s is None


BURN = "import time, sys\nwhile time.process_time() < 0.5: pass\nprint('burnt', flush=True)\nsys.stdin.read()"


def test_a_trials_processes_are_our_own() -> None:
    before = read((os.getpid(),))
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "burnt\n"
        with_child, without = read((child.pid,)), read(())
        assert with_child.own_s - without.own_s >= 0.4
        assert with_child.own_s - before.own_s >= 0.4 - before.own_s
        child.communicate()


def test_a_process_that_is_gone_counts_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert read((child.pid,)).own_s < read(()).own_s + 1.0


def test_instants_are_of_one_clock() -> None:
    first = read(())
    time.sleep(0.02)
    assert 0.02 <= read(()).at_s - first.at_s < 5


# ── other users of a GPU ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("", ()), ("41\n42\n", (41, 42)), (f"{os.getpid()}\n43\n", (43,)), ("[N/A]\n", ())],
    ids=["nobody", "others", "ourselves too", "unknown"],
)
def test_foreign_processes(printed: str, expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[0] == "nvidia-smi"
        return subprocess.CompletedProcess(command, 0, stdout=printed)

    monkeypatch.setattr(interference.subprocess, "run", fake)
    assert foreign_gpu_processes((os.getpid(),)) == expected


def test_what_this_process_has_started_is_not_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        printed = subprocess.CompletedProcess([], 0, stdout=f"{child.pid}\n43\n")
        monkeypatch.setattr(interference.subprocess, "run", lambda *_, **__: printed)
        assert foreign_gpu_processes((os.getpid(),)) == (43,)
        child.communicate(b"\n")


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 5)])
def test_no_answer_is_no_process(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(command: list[str], **_: object) -> None:
        raise error

    monkeypatch.setattr(interference.subprocess, "run", fake)
    assert foreign_gpu_processes((1,)) == ()
