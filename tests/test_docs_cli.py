"""docs/cli.md is what the parsers say, and asking for help loads nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_bench.cli import COMMANDS
from mnist_bench.errors import BenchError, ConfigError, Interrupted, UsageError

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "cli.md"
HEAVY = ("torch", "rich", "pydantic", "numpy", "pandas", "yaml")


def plain(text: str) -> list[str]:
    """Words alone: from Python 3.13 on argparse writes ``-o, --output DIR`` and breaks lines elsewhere."""
    return re.sub(r"(-\w) (\S+), (--[\w-]+) \2", r"\1, \3 \2", text).split()


def test_reference_is_up_to_date() -> None:
    script = ROOT / "scripts" / "cli_reference.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert plain(DOCUMENT.read_text(encoding="utf-8")) == plain(done.stdout), "docs/cli.md is stale: run `make docs`"


def test_words_are_compared_across_versions() -> None:
    assert plain("-o DIR, --output DIR\n   where") == plain("-o, --output DIR  where")
    assert plain("-o DIR, --output DIR") != plain("-o DIR, --outputs DIR")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_it(command: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.partition(f"## `mnist-bench {command}`\n")[2].partition("\n## ")[0]
    assert f"usage: mnist-bench {command}" in section
    assert max(map(len, section.splitlines())) <= 80


def test_exit_codes_are_those_of_the_errors() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    meanings = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)}
    assert sorted(meanings) == [0, 1, 2, 3, 4, 5, 130]
    assert "failed" in meanings[BenchError.exit_code]
    assert meanings[UsageError.exit_code] == meanings[ConfigError.exit_code] == "usage or configuration"
    assert "--resume" in meanings[Interrupted.exit_code]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    words = [command, "--help"] if command else ["--help"]
    code = (
        f"import sys\nfrom mnist_bench.cli import main\ntry: main({words})\nexcept SystemExit: pass\n"
        f"sys.exit(' '.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: mnist-bench")
