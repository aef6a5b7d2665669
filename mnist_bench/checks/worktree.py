"""The tree of the reference: ``git worktree add`` into a folder of its own, which goes when the check ends.

A check that was killed leaves its folder; the next one on this machine removes it (its lock is free then).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_bench.checks.git import Git, GitError, parts
from mnist_bench.errors import UsageError

PLANTED = "planted.jsonl"  # [repository, tree] a line, noted before git makes the tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Worktree:
    """The reference on disk. ``empty_submodules`` are not checked out in the working tree either."""

    root: Path
    empty_submodules: tuple[str, ...]


@contextmanager
def planted(git: Git, commit: str, cache: Path, name: str) -> Iterator[Worktree]:
    """A worktree of ``commit`` with its submodules, as long as the context lasts.

    Args:
        git: of the user's working tree.
        cache: where worktrees lie.
        name: of this check; no other process uses it.

    Raises:
        UsageError: a submodule lacks the commit that the reference wants.
        GitError: git could not make it (a full disk, say).
    """
    cache.mkdir(parents=True, exist_ok=True)
    prune(cache, git)
    lock, folder = FileLock(cache / f"{name}.lock"), cache / name
    tree = folder / (git.folder.name or "tree")  # named as the user knows it: it stands in tracebacks
    with lock:
        folder.mkdir()
        try:
            yield Worktree(root=tree, empty_submodules=tuple(_plant(git, commit, tree, folder / PLANTED, Path())))
        finally:
            _uproot(folder, git)
            Path(lock.lock_file).unlink(missing_ok=True)


def prune(cache: Path, git: Git) -> None:
    """Removes the trees of checks that were killed."""
    for folder in sorted(path for path in cache.iterdir() if path.is_dir()):
        lock = FileLock(cache / f"{folder.name}.lock")
        try:
            with lock.acquire(timeout=0):
                _uproot(folder, git)
                Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            continue  # its check is alive


def _plant(git: Git, commit: str, tree: Path, notes: Path, inside: Path) -> Iterator[str]:
    """Makes the tree, then those of its submodules, from the working tree's own copies of them: nothing is fetched.

    Yields:
        The submodules that are not checked out there, by their path from the root.
    """
    with notes.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps([str(git.folder), str(tree)]) + "\n")
        file.flush()
        os.fsync(file.fileno())
    git.ask("worktree", "add", "--quiet", "--detach", str(tree), commit)
    for path, wanted in _submodules(git, commit):
        own = git.at(git.folder / path)
        if not (own.folder / ".git").exists():
            yield str(inside / path)
            continue
        if not own.agrees("cat-file", "-e", f"{wanted}^{{commit}}"):
            raise UsageError(
                f"submodule {inside / path}: the reference wants its commit {wanted[:12]}, which is not here: "
                f"`git -C {own.folder} fetch origin {wanted}`"
            )
        yield from _plant(own, wanted, tree / path, notes, inside / path)


def _submodules(git: Git, commit: str) -> list[tuple[str, str]]:
    """Path and commit of each submodule."""
    entries = (entry.partition("\t") for entry in parts(git.ask("ls-tree", "-r", "-z", "--full-tree", commit)))
    return [(path, head.split()[2]) for head, _, path in entries if head.startswith("160000 ")]


def _uproot(folder: Path, git: Git) -> None:
    """Removes the trees that are noted, the innermost first, and the folder. Git forgets them by name.

    Not by ``git worktree prune``, which would forget the user's own worktrees on disks that are not plugged in.
    """
    try:
        lines = (folder / PLANTED).read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        lines = []
    for line in reversed(lines):
        try:
            repository, tree = json.loads(line)
            git.at(Path(repository)).ask("worktree", "remove", "--force", "--force", str(tree))
        except (ValueError, GitError):
            continue  # a torn line of a killed check, or a tree that git had not made yet: the folder goes all the same
    shutil.rmtree(folder)
