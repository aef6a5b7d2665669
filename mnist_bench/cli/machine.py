"""One run at a time of one user on this machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout
from rich.console import Console

from mnist_bench.data import cache_root
from mnist_bench.errors import UsageError


@contextmanager
def alone(args: argparse.Namespace, errors: Console) -> Iterator[None]:
    """Holds the lock of this user's runs on this machine: two of them would time each other.

    Where the cache folder cannot be written (a container without a home) there is no lock, and the run goes on.

    Args:
        args: with ``no_wait``.
        errors: told that another run is waited for, or that none can be.

    Raises:
        UsageError: ``--no-wait``, and another run is on.
    """
    path = cache_root(os.environ) / "machine.lock"
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # an OSError too
        if args.no_wait:
            raise UsageError("another run of yours is measuring on this machine, and --no-wait was given") from None
        errors.print("waiting for another run of yours on this machine to end (Ctrl-C to leave) ...")
        lock.acquire(poll_interval=1.0)
    except OSError as error:
        errors.print(
            f"warning: {path}: {error.strerror or error}: other runs are neither waited for nor kept waiting; "
            "set XDG_CACHE_HOME to a folder that can be written",
            soft_wrap=True,
        )
    try:
        yield
    finally:
        lock.release()
