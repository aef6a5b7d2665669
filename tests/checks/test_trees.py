"""What a check learns of the user's repository, and the worktree of the reference: with real repositories."""

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from check_kit import MATRIX, Repo, clean_environ

from mnist_bench.errors import UsageError
from mnist_bench.gate import trees
from mnist_bench.gate.trees import Git, planted, prune


@pytest.fixture
def repo(tmp_path):
    """Two commits; a space in every path of these tests."""
    made = Repo(tmp_path / "the project")
    made.put("bench/m.yaml", MATRIX)
    made.put("model.py", "WIDTH = 0\n")
    made.commit()
    made.put("model.py", "WIDTH = 1\n")
    made.commit()
    return made


def git_of(folder: Path) -> Git:
    return Git(folder=folder, environ=clean_environ())


# ── what a user's words name ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_matrix_is_found_from_wherever_the_user_stands(repo, tmp_path):
    """A hook of git, which says where its own repository is, does not overrule the folder."""
    other = Repo(tmp_path / "other")
    hook = {"GIT_DIR": str(other.root / ".git"), "GIT_INDEX_FILE": str(other.root / ".git/index")}
    for matrix, here in (("bench/m.yaml", repo.root), ("m.yaml", repo.root / "bench")):
        git, path = trees.find(Path(matrix), here, clean_environ(**hook))
        assert (git.folder, path.as_posix()) == (repo.root, "bench/m.yaml")


def test_no_git_no_repository_or_a_matrix_outside(repo, tmp_path, monkeypatch):
    environ = clean_environ(GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    with pytest.raises(UsageError, match="is no git repository, so --against has nothing"):
        trees.find(Path("m.yaml"), tmp_path, environ)
    with pytest.raises(UsageError, match=r"lies outside of the repository .*the project"):
        trees.find(tmp_path / "m.yaml", repo.root, environ)
    monkeypatch.setenv("PATH", str(repo.root))
    with pytest.raises(UsageError, match="git is not installed, or not on PATH"):
        trees.find(Path("bench/m.yaml"), repo.root, clean_environ(PATH=str(repo.root)))


SPELLINGS = ("main", "HEAD", "@", "v1", "tags/v1", "refs/heads/main", "v1^{}", ":/^a change", "HEAD^{/change}")
UNKNOWN = {
    **dict.fromkeys(("nope", "HEAD~7", "nope...main"), "no commit, branch or tag of that name"),
    **dict.fromkeys(("HEAD:model.py", "a b", "main\nHEAD"), "--against"),
    **dict.fromkeys(("--all", ""), "is no name of a commit"),
}


def test_a_reference_is_whatever_git_takes_for_a_commit(repo):
    base = repo.git("rev-parse", "HEAD")
    repo.git("branch", "other", repo.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "another"))
    commit = repo.commit()
    repo.git("tag", "-a", "v1", "-m", "annotated")
    repo.git("checkout", "--quiet", "--detach")
    for word in (*SPELLINGS, commit[:10]):
        assert trees.commit_of(git_of(repo.root), word) == commit
    for word in ("other...", "main...other"):  # where two branches part
        assert trees.commit_of(git_of(repo.root), word) == base


@pytest.mark.parametrize("word", UNKNOWN)
def test_an_unknown_reference(repo, word):
    with pytest.raises(UsageError, match=UNKNOWN[word]):
        trees.commit_of(git_of(repo.root), word)


@pytest.mark.parametrize("depth", ["--depth=1", "--single-branch"])
def test_a_clone_of_one_branch_gets_the_command_that_works(repo, tmp_path, depth):
    repo.git("branch", "base", "HEAD~1")
    clone = tmp_path / "clone"
    repo.git("clone", "--quiet", depth, f"file://{repo.root}", str(clone))
    depth_too = " --unshallow" * (depth == "--depth=1")
    command = f"git fetch{depth_too} --tags origin '+refs/heads/*:refs/remotes/origin/*'"
    for word in ("base", "origin/base", repo.git("rev-parse", "HEAD~1") if depth_too else "nowhere"):
        with pytest.raises(UsageError, match=re.escape(f"not in this clone: `{command}` brings all; in a workflow")):
            trees.commit_of(git_of(clone), word)
    Repo(clone).git(*shlex.split(command)[1:])
    assert trees.commit_of(git_of(clone), "origin/base") == repo.git("rev-parse", "base")


