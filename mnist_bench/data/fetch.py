"""MNIST onto disk: unpacked from .gz files that are there already, else downloaded. Only verified bytes get a name."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnist_bench.data import mnist
from mnist_bench.data.download import PATIENT, Deadline, Limits, download
from mnist_bench.data.mnist import Resource, mirrors
from mnist_bench.data.paths import raw_folder
from mnist_bench.data.verify import Status, digest, expectations, inspect
from mnist_bench.errors import DataError, DownloadError

Action = Literal["present", "unpacked", "downloaded", "replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was done for one file."""

    name: str
    action: Action
    path: Path


def fetch(
    root: Path,
    *,
    environ: Mapping[str, str],
    resources: Sequence[Resource] | None = None,
    limits: Limits = PATIENT,
    progress: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[Fetched, ...]:
    """Makes ``root/MNIST/raw`` hold the raw files; a corrupt one is replaced once a good one is there.

    Args:
        environ: for ``MNIST_BENCH_MIRROR`` and the cache of checksums.
        resources: MNIST's files; None: the real ones.
        limits: how patient to be; ``limits.total_s`` covers all files.
        progress: draw a bar on stderr.
        notify: told in a line when a download begins.

    Raises:
        DownloadError: no mirror served a file, or the folder cannot be written.
        DataError: a file is there but cannot be read.
        UsageError: ``MNIST_BENCH_MIRROR`` is no address.
    """
    resources = resources or mnist.RESOURCES
    states = inspect(root, expectations("mnist", root, resources), environ)
    statuses = {state.expected.name: state.status for state in states}
    if set(statuses.values()) == {"ok"}:
        return tuple(_fetched(root, each, "present") for each in resources)
    job = _Job(root, mirrors(environ), limits, Deadline(limits.total_s), progress, notify)
    with _staging(raw_folder(root)) as staging:
        return tuple(job.bring(each, statuses[each.name], staging) for each in resources)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the four files of one ``fetch`` share."""

    root: Path
    mirrors: tuple[str, ...]
    limits: Limits
    deadline: Deadline
    progress: bool
    notify: Callable[[str], None]

    def bring(self, resource: Resource, status: Status, staging: Path) -> Fetched:
        if status == "ok":
            return _fetched(self.root, resource, "present")
        if _unpacked_beside(self.root, resource, staging):
            return _fetched(self.root, resource, "unpacked")
        self._download(resource, staging)
        return _fetched(self.root, resource, "downloaded" if status == "missing" else "replaced")

    def _download(self, resource: Resource, staging: Path) -> None:
        packed = staging / f"{resource.name}.gz"
        self.notify(f"downloading {packed.name} into {raw_folder(self.root)}")
        download(
            packed.name,
            packed,
            md5=resource.gz_md5,
            mirrors=self.mirrors,
            limits=self.limits,
            deadline=self.deadline,
            progress=self.progress,
        )
        if not _unpack(packed, resource, staging, raw_folder(self.root)):
            raise DownloadError(f"{packed.name} unpacks to other bytes than MNIST's, although its own MD5 was right")


def unpack_all(root: Path, resources: Sequence[Resource], missing: Sequence[str]) -> list[str]:
    """Unpacks the .gz files that lie beside missing raw files; returns the names that are still missing.

    Raises:
        DataError: a .gz file does not unpack to MNIST's bytes; names it.
        DownloadError: the folder cannot be written.
    """
    packed = [each for each in resources if each.name in missing and packed_path(root, each).exists()]
    if not packed:
        return list(missing)
    with _staging(raw_folder(root)) as staging:
        for each in packed:
            if not _unpacked_beside(root, each, staging):
                raise DataError(
                    f"{packed_path(root, each)}: corrupt: does not unpack to a file of MD5 {each.md5}; "
                    f"`mnist-bench data fetch --data-dir {root}` downloads the file, or delete it"
                )
    unpacked = {each.name for each in packed}
    return [name for name in missing if name not in unpacked]


def packed_path(root: Path, resource: Resource) -> Path:
    return raw_folder(root) / f"{resource.name}.gz"


def _unpacked_beside(root: Path, resource: Resource, staging: Path) -> bool:
    """Unpacks the .gz file that lies beside a raw file's place; False: it is missing or not MNIST's."""
    packed = packed_path(root, resource)
    return packed.exists() and _unpack(packed, resource, staging, raw_folder(root))


def _fetched(root: Path, resource: Resource, action: Action) -> Fetched:
    return Fetched(name=resource.name, action=action, path=raw_folder(root) / resource.name)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``, so that a rename out of it is atomic; gone at the end, come what may."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-", ignore_cleanup_errors=True) as staging:
            yield Path(staging)
    except OSError as error:
        raise DownloadError(
            f"{error.filename or folder}: {error.strerror or error}: MNIST's files cannot be put there; "
            f"give a --data-dir that can be written and has 70 MB left, or one that holds MNIST already"
        ) from error


def _unpack(packed: Path, resource: Resource, staging: Path, folder: Path) -> bool:
    """Unpacks into ``staging`` and, where the bytes are right, renames into ``folder``; False: they are not."""
    raw = staging / resource.name
    try:
        with gzip.open(packed, "rb") as source, raw.open("wb") as target:
            # One byte more than it should have shows a longer file; a bomb unpacks no further.
            target.write(source.read(resource.size + 1))
            target.flush()
            os.fsync(target.fileno())
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
    if digest(raw).md5 != resource.md5:
        return False
    raw.replace(folder / resource.name)
    return True
