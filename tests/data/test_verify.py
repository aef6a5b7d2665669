from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import pytest

from mnist_bench.data import read_images, read_labels, verify
from mnist_bench.data.mnist import FILE_NAMES, RESOURCES
from mnist_bench.data.paths import cache_root
from mnist_bench.data.synthetic import write_set
from mnist_bench.data.verify import CACHE_FILE, Digests, combined, digest, expectations, inspect
from mnist_bench.errors import DataError
from mnist_bench.records import DataSet

REAL = os.environ.get("MNIST_BENCH_DATA")


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """A small synthetic set whose files are old enough for their checksums to be remembered."""
    root = tmp_path / "set"
    digests = write_set(root, seed=5, sizes=(30, 20))
    whole = hashlib.sha256(b"".join(bytes.fromhex(digests[name].sha256) for name in FILE_NAMES))
    time.sleep(0.06)
    return DataSet(name="synthetic", root=str(root), sha256=whole.hexdigest())


def flip(path: Path) -> None:
    """Changes one byte, and sets the modification time back as if nothing had been."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    hashed: list[Path] = []

    def counted(path: Path) -> Digests:
        hashed.append(path)
        return digest(path)

    monkeypatch.setattr(sys.modules["mnist_bench.data.verify"], "digest", counted)
    return hashed


def test_a_whole_set_passes_and_is_hashed_once(
    data: DataSet, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = count_hashes(monkeypatch)
    verify(data, environ=environ)
    assert len(hashed) == 4
    verify(data, environ=environ)
    assert len(hashed) == 4


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_changed_byte_is_found_although_size_and_time_are_the_same(
    data: DataSet, environ: dict[str, str], name: str
) -> None:
    verify(data, environ=environ)
    path = Path(data.root) / "MNIST" / "raw" / name
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    flip(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        verify(data, environ=environ)
    text = str(caught.value)
    assert f"{path}: corrupt" in text
    assert expected in text
    assert found in text
    assert f"delete {data.root}" in text


def test_a_missing_file_is_named(data: DataSet, environ: dict[str, str]) -> None:
    path = Path(data.root) / "MNIST" / "raw" / FILE_NAMES[3]
    path.unlink()
    with pytest.raises(DataError, match=f"{path}: missing"):
        verify(data, environ=environ)


def test_another_whole_set_in_the_same_place_is_not_the_one_of_the_run(data: DataSet, environ: dict[str, str]) -> None:
    other = DataSet(name="synthetic", root=data.root, sha256="0" * 64)
    with pytest.raises(DataError, match="not the data set that was checked at the start"):
        verify(other, environ=environ)


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"version": 1, "files": 3}', b"\xff" * 9, b"[" * 100_000])
def test_a_broken_cache_is_no_more_than_forgotten(data: DataSet, environ: dict[str, str], broken: bytes) -> None:
    cache = cache_root(environ) / CACHE_FILE
    cache.parent.mkdir(parents=True)
    cache.write_bytes(broken)
    verify(data, environ=environ)
    assert cache.read_bytes() != broken


def test_entries_of_the_cache_that_are_nonsense_are_hashed_anew(data: DataSet, environ: dict[str, str]) -> None:
    verify(data, environ=environ)
    cache = cache_root(environ) / CACHE_FILE
    path = Path(data.root) / "MNIST" / "raw" / FILE_NAMES[0]
    cache.write_text(f'{{"version": 1, "files": {{"{path}": {{"stamp": "x", "md5": 1}}}}}}')
    verify(data, environ=environ)


def test_a_cache_folder_that_cannot_be_made_costs_a_hash_and_no_more(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    verify(data, environ={"XDG_CACHE_HOME": str(tmp_path / "file")})


def test_a_file_just_written_is_not_remembered(data: DataSet, environ: dict[str, str]) -> None:
    # It may change again within the same tick of the file system's clock.
    path = Path(data.root) / "MNIST" / "raw" / FILE_NAMES[3]
    path.write_bytes(path.read_bytes())
    verify(data, environ=environ)
    assert str(path) not in (cache_root(environ) / CACHE_FILE).read_text()


def test_a_file_that_is_a_folder_is_an_error_not_a_crash(data: DataSet, environ: dict[str, str]) -> None:
    path = Path(data.root) / "MNIST" / "raw" / FILE_NAMES[1]
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"{path}: cannot be read: Is a directory"):
        verify(data, environ=environ)


def test_a_set_without_sums_is_held_to_its_hash_alone(data: DataSet, environ: dict[str, str]) -> None:
    (Path(data.root) / "MNIST" / "SHA256SUMS").unlink()
    verify(data, environ=environ)
    flip(Path(data.root) / "MNIST" / "raw" / FILE_NAMES[0])
    with pytest.raises(DataError, match=data.sha256):
        verify(data, environ=environ)


@pytest.mark.skipif(REAL is None, reason="MNIST_BENCH_DATA does not name the real MNIST")
def test_the_real_mnist_has_the_official_checksums_and_sizes(environ: dict[str, str]) -> None:
    root = Path(REAL or "")
    states = inspect(root, expectations("mnist", root), environ)
    assert [state.status for state in states] == ["ok"] * 4
    assert [state.found.size for state in states if state.found] == [each.size for each in RESOURCES]
    verify(DataSet(name="mnist", root=str(root), sha256=combined(states)), environ=environ)
    raw = root / "MNIST" / "raw"
    assert read_images(raw / FILE_NAMES[0]).shape == (60_000, 28, 28)
    assert read_labels(raw / FILE_NAMES[1])[:5].tolist() == [5, 0, 4, 1, 9]
