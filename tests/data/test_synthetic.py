import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from mnist_bench.catalogue import FILE_NAMES
from mnist_bench.data import synthetic
from mnist_bench.data.draw import text
from mnist_bench.data.mnist import SUMS_FILE, inspect, proven
from mnist_bench.data.synthetic import SIZES, cached_root, draw_digits, ensure, write_set

IMAGES, LABELS = draw_digits(16, seed=0, split=0)
# The files of seed 0. A change of these is a change of everybody's figures: raise synthetic.VERSION with it.
GOLDEN = {
    "train-images-idx3-ubyte": "44fef5516e5d619a1136f2e161a2970c535d2bc861dd8f6e4c5a8b4f3878cded",
    "train-labels-idx1-ubyte": "afe7532cc1a8f427f27dca926e6bb91aa1ab5b862fdde0239b4868841e884cc6",
    "t10k-images-idx3-ubyte": "361e497f951a9fc39aa462b572f3b8a252d37df1c85625e45c145cdbd8b1306d",
    "t10k-labels-idx1-ubyte": "c68d9d4df2f77c0821a879f838e655b80cdcd8f2f36fa5a6656f0867a9097b24",
}


@pytest.fixture(scope="module")
def digits():
    return draw_digits(3000, seed=0, split=0)


def test_the_set_of_seed_0_has_the_bytes_it_always_had(tmp_path):
    write_set(tmp_path, seed=0, sizes=SIZES)
    states = inspect(tmp_path, "synthetic")
    assert {state.path.name: state.found for state in states} == GOLDEN
    lines = (tmp_path / "MNIST" / SUMS_FILE).read_text().splitlines()
    assert lines == [f"{GOLDEN[name]}  raw/{name}" for name in FILE_NAMES]


def test_the_bytes_depend_on_seed_and_split_and_not_on_threads_or_count(digits, monkeypatch):
    monkeypatch.setattr(synthetic, "ThreadPoolExecutor", partial(ThreadPoolExecutor, 1))
    for count in (3000, 1234):
        for found, expected in zip(draw_digits(count, seed=0, split=0), digits, strict=True):
            assert np.array_equal(found, expected[:count])
    for seed, split in ((1, 0), (0, 1)):
        for found, other in zip(draw_digits(100, seed=seed, split=split), digits, strict=True):
            assert not np.array_equal(found, other[:100])


def test_the_digits_are_like_mnists(digits):
    images, labels = digits
    assert len({image.tobytes() for image in images}) == len(images), "no two are alike"
    pixels = images / 255
    assert (pixels.mean(), pixels.std()) == (pytest.approx(0.1307, abs=0.015), pytest.approx(0.3081, abs=0.03))
    counts = np.bincount(labels, minlength=10)
    assert (len(counts), counts.min() > 230, counts.max() < 370) == (10, True, True)
    edge = np.ones((28, 28), bool)
    edge[1:-1, 1:-1] = False
    assert (images[:, edge] > 127).any(axis=1).mean() < 0.002, "the frame cuts off none"
    for axis in (1, 2):
        middle = (pixels.sum(axis=3 - axis) * np.arange(28)).sum(axis=1) / pixels.sum(axis=(1, 2))
        assert middle.mean() == pytest.approx(13.5, abs=0.3)
        assert middle.std() < 1.5


def test_the_classes_can_be_told_apart_but_not_trivially(digits):
    # The nearest mean image gets 82 % of MNIST right: neither noise nor a fixed stencil for each digit.
    images, labels = digits[0].reshape(-1, 784) / 255, digits[1]
    means = np.stack([images[:2000][labels[:2000] == digit].mean(axis=0) for digit in range(10)])
    distances = ((images[2000:, None] - means) ** 2).sum(axis=2)
    assert 0.65 < (distances.argmin(axis=1) == labels[2000:]).mean() < 0.92


def test_two_that_want_the_set_at_once_draw_it_once(world):
    barrier = threading.Barrier(2)

    def want() -> None:
        barrier.wait()
        ensure(0, notify=world.notices.append, environ=world.environ)

    with ThreadPoolExecutor(2) as pool:
        for wanting in [pool.submit(want) for _ in range(2)]:
            wanting.result()
    assert len(world.notices) == 1
    assert proven("synthetic", cached_root(0, world.environ))


# ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("columns", "across"), [(200, 4), (118, 4), (117, 3), (80, 2), (30, 1), (5, 1)])
def test_as_many_digits_stand_beside_each_other_as_fit(columns, across):
    lines = text(IMAGES, LABELS, columns=columns).splitlines()
    assert lines[0].split() == [str(label) for label in LABELS[:across]]
    assert max(map(len, lines)) <= max(columns, 28)
    assert len(lines) == -(-16 // across) * 15
