"""The errors that a user can meet. Anything else that is raised is a bug.

BenchError                 exit 1
├── UsageError             exit 2  a flag, a name or a file that cannot be used
│   ├── ConfigError        exit 2  a matrix file with problems, all of them at once
│   └── DataError          exit 2  a data set that is missing or corrupt
├── DownloadError          exit 1  the data set could not be fetched
├── WorkerError            exit 1  a worker broke the protocol
├── TrialError                     in a worker alone: an audit that did not hold, a setting that cannot be had
│   └── Diverged                   the loss is not finite
└── Interrupted            exit 130
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar

# What people call it otherwise.
SYNONYMS = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps", "apple": "mps", "jit": "compile", "amp": "bf16"}


class BenchError(Exception):
    """An error with a message for the user: where, what, and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(BenchError):
    exit_code = 2


class ConfigError(UsageError):
    """A matrix file that is refused. ``problems`` are lines ``file:line:column: path: message``."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(UsageError):
    pass


class DownloadError(BenchError):
    pass


class WorkerError(BenchError):
    pass


class TrialError(BenchError):
    """Ends a trial, as its reason; the run goes on."""


class Diverged(TrialError):
    pass


class Interrupted(BenchError):
    exit_code = 130


def quoted(value: object) -> str:
    """A value on one line: text in quotes, shortened to what a person reads."""
    return repr(value[:57] + "..." if isinstance(value, str) and len(value) > 60 else value)


def unknown(kind: str, name: str, known: Iterable[object]) -> str:
    """What to say of a name that does not exist.

    >>> unknown("device", "gpu", ["cpu", "cuda"])
    "unknown device 'gpu' (known: cpu, cuda): did you mean 'cuda'?"
    """
    names = [str(one) for one in known]
    synonym = SYNONYMS.get(name.lower())
    close = [synonym] if synonym in names else difflib.get_close_matches(name.lower(), names, n=1)
    hint = f": did you mean {quoted(close[0])}?" if close else ""
    return f"unknown {kind} {quoted(name)} (known: {', '.join(names)}){hint}"
