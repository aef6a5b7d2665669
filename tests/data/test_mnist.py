"""The facts, the places, the checksums and the format of the files."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mnist_bench.data import cache_root, default_root, mnist, raw_folder, verify
from mnist_bench.data.fetch import proven
from mnist_bench.data.mnist import CACHE_FILE, FILE_NAMES, SETS, SUMS_FILE, inspect, read_images, read_labels, write_idx
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import DataError
from mnist_bench.models import training_of
from mnist_bench.records import DataSet, ModelEntry

REAL = os.environ.get("MNIST_BENCH_DATA")


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_facts_agree_with_torchvision() -> None:
    # Its source is read, not imported: that would take torch along.
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "datasets" / "mnist.py").read_text(encoding="utf-8")
    body = next(each.body for each in ast.parse(source).body if isinstance(each, ast.ClassDef) and each.name == "MNIST")
    assigned = [each for each in body if isinstance(each, ast.Assign)]
    values = {ast.unparse(each.targets[0]): ast.literal_eval(each.value) for each in assigned[:2]}
    packed = [(f"{name}.gz", packed.removeprefix("md5:")) for name, (_, packed) in SETS["mnist"].checksums.items()]
    assert values == {"resources": packed, "mirrors": list(SETS["mnist"].mirrors)}


def test_the_standard_recipe_normalises_with_the_sets_own_figures() -> None:
    training = training_of(ModelEntry(name="mlp", model="mlp"), "standard")
    assert (training.mean, training.std) == (SETS["mnist"].mean, SETS["mnist"].std)


@pytest.mark.skipif(REAL is None, reason="MNIST_BENCH_DATA does not name the real MNIST")
def test_the_real_mnist_is_what_the_facts_say(tmp_path: Path) -> None:
    root, environ, facts = Path(REAL or ""), {"XDG_CACHE_HOME": str(tmp_path)}, SETS["mnist"]
    verify(proven("mnist", root, environ), environ=environ)
    images, labels = read_images(raw_folder(root) / FILE_NAMES[0]), read_labels(raw_folder(root) / FILE_NAMES[1])
    assert images.shape == (facts.train_images, *facts.shape[1:])
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert ((images / 255).mean(), (images / 255).std()) == pytest.approx((facts.mean, facts.std), abs=5e-5)


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_flag_wins_over_the_environment_which_wins_over_the_cache() -> None:
    environ = {"MNIST_BENCH_DATA": "/from/environ", "XDG_CACHE_HOME": "/from/xdg"}
    assert default_root("/from/flag", environ) == Path("/from/flag")
    assert default_root(None, environ) == Path("/from/environ")
    assert default_root(None, {"XDG_CACHE_HOME": "/from/xdg"}) == Path("/from/xdg/mnist_bench")
    assert default_root(None, {"MNIST_BENCH_DATA": " ", "XDG_CACHE_HOME": "/c"}) == Path("/c/mnist_bench")


def test_folders_are_absolute_since_workers_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_root("data", {}) == tmp_path / "data"
    assert default_root(None, {"MNIST_BENCH_DATA": "~/digits"}) == Path("/home/ada/digits")
    assert cache_root({"XDG_CACHE_HOME": "relative"}).is_relative_to("/home/ada")  # as XDG says


def test_without_a_home_the_cache_is_a_scratch_folder_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda: "~/.cache")  # what it says without a passwd entry
    assert cache_root({}).name == f"mnist_bench-{os.getuid()}"
    assert cache_root({}).is_absolute()


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
    verify(data, environ=environ)
    monkeypatch.setattr(mnist, "digest", None)
    verify(data, environ=environ)


def test_the_hash_covers_all_four_files_in_their_order(data: DataSet) -> None:
    parts = [hashlib.sha256((raw_folder(Path(data.root)) / name).read_bytes()).digest() for name in FILE_NAMES]
    assert data.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()


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
    with pytest.raises(DataError, match=f"{SUMS_FILE}: cannot be read: larger than 100 bytes"):
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


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    write_idx(tmp_path / "labels", np.array([7, 2, 1], np.uint8))
    assert (tmp_path / "labels").read_bytes() == bytes.fromhex("00000801 00000003 070201")


def header(magic: int, *axes: int) -> bytes:
    return struct.pack(f">{1 + len(axes)}I", magic, *axes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "magic number 0x00000000"),
        (b"\x00\x00\x08", "magic number 0x00000800"),
        (b"\x00\x00\x08\x03\x00", "truncated: 5 bytes, its header promises 16"),
        (header(0x801, 3), "magic number 0x00000801, expected 0x00000803"),
        (header(0x803, 3, 28, 28) + bytes(3 * 784 - 1), "truncated: 2367 bytes, its header promises 2368"),
        (header(0x803, 3, 28, 28) + bytes(3 * 784 + 1), "too long: 2369 bytes"),
        (header(0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "truncated: 16 bytes"),
        (header(0x803, 1, 10, 12) + bytes(120), "images of 10 x 12 pixels, expected 28 x 28"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "still gzip-compressed"),
        (None, "missing"),
    ],
)
def test_malformed_images_are_refused_with_the_reason(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "images"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_images(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_label_above_nine_is_refused_with_its_position(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(header(0x801, 3) + bytes([1, 12, 3]))
    with pytest.raises(DataError, match=r"label 12 at position 1, expected 0 to 9"):
        read_labels(tmp_path / "labels")
