from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from mnist_bench.data.draw import png, text
from mnist_bench.data.mnist import Bytes
from mnist_bench.data.synthetic import draw_digits


@pytest.fixture(scope="module")
def digits() -> tuple[Bytes, Bytes]:
    return draw_digits(16, seed=0, split=0)


def test_the_png_shows_each_digit_five_times_as_large_in_rows_of_four(digits: tuple[Bytes, Bytes]) -> None:
    images, labels = digits
    sheet = np.asarray(Image.open(io.BytesIO(png(images, labels))))
    assert sheet.shape == (4 * (28 * 5 + 24 + 22), 4 * (28 * 5 + 24))
    for number in range(16):
        top, left = number // 4 * 186 + 12, number % 4 * 164 + 12
        assert np.array_equal(255 - sheet[top : top + 140 : 5, left : left + 140 : 5], images[number])
        caption = sheet[top + 140 : top + 160, left : left + 140]
        assert caption.min() < 128


def test_other_labels_make_another_picture(digits: tuple[Bytes, Bytes]) -> None:
    images, labels = digits
    assert png(images, labels) != png(images, (labels + 1) % 10)


@pytest.mark.parametrize(("columns", "across"), [(200, 4), (118, 4), (117, 3), (80, 2), (30, 1), (5, 1)])
def test_as_many_digits_stand_beside_each_other_as_fit(digits: tuple[Bytes, Bytes], columns: int, across: int) -> None:
    lines = text(*digits, columns=columns, colour=False).splitlines()
    assert lines[0].split() == [str(label) for label in digits[1][:across]]
    assert max(map(len, lines)) <= max(columns, 28)
    assert len(lines) == -(-16 // across) * 15


def test_letters_grow_darker_with_the_ink() -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, :2] = np.linspace(0, 255, 28).astype(np.uint8)
    first = text(image, np.array([3], np.uint8), columns=28, colour=False).splitlines()[1]
    assert first.startswith("  ")
    assert first.endswith("@")
    assert sorted(first, key=" .:-=+*#%@".index) == list(first)
    assert first.isascii()


def test_a_half_block_has_its_two_pixels_as_colours() -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 0, 5] = 255
    line = text(image, np.array([3], np.uint8), columns=28, colour=True).splitlines()[1]
    assert re.sub("\x1b\\[[0-9;]*m", "", line) == "▀" * 28
    assert line.count("\x1b[38;5;231;48;5;16m▀") == 1
    assert line.endswith("\x1b[0m")
