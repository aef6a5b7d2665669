"""The user's repository as a check finds it: where it is, what a reference names, what the working tree has changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from mnist_bench.checks.git import Git, GitError, parts
from mnist_bench.errors import UsageError

UNTRACKED = "??"  # git's code of a file that it does not know
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


def state(git: Git, leave_out: Sequence[Path], untracked: tuple[str, ...] | None = None) -> State:
    """The working tree as it now is.

    Args:
        leave_out: files and folders that are no part of it.
        untracked: of an earlier state: files that are new since are then left out (a model may write some).
    """
    entries = tuple(_entries(git, leave_out))
    new = tuple(path for code, path in entries if code == UNTRACKED) if untracked is None else untracked
    known = tuple(path for code, path in entries if code != UNTRACKED)
    content = hashlib.sha256()
    for path in sorted({*known, *new}):
        content.update(path.encode("utf-8", "surrogateescape") + b"\0" + _content(git, path) + b"\0")
    changed = tuple(path for _, path in entries)
    return State(commit=_head(git), changed=changed, untracked=new, sha256=content.hexdigest())


def _head(git: Git) -> str | None:
    return git.line("rev-parse", "HEAD") if git.agrees("rev-parse", "--verify", "--quiet", "HEAD") else None


def _entries(git: Git, leave_out: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Code and path of all that differs from the commit, file by file in submodules too.

    A submodule itself is among them if it stands at another commit, and not for what a model has left in it (a
    ``__pycache__``).
    """
    paths = ["--", ":(top)", ":(top,exclude,glob)**/__pycache__/**", *_excluded(git.folder, leave_out)]
    # What a user's settings, or .gitmodules, have git keep quiet about is read by a model all the same.
    status = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=none")
    for item in parts(git.ask(*status, *paths)):
        code, path = item[:2], item[3:]
        inner = git.at(git.folder / path)
        if inner.folder.is_symlink() or not (inner.folder / ".git").exists():
            yield code, path
            continue
        if code == UNTRACKED or _moved_on(git, path, inner):
            yield code, path
        for own, name in _entries(inner, leave_out):
            yield code if code == UNTRACKED else own, f"{path.rstrip('/')}/{name}"


def _moved_on(git: Git, path: str, submodule: Git) -> bool:
    """Whether a submodule stands at another commit than the tree has it."""
    recorded = f"HEAD:{path}"
    known = git.agrees("rev-parse", "--verify", "--quiet", recorded)
    return not known or git.line("rev-parse", recorded) != _head(submodule)


def named(changed: tuple[str, ...], most: int = MOST_CHANGED) -> tuple[str, ...]:
    """The changed files, or the first of them and how many more there are; bytes that are no UTF-8 escaped."""
    shown = tuple(path.encode("utf-8", "backslashreplace").decode() for path in changed[:most])
    return shown if len(changed) <= most else (*shown, f"and {len(changed) - most} more")


def _excluded(root: Path, leave_out: Sequence[Path]) -> Iterator[str]:
    """Pathspecs of what lies in the tree; the tree itself is never left out."""
    named = (Path(os.path.abspath(place)) for place in leave_out)  # noqa: PTH100 - a link, not what it leads to
    for place in dict.fromkeys([*named, *(place.resolve() for place in leave_out)]):
        if place.is_relative_to(root) and place != root:
            yield f":(top,exclude,literal){place.relative_to(root).as_posix()}"


def _content(git: Git, path: str) -> bytes:
    """What stands there now: a file, a link, a repository, or nothing."""
    place = git.folder / path
    if place.is_symlink():
        return b"link " + os.fsencode(place.readlink())
    if (place / ".git").exists():
        return f"commit {_head(git.at(place))}".encode()
    try:
        found = place.stat()
        return b"file " + _digest(place, found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError as error:
        return f"none {error.errno}".encode()


@cache
def _digest(place: Path, mtime_ns: int, size: int, inode: int) -> bytes:
    """Of a file's bytes, which are read anew only when what the system says of it is new: it is asked every pair."""
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
