"""The synthetic digit set, for machines that cannot have MNIST: the same four IDX files, drawn by pen.py."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from mnist_bench.data.idx import write_images, write_labels
from mnist_bench.data.mnist import (
    FILE_NAMES,
    TEST_IMAGES_FILE,
    TEST_LABELS_FILE,
    TRAIN_IMAGES_FILE,
    TRAIN_LABELS_FILE,
)
from mnist_bench.data.pen import draw_digits
from mnist_bench.data.verify import Digests, digest, expectations, inspect, write_sums
from mnist_bench.errors import DataError, UsageError
from mnist_bench.records import TEST_IMAGES, TRAIN_IMAGES

# Part of the folder's name: raise it with any change that changes a byte.
VERSION = 1
SEED = 0
SIZES = (TRAIN_IMAGES, TEST_IMAGES)


def folder_name(seed: int, sizes: tuple[int, int] | None = None) -> str:
    """The name of a set's folder in the cache; ``sizes`` None: of the full set."""
    size = "" if sizes in (None, SIZES) else f"-{sizes[0]}+{sizes[1]}"
    return f"synthetic-v{VERSION}-seed{seed}{size}"


def ensure(
    root: Path,
    *,
    seed: int,
    sizes: tuple[int, int],
    notify: Callable[[str], None],
    environ: Mapping[str, str],
) -> None:
    """Draws the set into ``root`` unless it is there and whole; a damaged one is drawn anew.

    Two processes that want it at once draw it once.

    Raises:
        DataError: the folder cannot be written.
    """
    if _whole(root, environ):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f"{root.name}.lock")):
            if _whole(root, environ):
                return  # another process has drawn it while this one waited
            _put_aside(root, notify)
            notify(f"drawing the synthetic set of {sum(sizes):,} digits into {root} (some seconds, once)")
            write_set(root, seed=seed, sizes=sizes)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {error.strerror or error}: the synthetic set cannot be put there; "
            f"mend the folder, or set XDG_CACHE_HOME to one that can be written and has 60 MB left"
        ) from error


def write_set(root: Path, *, seed: int, sizes: tuple[int, int]) -> dict[str, Digests]:
    """Draws a set and puts it into ``root/MNIST`` by one rename, with its SHA256SUMS.

    Args:
        root: made where it is missing.
        sizes: training and test images.

    Returns:
        The digests of the four files, by name.

    Raises:
        UsageError: ``root/MNIST`` is there already.
        OSError: the folder cannot be written.
    """
    target = root / "MNIST"
    if target.exists():
        raise UsageError(f"{target}: is there already; delete it or give another folder")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".drawing-", ignore_cleanup_errors=True) as staging:
        folder = Path(staging) / "MNIST"
        raw = folder / "raw"
        raw.mkdir(parents=True)
        names = ((TRAIN_IMAGES_FILE, TRAIN_LABELS_FILE), (TEST_IMAGES_FILE, TEST_LABELS_FILE))
        for split, (count, (images_name, labels_name)) in enumerate(zip(sizes, names, strict=True)):
            images, labels = draw_digits(count, seed=seed, split=split)
            write_images(raw / images_name, images)
            write_labels(raw / labels_name, labels)
        digests = {name: digest(raw / name) for name in FILE_NAMES}
        write_sums(folder, digests)
        _sync(folder)
        folder.rename(target)
    return digests


def _whole(root: Path, environ: Mapping[str, str]) -> bool:
    expected = expectations("synthetic", root)
    # Without its sums a set proves nothing: it was not written by write_set.
    return all(each.checksum for each in expected) and all(
        state.status == "ok" for state in inspect(root, expected, environ)
    )


def _put_aside(root: Path, notify: Callable[[str], None]) -> None:
    """Moves a damaged set out of the way: not deleted, since this program did not leave it like that."""
    target = root / "MNIST"
    if target.exists():
        aside = Path(tempfile.mkdtemp(dir=root, prefix="damaged-")) / "MNIST"
        target.rename(aside)
        notify(f"WARNING: the synthetic set at {root} is damaged; moved to {aside.parent}, and drawn anew")


def _sync(folder: Path) -> None:
    """Has the bytes on disk before the rename gives them a name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
