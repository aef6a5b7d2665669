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


def typed(folder, shell, flags, prepare):
    """What a person sees who types each line and TAB."""
    terminal = pexpect.spawn(shell, flags.split(), cwd=folder, dimensions=(24, 200), encoding="utf-8", timeout=20)
    terminal.sendline(f"PS1=; {prepare}; echo rea''dy")
    terminal.expect_exact("ready")
    for line, word in COMPLETED.items():
        terminal.send(f"{line}\t")
        terminal.expect_exact(f"{line.rpartition(' ')[0]} {word}")
        terminal.send("\x15")
    terminal.close(force=True)


def of_fish(folder):
    for line, word in COMPLETED.items():
        command = ["fish", "--no-config", "-c", f"source _mnist-bench; complete -C '{line}'"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        assert word in [answer.partition("\t")[0].rstrip("/") for answer in done.stdout.splitlines()]


SHELLS = {
    "bash": lambda at: typed(at, "bash", "--norc --noprofile -i", ". ./_mnist-bench"),
    "zsh": lambda at: typed(at, "zsh", "-f -i", "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D"),
    "fish": of_fish,
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell, tmp_path, capsys):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "results" / RUN).mkdir(parents=True)
    (tmp_path / "my.yaml").touch()
    assert main(["completion", shell]) == 0
    (tmp_path / "_mnist-bench").write_text(capsys.readouterr().out)
    SHELLS[shell](tmp_path)
