from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from mnist_bench.data import raw_folder
from mnist_bench.data.fetch import proven
from mnist_bench.data.mnist import FILE_NAMES, SUMS_FILE, Bytes, inspect
from mnist_bench.data.synthetic import SIZES, STAMPS, cached_root, draw_digits, ensure, styles, write_set
from mnist_bench.errors import UsageError

from .conftest import World

# The files of seed 0. A change of these is a change of everybody's figures: raise synthetic.VERSION with it.
GOLDEN = {
    "train-images-idx3-ubyte": "6d0412dcadc900b994565b6a0aada6b7b8bbe165168ffb059855af6baf3b50a3",
    "train-labels-idx1-ubyte": "afe7532cc1a8f427f27dca926e6bb91aa1ab5b862fdde0239b4868841e884cc6",
    "t10k-images-idx3-ubyte": "148b3420ddc96b5c18205c25ae2faec652f73878a6e6c427e10a2ef4869bb8c0",
    "t10k-labels-idx1-ubyte": "c68d9d4df2f77c0821a879f838e655b80cdcd8f2f36fa5a6656f0867a9097b24",
}


@pytest.fixture(scope="module")
def digits() -> tuple[Bytes, Bytes]:
    return draw_digits(3000, seed=0, split=0)


def test_the_set_of_seed_0_has_the_bytes_it_always_had(tmp_path: Path) -> None:
    write_set(tmp_path, seed=0, sizes=SIZES)
    assert {state.path.name: state.found.sha256 for state in inspect(tmp_path, "synthetic", None)} == GOLDEN


def test_the_bytes_do_not_depend_on_the_number_of_threads(digits: tuple[Bytes, Bytes]) -> None:
    images, labels = draw_digits(3000, seed=0, split=0, threads=1)
    assert np.array_equal(images, digits[0])
    assert np.array_equal(labels, digits[1])


def test_a_smaller_set_is_the_beginning_of_a_larger_one(digits: tuple[Bytes, Bytes]) -> None:
    images, labels = draw_digits(1234, seed=0, split=0)
    assert np.array_equal(images, digits[0][:1234])
    assert np.array_equal(labels, digits[1][:1234])


def test_another_seed_and_another_split_give_other_digits(digits: tuple[Bytes, Bytes]) -> None:
    for seed, split in ((1, 0), (0, 1)):
        images, labels = draw_digits(100, seed=seed, split=split)
        assert not np.array_equal(labels, digits[1][:100])
        assert not np.array_equal(images, digits[0][:100])


def test_no_two_images_are_alike(digits: tuple[Bytes, Bytes]) -> None:
    assert len({image.tobytes() for image in digits[0]}) == len(digits[0])


def test_the_pixels_suit_the_normalisation_of_mnist(digits: tuple[Bytes, Bytes]) -> None:
    pixels = digits[0] / 255
    assert pixels.mean() == pytest.approx(0.1307, abs=0.015)
    assert pixels.std() == pytest.approx(0.3081, abs=0.03)


def test_digits_are_about_equally_frequent(digits: tuple[Bytes, Bytes]) -> None:
    counts = np.bincount(digits[1], minlength=10)
    assert len(counts) == 10
    assert counts.min() > 230
    assert counts.max() < 370


def test_the_frame_cuts_off_no_digit(digits: tuple[Bytes, Bytes]) -> None:
    edge = np.ones((28, 28), bool)
    edge[1:-1, 1:-1] = False
    touching = (digits[0][:, edge] > 127).any(axis=1)
    assert touching.mean() < 0.002


def test_ink_is_centred_like_in_mnist(digits: tuple[Bytes, Bytes]) -> None:
    weights = digits[0].astype(np.float64)
    total = weights.sum(axis=(1, 2))
    assert total.min() > 0
    for axis in (1, 2):
        middle = (weights.sum(axis=3 - axis) * np.arange(28)).sum(axis=1) / total
        assert middle.mean() == pytest.approx(13.5, abs=0.3)
        assert middle.std() < 1.5


def test_the_classes_can_be_told_apart_but_not_trivially(digits: tuple[Bytes, Bytes]) -> None:
    # The nearest mean image gets 82 % of MNIST right: neither noise nor a fixed stencil for each digit.
    images, labels = digits[0].reshape(-1, 784) / 255, digits[1]
    means = np.stack([images[:2000][labels[:2000] == digit].mean(axis=0) for digit in range(10)])
    distances = ((images[2000:, None] - means) ** 2).sum(axis=2)
    assert 0.65 < (distances.argmin(axis=1) == labels[2000:]).mean() < 0.92


def test_every_digit_has_several_styles_whose_pen_positions_lie_closer_than_the_pen_is_wide() -> None:
    table = styles()
    assert np.diff(table.first).min() >= 3
    assert table.points.shape == table.weights.shape == (table.first[-1], STAMPS, 4)
    assert table.weights.sum(axis=2) == pytest.approx(np.ones((table.first[-1], STAMPS)), abs=1e-6)
    rows = np.arange(len(table.controls))[:, None, None]
    places = (table.controls[rows, table.points] * table.weights[..., None]).sum(axis=2)
    steps = np.sqrt((np.diff(places, axis=1) ** 2).sum(axis=2)) * 20
    assert np.median(steps) < 1.0
    assert (steps > 2).sum() <= 8  # where the pen is lifted


def test_the_sums_beside_the_set_are_its_own(tmp_path: Path) -> None:
    write_set(tmp_path, seed=2, sizes=(5, 3))
    states = inspect(tmp_path, "synthetic", None)
    lines = (tmp_path / "MNIST" / SUMS_FILE).read_text().splitlines()
    assert lines == [f"{state.checksum.removeprefix('sha256:')}  raw/{state.path.name}" for state in states]
    assert [(state.status, state.path.name) for state in states] == [("ok", name) for name in FILE_NAMES]


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    raw.mkdir(parents=True)
    (raw / FILE_NAMES[0]).write_text("mine")
    with pytest.raises(UsageError, match="is there already; delete it or give another folder"):
        write_set(tmp_path, seed=0, sizes=(5, 3))
    assert (raw / FILE_NAMES[0]).read_text() == "mine"


def test_two_that_want_the_set_at_once_draw_it_once(world: World) -> None:
    barrier = threading.Barrier(2)

    def want() -> None:
        barrier.wait()
        ensure(0, notify=world.notices.append, environ=world.environ)

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(world.notices) == 1
    assert proven("synthetic", cached_root(0, world.environ), None)
