"""The two trees of a check: the user's working tree as it now is, and a worktree of the reference beside it.

The one room that starts git. A check that was killed leaves its worktree; the next one on this machine removes it (its
lock is free then).
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.machinery import all_suffixes
from io import BytesIO
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from mnist_bench.errors import BenchError, UsageError
from mnist_bench.table import listed

# Set where git itself has started us (a hook): they would overrule the folder that is asked about.
OVERRULING = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
)
# No lock on the index of somebody's working tree, no hook or monitor of an unknown repository; and an edit of the same
# size within one tick of the clock is seen whatever a user's settings say.
SETTINGS = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.trustctime=true", "core.checkStat=default")
CAUTIOUS = ("--no-optional-locks", *(word for setting in SETTINGS for word in ("-c", setting)))
FIELDS = {"1": 8, "u": 10, "?": 1}  # of a line of git's status before the path: changed, unmerged, not known


class GitError(BenchError):
    """Git has refused; the message is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """The repository, or the working tree, of ``folder``."""

    folder: Path
    environ: Mapping[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """What git prints, to stderr too.

        Raises:
            GitError: git has failed.
            UsageError: there is no git.
        """
        kept = {name: value for name, value in self.environ.items() if name not in OVERRULING}
        try:
            done = subprocess.run(
                ["git", *CAUTIOUS, "-C", str(self.folder), *words],
                env={**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                start_new_session=True,  # the terminal's Ctrl-C is ours to act on, when git is through
            )
        except FileNotFoundError as error:
            raise UsageError(
                "git is not installed, or not on PATH: check --against needs it to read the reference"
            ) from error
        except ValueError as error:  # a word with a NUL in it, or no Unicode
            raise GitError(f"git {words[0]}: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise GitError(f"git {words[0]}: {said or f'exited with {done.returncode}'}")
        return done

    def items(self, *words: str) -> list[str]:
        """The list that git prints with ``-z``."""
        return [os.fsdecode(item) for item in self.run(*words).stdout.split(b"\0") if item]

    def line(self, *words: str) -> str:
        """The one line that git prints, without its end (a path may end in a space)."""
        return os.fsdecode(self.run(*words).stdout).removesuffix("\n")

    def agrees(self, *words: str) -> bool:
        """Whether git exits with 0."""
        try:
            self.run(*words)
        except GitError:
            return False
        return True

    def at(self, folder: Path) -> "Git":
        return replace(self, folder=folder)

    def head(self) -> str | None:
        """The commit that is checked out; None before the first."""
        return self.line("rev-parse", "HEAD") if self.agrees("rev-parse", "--verify", "--quiet", "HEAD") else None


# ── what a user's words name ─────────────────────────────────────────────────────────────────────────────────────────


def find(matrix: Path, here: Path, environ: Mapping[str, str]) -> tuple[Git, PurePosixPath]:
    """The root of the repository of the current folder, and the matrix from there.

    Raises:
        UsageError: no git, no repository, or the matrix lies outside of it.
    """
    try:
        root = Path(Git(folder=here, environ=environ).line("rev-parse", "--show-toplevel")).resolve()
    except GitError as error:
        none = "is no git repository, so --against has nothing to compare with: change to the folder of yours, or use "
        why = f"{none}--baseline" if "not a git repository" in str(error) else error
        raise UsageError(f"{here}: {why}") from error
    try:
        found = (here / matrix).resolve()
    except ValueError as error:
        raise UsageError(f"{matrix}: is no path: {error}") from error
    if not found.is_relative_to(root):
        raise UsageError(f"{matrix}: lies outside of the repository {root}, so the reference has no copy: move it here")
    return Git(folder=root, environ=environ), PurePosixPath(found.relative_to(root).as_posix())


def commit_of(git: Git, reference: str) -> str:
    """The commit that a user's word names in any of git's spellings (gitrevisions(7), and ``A...B``: where both part).

    Raises:
        UsageError: none, or an abbreviation of several; where this clone lacks it, the command that fetches it.
    """
    if not reference or reference.startswith("-"):  # git would take it for an option
        raise UsageError(f"--against {reference!r}: is no name of a commit: name a branch, a tag or a commit")
    try:
        found = git.line("rev-parse", "--verify", reference)
        return git.line("rev-parse", "--verify", f"{found}^{{commit}}")
    except GitError as error:
        if "..." in reference:
            return git.line("merge-base", *(commit_of(git, end or "HEAD") for end in reference.split("...", 1)))
        raise UsageError(f"--against {reference}: {_absent(git, reference, str(error))}") from error


def ambiguous(git: Git, reference: str) -> bool:
    """Whether both a branch and a tag have this name; git then takes the tag."""
    return all(git.agrees("show-ref", "--verify", "--quiet", f"refs/{kind}/{reference}") for kind in ("heads", "tags"))


def _absent(git: Git, reference: str, error: str) -> str:
    """Why git finds no such commit, and the command that helps."""
    if "ambiguous" in error:
        return "several commits begin so: give more digits"
    if "origin" not in git.line("remote").split():
        return f"no commit, branch or tag of that name in {git.folder}; `git branch --all` lists what is here"
    depth = " --unshallow" * (git.line("rev-parse", "--is-shallow-repository") == "true")
    everything = f"`git fetch{depth} --tags origin '+refs/heads/*:refs/remotes/origin/*'`"
    return f"not in this clone: {everything} brings all; in a workflow, actions/checkout with `fetch-depth: 0`"


# ── the working tree ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is on disk: ``commit`` (None before the first), and the files that differ from it, bytes that are no UTF-8
    escaped. ``sha256`` covers the content of all of them: equal for two states exactly where the code is the same.
    """

    commit: str | None
    changed: tuple[str, ...]
    untracked: tuple[str, ...]
    sha256: str


def state(git: Git, leave_out: Sequence[Path], untracked: tuple[str, ...] | None = None) -> State:
    """The working tree as it now is.

    Args:
        leave_out: files and folders that are no part of it.
        untracked: of an earlier state: files that are new since are then left out (a model may write some).
    """
    entries = {printable(path): (known, path) for known, path in _entries(git, leave_out)}
    new = tuple(name for name, (known, _) in entries.items() if not known) if untracked is None else untracked
    total = hashlib.sha256()
    for name in sorted({*new, *(name for name, (known, _) in entries.items() if known)}):
        found = content(git, entries[name][1], leave_out) if name in entries else b"none"
        total.update(name.encode() + b"\0" + found + b"\0")
    return State(commit=git.head(), changed=tuple(entries), untracked=new, sha256=total.hexdigest())


def printable(path: str) -> str:
    """A path whose bytes need not be UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()


def ignored_modules(git: Git, loaded: Sequence[Path] = ()) -> list[PurePosixPath]:
    """Files that git ignores and that Python can import: those beside files that git knows, and of ``loaded`` all."""
    ignored = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard")
    found = [path for path in git.items(*ignored, "--directory") if path.endswith(tuple(all_suffixes()))]
    inside = [place.relative_to(git.folder).as_posix() for place in loaded if place.is_relative_to(git.folder)]
    if inside:
        found += git.items(*ignored, "--", *(f":(top,literal){path}" for path in inside))
    return [path for path in map(PurePosixPath, dict.fromkeys(found)) if "__pycache__" not in path.parts]


def _entries(git: Git, leave_out: Sequence[Path]) -> Iterator[tuple[bool, str]]:
    """All that differs from the commit: whether git knows it, and its path."""
    paths = ["--", ":(top)", ":(top,exclude,glob)**/__pycache__/**", *_excluded(git.folder, leave_out)]
    # What a user's settings, or .gitmodules, have git keep quiet about is read by a model all the same.
    status = ("status", "--porcelain=v2", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=none")
    for item in git.items(*status, *paths):
        yield item[0] != "?", item.split(" ", FIELDS[item[0]])[-1]


def _excluded(root: Path, leave_out: Sequence[Path]) -> Iterator[str]:
    """Pathspecs of what lies in the tree; the tree itself is never left out."""
    places = (Path(os.path.abspath(place)) for place in leave_out)  # noqa: PTH100 - a link, not what it leads to
    for place in dict.fromkeys([*places, *(place.resolve() for place in leave_out)]):
        if place.is_relative_to(root) and place != root:
            yield f":(top,exclude,literal){place.relative_to(root).as_posix()}"


def content(git: Git, path: str, leave_out: Sequence[Path] = ()) -> bytes:
    """What stands there now: a file, a link, a repository (whatever has changed in it), or nothing."""
    place = git.folder / path
    if place.is_symlink():
        return b"link " + os.fsencode(place.readlink())
    if (place / ".git").exists():
        inner = state(git.at(place), leave_out)
        return f"commit {inner.commit} {inner.sha256}".encode()
    try:
        with place.open("rb") as file:
            return b"file " + hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return f"none {error.errno}".encode()


def texts(git: Git, folders: Sequence[PurePosixPath], patterns: Sequence[str]) -> dict[PurePosixPath, str]:
    """The files of these folders whose names match, but for those that git ignores, by their paths from the root."""
    known = map(PurePosixPath, git.items("ls-files", "-z", "--cached", "--others", "--exclude-standard"))
    wanted = {path: git.folder / path for path in known if path.parent in folders and any(map(path.match, patterns))}
    return {path: place.read_text("utf-8", "replace") for path, place in wanted.items() if place.is_file()}


def packed(git: Git, leave_out: Sequence[Path] = ()) -> bytes:
    """An archive (tar) of a tree: what git knows or does not ignore, as it is on disk."""
    known = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = BytesIO()
    with tarfile.open(fileobj=files, mode="w") as archive:
        for path in dict.fromkeys(git.items(*known, "--", ":(top)", *_excluded(git.folder, leave_out))):
            if os.path.lexists(git.folder / path):
                archive.add(git.folder / path, path, recursive=False)
    return files.getvalue()


# ── the reference's ──────────────────────────────────────────────────────────────────────────────────────────────────


def submodules(git: Git, commit: str) -> list[str]:
    """Those of a commit, which are empty here, by their paths.

    Raises:
        UsageError: one is checked out: B alone would have its files.
    """
    entries = (entry.partition("\t") for entry in git.items("ls-tree", "-r", "-z", "--full-tree", commit))
    found = [path for head, _, path in entries if head.startswith("160000 ")]
    if own := [path for path in found if (git.folder / path / ".git").exists()]:
        raise UsageError(
            f"{listed([printable(path) for path in own])}: a submodule that is checked out here, and not in the "
            "reference's tree: `git submodule deinit PATH` if no cell needs it, or use --baseline"
        )
    return found


@contextmanager
def planted(git: Git, commit: str, cache: Path, name: str) -> Iterator[Path]:
    """A worktree of ``commit`` without its submodules, as long as the context lasts; gives its root.

    Args:
        git: of the user's working tree.
        cache: where worktrees lie.
        name: of this check; no other process uses it. ``cache/name`` goes with all that is in it.

    Raises:
        GitError: git could not make it (a full disk, say).
    """
    cache.mkdir(parents=True, exist_ok=True)
    prune(cache, git)
    folder = cache / name
    tree = folder / "tree" / (git.folder.name or "root")  # named as the user knows it: it stands in tracebacks
    with FileLock(_lock(folder)):
        tree.parent.mkdir(parents=True)
        try:
            git.run("worktree", "add", "--quiet", "--detach", str(tree), commit)
            yield tree
        finally:
            _uproot(folder, git)


def prune(cache: Path, git: Git) -> None:
    """Removes the trees of checks that were killed."""
    for folder in sorted(path for path in cache.iterdir() if path.is_dir()):
        with suppress(Timeout), FileLock(_lock(folder)).acquire(timeout=0):  # else its check is alive
            _uproot(folder, git)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _uproot(folder: Path, git: Git) -> None:
    """Removes the tree in a folder, which its repository forgets, the folder and its lock.

    Not by ``git worktree prune``, which would forget the user's own worktrees on disks that are not plugged in.
    """
    for tree in (folder / "tree").glob("*"):
        git.at(tree).agrees("worktree", "remove", "--force", "--force", str(tree))
    shutil.rmtree(folder)
    _lock(folder).unlink(missing_ok=True)
