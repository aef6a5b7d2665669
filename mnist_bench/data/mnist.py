"""A data set on disk: its place, the proof that its files are what they should be, and IDX, their format.

Checksums are remembered, so that a second look costs a few stats. Source: "FILE FORMATS FOR THE MNIST DATABASE".
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import platformdirs

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.disk.files import read_regular, write_atomically
from mnist_bench.errors import DataError
from mnist_bench.records import DataSet

Bytes = npt.NDArray[np.uint8]
Name = Literal["mnist", "synthetic", "mislabelled"]

APP = "mnist_bench"
SIDE = SETS["mnist"].shape[1]
CLASSES = len(SETS["mnist"].classes)
GZIP = b"\x1f\x8b"
MOST_BYTES = 64 << 20  # the largest file has 47 MB
CACHE_FILE = "checksums.json"
SUMS_FILE = "SHA256SUMS"
_BYTES = 0x800  # of an IDX file's magic number: unsigned bytes
_CACHE_ENTRIES = 64
# A file changed this shortly before it was hashed may change again without its time stamps moving on.
_RACY_NS = 50_000_000
TRAIN_IMAGES_FILE, TRAIN_LABELS_FILE, *_ = FILE_NAMES


def cache_root(environ: Mapping[str, str]) -> Path:
    """The program's cache folder: ``$XDG_CACHE_HOME/mnist_bench``, else the system's own place for caches."""
    named = environ.get("XDG_CACHE_HOME", "").strip()
    # The XDG specification has relative paths ignored.
    return Path(named if Path(named).is_absolute() else platformdirs.user_cache_dir()) / APP


def default_root(data_dir: str | Path | None, environ: Mapping[str, str]) -> Path:
    """The folder whose ``MNIST/raw`` holds MNIST: ``--data-dir``, else ``MNIST_BENCH_DATA``, else the cache folder.

    Returns:
        An absolute path (workers run in other folders); it need not exist.
    """
    named = data_dir or environ.get("MNIST_BENCH_DATA", "").strip()
    return Path(named).expanduser().absolute() if named else cache_root(environ)


def raw_folder(root: Path, name: str = "mnist") -> Path:
    """The folder of a set's four IDX files, where torchvision looks for them."""
    return root / SETS[name].folder / "raw"


