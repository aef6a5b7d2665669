"""What a machine says of itself: made-up trees of /proc and /sys, real git, this machine."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnist_bench.machine import environment
from mnist_bench.machine.environment import available_cores, available_memory_bytes, cpu_quota, describe, git_state

CPUINFO = "processor\t: 0\nmodel name\t: AMD   EPYC 7B13\nmicrocode\t: 0x1000065\nflags\t\t: fpu hypervisor avx2\n"
NVIDIA = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build\nGCC version: gcc 12.2.0\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
V2 = {"proc/self/cgroup": "0::/user.slice/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n"}
OWN_V2 = "sys/fs/cgroup/user.slice/job/cpu.max"
CPU_V1 = "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_"


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def says(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    """Every command that is asked answers so."""
    monkeypatch.setattr(environment, "run_command", lambda *_: text)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        (V2, None),
        ({"proc/self/cgroup": "broken\n"}, None),
        (V2 | {OWN_V2: "150000 100000\n"}, 1.5),
        (V2 | {OWN_V2: "max 100000\n"}, None),
        (V2 | {OWN_V2: "400000 100000\n", "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n"}, 2.0),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        (V1 | {f"{CPU_V1}quota_us": "250000\n", f"{CPU_V1}period_us": "100000\n"}, 2.5),
        (V1 | {f"{CPU_V1}quota_us": "-1\n", f"{CPU_V1}period_us": "100000\n"}, None),
    ],
)
def test_quota(tmp_path, files, quota):
    assert cpu_quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 1 << 30),
        (V2 | {"sys/fs/cgroup/user.slice/memory.max": "max\n"}, 1 << 30),
        (V2 | {"sys/fs/cgroup/unified/user.slice/memory.max": "1048576\n"}, 1 << 20),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 1 << 30),
        (V1 | {"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "2097152\n"}, 2 << 20),
    ],
)
def test_memory(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=1 << 30))
    assert available_memory_bytes(tree(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [(8, "max", 8), (8, "300000", 3), (2, "300000", 2), (8, "350000", 3), (8, "50000", 1), (1, "max", 1)],
)
def test_cores(tmp_path, monkeypatch, affinity, quota, cores):
    root = tree(tmp_path, {**V2, "sys/fs/cgroup/cpu.max": f"{quota} 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    assert available_cores(root) == cores
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: affinity)
    assert available_cores(root) == cores, "where there is no affinity"


def test_a_real_repository(tmp_path):
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    assert git_state(tmp_path, environ) == (None, False)
    git("init", "-q")
    assert git_state(tmp_path, environ) == (None, False)
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    (tmp_path / "untracked").write_text("")
    assert git_state(tmp_path, environ) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path, environ) == (git("rev-parse", "HEAD"), True)


def test_commands_that_give_no_answer(monkeypatch):
    assert environment.run_command(["no-such-program-anywhere"], {}) is None
    assert environment.run_command([sys.executable, "-c", "raise SystemExit(1)"], {}) is None
    monkeypatch.setattr(environment, "COMMAND_TIMEOUT_SECONDS", 0.05)
    assert environment.run_command([sys.executable, "-c", "import time; time.sleep(9)"], {}) is None


def test_a_machine(tmp_path, monkeypatch):
    files = {
        "proc/cpuinfo": CPUINFO,
        "proc/driver/nvidia/version": NVIDIA,
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/memory.max": "2097152\n",
        ".dockerenv": "",
    }
    environ = {"OMP_NUM_THREADS": "2", "GITHUB_TOKEN": "secret", "OMP": "secret"}
    says(monkeypatch, f"# branch.oid {COMMIT}\n1 .M x\n")
    found = describe(environ, tmp_path, root=tree(tmp_path, V2 | files))
    assert (found.cpu, found.cores, found.memory_bytes) == ("AMD EPYC 7B13", 1, 2 << 20)
    assert (found.commit, found.dirty) == (COMMIT, True)
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.packages.keys() >= {"mnist-bench", "torch", "torchvision", "numpy", "pandas", "pydantic"}
    expected = {
        "governor": "performance",
        "transparent_hugepages": "madvise",
        "hypervisor": "yes",
        "microcode": "0x1000065",
        "cpu_quota": "1.5",
        "nvidia_driver": "550.90.07",
        "container": "yes",
        "env.OMP_NUM_THREADS": "2",
    }
    assert expected.items() <= found.details.items()
    assert "secret" not in str(found)


def test_machines_that_tell_little(tmp_path, monkeypatch):
    says(monkeypatch, None)
    found = describe({}, tmp_path, root=tmp_path)
    assert found.cpu
    assert found.memory_bytes > 1 << 20
    assert (found.commit, found.dirty) == (None, False)
    assert found.details.keys() <= {"kernel", "architecture"}
    details = describe({}, tmp_path, root=tree(tmp_path, {"proc/cpuinfo": "flags : fpu\n"})).details
    assert (details["hypervisor"], "microcode" in details) == ("no", False)
    says(monkeypatch, "Apple M3\n")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert describe({}, tmp_path, root=tmp_path).cpu == "Apple M3"


def test_a_user_without_a_home_is_given_one(tmp_path):
    """As in a container that runs under a foreign uid: no HOME, no name, no entry in the user database."""
    code = (
        "import os, pwd, sys, getpass, stat\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "from mnist_bench.cli import main\n"
        "code = main(['data', 'verify'])\n"
        "import altair, platformdirs, torch._inductor.codecache\n"
        "home = os.environ['HOME']\n"
        "assert platformdirs.user_cache_dir('x') == home + '/.cache/x', platformdirs.user_cache_dir('x')\n"
        "print(home, stat.filemode(os.stat(home).st_mode), getpass.getuser())\n"
        "sys.exit(code)"
    )
    names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "MNIST_BENCH_DATA")
    environ = {name: value for name, value in os.environ.items() if name not in names} | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    home = tmp_path / f"mnist-bench-home-{os.getuid()}"
    assert done.stdout.splitlines()[-1] == f"{home} drwx------ {os.getuid()}"
    assert done.returncode == 2
    assert f"{home}/.cache/mnist_bench" in done.stderr
    assert "Traceback" not in done.stderr
