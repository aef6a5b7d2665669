"""``doctor``: its checks with made-up facts, its looks at made-up machines, and the whole of it as a user meets it."""

from __future__ import annotations

import csv
import dataclasses
import doctest
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mnist_bench import probe
from mnist_bench.cli import main
from mnist_bench.data.fetch import packed_path
from mnist_bench.data.mnist import FILE_NAMES, RESOURCES
from mnist_bench.data.paths import raw_folder
from mnist_bench.diagnosis import CHECKS, Diagnosis, asking, diagnose, survey, worst
from mnist_bench.diagnosis.facts import (
    Compiler,
    CompileTrial,
    DataFacts,
    DeviceReport,
    Facts,
    Machine,
    Noise,
    Places,
    ProbeFailure,
    TorchReport,
    TorchvisionReport,
)
from mnist_bench.records import Environment

GIB = 1 << 30
NO_TORCH = ProbeFailure(kind="missing", detail="ModuleNotFoundError: No module named 'torch'", stage="import torch")
NO_CUDA = DeviceReport(name="cuda", missing="this torch is a CPU build")
GPU = DeviceReport(name="cuda:0", missing=None, description="NVIDIA H200, capability 9.0, CUDA 13.0")
DEAD_GPU = dataclasses.replace(GPU, missing="RuntimeError: no kernel image is available")
CPU = DeviceReport(name="cpu", missing=None, description="x86_64 AVX2")
APPLE = DeviceReport(name="mps", missing=None, description="Apple GPU, macOS 15.1")
INTEL = DeviceReport(name="xpu", missing=None, description="Intel Arc")

# A quiet Linux machine without a GPU, of which nothing bad can be said.
HEALTHY = Facts(
    python=(3, 12, 4),
    system="linux",
    environment=Environment(
        python="3.12.4",
        platform="Linux",
        cpu="Made-up 9000",
        cores=8,
        memory_bytes=32 * GIB,
        packages={},
        details={"architecture": "x86_64", "governor": "performance", "transparent_hugepages": "madvise"},
    ),
    torch=TorchReport(
        version="2.10.0+cpu",
        cuda=None,
        hip=None,
        threads=8,
        cpu_capability="AVX2",
        devices=(CPU, NO_CUDA, DeviceReport(name="mps", missing="macOS"), DeviceReport(name="xpu", missing="none")),
        torchvision=TorchvisionReport(version="0.25.0+cpu", error=None, usable=True),
        tf32={"matmul": "none", "convolution": "tf32"},
        compile_trial=CompileTrial(seconds=12.0, error=None),
    ),
    nvidia_driver=False,
    noise=Noise(
        slices=800, slice_ms=1.2, spread=1.02, found={"steal": 0.0, "others": 0.01, "load_1min": 0.3}, noisy=()
    ),
    machine=Machine(
        logical_cpus=8,
        affinity=8,
        quota=None,
        physical_cores=8,
        memory_free_bytes=20 * GIB,
        swap_used_bytes=0,
        on_battery=False,
    ),
    compiler=Compiler(doubt=None, version="g++ 12.2.0", python_headers=True),
    places=Places(
        results="results",
        results_problem=None,
        results_free_bytes=50 * GIB,
        temp="/tmp",
        temp_free_bytes=50 * GIB,
        temp_noexec=False,
        shm_bytes=16 * GIB,
    ),
    data=DataFacts(root="/data", by_variable=False, root_exists=True, state="whole"),
)
# The same with a GPU and a torch for it.
CUDA_TORCH = {"version": "2.10.0", "cuda": "13.0", "devices": (CPU, GPU)}
WITH_GPU: dict[str, Any] = {"nvidia_driver": True, "torch": CUDA_TORCH}


def facts(**changes: Any) -> Facts:
    """``HEALTHY`` with changes: a dictionary changes the record of that name."""
    for name, change in changes.items():
        if isinstance(change, dict) and name != "variables":
            changes[name] = dataclasses.replace(getattr(HEALTHY, name), **change)
    return dataclasses.replace(HEALTHY, **changes)


def gpu(**changes: Any) -> dict[str, Any]:
    return {**WITH_GPU, "torch": {**CUDA_TORCH, **changes}}


