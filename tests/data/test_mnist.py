"""The facts, the places, the checksums and the format of the files."""

from __future__ import annotations

import hashlib
import os
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.data import default_root, raw_folder, verify
from mnist_bench.data.mnist import proven, read_idx, write_idx
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import DataError
from mnist_bench.records import DataSet

REAL = os.environ.get("MNIST_BENCH_DATA")


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(REAL is None, reason="MNIST_BENCH_DATA does not name the real MNIST")
def test_the_real_mnist_is_what_the_facts_say() -> None:
    root, facts = Path(REAL or ""), SETS["mnist"]
    verify(proven("mnist", root))
    images, labels = read_idx(raw_folder(root) / FILE_NAMES[0], 28, 28), read_idx(raw_folder(root) / FILE_NAMES[1])
    assert images.shape == (60_000, *facts.shape[1:])
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert ((images / 255).mean(), (images / 255).std()) == pytest.approx((facts.mean, facts.std), abs=5e-5)


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flag", "environ", "expected"),
    [
        ("/flag", {"MNIST_BENCH_DATA": "/environ", "XDG_CACHE_HOME": "/xdg"}, "/flag"),
        (None, {"MNIST_BENCH_DATA": "/environ", "XDG_CACHE_HOME": "/xdg"}, "/environ"),
        (None, {"MNIST_BENCH_DATA": " ", "XDG_CACHE_HOME": "/xdg"}, "/xdg/mnist_bench"),
        (None, {"MNIST_BENCH_DATA": "~/digits"}, "/home/ada/digits"),
        (None, {"XDG_CACHE_HOME": "relative"}, "/home/ada/*/mnist_bench"),  # ignored, as XDG says
        ("data", {}, "/*/here/data"),  # absolute, since workers run elsewhere
    ],
)
def test_the_flag_wins_over_the_environment_which_wins_over_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str | None, environ: dict[str, str], expected: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert fnmatch(str(default_root(flag, environ)), expected)


# ── checksums ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    write_set(tmp_path / "set", seed=5, sizes=(30, 20))
    return proven("synthetic", tmp_path / "set")


def flip(path: Path) -> None:
    """Changes one byte, and sets the modification time back as if nothing had been."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_changed_byte_is_found_although_size_and_time_are_the_same(data: DataSet, name: str) -> None:
    verify(data)
    parts = [hashlib.sha256((raw_folder(Path(data.root)) / each).read_bytes()).digest() for each in FILE_NAMES]
    assert data.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    path = raw_folder(Path(data.root)) / name
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    flip(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        verify(data)
    for words in (f"{path}: corrupt", expected, found, f"delete {data.root}"):
        assert words in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match=f"{path}: missing"):
        verify(data)


# ── IDX ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    images=arrays.arrays(np.uint8, st.tuples(st.integers(0, 4), st.just(28), st.just(28))),
    labels=arrays.arrays(np.uint8, st.integers(0, 50), elements=st.integers(0, 9)),
)
def test_what_was_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, images: np.ndarray, labels: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    for values in (images, labels):
        write_idx(path, values)
        found = read_idx(path, *values.shape[1:])
        assert found.dtype == np.uint8
        assert np.array_equal(found, values)
        assert found.flags.writeable  # torch.from_numpy warns of an array that is read-only
    assert path.read_bytes()[:8] == bytes.fromhex("00000801") + len(labels).to_bytes(4)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "00000803 00",
        "00000801 00000003 070201",  # labels
        "00000803 00000001 00000002 00000002 000000",  # truncated
        "00000803 00000001 00000002 00000002 0000000000",  # too long
        "00000803 ffffffff ffffffff ffffffff",
        "00000803 00000001 00000002 00000003 000000000000",  # images of 2 x 3 pixels
        "1f8b0800 00000000",  # still packed
    ],
)
def test_malformed_images_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "images"
    with pytest.raises(DataError, match=f"{path}: missing"):
        read_idx(path, 2, 2)
    path.write_bytes(bytes.fromhex(content))
    size = len(bytes.fromhex(content))
    with pytest.raises(
        DataError, match=rf"^{path}: no IDX file of N x \(2, 2\) bytes: {size} bytes that begin with 0x"
    ):
        read_idx(path, 2, 2)
