"""What a check learns of the user's repository, with real repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from check_kit import MATRIX, Repo, clean_environ

from mnist_bench.checks import repository
from mnist_bench.errors import UsageError


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "the project")  # a space in every path of these tests
    made.put("bench/m.yaml", MATRIX)
    made.put("model.py", "WIDTH = 1\n")
    made.commit()
    return made


def find(repo: Repo, matrix: str = "bench/m.yaml", here: Path | None = None) -> repository.Repository:
    return repository.find(Path(matrix), here or repo.root, clean_environ())


def test_the_matrix_is_found_from_wherever_the_user_stands(repo: Repo) -> None:
    assert find(repo).matrix.as_posix() == "bench/m.yaml"
    assert find(repo).root == repo.root
    below = find(repo, "m.yaml", repo.root / "bench")
    assert (below.root, below.matrix.as_posix()) == (repo.root, "bench/m.yaml")


def test_no_repository(tmp_path: Path) -> None:
    environ = clean_environ(GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    with pytest.raises(UsageError, match="is no git repository, so --against has nothing"):
        repository.find(Path("m.yaml"), tmp_path, environ)


def test_no_git(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repo.root))
    with pytest.raises(UsageError, match="git is not installed, or not on PATH"):
        repository.find(Path("bench/m.yaml"), repo.root, clean_environ(PATH=str(repo.root)))


def test_a_matrix_outside(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MATRIX)
    with pytest.raises(UsageError, match=r"lies outside of the repository .*the project"):
        find(repo, str(tmp_path / "m.yaml"))


def test_a_hook_of_git_does_not_overrule_the_folder(repo: Repo, tmp_path: Path) -> None:
    other = Repo(tmp_path / "other")
    environ = clean_environ(GIT_DIR=str(other.root / ".git"), GIT_INDEX_FILE=str(other.root / ".git/index"))
    assert repository.find(Path("bench/m.yaml"), repo.root, environ).root == repo.root


@pytest.mark.parametrize("word", ["main", "HEAD", "v1", "tags/v1"])
def test_a_reference_is_a_branch_a_tag_or_a_commit(repo: Repo, word: str) -> None:
    repo.git("tag", "-a", "v1", "-m", "annotated")
    commit = repo.git("rev-parse", "HEAD")
    repo.git("checkout", "--quiet", "--detach")
    git = find(repo).git
    assert repository.commit_of(git, word) == commit
    assert repository.commit_of(git, commit[:10]) == commit


@pytest.mark.parametrize("word", ["nope", "HEAD~7", "HEAD:model.py", "--all", "", "a b", "main\nHEAD"])
def test_an_unknown_reference(repo: Repo, word: str) -> None:
    with pytest.raises(UsageError, match="--against"):
        repository.commit_of(find(repo).git, word)


def test_a_shallow_clone_tells_how_to_deepen_it(repo: Repo, tmp_path: Path) -> None:
    old = repo.git("rev-parse", "HEAD")
    repo.put("model.py", "WIDTH = 2\n")
    repo.commit()
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", f"file://{repo.root}", str(clone)], env=clean_environ(), check=True
    )
    git = repository.find(Path("bench/m.yaml"), clone, clean_environ()).git
    with pytest.raises(UsageError, match=r"not in this shallow clone: `git fetch --unshallow`.*`fetch-depth: 0`"):
        repository.commit_of(git, old)


# ── the working tree ─────────────────────────────────────────────────────────────────────────────────────────────────


def state(repo: Repo, untracked: tuple[str, ...] | None = None) -> repository.State:
    return repository.state(find(repo).git, [repo.root / "results"], untracked)


def test_a_clean_tree(repo: Repo) -> None:
    found = state(repo)
    assert (found.commit, found.changed, found.untracked) == (repo.git("rev-parse", "HEAD"), (), ())
    assert state(repo) == found


def test_changed_files_are_named_whatever_their_names(repo: Repo) -> None:
    repo.put("gone.py", "")
    repo.put("old name.py", "x = 1\n" * 50)
    repo.commit()
    repo.put("model.py", "WIDTH = 2\n")
    (repo.root / "gone.py").unlink()
    repo.git("mv", "old name.py", "new name.py")
    repo.put('späce "quoted"\n.py', "")
    names = ["gone.py", "model.py", "new name.py", "old name.py", 'späce "quoted"\n.py']
    assert sorted(state(repo).changed) == names
    assert state(repo).untracked == ('späce "quoted"\n.py',)


def test_what_the_program_writes_is_no_change(repo: Repo) -> None:
    before = state(repo)
    repo.put("results/checks/x/head.json", "{}")
    repo.put("__pycache__/model.cpython-311.pyc", "")
    repo.put("bench/__pycache__/x.pyc", "")
    assert state(repo) == before
    repo.put("results.py", "")
    assert state(repo).changed == ("results.py",)


def test_every_change_of_content_shows(repo: Repo) -> None:
    seen = {state(repo).sha256}
    repo.put("model.py", "WIDTH = 2\n")
    seen.add(state(repo).sha256)
    repo.put("model.py", "WIDTH = 3\n")
    seen.add(state(repo).sha256)
    repo.put("more.py", "x = 1\n")
    seen.add(state(repo).sha256)
    repo.put("more.py", "x = 2\n")
    first = state(repo)
    seen.add(first.sha256)
    repo.git("add", "model.py")  # where git keeps it is no change of what is there
    assert state(repo).sha256 == first.sha256
    assert len(seen) == 5


def test_a_file_that_a_model_writes_meanwhile_is_no_change(repo: Repo) -> None:
    repo.put("more.py", "x = 1\n")
    before = state(repo)
    repo.put("model.log", "epoch 1\n")
    assert state(repo, before.untracked).sha256 == before.sha256
    repo.put("more.py", "x = 2\n")
    assert state(repo, before.untracked).sha256 != before.sha256
    (repo.root / "more.py").unlink()
    assert state(repo, before.untracked).sha256 != before.sha256


def test_a_name_that_is_no_utf_8(repo: Repo) -> None:
    (repo.root / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    found = state(repo)
    assert repository.named(found.changed) == ("caf\\udce9.py",)
    assert state(repo, found.untracked) == found


def test_many_changed_files_are_counted() -> None:
    names = tuple(f"f{number}" for number in range(130))
    assert repository.named(names)[-2:] == ("f99", "and 30 more")
    assert repository.named(names[:100]) == names[:100]


def test_the_index_is_not_touched(repo: Repo) -> None:
    index = repo.root / ".git" / "index"
    os.utime(repo.root / "model.py", (1, 1))  # git would refresh its entry
    before = index.read_bytes()
    state(repo)
    assert index.read_bytes() == before


def test_several_places_are_left_out_but_never_the_tree_itself(repo: Repo) -> None:
    git = find(repo).git
    before = repository.state(git, [])
    repo.put("a cache/x", "")
    repo.put("junit.xml", "")
    (repo.root / "checks").mkdir()
    (repo.root / "checks" / "latest").symlink_to("nowhere")
    places = [repo.root / "a cache", repo.root / "junit.xml", repo.root / "checks" / "latest", repo.root]
    assert repository.state(git, [*places, repo.root.parent]) == before
    repo.put("model.py", "WIDTH = 2\n")
    assert repository.state(git, places).changed == ("model.py",)


@pytest.fixture
def outer(repo: Repo, tmp_path: Path) -> Repo:
    """The repository with another as a part of it."""
    part = Repo(tmp_path / "a part")
    part.put("net.py", "WIDTH = 1\n")
    part.commit()
    repo.git("submodule", "--quiet", "add", str(part.root), "its part")
    repo.commit()
    return repo


@pytest.mark.parametrize("ignored", ["nowhere", "here", "in .gitmodules"])
def test_a_change_in_a_submodule(outer: Repo, ignored: str) -> None:
    """Even where git is told to ignore it."""
    if ignored == "here":
        outer.git("config", "diff.ignoreSubmodules", "all")
    elif ignored == "in .gitmodules":
        outer.git("config", "--file", ".gitmodules", "submodule.its part.ignore", "all")
        outer.commit()
    seen = [state(outer)]
    for number in (2, 3):
        outer.put("its part/net.py", f"WIDTH = {number}\n")
        seen.append(state(outer))
    assert [one.changed for one in seen] == [(), ("its part/net.py",), ("its part/net.py",)]
    assert len({one.sha256 for one in seen}) == 3


def test_a_submodule_at_another_commit(outer: Repo) -> None:
    before = state(outer)
    inner = Repo(outer.root / "its part")
    inner.put("net.py", "WIDTH = 2\n")
    inner.commit()
    after = state(outer)
    assert (before.changed, after.changed) == ((), ("its part",))
    assert before.sha256 != after.sha256
    outer.git("add", "its part")
    assert state(outer).sha256 == after.sha256
    outer.commit()
    assert state(outer).changed == ()


def test_what_a_model_leaves_in_a_submodule_is_no_change(outer: Repo) -> None:
    before = state(outer)
    outer.put("its part/__pycache__/net.cpython-311.pyc", "")
    assert state(outer) == before
    outer.put("its part/model.log", "epoch 1\n")
    assert state(outer, before.untracked).sha256 == before.sha256
    assert state(outer).changed == ("its part/model.log",)
    assert state(outer).sha256 != before.sha256


def test_a_submodule_that_is_gone_or_not_checked_out(outer: Repo, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(outer.root), str(clone)], env=clean_environ(), check=True)
    git = repository.find(Path("bench/m.yaml"), clone, clean_environ()).git
    assert repository.state(git, []).changed == ()
    (clone / "its part").rmdir()
    assert repository.state(git, []).changed == ("its part",)


def test_a_repository_inside_that_is_no_submodule(repo: Repo) -> None:
    inner = Repo(repo.root / "inner")
    inner.put("net.py", "WIDTH = 1\n")
    inner.commit()
    seen = [state(repo)]
    inner.put("net.py", "WIDTH = 2\n")
    seen.append(state(repo))
    inner.commit()
    seen.append(state(repo))
    assert [one.changed for one in seen] == [("inner/",), ("inner/", "inner/net.py"), ("inner/",)]
    assert len({one.sha256 for one in seen}) == 3
