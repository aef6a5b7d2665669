"""The proof that a data set on disk is what it says: checksums, remembered so that a second look costs a few stats."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mnist_bench.data import mnist
from mnist_bench.data.mnist import FILE_NAMES, Resource
from mnist_bench.data.paths import cache_root, raw_folder
from mnist_bench.errors import DataError
from mnist_bench.files import write_atomically
from mnist_bench.records import DataSet

CACHE_FILE = "checksums.json"
SUMS_FILE = "SHA256SUMS"
_CACHE_VERSION = 1
_CACHE_ENTRIES = 64
# A file changed this shortly before it was hashed may change again without its time stamps moving on.
_RACY_NS = 50_000_000
_BLOCK_BYTES = 1 << 20

Status = Literal["ok", "corrupt", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """Size in bytes and checksums (lower-case hex) of one file."""

    size: int
    md5: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a file should be. ``checksum`` None: any content is accepted, and pinned by ``DataSet.sha256`` alone."""

    name: str
    algorithm: Literal["md5", "sha256"]
    checksum: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """How one file of a data set was found."""

    path: Path
    status: Status
    expected: Expected
    found: Digests | None  # None: missing

    @property
    def checksum(self) -> str | None:
        """The found checksum, by the algorithm of the expected one."""
        if self.found is None:
            return None
        return self.found.md5 if self.expected.algorithm == "md5" else self.found.sha256


def verify(data: DataSet, *, environ: Mapping[str, str] | None = None) -> None:
    """Checks every file of a data set against its checksum and the four together against ``data.sha256``.

    Called before every use, by the parent and by each worker. Checksums are remembered by path, inode, size and
    times in the cache folder: an unchanged set costs a few stats.

    Args:
        data: the set, as ``resolve`` returned it.
        environ: where to look for the cache folder; None: ``os.environ``.

    Raises:
        DataError: a file is missing, unreadable or changed; names it, both checksums and what to do.
    """
    root = Path(data.root)
    remembered = os.environ if environ is None else environ
    # A mislabelled set lives as long as a selftest: nothing of it is remembered in the user's cache.
    states = inspect(root, expectations(data.name, root), None if data.name == "mislabelled" else remembered)
    demand_whole(states, mend=_mend(data))
    found = combined(states)
    if found != data.sha256:
        raise DataError(
            f"{raw_folder(root)}: not the data set that was checked at the start: SHA-256 over the four files is "
            f"{found}, expected {data.sha256}; start a new run"
        )


def expectations(
    name: Literal["mnist", "synthetic", "mislabelled"], root: Path, resources: Sequence[Resource] | None = None
) -> tuple[Expected, ...]:
    """The four files that a data set at ``root`` should have: MNIST's known MD5s, or another set's own SHA256SUMS.

    Args:
        resources: MNIST's files; None: the real ones.

    Raises:
        DataError: SHA256SUMS cannot be read.
    """
    if name == "mnist":
        return tuple(
            Expected(name=each.name, algorithm="md5", checksum=each.md5) for each in resources or mnist.RESOURCES
        )
    sums = _read_sums(root / "MNIST" / SUMS_FILE)
    return tuple(Expected(name=file, algorithm="sha256", checksum=sums.get(file)) for file in FILE_NAMES)


def inspect(root: Path, expected: Sequence[Expected], environ: Mapping[str, str] | None) -> tuple[FileState, ...]:
    """Looks at every expected file.

    Args:
        environ: where to look for the remembered checksums; None: hash anew, remember nothing.

    Raises:
        DataError: a file is there but cannot be read.
    """
    memory = None if environ is None else cache_root(environ) / CACHE_FILE
    entries = {} if memory is None else _load(memory)
    before = dict(entries)
    states = tuple(_state(raw_folder(root) / each.name, each, entries) for each in expected)
    if memory is not None and entries != before:
        _store(memory, entries)
    return states


def demand_whole(states: Sequence[FileState], mend: str) -> None:
    """Raises a DataError that names every file that is not ok, with both checksums, and ends with ``mend``."""
    problems = [describe(state) for state in states if state.status != "ok"]
    if problems:
        raise DataError("\n".join([*problems, mend]))


