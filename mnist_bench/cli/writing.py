"""Files that a user names by a flag: can they be written, and writing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_bench.errors import UsageError


def try_out(flag: str, path: Path) -> None:
    """Whether the file could be written, before hours are spent on what goes into it. Makes the folders above it.

    Raises:
        UsageError: it could not; the message names the flag.
    """
    from mnist_bench.disk.files import try_folder
    from mnist_bench.errors import UsageError

    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder: name a file in it")
    try:
        if path.exists() and not path.is_file():  # a pipe or a device: opened once, when there is something to say
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try_folder(path.resolve().parent)
    except OSError as error:
        raise cannot_write(flag, path, error) from error


def write(flag: str, path: Path, data: bytes) -> None:
    """Atomically, if it is a file: a reader never sees half of one.

    Raises:
        UsageError: it cannot be written.
    """
    from mnist_bench.disk.files import write_atomically

    try:
        if path.exists() and not path.is_file():  # a pipe or a device: replacing it would do away with it
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.resolve(), data)  # of a symlink, what it leads to
    except OSError as error:
        raise cannot_write(flag, path, error) from error


def cannot_write(flag: str, path: Path, error: OSError) -> UsageError:
    from mnist_bench.errors import UsageError

    return UsageError(f"{flag} {path}: cannot be written: {error.strerror or error}; name another place")
