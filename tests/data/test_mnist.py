"""The facts, the places, the checksums and the format of the files."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mnist_bench.catalogue import FILE_NAMES, SETS, training_of
from mnist_bench.data import cache_root, default_root, mnist, raw_folder, verify
from mnist_bench.data.mnist import CACHE_FILE, SUMS_FILE, inspect, proven, read_images, read_labels, write_idx
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import DataError
from mnist_bench.records import DataSet, ModelEntry

REAL = os.environ.get("MNIST_BENCH_DATA")


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_facts_agree_with_torchvision() -> None:
    # Its source is read, not imported: that would take torch along.
    folder = Path(importlib.util.find_spec("torchvision").origin).parent
    source = (folder / "datasets" / "mnist.py").read_text(encoding="utf-8").partition("class FashionMNIST")[0]
    assert all(f'("{name}.gz", ' in source for name in FILE_NAMES)
    assert all(f'"{mirror}"' in source for mirror in SETS["mnist"].mirrors)


def test_the_standard_recipe_normalises_with_the_sets_own_figures() -> None:
    training = training_of(ModelEntry(name="mlp", model="mlp"), "standard")
    assert (training.mean, training.std) == (SETS["mnist"].mean, SETS["mnist"].std)


@pytest.mark.skipif(REAL is None, reason="MNIST_BENCH_DATA does not name the real MNIST")
def test_the_real_mnist_is_what_the_facts_say(tmp_path: Path) -> None:
    root, environ, facts = Path(REAL or ""), {"XDG_CACHE_HOME": str(tmp_path)}, SETS["mnist"]
    verify(proven("mnist", root, environ), environ=environ)
    images, labels = read_images(raw_folder(root) / FILE_NAMES[0]), read_labels(raw_folder(root) / FILE_NAMES[1])
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
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """A small synthetic set whose files are old enough for their checksums to be remembered."""
    write_set(tmp_path / "set", seed=5, sizes=(30, 20))
    time.sleep(0.06)
    return proven("synthetic", tmp_path / "set", None)


def flip(path: Path) -> None:
    """Changes one byte, and sets the modification time back as if nothing had been."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_whole_set_passes_and_is_hashed_once(
    data: DataSet, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [hashlib.sha256((raw_folder(Path(data.root)) / name).read_bytes()).digest() for name in FILE_NAMES]
    assert data.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    verify(data, environ=environ)
    read_file, read = mnist.read_file, []
    monkeypatch.setattr(mnist, "read_file", lambda path: read.append(path.name) or read_file(path))
    verify(data, environ=environ)
    assert read == [SUMS_FILE]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_changed_byte_is_found_although_size_and_time_are_the_same(
    data: DataSet, environ: dict[str, str], name: str
) -> None:
    verify(data, environ=environ)
    path = raw_folder(Path(data.root)) / name
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    flip(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        verify(data, environ=environ)
    for words in (f"{path}: corrupt", expected, found, f"delete {data.root}"):
        assert words in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match=f"{path}: missing"):
        verify(data, environ=environ)


def test_a_set_without_sums_is_held_to_its_hash_alone(data: DataSet, environ: dict[str, str]) -> None:
    (Path(data.root) / "MNIST" / SUMS_FILE).unlink()
    verify(data, environ=environ)
    flip(raw_folder(Path(data.root)) / FILE_NAMES[0])
    with pytest.raises(DataError, match=rf"not the data set that was checked at the start: .*{data.sha256}"):
        verify(data, environ=environ)


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b'{"version": 1, "files": 3}', b"\xff" * 9, b"[" * 100_000, b'{"/x": [["a"], 1]}']
)
def test_a_broken_cache_is_no_more_than_forgotten(data: DataSet, environ: dict[str, str], broken: bytes) -> None:
    cache = cache_root(environ) / CACHE_FILE
    cache.parent.mkdir(parents=True)
    cache.write_bytes(broken)
    verify(data, environ=environ)
    assert cache.read_bytes() != broken


def test_a_cache_folder_that_cannot_be_made_costs_a_hash_and_no_more(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    verify(data, environ={"XDG_CACHE_HOME": str(tmp_path / "file")})


def test_a_file_just_written_is_not_remembered(data: DataSet, environ: dict[str, str]) -> None:
    # It may change again within the same tick of the file system's clock.
    path = raw_folder(Path(data.root)) / FILE_NAMES[3]
    path.write_bytes(path.read_bytes())
    verify(data, environ=environ)
    assert str(path) not in (cache_root(environ) / CACHE_FILE).read_text()


def test_a_file_without_end_is_not_read(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "MOST_BYTES", 100)
    with pytest.raises(DataError, match=f"{SUMS_FILE}: cannot be read: is larger than 100 bytes"):
        inspect(Path(data.root), "synthetic", None)


# ── IDX ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    images=arrays.arrays(np.uint8, st.tuples(st.integers(0, 4), st.just(28), st.just(28))),
    labels=arrays.arrays(np.uint8, st.integers(0, 50), elements=st.integers(0, 9)),
)
def test_what_was_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, images: np.ndarray, labels: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    for values, read in ((images, read_images), (labels, read_labels)):
        write_idx(path, values)
        found = read(path)
        assert found.dtype == np.uint8
        assert np.array_equal(found, values)
        assert found.flags.writeable  # torch.from_numpy warns of an array that is read-only


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "magic number 0x00000000"),
        ("00000803 00", "truncated: 5 bytes, its header promises 16"),
        ("00000801 00000003 070201", "magic number 0x00000801, expected 0x00000803"),
        ("00000803 00000001 00000002 00000002 000000", "truncated: 19 bytes, its header promises 20"),
        ("00000803 00000001 00000002 00000002 0000000000", "too long: 21 bytes"),
        ("00000803 ffffffff ffffffff ffffffff", "truncated: 16 bytes"),
        ("00000803 00000001 00000002 00000003 000000000000", "images of 2 x 3 pixels, expected 28 x 28"),
        ("1f8b0800 00000000", "still gzip-compressed"),
    ],
)
def test_malformed_images_are_refused_with_the_reason(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "images"
    with pytest.raises(DataError, match=f"{path}: missing"):
        read_images(path)
    path.write_bytes(bytes.fromhex(content))
    with pytest.raises(DataError, match=f"^{path}: .*{words}"):
        read_images(path)


def test_a_label_above_nine_is_refused_with_its_position(tmp_path: Path) -> None:
    write_idx(tmp_path / "labels", np.array([1, 12, 3], np.uint8))
    assert (tmp_path / "labels").read_bytes() == bytes.fromhex("00000801 00000003 010c03")
    with pytest.raises(DataError, match=r"label 12 at position 1, expected 0 to 9"):
        read_labels(tmp_path / "labels")
