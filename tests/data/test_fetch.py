"""Getting a data set: found under any shape, downloaded, or drawn; and what is said where it cannot be had."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mnist_bench.data import verify
from mnist_bench.data.fetch import Limits, mirrors
from mnist_bench.data.mnist import FILE_NAMES, SETS, SUMS_FILE, read_images
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import BenchError, DataError, DownloadError, UsageError

from .conftest import Server, World

BOTH = pytest.mark.parametrize("kind", ["auto", "mnist"])


def public(monkeypatch: pytest.MonkeyPatch, world: World, *addresses: str) -> None:
    """Puts ``addresses`` in the place of the public mirrors."""
    del world.environ["MNIST_BENCH_MIRROR"]
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], mirrors=addresses))


# ── downloads ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("behaviour", ["good", "redirect", "labelled", "recompressed", "unpacked"])
def test_a_mirror_with_the_right_bytes_gives_the_raw_files_and_nothing_else(
    world: World, server: Server, behaviour: str
) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url(behaviour)
    assert world.fetch() == dict.fromkeys(FILE_NAMES, "downloaded")
    assert world.files() == sorted(f"MNIST/raw/{name}" for name in FILE_NAMES)
    assert world.is_whole()


def test_a_bar_shows_each_file_on_stderr(world: World, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    world.fetch(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert all(f"\r{name}.gz:" in err for name in FILE_NAMES)


def test_only_what_is_missing_or_corrupt_is_downloaded(world: World, server: Server) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    folder = world.put()
    (folder / FILE_NAMES[2]).unlink()
    (folder / FILE_NAMES[0]).write_bytes(b"rubbish")
    done = dict.fromkeys(FILE_NAMES, "present")
    assert world.fetch() == {**done, FILE_NAMES[0]: "replaced", FILE_NAMES[2]: "downloaded"}
    assert server.asked == [f"/good/{FILE_NAMES[0]}.gz", f"/good/{FILE_NAMES[2]}.gz"]
    assert world.is_whole()
    assert world.fetch() == done


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("missing", "HTTP 404"),
        ("broken", "HTTP 503"),
        ("corrupt", "wrong bytes"),
        ("cut", "the connection broke off half-way"),
        ("stall", "stalled: nothing within 0.3 s"),
        ("endless", "more than 0 MiB: no file of a data set"),
    ],
)
def test_after_a_bad_mirror_comes_the_next(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch, behaviour: str, words: str
) -> None:
    with monkeypatch.context() as patch:
        if behaviour == "endless":
            patch.setattr("mnist_bench.data.mnist.MOST_BYTES", 100)
        world.environ["MNIST_BENCH_MIRROR"] = server.url(behaviour)
        with pytest.raises(DownloadError) as caught:
            world.fetch()
    assert f"{server.url(behaviour)}{FILE_NAMES[0]}.gz: {words}" in str(caught.value)
    assert world.files() == []  # nothing bad, and nothing half
    public(monkeypatch, world, server.url(behaviour), server.url("good"))
    assert world.fetch() == dict.fromkeys(FILE_NAMES, "downloaded")


def test_a_refused_connection_is_said_in_a_few_words(world: World) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/.*: no connection: Connection refused\n"):
        world.fetch()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_fails_is_named_without_its_password(
    world: World, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = f"{scheme}://mirror.invalid/"
    monkeypatch.setenv(f"{scheme}_proxy", "http://ada:secret@127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"Connection refused \(through the proxy 127\.0\.0\.1:9\)") as caught:
        world.fetch()
    assert "secret" not in str(caught.value)


def test_a_proxy_that_answers_is_named_too(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = "http://mirror.invalid/"
    monkeypatch.setenv("http_proxy", server.address)
    with pytest.raises(DownloadError, match=rf"HTTP 404 \(through the proxy {server.address}\)"):
        world.fetch()


def test_a_body_that_trickles_is_left_after_the_time_in_all(world: World, server: Server) -> None:
    # Each byte comes well within stall_s: only the limit over all ends it.
    world.environ["MNIST_BENCH_MIRROR"] = server.url("trickle")
    with pytest.raises(DownloadError, match=r"not there after 0\.6 s in all"):
        world.fetch(Limits(stall_s=1, total_s=0.6, tries=3, pause_s=0))
    assert world.files() == []


def test_a_fault_that_passes_is_tried_again_and_a_missing_file_is_not(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    public(monkeypatch, world, server.url("broken"), server.url("missing"))
    with pytest.raises(DownloadError):
        world.fetch(Limits(stall_s=1, total_s=5, tries=3, pause_s=0))
    kinds = [path.split("/")[1] for path in server.asked]
    assert kinds == ["broken", "missing", "broken", "broken", "missing"]  # at last without .gz
    assert not server.asked[-1].endswith(".gz")


def test_the_mirror_of_the_environment_is_the_only_one() -> None:
    assert mirrors("mnist", {"MNIST_BENCH_MIRROR": "https://mirror.example/x"}) == ("https://mirror.example/x/",)
    assert mirrors("mnist", {}) == SETS["mnist"].mirrors
    with pytest.raises(UsageError, match="MNIST_BENCH_MIRROR=ftp://x: not an http"):
        mirrors("mnist", {"MNIST_BENCH_MIRROR": "ftp://x"})


# ── the place ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_place_that_cannot_be_written_says_what_to_do(world: World, server: Server) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    world.root.write_text("a file where the folder should be")
    with pytest.raises(BenchError, match=rf"{world.root}.*give a --data-dir that can be written"):
        world.ask("mnist")
    assert world.ask("auto").name == "synthetic"


@pytest.mark.parametrize("kind", ["mnist", "synthetic"])
def test_a_full_disk_is_named_and_leaves_nothing(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BenchError, match=r"No space left on device.* 60 MB left"):
        world.ask(kind)
    assert world.files() == []
    assert not list((world.root.parent / "cache").rglob("*ubyte*"))


def test_what_killed_processes_left_is_swept(world: World, server: Server) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    world.raw.mkdir(parents=True)
    old, young = (world.raw / f".{FILE_NAMES[0]}.{number}.abcd.tmp" for number in (1, 2))
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    world.fetch()
    assert (old.exists(), young.exists()) == (False, True)  # the young one may be of a process that is alive


# ── what lies there under another shape ──────────────────────────────────────────────────────────────────────────────


@BOTH
def test_mnist_in_its_place_is_taken_without_a_word(world: World, kind: str) -> None:
    world.put()
    data = world.ask(kind)
    assert (data.name, data.root) == ("mnist", str(world.root))
    assert world.notices == []


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dots", [True, False])
@pytest.mark.parametrize("below", ["MNIST/raw", ".", "raw", "MNIST", "digits", "digits/raw", "digits/MNIST/raw"])
def test_mnist_under_another_shape_is_found(world: World, below: str, dots: bool, packed: bool) -> None:
    world.put(below=below, dots=dots, packed=packed)
    before = world.files()
    assert world.ask("auto", offline=True).root == str(world.root)
    assert world.is_whole()
    assert set(before) < set(world.files()) or (below == "MNIST/raw" and not dots and not packed)


@pytest.mark.parametrize("below", ["MNIST/raw", "."])
def test_what_cannot_be_unpacked_beside_is_unpacked_into_the_cache_once(
    world: World, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    folder = world.put(packed=True, below=below)
    world.put() if below == "MNIST/raw" else None
    for name in FILE_NAMES[:3]:
        (folder / name).unlink(missing_ok=True)  # one is there as it should be
    before = world.files()

    def read_only(folder: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("mnist_bench.data.fetch.try_folder", read_only)
    data = world.ask("mnist", offline=True)
    cache = world.root.parent / "cache" / "mnist_bench"
    assert data.root == str(cache)
    assert world.is_whole(cache)
    assert world.files() == before
    assert f"unpacked into {cache}" in world.notices[0]
    stamps = [(cache / "MNIST/raw" / name).stat().st_mtime_ns for name in FILE_NAMES]
    assert world.ask("mnist", offline=True) == data
    assert stamps == [(cache / "MNIST/raw" / name).stat().st_mtime_ns for name in FILE_NAMES]


def test_files_with_other_bytes_are_named_where_nothing_better_is_found(world: World) -> None:
    (world.put(below="digits") / FILE_NAMES[0]).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=rf"not MNIST's bytes: {world.root}/digits/{FILE_NAMES[0]}"):
        world.ask("mnist", offline=True)


@BOTH
@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_corrupt_file_stops_everything(world: World, server: Server, kind: str, offline: bool, packed: bool) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    path = next(world.put(packed=packed).glob(f"{FILE_NAMES[0]}*"))
    content = bytearray(path.read_bytes())
    content[99] ^= 1
    path.write_bytes(content)
    for other in world.raw.glob(f"{FILE_NAMES[3]}*"):  # also where another file would have to be fetched
        other.unlink()
    with pytest.raises(DataError) as caught:
        world.ask(kind, offline=offline)
    assert f"{path}: corrupt" in str(caught.value)
    assert f"mnist-bench data fetch --data-dir {world.root}" in str(caught.value)
    assert "or delete the file" in str(caught.value)
    assert server.asked == []
    assert path.read_bytes() == bytes(content)
    assert world.fetch()[FILE_NAMES[0]] == ("downloaded" if packed else "replaced")  # where it is asked for


@pytest.mark.parametrize("place", ["raw", "packed", "sums"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_regular_files_are_read(world: World, place: str, make: object) -> None:
    raw = world.put()
    path = {"raw": raw / FILE_NAMES[1], "packed": raw / f"{FILE_NAMES[1]}.gz", "sums": raw.parent / SUMS_FILE}[place]
    (raw / FILE_NAMES[1]).unlink()
    make(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=r"not a regular file|Is a directory|missing, and --offline"):
        world.ask("mnist", offline=True)
    assert world.ask("synthetic").name == "synthetic"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_not_passed_over(world: World) -> None:
    path = world.put() / FILE_NAMES[0]
    path.chmod(0)
    with pytest.raises(DataError, match=f"{path}: cannot be read: Permission denied; mend its permissions"):
        world.ask("auto")


# ── MNIST or the synthetic set ───────────────────────────────────────────────────────────────────────────────────────


@BOTH
def test_mnist_is_downloaded_to_the_root(world: World, server: Server, kind: str) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    assert world.ask(kind).name == "mnist"
    assert read_images(world.raw / FILE_NAMES[0]).shape == (20, 28, 28)


@pytest.mark.parametrize("behaviour", [None, "trickle"])
def test_auto_without_mnist_takes_the_synthetic_set_and_says_so_loudly(
    world: World, server: Server, behaviour: str | None
) -> None:
    if behaviour:
        world.environ["MNIST_BENCH_MIRROR"] = server.url(behaviour)
    assert world.ask("auto").name == "synthetic"
    said = "\n".join(world.notices)
    for words in ("WARNING", "SYNTHETIC", "do NOT compare with MNIST's", f"data fetch --data-dir {world.root}"):
        assert words in said
    assert ("not there after 1.5 s in all" if behaviour else "Connection refused") in said


def test_offline_nothing_is_asked_of_the_network(world: World, server: Server) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    assert world.ask("auto", offline=True).name == "synthetic"
    assert "--offline forbids to download" in "\n".join(world.notices)
    with pytest.raises(DataError, match="--offline forbids to download"):
        world.ask("mnist", offline=True)
    assert server.asked == []


def test_mnist_that_cannot_be_had_is_an_error(world: World) -> None:
    with pytest.raises(DownloadError, match="could not be downloaded"):
        world.ask("mnist")


def test_the_synthetic_set_lives_in_the_cache_and_is_drawn_once(world: World) -> None:
    data = world.ask("synthetic")
    assert Path(data.root) == world.root.parent / "cache" / "mnist_bench" / "synthetic-v1-seed0-40+20"
    assert not world.root.exists()
    verify(data, environ=world.environ)
    assert world.ask("synthetic") == data
    assert len(world.notices) == 1


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), Path.unlink])
def test_a_damaged_synthetic_set_is_drawn_anew(world: World, damage: object) -> None:
    data = world.ask("synthetic")
    damage(Path(data.root) / "MNIST" / "raw" / FILE_NAMES[2])  # type: ignore[operator]
    assert world.ask("synthetic") == data
    assert len(world.notices) == 2


def test_a_cache_that_cannot_be_written_says_what_to_do(world: World) -> None:
    (world.root.parent / "cache").write_text("")
    with pytest.raises(DataError, match="set XDG_CACHE_HOME to one that can be written"):
        world.ask("synthetic")


def test_synthetic_digits_in_the_place_of_mnist_are_called_so_and_kept(world: World, server: Server) -> None:
    world.environ["MNIST_BENCH_MIRROR"] = server.url("good")
    write_set(world.root, seed=3, sizes=(20, 10))
    before = [path.read_bytes() for path in sorted(world.raw.iterdir())]
    for ask in (lambda: world.ask("mnist"), world.fetch):
        with pytest.raises(DataError, match=f"{world.root}: holds synthetic digits"):
            ask()
    assert world.ask("synthetic").root == str(world.root)
    assert world.ask("auto").root == str(world.root)
    assert "SYNTHETIC" in "\n".join(world.notices)
    assert before == [path.read_bytes() for path in sorted(world.raw.iterdir())]
    assert server.asked == []
