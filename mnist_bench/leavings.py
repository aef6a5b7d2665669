"""What writers that were killed left behind in a results folder: swept up when no writer can be alive.

A run is made under a hidden name and renamed when it is whole. Whoever makes one holds a shared lock on the results
folder meanwhile; the kernel gives it up when the process ends, whatever its end. Who gets the lock for itself alone
knows that nobody is making a run, so that every hidden one is a dead writer's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# Only names that are made here and in files.py: a results folder may hold other people's files.
_HIDDEN_RUN = re.compile(r"\.\d{8}T\d{6}Z-[a-z0-9]{6}\.\d+\.tmp")
_HIDDEN_LINK = re.compile(r"\.latest\.\d+\.[0-9a-f]{8}\.tmp")


def hidden_run(output_dir: Path, run_id: str) -> Path:
    """Where a run is made before it is whole; of this process's own."""
    return output_dir / f".{run_id}.{os.getpid()}.tmp"


@contextlib.contextmanager
def making(output_dir: Path) -> Iterator[None]:
    """While a run is made: what is hidden in the folder is alive."""
    with _locked(output_dir, fcntl.LOCK_SH):
        yield


def sweep(output_dir: Path) -> None:
    """Removes what dead writers left behind; nothing while a run is being made, or where folders cannot be locked."""
    with _locked(output_dir, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        for path in output_dir.iterdir() if alone else ():
            if _HIDDEN_LINK.fullmatch(path.name):
                path.unlink(missing_ok=True)
            elif _HIDDEN_RUN.fullmatch(path.name) and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[bool]:
    """Whether the lock was got: it is not where others hold it (``LOCK_NB``) or the file system has none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock(descriptor, kind)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind)
    except OSError:
        return False
    return True
