from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from mnist_bench.data import raw_folder, read_images, read_labels, resolve, verify
from mnist_bench.data.download import Limits
from mnist_bench.data.mnist import FILE_NAMES
from mnist_bench.errors import BenchError, DataError, DownloadError
from mnist_bench.records import DataSet

from .conftest import Server, Tiny

Kind = Literal["auto", "mnist", "synthetic"]
Resolve = Callable[..., DataSet]


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def ask(tmp_path: Path, tiny: Tiny, environ: dict[str, str], notices: list[str]) -> Resolve:
    """``resolve`` with the tiny MNIST, a small synthetic set and little patience."""
    limits = Limits(connect_s=1, read_s=1, total_s=1.5, rounds=1, pause_s=0)

    def ask(kind: Kind, *, offline: bool = False) -> DataSet:
        return resolve(
            kind,
            root=tmp_path / "root",
            offline=offline,
            notify=notices.append,
            environ=environ,
            resources=tiny.resources,
            hurried=limits,
            patient=limits,
            sizes=(40, 20),
        )

    return ask


@pytest.mark.parametrize("kind", ["auto", "mnist"])
def test_mnist_at_the_root_is_taken_without_a_word(
    tmp_path: Path, tiny: Tiny, ask: Resolve, notices: list[str], kind: Kind
) -> None:
    tiny.put(tmp_path / "root")
    data = ask(kind)
    assert (data.name, data.root) == ("mnist", str(tmp_path / "root"))
    assert notices == []


def test_the_hash_covers_all_four_files_in_their_order(tmp_path: Path, tiny: Tiny, ask: Resolve) -> None:
    import hashlib

    tiny.put(tmp_path / "root")
    digests = b"".join(hashlib.sha256(tiny.raw[name]).digest() for name in FILE_NAMES)
    assert ask("mnist").sha256 == hashlib.sha256(digests).hexdigest()


@pytest.mark.parametrize("kind", ["auto", "mnist"])
def test_mnist_is_downloaded_to_the_root(
    tmp_path: Path, ask: Resolve, server: Server, environ: dict[str, str], kind: Kind
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    assert ask(kind).name == "mnist"
    assert read_images(tmp_path / "root" / "MNIST" / "raw" / FILE_NAMES[0]).shape == (20, 28, 28)


def test_packed_files_are_unpacked_even_offline(tmp_path: Path, tiny: Tiny, ask: Resolve) -> None:
    tiny.put(tmp_path / "root", packed=True)
    assert ask("auto", offline=True).name == "mnist"


@pytest.mark.parametrize("kind", ["auto", "mnist"])
@pytest.mark.parametrize("offline", [True, False])
def test_a_corrupt_file_stops_everything(
    tmp_path: Path, tiny: Tiny, ask: Resolve, server: Server, environ: dict[str, str], kind: Kind, offline: bool
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    path = tiny.put(tmp_path / "root") / FILE_NAMES[0]
    content = bytearray(tiny.raw[FILE_NAMES[0]])
    content[99] ^= 1
    path.write_bytes(content)
    (path.parent / FILE_NAMES[3]).unlink()  # also where another file would have to be fetched
    with pytest.raises(DataError) as caught:
        ask(kind, offline=offline)
    text = str(caught.value)
    assert f"{path}: corrupt" in text
    assert f"expected {tiny.resources[0].md5}" in text
    assert f"mnist-bench data fetch --data-dir {tmp_path / 'root'}" in text
    assert "or delete the file" in text
    assert server.asked == []
    assert path.read_bytes() == bytes(content)


@pytest.mark.parametrize("kind", ["auto", "mnist"])
def test_a_corrupt_packed_file_stops_everything_too(tmp_path: Path, tiny: Tiny, ask: Resolve, kind: Kind) -> None:
    path = tiny.put(tmp_path / "root", packed=True) / f"{FILE_NAMES[2]}.gz"
    path.write_bytes(tiny.packed[FILE_NAMES[2]][:-20])
    with pytest.raises(DataError, match=f"{path}: corrupt"):
        ask(kind)
    assert not (path.parent / FILE_NAMES[2]).exists()


def test_auto_without_mnist_takes_the_synthetic_set_and_says_so_loudly(
    tmp_path: Path, ask: Resolve, notices: list[str]
) -> None:
    data = ask("auto")
    assert data.name == "synthetic"
    said = "\n".join(notices)
    assert "WARNING" in said
    assert "SYNTHETIC" in said
    assert "do NOT compare with MNIST's" in said
    assert "Connection refused" in said
    assert f"mnist-bench data fetch --data-dir {tmp_path / 'root'}" in said


def test_auto_waits_no_longer_than_it_may_for_a_mirror_that_is_silent(
    ask: Resolve, server: Server, environ: dict[str, str]
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("trickle")
    started = time.monotonic()
    assert ask("auto").name == "synthetic"
    assert time.monotonic() - started < 5


def test_offline_nothing_is_asked_of_the_network(
    ask: Resolve, server: Server, environ: dict[str, str], notices: list[str]
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    assert ask("auto", offline=True).name == "synthetic"
    assert "--offline forbids to download" in "\n".join(notices)
    with pytest.raises(DataError, match="--offline forbids to download"):
        ask("mnist", offline=True)
    assert server.asked == []


def test_mnist_that_cannot_be_had_is_an_error(ask: Resolve) -> None:
    with pytest.raises(DownloadError, match="could not be downloaded"):
        ask("mnist")


def test_a_root_that_cannot_be_written_is_an_error_for_mnist_and_synthetic_for_auto(
    tmp_path: Path, ask: Resolve
) -> None:
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(BenchError, match=str(tmp_path / "root")):
        ask("mnist")
    assert ask("auto").name == "synthetic"


def test_the_synthetic_set_lives_in_the_cache_whatever_the_root(
    tmp_path: Path, ask: Resolve, environ: dict[str, str], notices: list[str]
) -> None:
    (tmp_path / "root").mkdir(mode=0o500)
    data = ask("synthetic")
    assert Path(data.root).parent == tmp_path / "cache" / "mnist_bench"
    assert list((tmp_path / "root").iterdir()) == []
    raw = raw_folder(Path(data.root))
    assert read_images(raw / FILE_NAMES[2]).shape == (20, 28, 28)
    assert read_labels(raw / FILE_NAMES[1]).shape == (40,)
    verify(data, environ=environ)
    assert len(notices) == 1
    assert ask("synthetic") == data
    assert len(notices) == 1  # not drawn twice


def test_a_damaged_synthetic_set_is_put_aside_and_drawn_anew(ask: Resolve, notices: list[str]) -> None:
    data = ask("synthetic")
    path = raw_folder(Path(data.root)) / FILE_NAMES[2]
    path.write_bytes(path.read_bytes()[:-1])
    assert ask("synthetic") == data
    assert any("damaged" in line for line in notices)
    assert path.stat().st_size == 16 + 20 * 784


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path, ask: Resolve, environ: dict[str, str]) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match="set XDG_CACHE_HOME to one that can be written"):
        ask("synthetic")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_not_passed_over(tmp_path: Path, tiny: Tiny, ask: Resolve) -> None:
    path = tiny.put(tmp_path / "root") / FILE_NAMES[0]
    path.chmod(0)
    with pytest.raises(DataError, match=f"{path}: cannot be read: Permission denied; mend its permissions"):
        ask("auto")
