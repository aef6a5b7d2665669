"""One run at a time of one user on this machine: two of them would time each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from mnist_bench.data.mnist import cache_root
from mnist_bench.errors import UsageError


@contextmanager
def alone(*, wait: bool, tell: Callable[[str], object]) -> Iterator[None]:
    """Holds the lock of this user's runs on this machine; waiters are told whose it is.

    Where the cache folder cannot be written (a container without a home) there is no lock, and the run goes on.

    Args:
        wait: for another run to end.
        tell: told that another run is waited for, or that none can be.

    Raises:
        UsageError: another run is on, and is not to be waited for.
    """
    path = cache_root(os.environ) / "machine.lock"
    with ExitStack() as held:  # the end of the file, however it comes, gives the lock up
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(path.open("a+", encoding="utf-8", errors="replace"))
            _acquire(file, wait=wait, tell=tell)
            file.truncate(0)
            file.write(f"process {os.getpid()} in {Path.cwd()}, since {datetime.now():%Y-%m-%d %H:%M}")
            file.flush()
        except OSError as error:
            tell(
                f"warning: {path}: {error.strerror or error}: other runs are neither waited for nor kept waiting; "
                "set XDG_CACHE_HOME to a folder that can be written"
            )
        yield


def _acquire(file: IO[str], *, wait: bool, tell: Callable[[str], object]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = "".join(letter for letter in file.read(500) if letter.isprintable())
        other = f"another run of yours is measuring on this machine ({holder})"
        if not wait:
            raise UsageError(f"{other}, and --no-wait was given") from None
        tell(f"{other}: waiting for its end (Ctrl-C to leave) ...")
        fcntl.flock(file, fcntl.LOCK_EX)