def details(**changes: str) -> dict[str, Any]:
    return {"environment": {"details": {**HEALTHY.environment.details, **changes}}}


def variables(**changes: str) -> dict[str, Any]:
    return {"variables": changes}


def by_check(found: tuple[Diagnosis, ...]) -> dict[str, Diagnosis]:
    return {each.check: each for each in found}


def torchvision(**changes: Any) -> dict[str, Any]:
    broken = TorchvisionReport(
        version="0.25.0+cu130", error="RuntimeError: operator torchvision::nms does not exist", usable=True
    )
    return {"torch": {"torchvision": dataclasses.replace(broken, **changes)}}


def failed(kind: str, detail: str, stage: str) -> dict[str, Any]:
    return {"torch": ProbeFailure(kind=kind, detail=detail, stage=stage)}  # type: ignore[arg-type]


# check, level, a word of what is said, a word of its mend, the facts
PITFALLS: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("python", "error", "3.10.2", "3.11", {"python": (3, 10, 2)}),
    ("python", "info", "newer", "", {"python": (3, 16, 0)}),
    ("torch", "error", "not installed", "pip install", {"torch": NO_TORCH}),
    ("torch", "error", "libcudart", "--force-reinstall", failed("broken", "OSError: libcudart.so", "import torch")),
    ("torch", "error", "SIGSEGV, in: import torch", "mnist_bench.probe", failed("crashed", "SIGSEGV", "import torch")),
    ("torch", "error", "in: device cuda", "CUDA_VISIBLE_DEVICES", failed("hung", "no answer", "device cuda")),
    ("torch", "error", "2.9.1 is too old", "--upgrade", {"torch": {"version": "2.9.1"}}),
    ("build_for_gpu", "warning", "without CUDA", "pip install", {"nvidia_driver": True}),
    ("build_for_gpu", "info", "5 GB", "whl/cpu", {"torch": {"cuda": "13.0", "version": "2.10.0"}}),
    ("torchvision", "error", "not installed", "pip install", torchvision(version=None)),
    ("torchvision", "warning", "works round it", "torchvision==0.25.0 --index-url", torchvision()),
    ("torchvision", "error", "cannot be imported", "--no-deps", torchvision(usable=False)),
    ("cpu", "warning", "holds torch back", "unset ATEN", variables(ATEN_CPU_CAPABILITY="default")),
    ("cpu", "info", "AVX2", "", {"torch": {"cpu_capability": "DEFAULT"}}),
    ("cuda", "info", "no NVIDIA driver", "", {}),
    ("cuda", "warning", "first kernel failed", "nvidia-smi", gpu(devices=(CPU, DEAD_GPU))),
    ("cuda", "warning", "too old", "--gpus all", gpu(devices=(NO_CUDA,), warnings=("The NVIDIA driver is too old",))),
    ("cuda", "warning", "sees no GPU", "unset", gpu(devices=(NO_CUDA,)) | variables(CUDA_VISIBLE_DEVICES="7")),
    ("hidden_gpus", "warning", "''", "unset", WITH_GPU | variables(CUDA_VISIBLE_DEVICES="")),
    ("hidden_gpus", "warning", "hides every", "unset", WITH_GPU | variables(CUDA_VISIBLE_DEVICES="-1")),
    ("hidden_gpus", "info", "cuda:0 is the first", "", WITH_GPU | variables(CUDA_VISIBLE_DEVICES="2,3")),
    ("gpu_neighbours", "warning", "41, 42", "wait", {"machine": {"gpu_processes": (41, 42)}}),
    ("tf32", "info", "convolution", "", WITH_GPU),
    ("tf32", "warning", "TF32 off", "unset", WITH_GPU | variables(NVIDIA_TF32_OVERRIDE="0")),
    ("mps", "info", "skipped", "", {"system": "darwin"}),
    ("xpu", "warning", "bad", "driver", {"torch": {"devices": (dataclasses.replace(INTEL, missing="bad"),)}}),
    ("compiler", "warning", "skipped", "apt-get", {"compiler": {"doubt": "g++ not found"}}),
    ("compiler", "warning", "skipped", "xcode", {"compiler": {"doubt": "not found"}, "system": "darwin"}),
    ("python_headers", "warning", "Python.h", "python3.12-dev", {"compiler": {"python_headers": False}}),
    ("compile_trial", "info", "not tried", "--compile", {"torch": {"compile_trial": None}}),
    (
        "compile_trial",
        "warning",
        "omp.h",
        "variant=eager",
        {"torch": {"compile_trial": CompileTrial(seconds=3.0, error="no omp.h")}},
    ),
    ("compile_disabled", "warning", "eager", "unset TORCHDYNAMO", variables(TORCHDYNAMO_DISABLE="1")),
    ("quota", "warning", "1.5 of 8", "cpuset", {"machine": {"quota": 1.5}}),
    ("hyper_threads", "info", "share 4", "threads: 4", {"machine": {"physical_cores": 4}}),
    ("thread_variables", "info", "OMP_NUM_THREADS=1", "unset OMP", variables(OMP_NUM_THREADS="1")),
    ("spinning_threads", "warning", "spin", "unset OMP_WAIT", variables(OMP_WAIT_POLICY="ACTIVE")),
    ("spinning_threads", "warning", "spin", "unset KMP_B", variables(KMP_BLOCKTIME="infinite")),
    ("spinning_threads", "info", "slower", "unset KMP_B", variables(KMP_BLOCKTIME="0")),
    ("noise", "warning", "21%", "other programs", {"noise": {"spread": 1.21}}),
    ("neighbours", "warning", "took 9 %", "less shared", {"noise": {"noisy": ("took 9 %",), "found": {"steal": 0.09}}}),
    ("neighbours", "warning", "used 9 %", "top", {"noise": {"noisy": ("used 9 %",), "found": {"others": 0.09}}}),
    ("load", "warning", "load 9.0 on 8", "idle", {"noise": {"found": {"load_1min": 9.0}}}),
    ("load", "warning", "30%", "idle", {"noise": {"found": {"load_1min": 1.0, "cpu_pressure": 0.3}}}),
    ("other_runs", "warning", "7, 8, 9, ...", "wait", {"machine": {"other_runs": (7, 8, 9, 10)}}),
    ("governor", "info", "powersave", "cpupower", details(governor="powersave")),
    ("huge_pages", "info", "moves memory", "madvise", details(transparent_hugepages="always")),
    ("huge_pages", "info", "TLB", "madvise", details(transparent_hugepages="never")),
    ("clock", "warning", "hpet", "tsc", details(clocksource="hpet")),
    ("battery", "warning", "battery", "plug", {"machine": {"on_battery": True}}),
    ("memory", "warning", "2.0 GiB of 32.0", "limit", {"machine": {"memory_free_bytes": 2 * GIB}}),
    ("swap", "warning", "1.0 GiB", "swapoff", {"machine": {"swap_used_bytes": GIB}}),
    ("shared_memory", "info", "64 MiB", "shm-size", {"places": {"shm_bytes": 64 << 20}}),
    ("data_set", "error", "images: corrupt", "fetch", {"data": {"state": "corrupt", "detail": "images: corrupt"}}),
    ("data_set", "error", "denied", "permissions", {"data": {"state": "unreadable", "detail": "denied"}}),
    (
        "data_set",
        "warning",
        "lacks t10k",
        "fetch --data-dir /data",
        {"data": {"state": "incomplete", "detail": "t10k"}},
    ),
    ("data_set", "warning", "synthetic", "fetch --data-dir /data", {"data": {"state": "missing"}}),
    (
        "data_set",
        "warning",
        "MNIST_BENCH_DATA=/data",
        "unset",
        {"data": {"state": "missing", "by_variable": True, "root_exists": False}},
    ),
    ("results", "error", "cannot be written", "--output-dir", {"places": {"results_problem": "cannot be written"}}),
    ("results", "error", "full (5 MiB", "--output-dir", {"places": {"results_free_bytes": 5 << 20}}),
    ("results", "warning", "500 MiB", "--output-dir", {"places": {"results_free_bytes": 500 << 20}}),
    ("temporary", "warning", "noexec", "TMPDIR", {"places": {"temp_noexec": True}}),
    ("temporary", "error", "full", "TMPDIR", {"places": {"temp_free_bytes": 0}}),
    ("temporary", "error", "no folder", "TMPDIR", {"places": {"temp": ""}}),
    ("slowing_variables", "warning", "TORCH_LOGS=+dynamo", "unset TORCH_LOGS", variables(TORCH_LOGS="+dynamo")),
    ("changing_variables", "info", "FREEZING=1", "unset", variables(TORCHINDUCTOR_FREEZING="1")),
    ("shadowing", "warning", "a.py, b.py, c.py and 1 more", "rename", {"shadowing": ("a.py", "b.py", "c.py", "d.py")}),
]


