"""``plan``, ``list`` and ``schema`` as a user meets them, and the flags that they share with ``run``."""

import argparse
import io
import json
import os
import subprocess
import sys

import pytest
from bad_matrices import GOOD, changed
from rich.console import Console

from mnist_bench.cli import console, main, options
from mnist_bench.cli.progress import Screen
from mnist_bench.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a good ``benchmarks.yaml``, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # no line is folded
    (tmp_path / "benchmarks.yaml").write_text(GOOD)
    return tmp_path


class TestPlan:
    def test_without_a_file_the_default_that_ships_is_said(self, here, capsys):
        (here / "benchmarks.yaml").unlink()
        assert main(["plan"]) == 0
        out, err = capsys.readouterr()
        words = "there is no benchmarks.yaml here: the matrix is the default that ships with the program"
        assert err == f"mnist-bench: {words}\n"
        assert "Plan of default" in out

    def test_a_thousand_seeds_are_the_most(self):
        with pytest.raises(UsageError, match="1001 seeds are more than 1000"):
            options.parse_seeds(",".join(map(str, range(1001))))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestConsole:
    @pytest.mark.parametrize(
        ("environment", "terminal", "coloured"),
        [
            ({}, False, False),
            ({"TERM": "xterm"}, True, True),
            ({"TERM": "dumb"}, True, False),
            ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
            ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ],
    )
    def test_where_colour_is_wanted_unless_it_is_said(self, monkeypatch, environment, terminal, coloured):
        for name in ("TERM", "NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert console.wants_colour("auto", Terminal() if terminal else io.StringIO()) == coloured

    @pytest.mark.parametrize(
        ("flags", "ci", "terminal", "moves"),
        [
            ({}, "", True, True),
            ({}, "", False, False),
            ({}, "true", True, False),
            ({"quiet": True}, "", True, False),
            ({"no_progress": True}, "", True, False),
        ],
    )
    def test_what_moves(self, monkeypatch, flags, ci, terminal, moves):
        monkeypatch.setenv("CI", ci)
        stream = Terminal() if terminal else io.StringIO()
        args = argparse.Namespace(**{"quiet": False, "no_progress": False, **flags})
        with Screen(Console(file=stream), args) as screen:
            screen.show("training", "", 0, 0, "")
        assert ("training" in stream.getvalue()) == moves

    def test_the_width_of_a_pipe(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.delenv("COLUMNS", raising=False)
        assert console.make_console(argparse.Namespace(), stderr=False).width == console.PIPE_WIDTH


def test_plug_ins_are_listed(capsys, monkeypatch):
    monkeypatch.setattr("mnist_bench.config.plugin_names", lambda: ("resnet",))
    assert main(["list", "models", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[-1]
    assert (row["model"], row["parameters"], row["origin"]) == ("resnet", None, "plug-in (needs --allow-plugins)")


class TestStreams:
    """Of a program whose stdout or stderr is closed, full, deaf or of another alphabet: the exit code stays."""

    @pytest.mark.parametrize("redirections", ["", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full"])
    @pytest.mark.parametrize(
        ("words", "encoding"), [("--format csv", "utf-8"), ("--format csv", "ascii"), ("--help", "utf-8")]
    )
    def test_closed_or_full(self, here, redirections, words, encoding):
        command = f"{sys.executable} -m mnist_bench plan {words} {redirections}"
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=environment)
        full = redirections == ">/dev/full"
        assert (done.returncode, "mnist-bench: [Errno 28] No space left on device" in done.stderr) == (full, full)
        assert "Traceback" not in done.stderr
        assert (here / "benchmarks.yaml").read_text() == GOOD  # no file took the number of a closed stream

    @pytest.mark.parametrize(("arguments", "code"), [(["plan", "--format", "csv"], 0), (["plan", "nowhere.yaml"], 2)])
    def test_no_reader(self, here, arguments, code):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "mnist_bench", *arguments]
        assert subprocess.run(command, stdout=writer, stderr=writer, check=False).returncode == code
        os.close(writer)

    def test_what_the_other_side_cannot_show_is_escaped(self, here):
        (here / "benchmarks.yaml").write_text(changed(2, "models: [café]"), encoding="utf-8")
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        command = [sys.executable, "-m", "mnist_bench", "plan"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, "caf\\xe9" in done.stderr) == (2, True)
