from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mnist_bench.data import read_images, read_labels, write_images, write_labels
from mnist_bench.errors import DataError

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)


@given(images=arrays.arrays(np.uint8, st.tuples(st.integers(0, 4), st.just(28), st.just(28))))
def test_images_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / "images"
    write_images(path, images)
    found = read_images(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, images)


@given(labels=arrays.arrays(np.uint8, st.integers(0, 50), elements=st.integers(0, 9)))
def test_labels_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / "labels"
    write_labels(path, labels)
    assert np.array_equal(read_labels(path), labels)


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    write_labels(path, np.array([7, 2, 1], np.uint8))
    assert path.read_bytes() == bytes.fromhex("00000801 00000003 070201")


def test_what_is_read_can_be_written_to(tmp_path: Path) -> None:
    # torch.from_numpy warns of an array that is read-only.
    write_images(tmp_path / "images", IMAGES)
    assert read_images(tmp_path / "images").flags.writeable


def header(magic: int, *axes: int) -> bytes:
    return struct.pack(f">{1 + len(axes)}I", magic, *axes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated: 0 bytes, less than an IDX header"),
        (b"\x00\x00\x08", "truncated: 3 bytes"),
        (header(0x801, 3), "magic number 0x00000801, expected 0x00000803"),
        (header(0x803, 3, 28, 28) + bytes(3 * 784 - 1), "truncated: 2367 bytes, its header promises 2368"),
        (header(0x803, 3, 28, 28) + bytes(3 * 784 + 1), "too long: 2369 bytes"),
        (header(0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "truncated: 16 bytes"),
        (header(0x803, 1, 10, 12) + bytes(120), "images of 10 x 12 pixels, expected 28 x 28"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "still gzip-compressed"),
    ],
)
def test_malformed_images_are_refused_with_the_reason(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_images(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_label_above_nine_is_refused_with_its_position(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(header(0x801, 3) + bytes([1, 12, 3]))
    with pytest.raises(DataError, match=r"label 12 at position 1, expected 0 to 9"):
        read_labels(path)


def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_images(tmp_path / "none")
    with pytest.raises(DataError, match="Is a directory"):
        read_labels(tmp_path)


@pytest.mark.parametrize("images", [IMAGES.astype(np.float32), IMAGES[:, :27], IMAGES[0]])
def test_only_images_are_written_as_images(tmp_path: Path, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="images must be uint8"):
        write_images(tmp_path / "images", images)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("labels", [np.array([1]), np.array([[1]], np.uint8), np.array([10], np.uint8)])
def test_only_labels_are_written_as_labels(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels must be uint8"):
        write_labels(tmp_path / "labels", labels)
