"""Getting a data set: found under any shape, downloaded, or drawn; and what is said where it cannot be had."""

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.data import Limits
from mnist_bench.data.mnist import SUMS_FILE
from mnist_bench.data.synthetic import cached_root, write_set
from mnist_bench.errors import BenchError, DataError, DownloadError

from .conftest import BRIEF, World

BOTH = pytest.mark.parametrize("kind", ["auto", "mnist"])


def public(monkeypatch: pytest.MonkeyPatch, world: World, *addresses: str) -> None:
    """Puts ``addresses`` in the place of the public mirrors."""
    del world.environ["MNIST_BENCH_MIRROR"]
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], mirrors=addresses))


@pytest.fixture
def served(world, server):
    """The server as a good mirror."""
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    return server


# ── downloads ────────────────────────────────────────────────────────────────────────────────────────────────────────


@BOTH
@pytest.mark.parametrize("behaviour", ["good", "redirect", "labelled", "recompressed", "unpacked"])
def test_a_mirror_with_the_right_bytes_gives_the_raw_files_and_nothing_else(world, server, kind, behaviour):
    world.environ["MNIST_BENCH_MIRROR"] = server.url(behaviour)
    assert world.ask(kind).root == str(world.root)
    assert world.files() == sorted(f"MNIST/raw/{name}" for name in FILE_NAMES)
    assert world.is_whole(world.raw)


def test_only_what_is_missing_or_corrupt_is_downloaded(world, served):
    world.put()
    (world.raw / FILE_NAMES[2]).unlink()
    (world.raw / FILE_NAMES[0]).write_bytes(b"rubbish")
    for _ in range(2):
        world.fetch()
        assert served.asked == [f"/good/{FILE_NAMES[0]}.gz", f"/good/{FILE_NAMES[2]}.gz"]
        assert world.is_whole(world.raw)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("missing", "HTTP 404"),
        ("broken", "HTTP 503"),
        ("corrupt", "wrong bytes"),
        ("cut", "IncompleteRead"),
        ("stall", "TimeoutError: timed out"),
        ("endless", "more than 0 MiB: no file of a data set"),
    ],
)
def test_after_a_bad_mirror_comes_the_next(world, server, monkeypatch, behaviour, words):
    world.environ["MNIST_BENCH_MIRROR"] = server.url(behaviour)
    with monkeypatch.context() as patch:
        if behaviour == "endless":
            patch.setattr("mnist_bench.data.mnist.MOST_BYTES", 100)
        with pytest.raises(DownloadError) as caught:
            world.ask("mnist")
    assert f"{server.url(behaviour)}{FILE_NAMES[0]}.gz: {words}" in str(caught.value)
    assert world.files() == []  # nothing bad, and nothing half
    public(monkeypatch, world, server.url(behaviour), server.url("good"))
    world.fetch(Limits(stall_s=0.3, total_s=60, tries=1))
    assert world.is_whole(world.raw)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("", r"127\.0\.0\.1:9/.*: ConnectionRefusedError: .*Connection refused\n"),
        ("http://ada:secret@127.0.0.1:9", r"Connection refused \(through the proxy 127\.0\.0\.1:9\)"),
        ("SERVER", r"HTTP 404 \(through the proxy http://127\.0\.0\.1:\d+\)"),
    ],
)
def test_who_does_not_answer_is_named_and_no_password(world, server, monkeypatch, proxy, words):
    if proxy:
        world.environ["MNIST_BENCH_MIRROR"] = "http://mirror.invalid/"
        monkeypatch.setenv("http_proxy", proxy.replace("SERVER", server.address))
    with pytest.raises(DownloadError, match=words) as caught:
        world.ask("mnist")
    assert "secret" not in str(caught.value)


def test_a_fault_that_passes_is_tried_again_and_a_missing_file_is_not(world, server, monkeypatch):
    monkeypatch.setattr("mnist_bench.data._PAUSE_SECONDS", 0)
    public(monkeypatch, world, server.url("broken"), server.url("missing"))
    with pytest.raises(DownloadError):
        world.fetch(Limits(stall_s=1, total_s=5, tries=3))
    asked = [(path.split("/")[1], path.endswith(".gz")) for path in server.asked]
    again = [("broken", True), ("broken", False)] * 2
    assert asked == [("broken", True), ("missing", True), ("broken", False), ("missing", False), *again]


# ── the place ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("kind", ["mnist", "synthetic"])
def test_a_full_disk_is_named_and_leaves_nothing(world, monkeypatch, kind):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BenchError, match=r"No space left on device.* 60 MB left"):
        world.ask(kind)
    assert world.files() == []
    assert not list(world.cache.rglob("*ubyte*"))


@pytest.mark.usefixtures("served")
def test_what_killed_processes_left_is_swept(world):
    world.raw.mkdir(parents=True)
    old, young = (world.raw / f".{FILE_NAMES[0]}.{number}.abcd.tmp" for number in (1, 2))
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    world.ask("mnist")
    assert (old.exists(), young.exists()) == (False, True)  # the young one may be of a process that is alive


# ── what lies there under another shape ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dots", [True, False])
@pytest.mark.parametrize("below", ["MNIST/raw", ".", "raw", "MNIST", "digits", "digits/raw", "digits/MNIST/raw"])
def test_mnist_is_found_under_any_shape(world, below, dots, packed):
    world.put(below=below, dots=dots, packed=packed)
    before = world.files()
    data = world.ask("auto", offline=True)
    assert (data.name, data.root) == ("mnist", str(world.root))
    assert world.is_whole(world.raw)
    assert set(before) <= set(world.files())
    assert world.notices == []


