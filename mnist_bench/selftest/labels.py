"""A training set with wrong labels, in a folder of its own: images are linked to, only the labels are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist_bench.data.mnist import FILE_NAMES, TRAIN_LABELS_FILE, proven, raw_folder, read_labels, write_idx, write_sums
from mnist_bench.records import DataSet


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoiltSet:
    """A mislabelled set and the share of its training images whose label is another one than before."""

    data: DataSet
    fraction: float


def spoil(source: DataSet, root: Path, share: float, *, seed: int) -> SpoiltSet:
    """Shuffles the labels of a share of the training images among themselves.

    The test set stays. The set has checksums of its own (SHA256SUMS), by which ``verify`` knows it.

    Args:
        source: a verified set; nothing of it is written to.
        root: a folder to put the set in; it must have no ``MNIST`` yet.
        share: of the images, in (0, 1]. Some of them get the label that they had, so that fewer are wrong.
        seed: of the choice.

    Raises:
        DataError: the labels cannot be read.
        OSError: the folder cannot be written.
    """
    raw, old = raw_folder(root), raw_folder(Path(source.root))
    raw.mkdir(parents=True)
    labels = read_labels(old / TRAIN_LABELS_FILE)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), size=round(share * len(labels)), replace=False)
    shuffled = labels.copy()
    shuffled[chosen] = labels[rng.permutation(chosen)]
    write_idx(raw / TRAIN_LABELS_FILE, shuffled)
    for name in FILE_NAMES:
        if name != TRAIN_LABELS_FILE:
            (raw / name).symlink_to((old / name).resolve())
    write_sums(raw)
    return SpoiltSet(data=proven("mislabelled", root, None), fraction=float((shuffled != labels).mean()))
