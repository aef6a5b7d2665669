"""Which core a block's main thread has: cores of a shared machine differ, and a thread stays where it was."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def on_random_core(rng: random.Random) -> Iterator[None]:
    """Keeps the calling thread on one of its cores, drawn anew for each block; nothing where the system cannot.

    Without it one process may have its main thread on the better core for a whole session, and a difference between
    cores would look like one between variants. With the same ``rng`` two processes take the same core. Threads that
    there are already (OpenMP's) stay free.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {rng.choice(sorted(cores))})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