@pytest.mark.parametrize("below", ["MNIST/raw", "."])
def test_what_cannot_be_unpacked_beside_is_unpacked_into_the_cache_once(world, monkeypatch, below):
    world.put(packed=True, below=below)
    (world.root / below / FILE_NAMES[3]).write_bytes(world.tiny[FILE_NAMES[3]])  # one is as it should be
    before = world.files()

    def read_only(folder: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("mnist_bench.data.try_folder", read_only)
    data = world.ask("mnist", offline=True)
    assert data.root == str(world.cache)
    assert world.is_whole(world.cache / "MNIST/raw")
    assert world.files() == before
    assert f"unpacked into {world.cache}" in world.notices[0]
    monkeypatch.setattr("mnist_bench.data.write_atomically", None)
    assert world.ask("mnist", offline=True) == data


def test_files_with_other_bytes_are_named_where_nothing_better_is_found(world):
    (world.put(below="digits") / FILE_NAMES[0]).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=rf"not MNIST's bytes: {world.root}/digits/{FILE_NAMES[0]}"):
        world.ask("mnist", offline=True)


@BOTH
@pytest.mark.parametrize("packed", [True, False])
def test_a_corrupt_file_stops_everything_but_a_fetch(world, served, kind, packed):
    path = next(world.put(packed=packed).glob(f"{FILE_NAMES[0]}*"))
    path.write_bytes(path.read_bytes()[:-9])
    next(world.raw.glob(f"{FILE_NAMES[3]}*")).unlink()  # also where another file would have to be fetched
    with pytest.raises(DataError) as caught:
        world.ask(kind)
    for words in (
        f"{path}: corrupt",
        f"mnist-bench data fetch --dataset mnist --data-dir {world.root}",
        "or delete the file",
    ):
        assert words in str(caught.value)
    assert served.asked == []
    world.fetch()
    assert world.is_whole(world.raw)


@pytest.mark.parametrize("place", [f"raw/{FILE_NAMES[1]}", f"raw/{FILE_NAMES[1]}.gz", SUMS_FILE])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_regular_files_are_read(world, place, make):
    (world.put() / FILE_NAMES[1]).unlink()
    make(world.root / "MNIST" / place)
    with pytest.raises(DataError, match=r"is no regular file|missing, and --offline"):
        world.ask("mnist", offline=True)
    assert world.ask("synthetic").name == "synthetic"


# ── MNIST or the synthetic set ───────────────────────────────────────────────────────────────────────────────────────


WITHOUT = {
    "a network": "Connection refused",
    "a mirror in time": f"not there after {BRIEF.total_s:g} s in all",
    "leave to download": "--offline forbids to download",
    "a place": "give a --data-dir that can be written",
}


@pytest.mark.parametrize("what", WITHOUT)
def test_where_mnist_cannot_be_had_auto_takes_the_synthetic_set_and_says_so_loudly(world, server, what):
    if what != "a network":
        world.environ["MNIST_BENCH_MIRROR"] = server.url("trickle" if what == "a mirror in time" else "good")
    if what == "a place":
        world.root.write_text("a file where the folder should be")
    offline = what == "leave to download"
    assert world.ask("auto", offline=offline).name == "synthetic"
    said = "\n".join(world.notices)
    for words in ("SYNTHETIC", "do NOT compare with MNIST's", f"data fetch --data-dir {world.root}", WITHOUT[what]):
        assert words in said
    with pytest.raises((DataError, DownloadError), match=WITHOUT[what]):
        world.ask("mnist", offline=offline)
    assert bool(server.asked) == (what == "a mirror in time")
    assert world.files() == []


def test_the_synthetic_set_is_drawn_once_into_the_cache_and_anew_where_it_is_damaged(world):
    for drawn, damage in enumerate((Path.touch, Path.unlink, lambda path: path.write_bytes(b"x")), start=1):
        data = world.ask("synthetic")
        assert data.root == str(cached_root(0, world.environ)) == str(world.cache / "synthetic-v2-seed0-40+20")
        assert world.ask("synthetic") == data
        assert len(world.notices) == max(1, drawn - 1)
        damage(Path(data.root) / "MNIST" / "raw" / FILE_NAMES[2])
    assert world.ask("synthetic") == data


def test_a_cache_that_cannot_be_written_says_what_to_do(world):
    world.cache.parent.write_text("")
    with pytest.raises(DataError, match="set XDG_CACHE_HOME to a folder that can be written"):
        world.ask("synthetic")


def test_synthetic_digits_in_the_place_of_mnist_are_called_so_and_kept(world, served):
    write_set(world.root, seed=3, sizes=(20, 10))
    before = [path.read_bytes() for path in sorted(world.raw.iterdir())]
    for ask in (lambda: world.ask("mnist"), world.fetch):
        with pytest.raises(DataError, match=f"{world.root}: holds synthetic digits"):
            ask()
    assert world.ask("synthetic").root == world.ask("auto").root == str(world.root)
    assert "SYNTHETIC" in "\n".join(world.notices)
    assert before == [path.read_bytes() for path in sorted(world.raw.iterdir())]
    assert served.asked == []
