"""How long a person waits for the words of the program. pytest-benchmark; ``make bench``."""

import subprocess
import sys
from typing import Any

HELP_SECONDS = 0.3


def test_help_takes_under_0_3_seconds(benchmark: Any) -> None:
    """The best of 5: a process that imports no torch, from exec to exit."""
    command = [sys.executable, "-m", "mnist_bench", "--help"]
    done = benchmark.pedantic(
        subprocess.run, args=(command,), kwargs={"capture_output": True, "check": True}, rounds=5, warmup_rounds=1
    )
    assert b"run" in done.stdout
    if benchmark.stats is not None:  # None with --benchmark-disable
        assert benchmark.stats.stats.min < HELP_SECONDS
