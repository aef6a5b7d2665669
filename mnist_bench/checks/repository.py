"""The user's repository as a check finds it: where it is, what a reference names, what the working tree has changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from mnist_bench.checks.git import Git, GitError, parts
from mnist_bench.errors import UsageError

MOST_CHANGED = 100  # files that are named; of more, only the number


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A working tree and the matrix in it. ``matrix`` is relative to ``git.folder``, the tree's root."""

    git: Git
    matrix: PurePosixPath

    @property
    def root(self) -> Path:
        return self.git.folder


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is on disk: ``commit`` (None before the first), and the files that differ from it.

    ``sha256`` covers the content of all of them: equal for two states exactly where the code is the same.
    """

    commit: str | None
    changed: tuple[str, ...]
    untracked: tuple[str, ...]
    sha256: str


def find(matrix: Path, here: Path, environ: Mapping[str, str]) -> Repository:
    """The repository of the current folder, and the matrix in it.

    Raises:
        UsageError: no git, no repository, or the matrix lies outside of it.
    """
    try:
        root = Path(Git(folder=here, environ=environ).line("rev-parse", "--show-toplevel")).resolve()
    except GitError as error:
        if "not a git repository" in str(error):
            raise UsageError(
                f"{here}: is no git repository, so --against has nothing to compare with: change to the folder of "
                "yours, or use --baseline"
            ) from error
        raise UsageError(f"{here}: {error}") from error
    found = (here / matrix).resolve()
    if not found.is_relative_to(root):
        raise UsageError(
            f"{matrix}: lies outside of the repository {root}, so the reference has no copy of it: change to the "
            "repository of the matrix, or move it here"
        )
    return Repository(git=Git(folder=root, environ=environ), matrix=PurePosixPath(found.relative_to(root).as_posix()))


def commit_of(git: Git, reference: str) -> str:
    """The commit that a user's word names.

    Raises:
        UsageError: none; where the clone is shallow, how to deepen it.
    """
    if not reference or reference.startswith("-"):  # git would take it for an option
        raise UsageError(f"--against {reference!r}: is no name of a commit: name a branch, a tag or a commit")
    try:
        return git.line("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    except GitError as error:
        if git.line("rev-parse", "--is-shallow-repository") == "true":
            raise UsageError(
                f"--against {reference}: not in this shallow clone: `git fetch --unshallow`, or in a workflow "
                "actions/checkout with `fetch-depth: 0`"
            ) from error
        raise UsageError(
            f"--against {reference}: no commit, branch or tag of that name in {git.folder}: `git fetch` may bring it, "
            "and `git branch --all` lists what is here"
        ) from error


def state(git: Git, leave_out: Path, untracked: tuple[str, ...] | None = None) -> State:
    """The working tree as it now is, less what this program writes itself.

    Args:
        leave_out: the output folder.
        untracked: of an earlier state: files that are new since are then left out (a model may write some).
    """
    commit = git.line("rev-parse", "HEAD") if git.agrees("rev-parse", "--verify", "--quiet", "HEAD") else None
    paths = ["--", ":(top)", ":(top,exclude,glob)**/__pycache__/**"]
    if leave_out.resolve().is_relative_to(git.folder) and leave_out.resolve() != git.folder:
        paths.append(f":(top,exclude,literal){leave_out.resolve().relative_to(git.folder).as_posix()}")
    status = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    entries = [(item[:2], item[3:]) for item in parts(git.ask(*status, *paths))]
    new = tuple(path for code, path in entries if code == "??") if untracked is None else untracked
    known = tuple(path for code, path in entries if code != "??")
    content = hashlib.sha256()
    for path in sorted({*known, *new}):
        content.update(path.encode("utf-8", "surrogateescape") + b"\0" + _content(git, path, leave_out) + b"\0")
    return State(commit=commit, changed=tuple(path for _, path in entries), untracked=new, sha256=content.hexdigest())


def named(changed: tuple[str, ...], most: int = MOST_CHANGED) -> tuple[str, ...]:
    """The changed files, or the first of them and how many more there are; bytes that are no UTF-8 escaped."""
    shown = tuple(path.encode("utf-8", "backslashreplace").decode() for path in changed[:most])
    return shown if len(changed) <= most else (*shown, f"and {len(changed) - most} more")


def _content(git: Git, path: str, leave_out: Path) -> bytes:
    """What stands there now: a file, a link, a submodule, or nothing."""
    place = git.folder / path
    if place.is_symlink():
        return b"link " + os.fsencode(place.readlink())
    if place.is_dir():
        inside = state(git.at(place), leave_out)
        return f"submodule {inside.commit} {inside.sha256}".encode()
    try:
        found = place.stat()
        return b"file " + _digest(place, found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError as error:
        return f"none {error.errno}".encode()


@lru_cache(maxsize=10_000)
def _digest(place: Path, mtime_ns: int, size: int, inode: int) -> bytes:
    """Of a file's bytes, which are read anew only when what the system says of it is new: it is asked every pair."""
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
