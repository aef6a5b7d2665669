"""Git by subprocess: the one room that starts it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mnist_bench.errors import BenchError, UsageError

# Set where git itself has started us (a hook): they would overrule the folder that is asked about.
OVERRULING = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
# No lock on the index of somebody's working tree, and no hook or monitor of an unknown repository.
CAUTIOUS = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


class GitError(BenchError):
    """Git has refused; the message is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """The repository, or the working tree, of ``folder``."""

    folder: Path
    environ: Mapping[str, str]

    def ask(self, *words: str) -> bytes:
        """What git prints.

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
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise GitError(f"git {words[0]}: {said or f'exited with {done.returncode}'}")
        return done.stdout

    def line(self, *words: str) -> str:
        """The one line that git prints, without its end (a path may end in a space)."""
        return self.ask(*words).decode("utf-8", "surrogateescape").removesuffix("\n")

    def agrees(self, *words: str) -> bool:
        """Whether git exits with 0."""
        try:
            self.ask(*words)
        except GitError:
            return False
        return True

    def at(self, folder: Path) -> Git:
        return Git(folder=folder, environ=self.environ)


def parts(listed: bytes) -> list[str]:
    """The items of a list that git prints with ``-z``."""
    return [item.decode("utf-8", "surrogateescape") for item in listed.split(b"\0") if item]