def read_file(path: Path) -> bytes | None:
    """The bytes of one file of a data set; None: there is none.

    Raises:
        DataError: it cannot be read, is no regular file, or is far larger than any file of a data set.
    """
    try:
        return read_regular(path, MOST_BYTES, follow=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}; mend its permissions or give another --data-dir"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """How one file of a data set was found; ``str`` says it in a line.

    Attributes:
        expected: its SHA-256; None: any content is accepted, and pinned by ``DataSet.sha256`` alone.
        found: None: missing; ``size``: in bytes.
    """

    path: Path
    expected: str | None
    found: str | None = None
    size: int | None = None

    @property
    def status(self) -> Literal["ok", "corrupt", "missing"]:
        if self.found is None:
            return "missing"
        return "ok" if self.expected in (None, self.found) else "corrupt"

    def __str__(self) -> str:
        why = f" ({self.size} bytes): SHA-256 {self.found}, expected {self.expected}"
        return f"{self.path}: {self.status}" + why * (self.status == "corrupt")


_Memory = dict[str, tuple[tuple[int, ...], str]]  # by path: what changes with a file, and its checksum


def verify(data: DataSet, *, environ: Mapping[str, str] = os.environ) -> None:
    """Checks every file of a data set against its checksum and the four together against ``data.sha256``.

    Called before every use, by the parent and by each worker. Checksums are remembered by path, inode, size and
    times in the cache folder: an unchanged set costs a few stats.

    Args:
        data: the set, as ``resolve`` returned it.
        environ: where to look for the cache folder.

    Raises:
        DataError: a file is missing, unreadable or changed; names it, both checksums and what to do.
    """
    root = Path(data.root)
    # A mislabelled set lives as long as a selftest: nothing of it is remembered in the user's cache.
    found = proven(data.name, root, None if data.name == "mislabelled" else environ)
    if found != data:
        raise DataError(
            f"{root}: not the data set that was checked at the start: SHA-256 over the four files is "
            f"{found.sha256}, expected {data.sha256}; start a new run"
        )


def inspect(root: Path, name: Name, environ: Mapping[str, str] | None) -> tuple[FileState, ...]:
    """Looks at the four files of a set: MNIST's have known checksums, another set's are in its own SHA256SUMS.

    Args:
        environ: where to look for the remembered checksums; None: hash anew, remember nothing.

    Raises:
        DataError: a file is there but cannot be read, or is no regular file of at most 64 MiB.
    """
    raw = raw_folder(root, name)
    expected = SETS[name].checksums or _read_sums(raw.parent)
    memory = {} if environ is None else _load(environ)
    before = dict(memory)
    states = tuple(_look(raw / file, expected.get(file), memory) for file in FILE_NAMES)
    if environ is not None and memory != before:
        _store(environ, memory)
    return states


def is_drawn(root: Path, environ: Mapping[str, str] | None) -> bool:
    """Whether ``root`` holds a whole set that ``data synthesize`` wrote: its sums, which come last, prove it."""
    if not (raw_folder(root).parent / SUMS_FILE).is_file():
        return False
    return all(each.expected and each.status == "ok" for each in inspect(root, "synthetic", environ))


def is_synthetic(root: Path, environ: Mapping[str, str] | None) -> bool:
    """Whether ``root`` holds a drawn set, and it is not MNIST with sums beside it."""
    return is_drawn(root, environ) and combined(inspect(root, "mnist", environ)) is None


def demand_whole(states: Sequence[FileState], name: Name, root: Path) -> None:
    """Raises a DataError that names every file that is not ok, with both checksums, and says what to do."""
    if problems := [str(state) for state in states if state.status != "ok"]:
        raise DataError("\n".join([*problems, SETS[name].mend.format(root=root)]))


def combined(states: Sequence[FileState]) -> str | None:
    """SHA-256 over the SHA-256 digests of the four files, in the order of ``FILE_NAMES``; None: one is not ok."""
    if any(state.status != "ok" for state in states):
        return None
    return digest(b"".join(bytes.fromhex(state.found or "") for state in states))


def proven(name: Name, root: Path, environ: Mapping[str, str] | None) -> DataSet:
    """A set whose files are all whole.

    Raises:
        DataError: a file is missing, unreadable or corrupt.
    """
    states = inspect(root, name, environ)
    demand_whole(states, name, root)
    return DataSet(name=name, root=str(root), sha256=combined(states) or "")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_sums(raw: Path) -> None:
    """Writes SHA256SUMS for the files in ``raw`` beside it (``sha256sum -c`` reads it)."""
    lines = [f"{digest((raw / name).read_bytes())}  raw/{name}\n" for name in FILE_NAMES]
    write_atomically(raw.parent / SUMS_FILE, "".join(lines).encode())


def _read_sums(folder: Path) -> dict[str, str]:
    lines = (read_file(folder / SUMS_FILE) or b"").decode(errors="replace").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if len(line.split()) == 2)
    return {name.removeprefix("raw/"): checksum for checksum, name in pairs}


def _look(path: Path, expected: str | None, memory: _Memory) -> FileState:
    """A file by its checksum in ``memory`` where it has not changed since; else hashed, and entered there."""
    stamp, hashed_at_ns = _stamp(path), time.time_ns()
    before, checksum = memory.pop(str(path), ((), ""))
    still = before == stamp
    if not checksum or not still:
        content = read_file(path)
        if content is None or not stamp:
            return FileState(path=path, expected=expected)
        checksum = digest(content)
        still = _stamp(path) == stamp and hashed_at_ns - max(stamp[3:]) > _RACY_NS
    if still:
        memory[str(path)] = stamp, checksum
    return FileState(path=path, expected=expected, found=checksum, size=stamp[2])


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file; empty: it cannot be looked at."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    # The change time too: unlike the modification time, no program can set it back.
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _load(environ: Mapping[str, str]) -> _Memory:
    """The remembered checksums; none where the file is missing, broken or of another version (it is but a cache)."""
    try:
        return msgspec.json.decode(
            read_regular(cache_root(environ) / CACHE_FILE, MOST_BYTES, follow=True), type=_Memory
        )
    except (OSError, msgspec.MsgspecError, RecursionError):
        return {}


def _store(environ: Mapping[str, str], memory: _Memory) -> None:
    path = cache_root(environ) / CACHE_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(dict(list(memory.items())[-_CACHE_ENTRIES:])))
    except OSError:
        return  # a read-only cache folder costs a hash each time, no more


def read_images(path: Path) -> Bytes:
    """Reads an IDX file of images.

    Returns:
        uint8 (N, 28, 28), writable; 0 is paper and 255 ink.

    Raises:
        DataError: the file cannot be read, or is no whole IDX file of 28 x 28 images.
    """
    images = _read(path, TRAIN_IMAGES_FILE, axes=3)
    if images.shape[1:] != (SIDE, SIDE):
        height, width = images.shape[1:]
        raise DataError(f"{path}: images of {height} x {width} pixels, expected {SIDE} x {SIDE}; use MNIST's own files")
    return images


def read_labels(path: Path) -> Bytes:
    """Reads an IDX file of labels.

    Returns:
        uint8 (N,), writable, each in 0..9.

    Raises:
        DataError: the file cannot be read, is no whole IDX file of labels, or holds a label above 9.
    """
    labels = _read(path, TRAIN_LABELS_FILE, axes=1)
    for position in np.flatnonzero(labels >= CLASSES):
        raise DataError(f"{path}: label {labels[position]} at position {position}, expected 0 to 9; replace the file")
    return labels


def write_idx(path: Path, values: Bytes) -> None:
    """Writes images, uint8 (N, 28, 28), or labels, uint8 (N,)."""
    with path.open("wb") as file:
        file.write(struct.pack(f">{1 + values.ndim}I", _BYTES + values.ndim, *values.shape))
        file.write(np.ascontiguousarray(values).data)


def _read(path: Path, example: str, *, axes: int) -> Bytes:
    content = read_file(path)
    start = 4 + 4 * axes
    if content is None:
        raise DataError(f"{path}: missing")
    if content.startswith(GZIP):
        raise DataError(f"{path}: still gzip-compressed; unpack it (gunzip) into a file named like {example}")
    magic, *shape = struct.unpack(f">{1 + axes}I", content[:start].ljust(start, b"\0"))
    if magic != _BYTES + axes:
        raise DataError(
            f"{path}: not an IDX file of {axes} axes: magic number 0x{magic:08x}, expected 0x{_BYTES + axes:08x}; "
            f"use a file like {example}"
        )
    # Compared before anything is allocated: a broken header may claim terabytes.
    if len(content) != (promised := start + math.prod(shape)):
        what = "truncated" if len(content) < promised else "too long"
        raise DataError(f"{path}: {what}: {len(content)} bytes, its header promises {promised}; fetch the file again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
