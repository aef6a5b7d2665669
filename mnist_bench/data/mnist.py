"""A data set on disk: its place, the proof that its files are what they should be, and IDX, their format.

Source of the format: "FILE FORMATS FOR THE MNIST DATABASE".
"""

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import platformdirs

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.disk.files import read_regular, write_atomically
from mnist_bench.errors import DataError
from mnist_bench.records import DataSet

Bytes = npt.NDArray[np.uint8]

APP = "mnist_bench"
SIDE = SETS["mnist"].shape[1]
CLASSES = len(SETS["mnist"].classes)
MOST_BYTES = 64 << 20  # the largest file has 47 MB
SUMS_FILE = "SHA256SUMS"
_BYTES = 0x800  # of an IDX file's magic number: unsigned bytes
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


def verify(data: DataSet) -> None:
    """Checks every file of a data set against its checksum and the four together against ``data.sha256``.

    Called before every use, by the parent and by each worker. Code has no files: each worker holds what it returns to
    its hash.

    Raises:
        DataError: a file is missing, unreadable or changed; names it, both checksums and what to do.
    """
    if not data.is_code and (found := _whole(data.name, Path(data.root))) != data.sha256:
        sums = f"SHA-256 over the four files is {found}, expected {data.sha256}"
        raise DataError(f"{data.root}: not the data set that was checked at the start: {sums}; start a new run")


def inspect(root: Path, name: str) -> tuple[FileState, ...]:
    """Looks at the four files of a set: MNIST's have known checksums, another set's are in its own SHA256SUMS.

    A file of which the .gz alone has a known checksum is missing until that was unpacked here.

    Raises:
        DataError: a file is there but cannot be read, or is no regular file of at most 64 MiB.
    """
    raw, facts = raw_folder(root, name), SETS[name]
    expected = _read_sums(raw.parent) if facts.packed or not facts.checksums else facts.checksums
    states = tuple(_look(raw / file, expected.get(file)) for file in FILE_NAMES)
    return tuple(replace(one, found=None) if facts.packed and one.expected is None else one for one in states)


def is_drawn(root: Path) -> bool:
    """Whether ``root`` holds a whole set that ``data synthesize`` wrote: its sums, which come last, prove it."""
    if not (raw_folder(root).parent / SUMS_FILE).is_file():
        return False
    return all(each.expected and each.status == "ok" for each in inspect(root, "synthetic"))


def demand_whole(states: Sequence[FileState], name: str, root: Path) -> None:
    """Raises a DataError that names every file that is not ok, with both checksums, and says what to do."""
    if problems := [str(state) for state in states if state.status != "ok"]:
        raise DataError("\n".join([*problems, SETS[name].mend.format(name=name, root=root)]))


def combined(states: Sequence[FileState]) -> str | None:
    """SHA-256 over the SHA-256 digests of the four files, in the order of ``FILE_NAMES``; None: one is not ok."""
    if any(state.status != "ok" for state in states):
        return None
    return digest(b"".join(bytes.fromhex(state.found or "") for state in states))


def proven(name: str, root: Path) -> DataSet:
    """A set whose files are all whole.

    Raises:
        DataError: a file is missing, unreadable or corrupt.
    """
    sha256 = _whole(name, root)
    mean, std = SETS[name].pixels or _measured(read_idx(raw_folder(root, name) / TRAIN_IMAGES_FILE, SIDE, SIDE))
    return DataSet(name=name, root=str(root), sha256=sha256, mean=mean, std=std)


def _whole(name: str, root: Path) -> str:
    """The hash of a set whose files are all whole."""
    states = inspect(root, name)
    demand_whole(states, name, root)
    return combined(states) or ""


def _measured(images: Bytes) -> tuple[float, float]:
    """Mean and deviation of the pixels, scaled to [0, 1], to the 4 digits that are usual."""
    mean, square = float(images.mean()) / 255, float(np.square(images, dtype=np.uint16).mean()) / 255**2
    return round(mean, 4), round(math.sqrt(square - mean**2), 4)


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


def _look(path: Path, expected: str | None) -> FileState:
    content = read_file(path)
    if content is None:
        return FileState(path=path, expected=expected)
    return FileState(path=path, expected=expected, found=digest(content), size=len(content))


def write_idx(path: Path, values: Bytes) -> None:
    """Writes images, uint8 (N, 28, 28), or labels, uint8 (N,)."""
    with path.open("wb") as file:
        file.write(struct.pack(f">{1 + values.ndim}I", _BYTES + values.ndim, *values.shape))
        file.write(np.ascontiguousarray(values).data)


def read_idx(path: Path, *item: int) -> Bytes:
    """Reads an IDX file: images of 28 x 28 (``item``: SIDE, SIDE), 0 is paper and 255 ink; labels (no ``item``).

    Returns: uint8 (N, *item), writable.

    Raises:
        DataError: the file cannot be read, or is no whole IDX file of such items.
    """
    content = read_file(path)
    if content is None:
        raise DataError(f"{path}: missing")
    start = 4 * (2 + len(item))
    magic, *shape = np.frombuffer(content[:start].ljust(start, b"\0"), ">u4").tolist()
    # Compared before anything is allocated: a broken header may claim terabytes.
    if magic != _BYTES + len(shape) or shape[1:] != [*item] or len(content) != start + math.prod(shape):
        found = f"{len(content)} bytes that begin with 0x{magic:08x} and the shape {shape}"
        raise DataError(f"{path}: no IDX file of N x {item} bytes: {found}; fetch the file again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
