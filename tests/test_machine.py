"""One run at a time of one user, and machines that have no place for its lock."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest
from rich.console import Console

from mnist_bench.cli.machine import alone


def test_the_lock_lies_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = io.StringIO()
    with alone(argparse.Namespace(no_wait=True), Console(file=said, color_system=None)):
        assert (tmp_path / "cache" / "mnist_bench" / "machine.lock").is_file()
    assert said.getvalue() == ""


def test_where_the_cache_folder_cannot_be_written_a_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # root may write to any folder, and nobody below a file
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = io.StringIO()
    with alone(argparse.Namespace(no_wait=True), Console(file=said, color_system=None)):
        assert said.getvalue() == (
            f"warning: {tmp_path / 'file' / 'mnist_bench' / 'machine.lock'}: Not a directory: other runs are neither "
            "waited for nor kept waiting; set XDG_CACHE_HOME to a folder that can be written\n"
        )
