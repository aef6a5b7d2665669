"""The tree of the reference: whole, and gone afterwards, whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from check_kit import Repo, clean_environ

from mnist_bench.checks.git import Git
from mnist_bench.checks.worktree import planted, prune
from mnist_bench.errors import UsageError


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "the project")
    made.put("model.py", "WIDTH = 1\n")
    made.commit()
    made.put("model.py", "WIDTH = 2\n")
    made.put("new.py", "")
    made.commit()
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "a cache" / "worktrees"


def git_of(folder: Path) -> Git:
    return Git(folder=folder, environ=clean_environ())


def old(repo: Repo) -> str:
    return repo.git("rev-parse", "HEAD~1")


def nothing_left(repo: Repo, cache: Path) -> None:
    assert list(cache.iterdir()) == []
    assert repo.worktrees() == [str(repo.root)]


def test_the_tree_is_the_commits_and_goes(repo: Repo, cache: Path) -> None:
    repo.put("model.py", "WIDTH = 3\n")
    with planted(git_of(repo.root), old(repo), cache, "one") as tree:
        assert (tree.root / "model.py").read_text() == "WIDTH = 1\n"
        assert not (tree.root / "new.py").exists()
        assert tree.root.name == "the project"
        assert len(repo.worktrees()) == 2
        (tree.root / "model.py").write_text("a model wrote here")
        (tree.root / "log").write_text("and here")
    nothing_left(repo, cache)
    assert (repo.root / "model.py").read_text() == "WIDTH = 3\n"


def test_it_goes_after_an_error(repo: Repo, cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt), planted(git_of(repo.root), old(repo), cache, "one"):
        raise KeyboardInterrupt
    nothing_left(repo, cache)


def test_from_a_linked_worktree_and_a_detached_head(repo: Repo, cache: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked tree"
    repo.git("worktree", "add", "--quiet", "--detach", str(linked))
    with planted(git_of(linked), old(repo), cache, "one") as tree:
        assert (tree.root / "model.py").read_text() == "WIDTH = 1\n"
    assert repo.worktrees() == [str(repo.root), str(linked)]


def test_hooks_of_the_repository_do_not_run(repo: Repo, cache: Path) -> None:
    hook = repo.put(".git/hooks/post-checkout", f"#!/bin/sh\ntouch '{repo.root}/hooked'\n")
    hook.chmod(0o755)
    with planted(git_of(repo.root), old(repo), cache, "one"):
        assert not (repo.root / "hooked").exists()


def test_a_commit_that_is_checked_out_elsewhere(repo: Repo, cache: Path) -> None:
    with planted(git_of(repo.root), "main", cache, "one") as tree:
        assert (tree.root / "model.py").read_text() == "WIDTH = 2\n"


@pytest.fixture
def nested(repo: Repo, tmp_path: Path) -> Repo:
    """``repo`` with a submodule that has one of its own; both have moved on since the last commit but one."""
    inner, outer = Repo(tmp_path / "inner origin"), Repo(tmp_path / "outer origin")
    inner.put("depth.py", "DEPTH = 1\n")
    inner.commit()
    outer.git("submodule", "--quiet", "add", str(inner.root), "in side")
    outer.put("part.py", "PART = 1\n")
    outer.commit()
    repo.git("submodule", "--quiet", "add", str(outer.root), "vendor/outer part")
    repo.git("submodule", "--quiet", "update", "--init", "--recursive")
    repo.commit()
    sub = repo.root / "vendor" / "outer part"
    (sub / "part.py").write_text("PART = 2\n")
    subprocess.run(["git", "commit", "-qam", "on"], cwd=sub, env=clean_environ(), check=True)
    repo.commit()
    return repo


def test_submodules_come_from_the_working_trees_own(nested: Repo, cache: Path) -> None:
    with planted(git_of(nested.root), old(nested), cache, "one") as tree:
        sub = tree.root / "vendor" / "outer part"
        assert (sub / "part.py").read_text() == "PART = 1\n"
        assert (sub / "in side" / "depth.py").read_text() == "DEPTH = 1\n"
        assert tree.empty_submodules == ()
    nothing_left(nested, cache)
    own = nested.root / "vendor" / "outer part"
    assert (own / "part.py").read_text() == "PART = 2\n"
    listed = subprocess.run(
        ["git", "worktree", "list"], cwd=own, env=clean_environ(), capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1
    assert nested.git("status", "--porcelain") == ""


def test_a_submodule_that_is_not_checked_out_is_told(nested: Repo, cache: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(nested.root), str(clone)], env=clean_environ(), check=True)
    with planted(git_of(clone), "HEAD", cache, "one") as tree:
        assert tree.empty_submodules == ("vendor/outer part",)


def test_a_submodule_that_lacks_the_commit_names_the_mend(nested: Repo, cache: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(nested.root), str(clone)], env=clean_environ(), check=True)
    sub = Repo(clone / "vendor" / "outer part")  # another repository in its place
    sub.put("part.py", "")
    sub.commit()
    with (
        pytest.raises(UsageError, match=r"submodule vendor/outer part: the reference wants .*fetch origin"),
        planted(git_of(clone), "HEAD", cache, "one"),
    ):
        pass
    assert list(cache.iterdir()) == []


# ── what a killed check leaves ───────────────────────────────────────────────────────────────────────────────────────

KILLED = """
import os, sys, time
from pathlib import Path
from mnist_bench.checks.git import Git
from mnist_bench.checks.worktree import planted
root, commit, cache = sys.argv[1:]
with planted(Git(folder=Path(root), environ=os.environ), commit, Path(cache), "killed"):
    print("planted", flush=True)
    time.sleep(1000)
"""


def test_the_tree_of_a_killed_check_is_pruned_by_the_next_and_no_other(repo: Repo, cache: Path, tmp_path: Path) -> None:
    unplugged = tmp_path / "on a disk that is not plugged in"
    repo.git("worktree", "add", "--quiet", "--detach", str(unplugged))
    unplugged.rename(tmp_path / "away")
    command = [sys.executable, "-c", KILLED, str(repo.root), old(repo), str(cache)]
    process = subprocess.Popen(command, env=clean_environ(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "planted\n"
    prune(cache, git_of(repo.root))  # its check is alive
    assert (cache / "killed" / "the project" / "model.py").is_file()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (cache / "killed").is_dir()
    with planted(git_of(repo.root), old(repo), cache, "next") as tree:
        assert sorted(path.name for path in cache.iterdir()) == ["next", "next.lock"]
        assert sorted(repo.worktrees()) == sorted([str(repo.root), str(unplugged), str(tree.root)])
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("torn", ["", "[", '["/nowhere", "/nowhere/tree"]\n["/no'])
def test_a_check_that_was_killed_while_it_planted(repo: Repo, cache: Path, torn: str) -> None:
    (cache / "half").mkdir(parents=True)
    (cache / "half" / "planted.jsonl").write_text(torn)
    prune(cache, git_of(repo.root))
    assert list(cache.iterdir()) == []
