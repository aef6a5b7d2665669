"""One run at a time on this machine."""

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
    """Holds the machine's lock: two runs would time each other.

    Args:
        args: with ``no_wait``.
        errors: told that another run is waited for.

    Raises:
        UsageError: ``--no-wait``, and another run is on.
    """
    path = cache_root(os.environ) / "machine.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if args.no_wait:
            raise UsageError("another run is measuring on this machine, and --no-wait was given") from None
        errors.print("waiting for another run on this machine to end (Ctrl-C to leave) ...")
        lock.acquire(poll_interval=1.0)
    try:
        yield
    finally:
        lock.release()
