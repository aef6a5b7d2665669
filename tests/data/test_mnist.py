"""The facts, the places, the checksums and the format of the files."""

import hashlib
import os
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.data import contents, default_root, placed, raw_folder, verify
from mnist_bench.data.mnist import SUMS_FILE, proven, read_idx, write_idx
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import DataError

REAL = os.environ.get("MNIST_BENCH_DATA")


@pytest.mark.skipif(REAL is None, reason="MNIST_BENCH_DATA does not name the real MNIST")
def test_the_real_mnist_is_what_the_facts_say():
    root, facts = Path(REAL or ""), SETS["mnist"]
    verify(proven("mnist", root))
    images, labels = read_idx(raw_folder(root) / FILE_NAMES[0], 28, 28), read_idx(raw_folder(root) / FILE_NAMES[1])
    assert images.shape == (60_000, *facts.shape[1:])
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert ((images / 255).mean(), (images / 255).std()) == pytest.approx(facts.pixels, abs=5e-5)


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
def test_the_flag_wins_over_the_environment_which_wins_over_the_cache(tmp_path, monkeypatch, flag, environ, expected):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert fnmatch(str(default_root(flag, environ)), expected)


# ── checksums ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def data(tmp_path):
    write_set(tmp_path / "set", seed=5, sizes=(30, 20))
    return proven("synthetic", tmp_path / "set")


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_changed_byte_is_found_although_size_and_time_are_the_same(data, name):
    verify(data)
    parts = [hashlib.sha256((raw_folder(Path(data.root)) / each).read_bytes()).digest() for each in FILE_NAMES]
    assert data.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    path = raw_folder(Path(data.root)) / name
    before, content = path.stat(), path.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError) as caught:
        verify(data)
    checksums = [hashlib.sha256(each).hexdigest() for each in (changed, content)]
    for words in (f"{path}: corrupt", *checksums, f"delete {data.root}"):
        assert words in str(caught.value)
    (Path(data.root) / "MNIST" / SUMS_FILE).unlink()  # held to its hash alone
    with pytest.raises(DataError, match=rf"not the data set that was checked at the start: .*{data.sha256}"):
        verify(data)
    path.unlink()
    with pytest.raises(DataError, match=f"{path}: missing"):
        verify(data)


def test_another_machine_gets_the_files_once_and_verifies_them(data, tmp_path):
    asked = []

    def fetch():
        asked.append(1)
        return contents(data)

    assert placed(data, fetch, tmp_path / "cache") == data  # it lies there as well: a shared disk
    there = replace(data, root="/nowhere")
    found = placed(there, fetch, tmp_path / "cache")
    assert Path(found.root).parent == tmp_path / "cache"
    assert replace(found, root=data.root) == data
    assert placed(there, fetch, tmp_path / "cache") == found
    assert len(asked) == 1
    assert contents(replace(data, name="package.module:function")) == {}
    with pytest.raises(DataError, match="missing"):
        placed(there, dict, tmp_path / "other")


# ── IDX ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", [(0,), (50,), (0, 28, 28), (4, 28, 28)])
def test_what_was_written_comes_back(tmp_path, shape):
    values = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    write_idx(tmp_path / "file", values)
    found = read_idx(tmp_path / "file", *shape[1:])
    assert found.dtype == np.uint8
    assert np.array_equal(found, values)
    assert found.flags.writeable  # torch.from_numpy warns of an array that is read-only
    assert (tmp_path / "file").read_bytes()[:8] == bytes((0, 0, 8, len(shape))) + shape[0].to_bytes(4)


MALFORMED = [
    "",
    "00000803 00",
    "00000801 00000003 070201",  # labels
    "00000803 00000001 00000002 00000002 000000",  # truncated
    "00000803 00000001 00000002 00000002 0000000000",  # too long
    "00000803 ffffffff ffffffff ffffffff",
    "00000803 00000001 00000002 00000003 000000000000",  # images of 2 x 3 pixels
    "1f8b0800 00000000",  # still packed
]


@pytest.mark.parametrize("digits", MALFORMED)
def test_malformed_images_are_refused(tmp_path, digits):
    content = bytes.fromhex(digits)
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(DataError, match=rf"images: no IDX file of N x \(2, 2\) bytes: {len(content)} bytes that begin"):
        read_idx(tmp_path / "images", 2, 2)