class TestChecks:
    def test_nothing_bad_is_said_of_a_healthy_machine(self) -> None:
        found = diagnose(HEALTHY)
        assert [each.check for each in found if each.level != "ok"] == ["cuda"]  # it has no GPU
        assert worst(found) == "info"
        assert worst(diagnose(facts(**gpu(tf32={})))) == "ok"

    @pytest.mark.parametrize(("check", "level", "what", "mend", "changes"), PITFALLS)
    def test_pitfall(self, check: str, level: str, what: str, mend: str, changes: dict[str, Any]) -> None:
        found = by_check(diagnose(facts(**changes)))[check]
        assert found.level == level
        assert what in found.what
        assert mend in found.mend
        assert found.mend or level == "info", "what is wrong has a mend"

    def test_every_check_has_its_pitfall(self) -> None:
        names = [check.__name__ for checks in CHECKS.values() for check in checks]
        assert len(names) == len(set(names))
        assert set(names) - {case[0] for case in PITFALLS} == {"threads"}  # which only tells their number

    @pytest.mark.parametrize(
        "changes",
        [
            variables(CUDA_LAUNCH_BLOCKING="0", OMP_NUM_THREADS="8", TORCHDYNAMO_DISABLE="", PYTORCH_JIT="1"),
            variables(TORCHINDUCTOR_CACHE_DIR="/cache"),  # trials have their own
            variables(CUDA_VISIBLE_DEVICES=""),  # hides nothing where there is no GPU
            {"machine": {"quota": 8.0}},
            {"machine": {"physical_cores": None}},
            {"data": {"state": "packed"}},
            {"torch": {"version": "3.0.0a0+git1234"}},
        ],
    )
    def test_no_alarm(self, changes: dict[str, Any]) -> None:
        assert [each.check for each in diagnose(facts(**changes)) if each.level != "ok"] == ["cuda"]

    def test_without_torch_the_machine_is_judged_all_the_same(self) -> None:
        found = by_check(diagnose(facts(torch=NO_TORCH)))
        assert {"cpu", "noise", "memory", "data_set", "results"} <= found.keys()
        assert not {"torchvision", "cuda", "compile_trial"} & found.keys()

    def test_hidden_gpus_are_told_once(self) -> None:
        hidden = gpu(devices=(NO_CUDA,)) | variables(CUDA_VISIBLE_DEVICES="-1")
        assert [each.check for each in diagnose(facts(**hidden)) if each.level == "warning"] == ["hidden_gpus"]

    def test_devices_are_named(self) -> None:
        assert "cuda:0: NVIDIA H200" in by_check(diagnose(facts(**WITH_GPU)))["cuda"].what
        found = by_check(diagnose(facts(system="darwin", torch={"devices": (CPU, APPLE, INTEL)})))
        assert (found["mps"].level, found["xpu"].level) == ("ok", "ok")
        assert "cuda" not in found


