"""The scripts of `mnist-bench completion`, asked by the shells themselves; zsh and fish where they are installed."""

import shutil
import subprocess

import pexpect
import pytest

from mnist_bench.cli import main

RUN = "20261101T101500Z-abcdef"
COMPLETED = {
    "mnist-bench ch": "check",
    "mnist-bench list mo": "models",
    "mnist-bench check --ag": "--against",
    "mnist-bench export --format pa": "parquet",
    "mnist-bench report 2": RUN,
    "mnist-bench run m": "my.yaml",
    "mnist-bench run --data-dir r": "results",
}


@pytest.fixture
def script(tmp_path, capsys):
    """Writes the script of a shell beside a matrix file and a run."""
    (tmp_path / "results" / RUN).mkdir(parents=True)
    (tmp_path / "my.yaml").touch()

    def written(shell):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        assert main(["completion", shell]) == 0
        path = tmp_path / "_mnist-bench"
        path.write_text(capsys.readouterr().out)
        return path

    return written


def typed(shell, flags, prepare, folder):
    """What a person sees who types each line and TAB."""
    terminal = pexpect.spawn(shell, flags, cwd=str(folder), dimensions=(24, 200), encoding="utf-8", timeout=20)
    terminal.sendline(f"PS1=; {prepare}; echo rea''dy")
    terminal.expect_exact("ready")
    for line, word in COMPLETED.items():
        terminal.send(f"{line}\t")
        terminal.expect_exact(f"{line.rpartition(' ')[0]} {word}")
        terminal.send("\x15")
    terminal.close(force=True)


def test_bash_completes(script, tmp_path):
    typed("bash", ["--norc", "--noprofile", "-i"], f". {script('bash')}", tmp_path)


def test_zsh_completes(script, tmp_path):
    script("zsh")
    typed("zsh", ["-f", "-i"], f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D", tmp_path)


def test_fish_completes(script, tmp_path):
    path = script("fish")
    for line, word in COMPLETED.items():
        command = ["fish", "--no-config", "-c", f"source {path}; complete -C '{line}'"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert word in [answer.partition("\t")[0].rstrip("/") for answer in done.stdout.splitlines()]
