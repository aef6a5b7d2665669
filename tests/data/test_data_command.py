from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mnist_bench.cli import main
from mnist_bench.data.mnist import FILE_NAMES

from .conftest import Server, Tiny


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny MNIST in the place of the real one, small synthetic sets, a cache folder of the test's own."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MNIST_BENCH_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("MNIST_BENCH_MIRROR", "http://127.0.0.1:9/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("mnist_bench.data.mnist.RESOURCES", tiny.resources)
    monkeypatch.setattr("mnist_bench.data.synthetic.SIZES", (40, 20))


def test_fetch_says_what_it_did_on_stdout_and_what_it_does_on_stderr(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MNIST_BENCH_MIRROR", server.url("good"))
    assert main(["data", "fetch"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{tmp_path / 'root' / 'MNIST' / 'raw'}:"
    assert out.count("downloaded") == 4
    assert err.count("downloading") == 4
    assert main(["data", "fetch", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["files"] == [{"name": name, "action": "present"} for name in FILE_NAMES]
    assert err == ""


def test_fetch_without_a_mirror_is_an_error_in_lines_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "--data-dir", "/dev/null/x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mnist-bench: /dev/null/x")
    assert "Traceback" not in err


def test_verify_passes_a_whole_set_and_prints_its_checksums(
    tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.put(tmp_path / "elsewhere")
    assert main(["data", "verify", "--data-dir", str(tmp_path / "elsewhere")]) == 0
    out, err = capsys.readouterr()
    assert all(f"md5:{each.md5}" in out for each in tiny.resources)
    assert err == ""


def test_verify_finds_the_corrupt_and_the_missing_file_with_code_2(
    tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.put(tmp_path / "root")
    (folder / FILE_NAMES[0]).write_bytes(b"rubbish")
    (folder / FILE_NAMES[3]).unlink()
    assert main(["data", "verify"]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[2:]] == ["corrupt", "ok", "ok", "missing"]
    assert f"md5:{tiny.resources[0].md5}" in out
    assert "mnist-bench data fetch" in err
    assert main(["data", "verify", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [each["status"] for each in document["files"]] == ["corrupt", "ok", "ok", "missing"]
    assert document["sha256"] is None


def test_verify_trusts_no_remembered_checksum(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.put(tmp_path / "root")
    monkeypatch.setattr(
        "mnist_bench.data.verify._recall", lambda *_: pytest.fail("looked into the cache"), raising=True
    )
    with pytest.raises(pytest.fail.Exception):
        main(["data", "show", "--dataset", "mnist"])