def describe(state: FileState) -> str:
    """One line on how a file was found."""
    if state.found is None:
        return f"{state.path}: missing"
    kind = state.expected.algorithm.upper()
    if state.status == "ok":
        return f"{state.path}: ok ({kind} {state.checksum})"
    return (
        f"{state.path}: corrupt ({state.found.size} bytes): {kind} {state.checksum}, expected {state.expected.checksum}"
    )


def combined(states: Sequence[FileState]) -> str:
    """SHA-256 over the SHA-256 digests of the four raw files, in the order of ``FILE_NAMES``."""
    digests = {state.expected.name: state.found.sha256 for state in states if state.found is not None}
    return hashlib.sha256(b"".join(bytes.fromhex(digests[name]) for name in FILE_NAMES)).hexdigest()


def digest(path: Path) -> Digests:
    """Reads a file once and returns its size and checksums.

    Raises:
        OSError: it cannot be read.
    """
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            md5.update(block)
            sha256.update(block)
            size += len(block)
    return Digests(size=size, md5=md5.hexdigest(), sha256=sha256.hexdigest())


def write_sums(folder: Path, digests: Mapping[str, Digests]) -> None:
    """Writes ``folder/SHA256SUMS`` for files in ``folder/raw`` (``sha256sum -c`` reads it)."""
    lines = [f"{found.sha256}  raw/{name}\n" for name, found in digests.items()]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="ascii")


def _read_sums(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if len(line.split()) == 2)
    return {name.removeprefix("raw/"): checksum for checksum, name in pairs}


def _state(path: Path, expected: Expected, entries: dict[str, Any]) -> FileState:
    try:
        found = _recall(path, entries)
    except (FileNotFoundError, NotADirectoryError):
        return FileState(path=path, status="missing", expected=expected, found=None)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}; mend its permissions or give another --data-dir"
        ) from error
    state = FileState(path=path, status="ok", expected=expected, found=found)
    if expected.checksum in (None, state.checksum):
        return state
    return FileState(path=path, status="corrupt", expected=expected, found=found)


def _recall(path: Path, entries: dict[str, Any]) -> Digests:
    """The digests of a file, from ``entries`` where it has not changed since; else hashed and entered."""
    key, stamp = str(path), _stamp(path)
    match entries.get(key):
        case {"stamp": known, "md5": str(md5), "sha256": str(sha256)} if known == stamp:
            return Digests(size=stamp[2], md5=md5, sha256=sha256)
    entries.pop(key, None)
    hashed_at_ns = time.time_ns()
    found = digest(path)
    if _stamp(path) == stamp and hashed_at_ns - max(stamp[3:]) > _RACY_NS:
        entries[key] = {"stamp": stamp, "md5": found.md5, "sha256": found.sha256}
    return found


def _stamp(path: Path) -> list[int]:
    # The change time too: unlike the modification time, no program can set it back.
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _load(path: Path) -> dict[str, Any]:
    """The remembered checksums; none where the file is missing, broken or of another version (it is but a cache)."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    match document:
        case {"version": version, "files": dict(files)} if version == _CACHE_VERSION:
            return dict(files)
    return {}


def _store(path: Path, entries: dict[str, Any]) -> None:
    recent = dict(list(entries.items())[-_CACHE_ENTRIES:])
    document = json.dumps({"version": _CACHE_VERSION, "files": recent}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, document.encode())
    except OSError:
        return  # a read-only cache folder costs a hash each time, no more


def _mend(data: DataSet) -> str:
    if data.name == "mislabelled":
        return "start `mnist-bench selftest` again: it writes the set anew"
    if data.name == "synthetic":
        return f"delete {data.root} if it is there; `mnist-bench data synthesize` draws the set anew"
    return fetch_hint(Path(data.root))


def fetch_hint(root: Path) -> str:
    return f"`mnist-bench data fetch --data-dir {root}` replaces what is not MNIST's own, or delete the file"
