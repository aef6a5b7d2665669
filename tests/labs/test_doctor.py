"""``doctor``: its checks on made-up machines, how it asks torch, and the whole of it as a user meets it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
from record_factory import make_manifest

from mnist_bench.analysis.ratios import PROCESS_SD, SessionRatio
from mnist_bench.catalogue import FILE_NAMES
from mnist_bench.cli import main
from mnist_bench.data.mnist import raw_folder
from mnist_bench.data.synthetic import write_set
from mnist_bench.labs import doctor
from mnist_bench.labs import facts as labs_facts
from mnist_bench.labs.doctor import CHECKS, diagnose
from mnist_bench.labs.facts import Facts, Noise, ask_torch
from mnist_bench.running.protocol import DeviceReport, ProbeFailure, TorchReport
from mnist_bench.stats import Interval
from mnist_bench.worker import probe

GIB = 1 << 30
NO_TORCH = ProbeFailure(kind="missing", detail="ModuleNotFoundError: No module named 'torch'", stage="import torch")
NO_CUDA = DeviceReport(name="cuda", missing="this torch is a CPU build")
GPU = DeviceReport(name="cuda:0", missing=None, description="NVIDIA H200, capability 9.0, CUDA 13.0")
DEAD_GPU = DeviceReport(name="cuda:0", missing="RuntimeError: no kernel image is available", description="NVIDIA H200")
CPU = DeviceReport(name="cpu", missing=None, description="x86_64 AVX2")
Usage = namedtuple("Usage", ["total", "free"])
# Of a quiet Linux machine without a GPU, of which nothing bad can be said.
DETAILS = {"architecture": "x86_64", "governor": "performance", "transparent_hugepages": "madvise"}
ENVIRONMENT = replace(make_manifest().environment, cores=8, memory_bytes=32 * GIB, details=DETAILS)
TORCH = TorchReport(
    version="2.10.0+cpu",
    cuda=None,
    hip=None,
    cpu_capability="AVX2",
    devices=(CPU, NO_CUDA, DeviceReport(name="mps", missing="macOS"), DeviceReport(name="xpu", missing="none")),
    torchvision="0.25.0+cpu",
    torchvision_error=None,
    torchvision_usable=True,
    compile_s=12.0,
    ceilings={1: 6.6e10, 8: 4.1e11},
)
LOADS = {"steal": 0.0, "others": 0.01, "load_1min": 0.3}
NOISE = Noise(slices=9, slice_ms=1.2, spread=1.02, found=LOADS, noisy=())
# What the checks ask of the system, and what such a machine answers.
ANSWERS: dict[str, Any] = {
    "psutil.virtual_memory": SimpleNamespace(available=20 * GIB),
    "psutil.sensors_battery": None,
    "psutil.process_iter": [],
    "shutil.disk_usage": Usage(50 * GIB, 50 * GIB),
    "os.cpu_count": 8,
    "os.statvfs": SimpleNamespace(f_flag=0),
    "tempfile.gettempdir": "/tmp",
    "mnist_bench.machine.noise.foreign_gpu_processes": (),
    "mnist_bench.labs.doctor.inspect": [],
    "mnist_bench.machine.environment.affinity": tuple(range(8)),
    "mnist_bench.machine.environment.run_command": "g++ 12.2.0\nCopyright",
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes facts of the healthy machine with changes: of its torch, its noise, its details, its answers, its files."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    def make(**changes: Any) -> Facts:
        answers = ANSWERS | changes.pop("answers", {})
        headers = tmp_path / "Python.h"
        headers.touch()
        answers["sysconfig.get_path"] = str(tmp_path if changes.pop("headers", True) else tmp_path / "empty")
        for name, answer in answers.items():
            monkeypatch.setattr(name, lambda *_, answer=answer, **__: answer)
        programs = ("g++", "nvidia-smi") if changes.get("driver") else ("g++",)
        monkeypatch.setattr("shutil.which", lambda name: name if name in programs else None)
        for name, text in changes.pop("files", {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        torch = changes.get("torch", {})
        return Facts(
            environ=changes.get("environ", {}),
            environment=replace(ENVIRONMENT, details=ENVIRONMENT.details | changes.get("details", {})),
            torch=msgspec.structs.replace(TORCH, **torch) if isinstance(torch, dict) else torch,
            noise=replace(NOISE, **changes.get("noise", {})),
            output_dir=Path(changes.get("output_dir", "results")),
            data_dir=None,
            twins=changes.get("twins", twins(0.016)),
            root=tmp_path,
            system=changes.get("system", "linux"),
        )

    return make


def twins(sd: float) -> SessionRatio:
    return SessionRatio(Interval(0.0, -0.03, 0.03), 60, sd**2)


def gpu(**torch: Any) -> dict[str, Any]:
    return {"driver": True, "torch": {"version": "2.10.0", "cuda": "13.0", "devices": (CPU, GPU), **torch}}


def failed(kind: Any, detail: str, stage: str) -> dict[str, Any]:
    return {"torch": ProbeFailure(kind=kind, detail=detail, stage=stage)}


def system(**answers: Any) -> dict[str, Any]:
    return {"answers": {name.replace("__", "."): answer for name, answer in answers.items()}}


THROTTLED = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
CLOCKS = {"proc/cpuinfo": "cpu MHz\t\t: 2450.000\ncache\ncpu MHz\t\t: 1500.1\n", THROTTLED: "0"}
CLOCKS["sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"] = "3700000"
GPUS = "0, 345 MHz, 1980 MHz, 0x0000000000000001\n1, 1200 MHz, 1980 MHz, 0x0000000000000020\n2, [N/A], [N/A], [N/A]\n"
HOT = {"answers": {"mnist_bench.machine.environment.run_command": GPUS}}
SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
QUOTA = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000"}
STOLEN = LOADS | {"steal": 0.1}
TWO_GIB = SimpleNamespace(available=2 * GIB)
SMALL_SHM = {"files": {"dev/shm/x": ""}, "answers": {"shutil.disk_usage": Usage(64 << 20, GIB)}}
NEIGHBOURS = system(mnist_bench__machine__noise__foreign_gpu_processes=(41, 42))
BROKEN = {"torchvision": "0.25.0+cu130", "torchvision_error": "RuntimeError: operator torchvision::nms"}
COMMANDS = {
    7: "python -m mnist_bench.worker --requests=3",
    8: "python -m mnist_bench run x.yaml",
    9: "/usr/bin/python /venv/bin/mnist-bench run",
    1: "python -m mnist_bench doctor",
    2: "vim mnist_bench run",
    3: "",
}
OTHERS = [SimpleNamespace(pid=pid, info={"cmdline": words.split() or None}) for pid, words in COMMANDS.items()]
# check, level, a word of what is said, a word of its mend, the machine
PITFALLS: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("torch", "error", "not installed", "pip install", {"torch": NO_TORCH}),
    ("torch", "error", "import torch: SIGSEGV", "--force-reinstall", failed("crashed", "SIGSEGV", "import torch")),
    ("torch", "error", "in device cuda", "CUDA_VISIBLE_DEVICES", failed("hung", "no answer", "device cuda")),
    ("torch", "error", "2.9.1 is too old", "--upgrade", {"torch": {"version": "2.9.1"}}),
    ("torchvision", "error", "not installed", "pip install", {"torch": {"torchvision": None}}),
    ("torchvision", "warning", "works round it", "torchvision==0.25.0 --index-url", {"torch": BROKEN}),
    ("torchvision", "error", "cannot be", "--no-deps", {"torch": BROKEN | {"torchvision_usable": False}}),
    ("cpu", "info", "AVX2", "", {"torch": {"cpu_capability": "DEFAULT"}}),
    ("gpus", "warning", "without CUDA", "pip install", {"driver": True}),
    ("gpus", "warning", "first kernel failed", "driver", gpu(devices=(CPU, DEAD_GPU))),
    ("gpus", "warning", "too old", "--gpus all", gpu(devices=(NO_CUDA,), warnings=("The NVIDIA driver is too old",))),
    ("gpus", "warning", "no GPU", "unset", gpu(devices=(NO_CUDA,)) | {"environ": {"CUDA_VISIBLE_DEVICES": "7"}}),
    ("gpus", "info", "mps cells", "", {"system": "darwin"}),
    ("gpus", "ok", f"cuda:0: {GPU.description}", "", gpu()),
    ("gpu_neighbours", "warning", "41, 42", "wait", NEIGHBOURS),
    ("compiler", "warning", "cells of", "apt-get", {"environ": {"CXX": "icpx"}}),
    ("compiler", "warning", "Python.h", "python3.11-dev", {"headers": False}),
    ("compilation", "info", "not tried", "--compile", {"torch": {"compile_s": None}}),
    ("compilation", "warning", "omp.h", "variant=eager", {"torch": {"compile_error": "no omp.h"}}),
    ("threads", "warning", "1.5 of 8", "cpuset", {"files": QUOTA}),
    ("threads", "info", "share 4", "threads: 4", {"files": {SIBLINGS.format(n): f"{n % 4}" for n in range(8)}}),
    ("noise", "warning", "21%", "other programs", {"noise": {"spread": 1.21}}),
    ("noise", "warning", "took 9 %", "shared", {"noise": {"noisy": ("took 9 %",), "found": STOLEN}}),
    ("noise", "warning", "used 9 %", "top", {"noise": {"noisy": ("used 9 %",)}}),
    ("noise", "warning", "load 9.0 on 8", "idle", {"noise": {"found": LOADS | {"load_1min": 9.0}}}),
    ("noise", "warning", "30%", "idle", {"noise": {"found": LOADS | {"cpu_pressure": 0.3}}}),
    ("resolution", "ok", "10 % by 3 seeds (18 s a cell), of 5 % by 4 seeds (24 s a cell), of 2 % by 8", "", {}),
    ("resolution", "warning", "10 % by 25 seeds (150 s a cell), of 5 % by more than", "own", {"twins": twins(0.16)}),
    ("resolution", "warning", "could not be timed: use less", "mend", {"twins": "use less"}),
    ("resolution", "info", "not measured", "--measure", {"twins": None}),
    ("products", "ok", "66.0 with 1 thread, 410 with 8 threads", "", {}),
    ("clocks", "ok", "none in /proc/cpuinfo, no highest one is known (no cpufreq), whether cores were", "", {}),
    ("clocks", "ok", "1,500 to 2,450 MHz now, at most 3,700 MHz, cores throttled 0", "", {"files": CLOCKS}),
    ("clocks", "info", "cores throttled 7 times", "cooling", {"files": CLOCKS | {THROTTLED: "7"}}),
    ("clocks", "warning", "GPU 1: 1200 MHz now, at most 1980 MHz, slowed down", "nvidia-smi", gpu() | HOT),
    ("other_runs", "warning", "processes 7, 8, 9)", "wait", system(psutil__process_iter=OTHERS)),
    ("kernel", "info", "powersave", "cpupower", {"details": {"governor": "powersave"}}),
    ("kernel", "info", "moves memory", "madvise", {"details": {"transparent_hugepages": "always"}}),
    ("kernel", "warning", "hpet", "tsc", {"details": {"clocksource": "hpet"}}),
    ("battery", "warning", "battery", "plug", system(psutil__sensors_battery=SimpleNamespace(power_plugged=False))),
    ("memory", "warning", "2.0 GiB of 32.0", "limit", system(psutil__virtual_memory=TWO_GIB)),
    ("shared_memory", "info", "64 MiB", "shm-size", SMALL_SHM),
    ("results", "error", "Not a directory", "--output-dir", {"output_dir": __file__}),
    ("results", "error", "5 MiB free): the disk is full", "-dir", system(shutil__disk_usage=Usage(GIB, 5 << 20))),
    ("results", "warning", "500 MiB", "--output-dir", system(shutil__disk_usage=Usage(GIB, 500 << 20))),
    ("temporary", "warning", "noexec", "TMPDIR", system(os__statvfs=SimpleNamespace(f_flag=os.ST_NOEXEC))),
    ("variables", "warning", "spin", "unset KMP_B", {"environ": {"KMP_BLOCKTIME": "200"}}),
    ("variables", "info", "differ", "unset KMP_B", {"environ": {"KMP_BLOCKTIME": "0"}}),
    ("variables", "warning", "hides every GPU", "unset", gpu() | {"environ": {"CUDA_VISIBLE_DEVICES": ""}}),
    ("variables", "info", "cuda:0 is the first", "", gpu() | {"environ": {"CUDA_VISIBLE_DEVICES": "2,3"}}),
    ("home", "warning", "neither HOME", "XDG_CACHE_HOME", {"environ": {"HOME": "/tmp/mnist-bench-home-77"}}),
]


@pytest.mark.parametrize(("check", "level", "what", "mend", "changes"), PITFALLS)
def test_pitfall(machine, check, level, what, mend, changes):
    (found,) = [each for each in diagnose(machine(**changes)) if (each.check, each.level) == (check, level)]
    assert what in found.what
    assert mend in found.mend
    assert found.mend or level in ("ok", "info"), "what is wrong has a mend"


def test_every_check_has_its_pitfall():
    names = [check.__name__ for checks in CHECKS.values() for check in checks]
    assert set(names) - {case[0] for case in PITFALLS} == {"python", "data_set"}  # python: only tells; data: below


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"environ": {"CUDA_LAUNCH_BLOCKING": "0", "TORCHDYNAMO_DISABLE": "", "PYTORCH_JIT": "1"}},
        {"environ": {"TORCHINDUCTOR_CACHE_DIR": "/cache"}},  # trials have their own
        {"environ": {"CUDA_VISIBLE_DEVICES": ""}},  # hides nothing where there is no GPU
    ],
)
def test_nothing_bad_is_said_of_a_healthy_machine(machine, changes):
    alarms = [(each.check, each.level) for each in diagnose(machine(**changes)) if each.level != "ok"]
    assert alarms == [("gpus", "info")]  # it has no GPU


def test_a_machine_without_torch_is_judged(machine):
    names = {each.check for each in diagnose(machine(torch=NO_TORCH))}
    assert names & {"cpu", "memory", "results", "torchvision", "gpus", "compilation"} == {"cpu", "memory", "results"}


def test_data_states(machine, tmp_path, monkeypatch):
    root, real = tmp_path / "data", doctor.inspect

    def said(name: str, level: str) -> str:
        facts = machine(environ={"MNIST_BENCH_DATA": str(tmp_path / name)})
        monkeypatch.setattr(doctor, "inspect", real)
        (found,) = doctor.data_set(facts)
        assert found.level == level
        return found.what

    raw_folder(root).mkdir(parents=True)
    for name in FILE_NAMES[:-1]:
        (raw_folder(root) / f"{name}.gz").write_bytes(b"")
    assert f"MNIST in {root} lacks" in said("data", "warning")
    (root / f"{FILE_NAMES[-1]}.gz").write_bytes(b"")
    assert "packed or under other names" in said("data", "ok")
    (raw_folder(root) / FILE_NAMES[0]).write_bytes(b"not MNIST")
    assert f"{FILE_NAMES[0]}: corrupt" in said("data", "error")
    write_set(tmp_path / "drawn", seed=1, sizes=(2, 1))
    assert "holds synthetic digits" in said("drawn", "warning")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (f"import tempfile; tempfile.mkdtemp(); print({msgspec.json.encode(TORCH).decode()!r})", TORCH),
        ("import os; os.write(2, b'probe: device cuda\\n'); os.abort()", ("was killed by SIGABRT", "device cuda")),
        ("raise SystemExit('no luck')", ("exited with 1 (no luck)", "start")),
        ("print('{}')", ("exited with 0 (silent)", "start")),
    ],
)
def test_asking(code, expected, tmp_path):
    if isinstance(expected, tuple):
        expected = ProbeFailure(kind="crashed", detail=expected[0], stage=expected[1])
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    assert ask_torch(environ, (sys.executable, "-c", code), 30.0) == expected
    assert not any(tmp_path.iterdir())


def test_a_probe_that_hangs_is_ended_with_its_children(tmp_path):
    code = (
        "import os, sys, time\nchild = os.fork()\n"
        f"if child: open({str(tmp_path / 'pid')!r}, 'w').write(str(child)); os.write(2, b'probe: torch.compile\\n')\n"
        "time.sleep(60)"
    )
    found = ask_torch(os.environ, (sys.executable, "-c", code), 4.0)
    assert found == ProbeFailure(kind="hung", detail="no answer within 4 s", stage="torch.compile")
    with contextlib.suppress(psutil.NoSuchProcess):
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        end = time.monotonic() + 30.0  # of itself it would end after a minute
        while child.status() != psutil.STATUS_ZOMBIE:  # killed, and nobody has waited for it yet
            assert time.monotonic() < end, "the child lives on"
            time.sleep(0.05)


def test_no_interpreter_and_no_torch(monkeypatch):
    found = ask_torch(os.environ, ("/absent/python",), 4.0)
    assert isinstance(found, ProbeFailure)
    assert found.detail.startswith("could not be started")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert getattr(probe.probe(try_compile=False), "kind", "") == "missing"


def test_what_the_flags_ask_for(machine, monkeypatch):
    """That a warning is no error, too."""
    asked: dict[str, Any] = {}
    facts = machine(noise={"spread": 1.5})
    monkeypatch.setattr(labs_facts, "look", lambda environ, **given: asked.update(given) or facts)
    assert main(["doctor", "-o", "elsewhere", "--data-dir", "d", "--compile"]) == 0
    assert asked == {"output_dir": Path("elsewhere"), "data_dir": Path("d"), "try_compile": True, "measure": False}
    assert main(["doctor", "--measure"]) == 0
    assert asked["measure"]


def test_the_same_code_in_two_processes(monkeypatch, tmp_path):
    monkeypatch.setattr(labs_facts, "TWIN_S", 0.5)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = labs_facts.time_twins(os.environ)
    assert isinstance(found, SessionRatio), found
    assert (found.rounds >= 2, found.variance > PROCESS_SD**2, abs(found.interval.estimate) < 1) == (True, True, True)
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(labs_facts, "TWIN_SET", "mnist_bench.worker.sets:missing")
    assert "missing" in str(labs_facts.time_twins(os.environ))


def test_products_are_measured_with_every_number_of_threads(monkeypatch):
    rates, threads = {1: 6e10, 2: 1e11, 4: 2e11, 6: 2.5e11}, []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr(probe, "available_cores", lambda: 6)
    monkeypatch.setattr("mnist_bench.worker.extras.ceiling_flops_s", lambda device, dtype: rates[threads[-1]])
    found = probe.probe(try_compile=False, measure=True)
    assert getattr(found, "ceilings", None) == rates
    assert getattr(probe.probe(try_compile=False), "ceilings", None) == {}


def test_a_broken_torch(tmp_path):
    """The whole of it, in a process of its own. A torch.py beside the user is in no worker's way, thus not in ours."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "torch.py").write_text("raise OSError('not this one')")
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: no such file')")
    code = (
        "import sys\nfrom mnist_bench.cli import main\ncode = main(['doctor', '--json'])\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "AWS_SECRET_ACCESS_KEY": "s3cret"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environ, cwd=tmp_path / "here", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    said = [row["what"] for row in json.loads(done.stdout)["findings"]]
    assert "torch does not work, in import torch: OSError: libtorch.so: no such file" in said
    assert "s3cret" not in done.stdout
    assert {one.name for one in tmp_path.rglob("*")} == {"here", "torch.py"}, "doctor leaves nothing behind"
