"""One run at a time of one user: who waits is told for whom, and a machine without a place for the lock runs on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_bench.errors import UsageError
from mnist_bench.machine.lock import alone

HOLD = (
    "from mnist_bench.machine.lock import alone\n"
    "with alone(wait=False, tell=print):\n    print('held', flush=True)\n    input()"
)


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """Another run, which ends at a line of input."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_no_wait_says_whose_run_it_is(holder: subprocess.Popen[str]) -> None:
    told = rf"another run .* \(process {holder.pid} in {Path.cwd()}, since \d+-\d+-\d+ \d+:\d+\), and --no-wait"
    with pytest.raises(UsageError, match=told), alone(wait=False, tell=print):
        pass


def test_a_waiter_is_told_and_goes_on_when_the_other_has_ended(holder: subprocess.Popen[str]) -> None:
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        holder.kill()  # not even a kill leaves the lock behind

    with alone(wait=True, tell=tell):
        assert f"process {holder.pid}" in said[0]
    with alone(wait=False, tell=tell):
        assert len(said) == 1


def test_where_there_is_no_place_for_the_lock_a_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # root may write to any folder, and nobody below a file
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    with alone(wait=False, tell=said.append):
        assert said == [
            f"warning: {tmp_path / 'file' / 'mnist_bench' / 'machine.lock'}: Not a directory: other runs are neither "
            "waited for nor kept waiting; set XDG_CACHE_HOME to a folder that can be written"
        ]
