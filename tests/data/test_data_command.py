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

from mnist_bench.cli import main
from mnist_bench.data.mnist import FILE_NAMES, SETS, SUMS_FILE
from mnist_bench.data.synthetic import cached_root

from .conftest import Server, World

pytestmark = pytest.mark.usefixtures("world")


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


def test_verify_prints_checksums_and_finds_the_corrupt_and_the_missing_file_with_code_2(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.put()
    assert main(["data", "verify", "--data-dir", str(world.root)]) == 0
    out, err = capsys.readouterr()
    assert all(raw in out for raw, _ in SETS["mnist"].checksums.values())
    assert err == ""
    (folder / FILE_NAMES[0]).write_bytes(b"rubbish")
    (folder / FILE_NAMES[3]).unlink()
    assert main(["data", "verify"]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[3:]] == ["corrupt", "ok", "ok", "missing"]
    assert SETS["mnist"].checksums[FILE_NAMES[0]][0] in out
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


def test_show_prints_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "--dataset", "synthetic"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 60
    assert out.isascii()  # no terminal: letters
    assert "drawing the synthetic set" in err
    assert main(["data", "show", "--dataset", "synthetic", "--color", "always"]) == 0
    assert "\x1b[38;5;" in capsys.readouterr().out


def test_show_writes_a_png_and_then_prints_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "digits.png"
    assert main(["data", "show", "--dataset", "synthetic", "--output", str(path)]) == 0
    assert capsys.readouterr().out == ""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    assert main(["data", "show", "--dataset", "synthetic", "--output", str(path), "--text"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 60


@pytest.mark.parametrize(
    ("name", "words"), [("digits.jpg", "only PNG is drawn"), ("none/digits.png", "No such file or directory")]
)
def test_show_refuses_what_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    assert main(["data", "show", "--dataset", "synthetic", "--output", str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err


def test_show_auto_warns_when_it_shows_the_synthetic_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "--offline"]) == 0
    out, err = capsys.readouterr()
    assert "WARNING: taking the SYNTHETIC digits" in err
    assert "WARNING" not in out


def test_synthesize_puts_another_seed_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine"
    assert main(["data", "synthesize", "--seed", "3", "--output-dir", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["seed"] == 3
    assert document["root"] == str(target)
    assert main(["data", "verify", "--dataset", "synthetic", "--data-dir", str(target)]) == 0
    capsys.readouterr()
    assert main(["data", "verify", "--data-dir", str(target)]) == 2
    assert "not MNIST, but whole synthetic digits" in capsys.readouterr().err
    assert main(["data", "synthesize", "--output-dir", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", "²"])
def test_a_seed_is_a_whole_number(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "synthesize", f"--seed={seed}"])
    assert caught.value.code == 2
    assert "is no seed" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["data", "synthesize", "--output-dir", str(tmp_path / "file")]) == 2
    assert "name another folder" in capsys.readouterr().err


def test_help_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from mnist_bench.cli import main\n"
        "try: main(['data', 'show', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(str(sorted({'numpy', 'torch', 'PIL', 'requests'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_nothing_of_data_imports_torch() -> None:
    # The parent process must never wait for torch, nor touch a GPU.
    code = "import sys, mnist_bench.data, mnist_bench.data.draw, mnist_bench.cli.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
