from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from mnist_bench import environment
from mnist_bench.cgroup import cpu_quota, memory_limit_bytes
from mnist_bench.environment import available_cores, available_memory_bytes, describe, git_state

CPUINFO = """processor\t: 0
model name\t: AMD   EPYC 7B13
microcode\t: 0x1000065
flags\t\t: fpu hypervisor avx2
"""
NVIDIA = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build
GCC version:  gcc version 12.2.0
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Writes a fake root of /proc and /sys."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def says(text: str | None) -> environment.Runner:
    def run(command: Sequence[str], environ: Mapping[str, str]) -> str | None:
        return text

    return run


V2 = {"proc/self/cgroup": "0::/user.slice/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n"}


class TestCgroup:
    @pytest.mark.parametrize(
        ("files", "quota"),
        [
            ({}, None),
            (V2, None),
            ({"proc/self/cgroup": "broken\n"}, None),
            ({**V2, "sys/fs/cgroup/user.slice/job/cpu.max": "150000 100000\n"}, 1.5),
            ({**V2, "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n"}, None),
            ({**V2, "sys/fs/cgroup/user.slice/job/cpu.max": "0 0\n"}, None),
            ({**V2, "sys/fs/cgroup/user.slice/job/cpu.max": "what\n"}, None),
            (
                {
                    **V2,
                    "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
                    "sys/fs/cgroup/user.slice/job/cpu.max": "400000 100000\n",
                },
                2.0,
            ),
            ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
            (
                {
                    **V1,
                    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                },
                2.5,
            ),
            (
                {
                    **V1,
                    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "-1\n",
                    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
                },
                None,
            ),
        ],
    )
    def test_quota(self, tree: Callable[..., Path], files: dict[str, str], quota: float | None) -> None:
        assert cpu_quota(tree(files)) == quota

    @pytest.mark.parametrize(
        ("files", "limit"),
        [
            (V2, None),
            ({**V2, "sys/fs/cgroup/user.slice/memory.max": "max\n"}, None),
            ({**V2, "sys/fs/cgroup/unified/user.slice/memory.max": "1048576\n"}, 1 << 20),
            ({**V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
            ({**V1, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "2097152\n"}, 2 << 20),
        ],
    )
    def test_memory(self, tree: Callable[..., Path], files: dict[str, str], limit: int | None) -> None:
        assert memory_limit_bytes(tree(files)) == limit


class TestCores:
    @pytest.mark.parametrize(
        ("affinity", "quota", "cores"),
        [(8, None, 8), (8, "300000", 3), (2, "300000", 2), (8, "350000", 3), (8, "50000", 1), (1, None, 1)],
    )
    def test_affinity_and_quota(self, tree: Callable[..., Path], affinity: int, quota: str | None, cores: int) -> None:
        files = {**V2, "sys/fs/cgroup/cpu.max": f"{quota or 'max'} 100000"}
        assert available_cores(tree(files), affinity) == cores

    def test_of_this_process(self, tmp_path: Path) -> None:
        if hasattr(os, "sched_getaffinity"):
            assert available_cores(tmp_path) == len(os.sched_getaffinity(0))
        assert 1 <= available_cores() <= (os.cpu_count() or 1)

    def test_without_affinity(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 6)
        assert available_cores(tmp_path) == 6


class TestMemory:
    def test_total_or_limit(self, tree: Callable[..., Path]) -> None:
        root = tree({"proc/meminfo": "MemTotal:       1024 kB\nMemFree: 1 kB\n"})
        assert available_memory_bytes(root) == 1 << 20
        tree({**V2, "sys/fs/cgroup/memory.max": "4096\n"})
        assert available_memory_bytes(root) == 4096

    def test_without_proc(self, tmp_path: Path) -> None:
        assert available_memory_bytes(tmp_path) > 1 << 20


class TestGit:
    @pytest.mark.parametrize(
        ("text", "state"),
        [
            (None, (None, False)),
            ("", (None, False)),
            ("# branch.oid (initial)\n# branch.head main\n", (None, False)),
            (f"# branch.oid {COMMIT}\n# branch.head main\n", (COMMIT, False)),
            (f"# branch.oid {COMMIT}\n1 .M N... 100644 100644 100644 a b file\n", (COMMIT, True)),
        ],
    )
    def test_reads_the_status(self, tmp_path: Path, text: str | None, state: tuple[str | None, bool]) -> None:
        assert git_state(tmp_path, {}, says(text)) == state

    def test_real_repository(self, tmp_path: Path) -> None:
        def git(*arguments: str) -> str:
            who = ["-c", "user.name=a", "-c", "user.email=a@b"]
            command = ["git", *who, "-C", str(tmp_path), *arguments]
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

    def test_without_git(self, tmp_path: Path) -> None:
        assert environment.run_command(["no-such-program-anywhere"], {}) is None

    def test_slow_or_failing_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "GIT_TIMEOUT_SECONDS", 0.05)
        assert environment.run_command([sys.executable, "-c", "import time; time.sleep(9)"], {}) is None
        monkeypatch.setattr(environment, "GIT_TIMEOUT_SECONDS", 30)
        assert environment.run_command([sys.executable, "-c", "raise SystemExit(1)"], {}) is None


class TestDescribe:
    def test_a_machine(self, tree: Callable[..., Path]) -> None:
        root = tree(
            {
                **V2,
                "proc/cpuinfo": CPUINFO,
                "proc/meminfo": "MemTotal: 2048 kB\n",
                "proc/loadavg": "1.05 0.29 0.16 5/118 5493\n",
                "proc/driver/nvidia/version": NVIDIA,
                "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
                "sys/fs/cgroup/cpu.max": "150000 100000\n",
                ".dockerenv": "",
            }
        )
        environ = {"OMP_NUM_THREADS": "2", "GITHUB_TOKEN": "secret"}
        found = describe(environ, root, root=root, affinity=4, run=says(f"# branch.oid {COMMIT}\n1 .M x\n"))
        assert (found.cpu, found.cores, found.memory_bytes) == ("AMD EPYC 7B13", 1, 2 << 20)
        assert (found.commit, found.dirty) == (COMMIT, True)
        assert found.python == ".".join(map(str, sys.version_info[:3]))
        assert found.packages.keys() >= {"mnist-bench", "torch", "torchvision", "numpy", "pandas", "pydantic"}
        expected = {
            "governor": "performance",
            "load_average": "1.05 0.29 0.16 5/118 5493",
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

    def test_an_empty_machine(self, tmp_path: Path) -> None:
        found = describe({}, tmp_path, root=tmp_path, affinity=2, run=says(None))
        assert found.cpu
        assert (found.commit, found.dirty) == (None, False)
        assert found.details.keys() <= {"kernel", "architecture"}

    def test_bare_metal(self, tree: Callable[..., Path]) -> None:
        root = tree({"proc/cpuinfo": "flags : fpu\n", "sys/kernel/mm/transparent_hugepage/enabled": "?"})
        details = describe({}, root, root=root, run=says(None)).details
        assert details["hypervisor"] == "no"
        assert not details.keys() & {"microcode", "transparent_hugepages"}

    def test_macos_asks_sysctl(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.system", lambda: "Darwin")
        assert describe({}, tmp_path, root=tmp_path, run=says("Apple M3\n")).cpu == "Apple M3"

    def test_this_machine_without_torch(self) -> None:
        code = (
            "import os, sys; from mnist_bench.environment import describe; found = describe(os.environ);"
            "print(found.cores, found.memory_bytes > 0, 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(available_cores()), "True", "False"]