# ── the working tree ─────────────────────────────────────────────────────────────────────────────────────────────────


def state(repo: Repo, untracked: tuple[str, ...] | None = None) -> trees.State:
    return trees.state(git_of(repo.root), [repo.root / "results"], untracked)


def test_changed_files_are_named_whatever_their_names(repo):
    repo.put("gone.py")
    repo.put("old name.py", "x = 1\n" * 50)
    commit = repo.commit()
    assert (state(repo).commit, state(repo).changed, state(repo).untracked) == (commit, (), ())
    repo.put("model.py", "WIDTH = 2\n")
    (repo.root / "gone.py").unlink()
    repo.git("mv", "old name.py", "new name.py")
    repo.put('späce "quoted"\n.py')
    (repo.root / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    found = state(repo)
    new = ["caf\\udce9.py", 'späce "quoted"\n.py']
    assert sorted(found.changed) == [new[0], "gone.py", "model.py", "new name.py", "old name.py", new[1]]
    assert sorted(found.untracked) == new
    assert state(repo, found.untracked) == found


def test_every_change_of_content_shows(repo):
    """But for files that are new since: a model may write some."""
    seen = [state(repo)]
    for name, text in (("model.py", "W = 2"), ("model.py", "W = 3"), ("more.py", "x = 1"), ("more.py", "x = 2")):
        repo.put(name, text)
        seen.append(state(repo))
    assert len({one.sha256 for one in seen}) == 5
    last, index = seen[-1], (repo.root / ".git" / "index").read_bytes()
    os.utime(repo.root / "bench" / "m.yaml", (1, 1))  # git would refresh its entry
    repo.put("model.log", "epoch 1\n")
    assert state(repo, last.untracked).sha256 == last.sha256
    assert (repo.root / ".git" / "index").read_bytes() == index
    repo.git("add", "model.py")  # where git keeps it is no change of what is there
    assert state(repo, last.untracked).sha256 == last.sha256
    (repo.root / "more.py").unlink()
    assert state(repo, last.untracked).sha256 != last.sha256


def test_ignored_files_that_python_can_import(repo):
    """Beside files that git knows, and of a folder that is ignored as a whole those that were loaded."""
    repo.put(".gitignore", "*.so\nbuild/\n*.log\n__pycache__/\n")
    repo.commit()
    for name in ("bench/_fast.abi3.so", "bench/x.log", "__pycache__/model.cpython-311.pyc"):
        repo.put(name)
    loaded = [repo.put("build/deep/net.py"), repo.put("new.py"), repo.root / "model.py", Path("/lib/os.py")]
    for given, deep in (([], []), (loaded, ["build/deep/net.py"])):
        found = trees.ignored_modules(git_of(repo.root), given)
        assert [path.as_posix() for path in found] == ["bench/_fast.abi3.so", *deep]


@pytest.fixture
def outer(repo, tmp_path):
    """The repository with another as a part of it."""
    part = Repo(tmp_path / "a part")
    part.put("net.py", "WIDTH = 1\n")
    part.commit()
    repo.git("submodule", "--quiet", "add", str(part.root), "its part")
    repo.commit()
    return repo


@pytest.mark.parametrize("ignored", ["nowhere", "here", "in .gitmodules"])
def test_a_change_in_a_submodule(outer, ignored):
    """Even where git is told to ignore it; whatever is changed in it, it is the submodule that has."""
    if ignored == "here":
        outer.git("config", "diff.ignoreSubmodules", "all")
    elif ignored == "in .gitmodules":
        outer.git("config", "--file", ".gitmodules", "submodule.its part.ignore", "all")
        outer.commit()
    seen = [state(outer)]
    for name, text in (("net.py", "WIDTH = 2\n"), ("net.py", "WIDTH = 3\n"), ("new.py", ""), ("new.py", "x = 1\n")):
        outer.put(f"its part/{name}", text)
        seen.append(state(outer))
    Repo(outer.root / "its part").commit()
    seen.append(state(outer))
    assert [one.changed for one in seen] == [(), *[("its part",)] * 5]
    assert len({one.sha256 for one in seen}) == 6
    outer.commit()
    assert state(outer).changed == ()


# ── the reference's tree: whole, and gone afterwards, whatever happens ───────────────────────────────────────────────


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "a cache" / "worktrees"


def old(repo: Repo) -> str:
    return repo.git("rev-parse", "HEAD~1")


def test_the_tree_is_the_commits_and_goes(repo, cache, tmp_path):
    """From a linked worktree too, after an error too, and no hook of the repository runs."""
    repo.put(".git/hooks/post-checkout", f"#!/bin/sh\ntouch '{repo.root}/hooked'\n").chmod(0o755)
    linked = tmp_path / "linked tree"
    repo.git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(linked))
    repo.put("model.py", "WIDTH = 3\n")
    for folder in (repo.root, linked):
        with suppress(KeyboardInterrupt), planted(git_of(folder), old(repo), cache, "one") as tree:
            assert (tree / "model.py").read_text() == "WIDTH = 0\n"
            assert tree.name == folder.name
            assert len(repo.worktrees()) == 3
            (tree / "model.py").write_text("a model wrote here")
            (tree / "log").write_text("and here")
            raise KeyboardInterrupt
        assert list(cache.iterdir()) == []
        assert repo.worktrees() == [str(repo.root), str(linked)]
    assert (repo.root / "model.py").read_text() == "WIDTH = 3\n"
    assert not (repo.root / "hooked").exists()


