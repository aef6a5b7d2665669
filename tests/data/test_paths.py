from __future__ import annotations

from pathlib import Path

import pytest

from mnist_bench.data import cache_root, default_root, raw_folder


def test_the_flag_wins_over_the_environment_which_wins_over_the_cache() -> None:
    environ = {"MNIST_BENCH_DATA": "/from/environ", "XDG_CACHE_HOME": "/from/xdg"}
    assert default_root("/from/flag", environ) == Path("/from/flag")
    assert default_root(None, environ) == Path("/from/environ")
    assert default_root(None, {"XDG_CACHE_HOME": "/from/xdg"}) == Path("/from/xdg/mnist_bench")


def test_an_empty_variable_counts_as_unset() -> None:
    assert default_root(None, {"MNIST_BENCH_DATA": " ", "XDG_CACHE_HOME": "/c"}) == Path("/c/mnist_bench")


def test_a_relative_folder_becomes_absolute_since_workers_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_root("data", {}) == tmp_path / "data"


def test_the_home_sign_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_root(None, {"MNIST_BENCH_DATA": "~/digits"}) == Path("/home/ada/digits")


def test_a_relative_cache_home_is_ignored_as_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    found = cache_root({"XDG_CACHE_HOME": "relative"})
    assert found.is_absolute()
    assert found.name == "mnist_bench"


def test_raw_files_lie_where_torchvision_looks() -> None:
    assert raw_folder(Path("/data")) == Path("/data/MNIST/raw")
