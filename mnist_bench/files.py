"""Files that survive a crash: whole files by temp, fsync and rename; lines by one write to the end, then fsync."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces ``path`` so that at every instant it holds the old content or the new one, whole and durable.

    Raises:
        OSError: nothing was changed, or (from the last fsync) the new content stands but may not be durable yet.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of bounded size; a FIFO, a device, a folder or a file without end is refused.

    Raises:
        OSError: it cannot be read, or is refused.
    """
    # Without O_NONBLOCK, opening a FIFO waits for its writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes} bytes", str(path))
    return content


def try_folder(folder: Path) -> None:
    """Makes a file in a folder and removes it: whoever may do that may write there.

    Raises:
        OSError: it could not be made.
    """
    probe = _temporary(folder / "probe")
    probe.touch()
    probe.unlink()


def link_atomically(path: Path, target: str) -> None:
    """Makes ``path`` a symlink to ``target``; a text file that names it where the file system has no symlinks."""
    temporary = _temporary(path)
    try:
        temporary.symlink_to(target)
    except (OSError, NotImplementedError):
        write_atomically(path, f"{target}\n".encode())
        return
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Appends one line (with its newline) by a single write, and syncs it; the caller holds the run's lock.

    A torn last line that a crash left behind is cut off first. A write that did not fit is taken back.

    Raises:
        OSError: the disk is full or broken; the file holds whole lines as before, or a torn end that readers ignore.
    """
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = _cut_torn_end(descriptor)
        written = os.write(descriptor, line)
        if written != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        sync_folder(path.parent)


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers (from 1); a last line without its newline is torn, and left out."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        if line.strip():
            yield number, line


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with _unsupported_ignored():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _unsupported_ignored() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Some network file systems cannot sync a folder; their renames are durable by other means, or not at all.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _cut_torn_end(descriptor: int) -> int:
    """Cuts off what follows the last newline; returns the size that is left."""
    size = os.fstat(descriptor).st_size
    keep = size
    while keep:
        start = max(0, keep - 65536)
        newline = os.pread(descriptor, keep - start, start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep < size:
        os.ftruncate(descriptor, keep)
    return keep


def _temporary(path: Path) -> Path:
    """A name beside ``path`` of this process's own."""
    return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
