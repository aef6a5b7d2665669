"""Files that survive a crash, and files that strangers wrote: regular, bounded, through no link."""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def open_regular(path: Path, flags: int, *, follow: bool = False) -> int:
    """Opens a regular file; whatever else stands there (a link, a pipe, a device, a folder) is refused, not waited for.

    Args:
        path: its last part is no link, unless ``follow``: of a path that the user has typed, say.
        flags: as of ``os.open``.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link, which is not followed", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return descriptor


def read_regular(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """The content of a file that ``open_regular`` opens.

    Raises:
        OSError: as there, or it holds more than ``limit`` bytes.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY, follow=follow), "rb") as file:
        data = file.read(limit + 1)
    _demand_size(path, len(data), limit)
    return data


def read_lines(path: Path, limit: int) -> Iterator[bytes]:
    """The lines of a file that ``open_regular`` opens, one at a time; without its newline the last is torn: left out.

    Raises:
        OSError: as ``read_regular``.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        _demand_size(path, os.fstat(file.fileno()).st_size, limit)
        yield from (line for line in file if line.endswith(b"\n"))


def _demand_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit:,} bytes", str(path))


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Replaces ``path`` so that at every instant it holds the old content or the new one, whole and durable.

    Args:
        data: the new content, or its parts.

    Raises:
        OSError: nothing was changed, or (from the last fsync) the new content stands but may not be durable yet.
    """
    with replacing(path) as hidden, hidden.open("xb") as file:
        file.writelines([data] if isinstance(data, bytes) else data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path`` of this process's own; what is made there (a file, a link, a folder) takes the
    place of ``path`` in the end, and its name is durable."""
    hidden = _hidden(path)
    try:
        yield hidden
        hidden.replace(path)
    except BaseException:
        remove(hidden)
        raise
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all in it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def try_folder(folder: Path) -> None:
    """Whether something can be made in a folder; where it is missing, in the nearest one above. Leaves nothing there.

    Raises:
        OSError: it cannot.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    tempfile.TemporaryFile(dir=folder).close()


def append_line(path: Path, line: bytes) -> None:
    """Appends one line (with its newline) by a single write, and syncs it; the caller holds the run's lock.

    A torn last line that a crash left behind is cut off first. A write that did not fit is taken back.

    Raises:
        OSError: the disk is full or broken; the file holds whole lines as before, or a torn end that readers ignore.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = _cut_torn_end(descriptor)
        written = os.write(descriptor, line)
        if written != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if size == 0:  # the file's name is new, perhaps
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; their renames are durable by other means, or not at all.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(descriptor: int, kind: int) -> Iterator[bool]:
    """Holds a lock on what is open, and closes it; False: others hold it (``LOCK_NB``), or the system has none."""
    try:
        try:
            fcntl.flock(descriptor, kind)
            got = True
        except OSError:
            got = False
        yield got
    finally:
        os.close(descriptor)


def _cut_torn_end(descriptor: int) -> int:
    """Cuts off what follows the last newline; returns the size that is left."""
    keep = size = os.fstat(descriptor).st_size
    while keep and os.pread(descriptor, 1, keep - 1) != b"\n":
        start = max(0, keep - 65536)
        keep = start + os.pread(descriptor, keep - start, start).rfind(b"\n") + 1
    if keep < size:
        os.ftruncate(descriptor, keep)
    return keep


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