class TestAsking:
    def ask(self, code: str, timeout_s: float = 30.0) -> TorchReport | ProbeFailure:
        command = (sys.executable, "-c", code)
        return asking.ask_torch(os.environ, try_compile=False, command=command, timeout_s=timeout_s)

    def test_an_answer_is_read_as_it_was_written(self) -> None:
        report = facts(**WITH_GPU).torch
        assert self.ask(f"print({json.dumps(dataclasses.asdict(report))!r})") == report
        assert self.ask(f"print({json.dumps(dataclasses.asdict(NO_TORCH))!r})") == NO_TORCH

    def test_killed(self) -> None:
        found = self.ask("import os, sys\nsys.stderr.write('probe: device cuda\\n')\nos.abort()")
        assert found == ProbeFailure(kind="crashed", detail="was killed by SIGABRT", stage="device cuda")

    def test_error(self) -> None:
        found = self.ask("raise SystemExit('no luck')")
        assert found == ProbeFailure(kind="crashed", detail="exited with 1 (no luck)", stage="start")

    def test_nonsense(self) -> None:
        assert self.ask("print('{}')") == ProbeFailure(
            kind="crashed", detail="gave no answer that can be read", stage="start"
        )

    def test_a_probe_that_hangs_is_ended_with_its_children(self, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        found = self.ask(
            "import os, sys, time\nchild = os.fork()\n"
            f"if child: open({str(pid_file)!r}, 'w').write(str(child)); os.write(2, b'probe: torch.compile\\n')\n"
            "time.sleep(60)",
            timeout_s=4.0,
        )
        assert found == ProbeFailure(kind="hung", detail="no answer within 4 s", stage="torch.compile")
        pid = int(pid_file.read_text())
        deadline = time.monotonic() + 10
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _alive(pid)

    def test_no_interpreter(self) -> None:
        found = asking.ask_torch(os.environ, try_compile=False, command=("/absent/python",))
        assert isinstance(found, ProbeFailure)
        assert found.detail.startswith("could not be started")


def _alive(pid: int) -> bool:
    """Whether it runs; one that was killed and that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestProbe:
    def test_missing_torch_is_an_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        found = probe.probe(try_compile=False)
        assert isinstance(found, ProbeFailure)
        assert found.kind == "missing"

    def test_torch_as_it_is(self) -> None:
        found = asking.ask_torch(os.environ, try_compile=False)
        assert isinstance(found, TorchReport), found
        assert found.version.startswith("2.")
        assert [device.name.partition(":")[0] for device in found.devices][:2] == ["cpu", "cuda"]
        assert found.devices[0].missing is None
        assert found.torchvision.usable
        assert found.threads >= 1


class TestSurvey:
    def test_examples(self) -> None:
        assert doctest.testmod(survey).failed == 0

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            (["python", "-m", "mnist_bench.worker", "--requests=3"], True),
            (["python", "-m", "mnist_bench", "run", "x.yaml"], True),
            (["/usr/bin/python", "/venv/bin/mnist-bench", "run"], True),
            (["python", "-m", "mnist_bench", "doctor"], False),
            (["python", "-m", "mnist_bench.probe"], False),
            (["vim", "mnist_bench", "run"], False),
            ([], False),
        ],
    )
    def test_other_runs(self, command: list[str], expected: bool) -> None:
        assert survey.is_run(command) == expected

    def test_hyper_threads_count_once(self, tmp_path: Path) -> None:
        for cpu in range(4):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
        assert survey.physical_cores(range(4), tmp_path) == 2
        assert survey.physical_cores([0, 1], tmp_path) == 2
        assert survey.physical_cores(range(5), tmp_path) is None

    def test_swap(self, tmp_path: Path) -> None:
        assert survey.swap_used_bytes(tmp_path) == 0
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nSwapTotal:  2048 kB\nSwapFree:  1024 kB\n")
        assert survey.swap_used_bytes(tmp_path) == 1 << 20

    def test_data_states(self, tmp_path: Path) -> None:
        def state() -> str:
            return survey.look_for_data(None, {"MNIST_BENCH_DATA": str(tmp_path / "data")}).state

        assert state() == "missing"
        raw = raw_folder(tmp_path / "data")
        raw.mkdir(parents=True)
        for resource in RESOURCES[:-1]:
            packed_path(tmp_path / "data", resource).write_bytes(b"")
        assert state() == "missing"
        packed_path(tmp_path / "data", RESOURCES[-1]).write_bytes(b"")
        assert state() == "packed"
        (raw / FILE_NAMES[0]).write_bytes(b"not MNIST")
        found = survey.look_for_data(tmp_path / "data", {"MNIST_BENCH_DATA": "elsewhere"})
        assert (found.state, found.by_variable, found.root_exists) == ("corrupt", False, True)
        assert FILE_NAMES[0] in found.detail

    def test_places(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        inside_file = survey.look_at_places(tmp_path / "file")
        assert inside_file.results_problem == f"{tmp_path / 'file'} is a file, not a folder"
        deep = survey.look_at_places(tmp_path / "not" / "there")
        assert deep.results_problem is None
        assert deep.results_free_bytes > 0
        assert list(tmp_path.iterdir()) == [tmp_path / "file"], "nothing was made"

    def test_shadowing(self, tmp_path: Path) -> None:
        (tmp_path / "random.py").write_text("")
        (tmp_path / "mine.py").write_text("")
        (tmp_path / "torch").mkdir()
        assert survey.shadowing([tmp_path]) == (str(tmp_path / "random.py"),), "a folder alone is no package"
        (tmp_path / "torch" / "__init__.py").write_text("")
        assert str(tmp_path / "torch") in survey.shadowing([tmp_path, tmp_path])
        own = Path(survey.mnist_bench.__file__).parent.parent
        assert survey.shadowing([own]) == (), "the checkout that we run in"

    def test_variables_hold_no_secrets(self) -> None:
        environ = {"AWS_SECRET_ACCESS_KEY": "x", "OMP_WAIT_POLICY": "active", "TORCHINDUCTOR_FREEZING": "1"}
        assert survey.known_variables(environ) == {"OMP_WAIT_POLICY": "active", "TORCHINDUCTOR_FREEZING": "1"}

    def test_noise_is_measured(self) -> None:
        noise = survey.measure_noise(0.05)
        assert noise.slices >= 20
        assert noise.spread >= 1.0
        assert 0 < noise.slice_ms < 1000
        assert noise.found["span_s"] > 0.02


class TestCommand:
    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """What doctor is told to look at; it sees a machine with a warning and an error."""
        calls: list[dict[str, Any]] = []

        def look(environ: Any, **asked: Any) -> Facts:
            calls.append(asked)
            return facts(torch=NO_TORCH, noise={"spread": 1.5})

        monkeypatch.setattr(survey, "survey", look)
        monkeypatch.setenv("COLUMNS", "80")
        return calls

    def test_table(self, seen: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "-o", "elsewhere", "--data-dir", "d", "--compile"]) == 1
        assert seen[0]["output_dir"] == Path("elsewhere")
        assert (seen[0]["data_dir"], seen[0]["try_compile"]) == (Path("d"), True)
        out = capsys.readouterr().out
        lines = [line.rstrip() for line in out.splitlines()]
        assert lines[:2] == ["software", "  ok       Python 3.12.4"]
        place = lines.index("  error    torch is not installed")
        assert lines[place + 1] == '           mend: pip install "torch>=2.10" torchvision'
        assert lines[-1] == "A default run cannot work until the errors are mended: 1 error, 1 warning."
        assert max(map(len, lines)) <= 80

    def test_json(self, seen: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--json"]) == 1
        document = json.loads(capsys.readouterr().out)
        assert document["worst"] == "error"
        assert document["facts"]["torch"]["kind"] == "missing"
        assert {row["check"]: row["level"] for row in document["findings"]}["noise"] == "warning"

    def test_csv_and_markdown(self, seen: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--format", "csv"]) == 1
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert list(rows[0]) == ["group", "check", "level", "what", "mend"]
        assert main(["doctor", "--format", "md"]) == 1
        assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2

    def test_warnings_alone_exit_with_0(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(survey, "survey", lambda environ, **asked: facts(noise={"spread": 1.5}))
        assert main(["doctor"]) == 0
        assert "A default run can work here: 1 warning, 1 note." in capsys.readouterr().out

    def test_a_broken_torch_in_the_way(self, tmp_path: Path) -> None:
        """The whole of it, in a process of its own, with a torch.py that shadows torch."""
        (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: no such file')")
        code = (
            "import sys\nfrom mnist_bench.cli import main\ncode = main(['doctor', '--json'])\n"
            "assert 'torch' not in sys.modules\nsys.exit(code)"
        )
        environ = {**os.environ, "PYTHONPATH": str(tmp_path), "MNIST_BENCH_DATA": str(tmp_path / "absent")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (1, "")
        findings = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
        assert findings["torch"]["what"] == "torch cannot be imported: OSError: libtorch.so: no such file"
        assert str(tmp_path / "torch.py") in findings["shadowing"]["what"]
        assert "MNIST_BENCH_DATA" in findings["data_set"]["what"]
        assert list(tmp_path.iterdir()) == [tmp_path / "torch.py"], "doctor leaves nothing behind"
