"""The program as it is called."""

import pytest

from mnist_bench.cli import main


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """Calls the program in an empty folder."""
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv("COLUMNS", "160")
    return lambda *words: (main([*words]), *capsys.readouterr())