def test_a_submodule_that_is_checked_out_is_refused_and_an_empty_one_is_named(outer, tmp_path):
    """Also of a reference that the working tree has long left: B would have the files, and A an empty folder."""
    git = git_of(outer.root)
    assert trees.submodules(git, old(outer)) == []
    with pytest.raises(UsageError, match=r"its part: a submodule that is checked out here, .*`git submodule deinit"):
        trees.submodules(git, "HEAD")
    outer.git("submodule", "--quiet", "deinit", "its part")
    assert trees.submodules(git, "HEAD") == ["its part"]


KILLED = """
import os, sys, time
from pathlib import Path
from mnist_bench.gate.trees import Git, planted
root, commit, cache = sys.argv[1:]
with planted(Git(folder=Path(root), environ=os.environ), commit, Path(cache), "killed"):
    print("planted", flush=True)
    time.sleep(1000)
"""


def test_the_tree_of_a_killed_check_is_pruned_by_the_next_and_no_other(repo, cache, tmp_path):
    unplugged = tmp_path / "on a disk that is not plugged in"
    repo.git("worktree", "add", "--quiet", "--detach", str(unplugged))
    unplugged.rename(tmp_path / "away")
    (cache / "half" / "tree").mkdir(parents=True)  # killed before git had made its tree
    command = [sys.executable, "-c", KILLED, str(repo.root), old(repo), str(cache)]
    process = subprocess.Popen(command, env=clean_environ(), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "planted\n"
    prune(cache, git_of(repo.root))  # its check is alive
    assert (cache / "killed" / "tree" / "the project" / "model.py").is_file()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (cache / "killed").is_dir()
    with planted(git_of(repo.root), old(repo), cache, "next") as tree:
        assert sorted(path.name for path in cache.iterdir()) == ["next", "next.lock"]
        assert sorted(repo.worktrees()) == sorted([str(repo.root), str(unplugged), str(tree)])
    assert list(cache.iterdir()) == []
