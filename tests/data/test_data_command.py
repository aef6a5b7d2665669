from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.cli import main
from mnist_bench.data.mnist import SUMS_FILE
from mnist_bench.data.synthetic import cached_root

from .conftest import Server, World

pytestmark = pytest.mark.usefixtures("world")


def test_fetch_says_what_it_did_on_stdout_and_what_it_does_on_stderr(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MNIST_BENCH_MIRROR", server.url("good"))
    assert main(["data", "fetch"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{world.raw}:"
    assert out.count("downloaded") == 4
    assert err.count("downloading") == 4
    assert main(["data", "fetch", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["files"] == [{"name": name, "action": "present"} for name in FILE_NAMES]
    assert err == ""


def test_verify_prints_checksums_and_finds_the_corrupt_and_the_missing_file_with_code_2(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.put()
    assert main(["data", "verify", "--data-dir", str(world.root)]) == 0
    out, err = capsys.readouterr()
    assert all(checksum in out for checksum in SETS["mnist"].checksums.values())
    assert err == ""
    (folder / FILE_NAMES[0]).write_bytes(b"rubbish")
    (folder / FILE_NAMES[3]).unlink()
    assert main(["data", "verify"]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[3:]] == ["corrupt", "ok", "ok", "missing"]
    assert SETS["mnist"].checksums[FILE_NAMES[0]] in out
    assert "mnist-bench data fetch" in err
    assert main(["data", "verify", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [each["status"] for each in document["files"]] == ["corrupt", "ok", "ok", "missing"]
    assert document["sha256"] is None


def test_verify_trusts_no_remembered_checksum(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.put() / FILE_NAMES[0]
    # As if a disk had changed a byte, which no time stamp tells.
    monkeypatch.setattr("mnist_bench.data.mnist._stamp", lambda path: (1, 2, 3, 0, 0) if path.exists() else ())
    assert main(["data", "show", "--dataset", "mnist"]) == 0
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert main(["data", "show", "--dataset", "mnist"]) == 0
    assert main(["data", "verify"]) == 2
    assert "corrupt" in capsys.readouterr().out


def test_verify_of_a_synthetic_set_needs_its_sums(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "--dataset", "synthetic"]) == 2
    assert "mnist-bench data synthesize" in capsys.readouterr().err
    assert main(["data", "synthesize"]) == 0
    assert main(["data", "verify", "--dataset", "synthetic"]) == 0
    sums = cached_root(0, world.environ) / "MNIST" / SUMS_FILE
    sums.unlink()
    capsys.readouterr()
    assert main(["data", "verify", "--dataset", "synthetic"]) == 2
    assert capsys.readouterr().err == f"mnist-bench: {sums}: missing or incomplete: nothing to check the set against\n"


def test_show_prints_to_the_terminal_or_writes_a_png(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    show = ["data", "show", "--offline"]
    assert main(show) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 60
    assert out.isascii()  # no terminal: letters
    assert "WARNING: taking the SYNTHETIC digits" in err
    assert main([*show, "--color", "always"]) == 0
    assert "\x1b[38;5;" in capsys.readouterr().out
    path = world.root.parent / "digits.png"
    assert main([*show, "--output", str(path)]) == 0
    assert capsys.readouterr().out == ""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    assert main([*show, "--output", str(path), "--text"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 60
    for name, words in (("digits.jpg", "only PNG is drawn"), ("digits.png/digits.png", "cannot be written")):
        assert main([*show, "--output", str(path.parent / name)]) == 2
        assert words in capsys.readouterr().err


def test_synthesize_puts_another_seed_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine"
    assert main(["data", "synthesize", "--seed", "3", "--data-dir", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["seed"] == 3
    assert document["root"] == str(target)
    assert main(["data", "verify", "--dataset", "synthetic", "--data-dir", str(target)]) == 0
    capsys.readouterr()
    assert main(["data", "verify", "--data-dir", str(target)]) == 2
    assert "not MNIST, but whole synthetic digits" in capsys.readouterr().err
    assert main(["data", "synthesize", "--data-dir", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    (target / "file").write_text("")
    assert main(["data", "synthesize", "--data-dir", str(target / "file")]) == 2
    assert "name another place" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", "²"])
def test_a_seed_is_a_whole_number(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "synthesize", f"--seed={seed}"]) == 2
    assert "--seed: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "banned"),
    [
        # The parent process must never wait for torch, nor touch a GPU.
        ("import mnist_bench.data.draw, mnist_bench.cli.data", {"torch", "requests", "tqdm"}),
        ("from mnist_bench.cli import main; main(['data', 'show', '--help'])", {"numpy", "torch", "PIL", "requests"}),
    ],
)
def test_nothing_is_imported_in_vain(code: str, banned: set[str]) -> None:
    code = f"import sys\ntry:\n  {code}\nexcept SystemExit: pass\nsys.exit(str(sorted({banned} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_fetch_that_is_ended_ends_at_once_and_leaves_nothing(
    world: World, server: Server, number: signal.Signals
) -> None:
    environ = {**os.environ, "MNIST_BENCH_MIRROR": server.url("trickle")}
    command = [sys.executable, "-m", "mnist_bench", "data", "fetch"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert server.asked
    assert process.returncode == 130 if number == signal.SIGINT else process.returncode in (130, -number)
    assert "Traceback" not in err
    assert world.files() == []
