"""docs/example is somebody else's project: it works in a repository of its own, with mnist_bench beside it."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_workflows import COPIED, commands

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "example"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
pytestmark = [needs_git, pytest.mark.usefixtures("one_core")]
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path, bench_environ):
    """Runs mnist-bench in a repository with the example, committed, and nothing else; this checkout is 'installed'."""
    project = tmp_path / "digits-project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__"))
    environ = {**bench_environ("example"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    data = Path(environ.pop("MNIST_BENCH_DATA"))
    if data.exists():
        (project / "data").symlink_to(data)
    # The package is found as an installed one is: outside of the project.
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environ.get("PYTHONPATH", "")]))
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], cwd=project, check=True)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mnist_bench", *words]
        return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)

    return run


def of_workflows(*names: str) -> list[list[str]]:
    """The commands of mnist-bench in the example's workflows, without its name."""
    found = [words[1:] for path in COPIED for words in commands(path) if words[0] == "mnist-bench"]
    return [words for words in found if words[0] in names]


def test_the_projects_workflows_run(call, tmp_path):
    project = tmp_path / "digits-project"
    assert not (project / "mnist_bench").exists()
    planned = csv.DictReader(call("plan", "--allow-plugins", "--format", "csv").stdout.splitlines())
    assert [row["cell"] for row in planned] == ["patches/cpu/b100/eager", "linear/cpu/b100/eager"]
    run = next(words for words in of_workflows("run") if words[-2:] == ["--seeds", "1"])
    done = call(*run, "--filter", "model=linear", "--offline", "--format", "csv")
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert (row["model"], row["status"]) == ("linear", "ok")
    assert "linear" in (tmp_path / "summary.md").read_text("utf-8")
    for words in of_workflows("history", "export"):
        assert call(*words).returncode == 0, words
    assert "<html" in (project / "history.html").read_text("utf-8")
    assert "linear" in (project / "junit.xml").read_text("utf-8")


def test_the_project_is_checked_against_its_own_commit(call, tmp_path):
    (words,) = of_workflows("check")
    words = [word.replace("origin/$BASE", "HEAD") for word in words]
    done = call(*words, "--budget", "15s", "--filter", "model=linear", "--offline")
    assert done.returncode in (0, 4), done.stderr  # so short a budget may not suffice; nothing else may be amiss
    assert "linear/cpu/b100/eager" in done.stdout
    assert "linear" in (tmp_path / "digits-project" / "junit.xml").read_text("utf-8")
