"""IDX files, the format of MNIST: a magic number, the big-endian lengths of the axes, then the bytes.

Source: "FILE FORMATS FOR THE MNIST DATABASE", Y. LeCun, C. Cortes, C. J. C. Burges.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_bench.errors import DataError

Bytes = npt.NDArray[np.uint8]

SIDE = 28
CLASSES = 10
# Two zero bytes, 0x08 for unsigned bytes, then the number of axes.
IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801


def read_images(path: Path) -> Bytes:
    """Reads an IDX file of images.

    Returns:
        uint8 (N, 28, 28), writable, one copy in memory; 0 is paper and 255 ink.

    Raises:
        DataError: the file cannot be read, or is no whole IDX file of 28 x 28 images.
    """
    images = _read(path, IMAGES_MAGIC, "images", "train-images-idx3-ubyte")
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
    labels = _read(path, LABELS_MAGIC, "labels", "train-labels-idx1-ubyte")
    wrong = np.flatnonzero(labels >= CLASSES)
    if wrong.size:
        first = int(wrong[0])
        raise DataError(f"{path}: label {int(labels[first])} at position {first}, expected 0 to 9; replace the file")
    return labels


def write_images(path: Path, images: Bytes) -> None:
    """Writes uint8 (N, 28, 28) as an IDX file.

    Raises:
        ValueError: another type or shape.
        OSError: the file cannot be written.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"images must be uint8 (N, {SIDE}, {SIDE}), not {images.dtype} {images.shape}")
    _write(path, IMAGES_MAGIC, images)


def write_labels(path: Path, labels: Bytes) -> None:
    """Writes uint8 (N,) with values 0..9 as an IDX file.

    Raises:
        ValueError: another type, shape or value.
        OSError: the file cannot be written.
    """
    if labels.dtype != np.uint8 or labels.ndim != 1 or bool((labels >= CLASSES).any()):
        raise ValueError(f"labels must be uint8 (N,) in 0..9, not {labels.dtype} {labels.shape}")
    _write(path, LABELS_MAGIC, labels)


def _read(path: Path, magic: int, kind: str, example: str) -> Bytes:
    axes = magic & 0xFF
    header_bytes = 4 + 4 * axes
    try:
        with path.open("rb") as file:
            header = file.read(header_bytes)
            shape = _shape(path, header, magic, kind, example)
            # The size is compared before anything is allocated: a broken header may claim terabytes.
            _check_size(path, path.stat().st_size, header_bytes + math.prod(shape))
            data = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return data.reshape(shape)


def _shape(path: Path, header: bytes, magic: int, kind: str, example: str) -> tuple[int, ...]:
    axes = magic & 0xFF
    if header[:2] == b"\x1f\x8b":
        raise DataError(f"{path}: still gzip-compressed; unpack it (gunzip) into a file named like {example}")
    if len(header) >= 4 and (found := int.from_bytes(header[:4], "big")) != magic:
        raise DataError(
            f"{path}: not an IDX file of {kind}: magic number 0x{found:08x}, expected 0x{magic:08x}; "
            f"use a file like {example}"
        )
    if len(header) < 4 + 4 * axes:
        raise DataError(f"{path}: truncated: {len(header)} bytes, less than an IDX header; fetch the file again")
    return struct.unpack(f">{axes}I", header[4:])


def _check_size(path: Path, found: int, expected: int) -> None:
    if found != expected:
        what = "truncated" if found < expected else "too long"
        raise DataError(f"{path}: {what}: {found} bytes, its header promises {expected}; fetch the file again")


def _write(path: Path, magic: int, values: npt.NDArray[Any]) -> None:
    header = struct.pack(f">{1 + values.ndim}I", magic, *values.shape)
    with path.open("wb") as file:
        file.write(header)
        file.write(np.ascontiguousarray(values).data)
