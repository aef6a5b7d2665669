from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import time
from pathlib import Path

import pytest

from mnist_bench.data.download import Limits
from mnist_bench.data.fetch import Fetched, fetch
from mnist_bench.data.mnist import FILE_NAMES, MIRRORS, RESOURCES, mirrors
from mnist_bench.errors import DownloadError, UsageError

from .conftest import Server, Tiny

BRIEF = Limits(connect_s=1, read_s=0.3, total_s=5, rounds=1, pause_s=0)


def bring(root: Path, tiny: Tiny, environ: dict[str, str], limits: Limits = BRIEF) -> dict[str, str]:
    done: tuple[Fetched, ...] = fetch(root, environ=environ, resources=tiny.resources, limits=limits)
    return {each.name: each.action for each in done}


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def public(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], *addresses: str) -> None:
    """Puts ``addresses`` in the place of the public mirrors."""
    del environ["MNIST_BENCH_MIRROR"]
    monkeypatch.setattr("mnist_bench.data.mnist.MIRRORS", addresses)


@pytest.mark.parametrize("behaviour", ["good", "redirect", "labelled"])
def test_a_good_mirror_gives_the_raw_files_and_nothing_else(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str], behaviour: str
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url(behaviour)
    root = tmp_path / "new" / "root"
    assert bring(root, tiny, environ) == dict.fromkeys(FILE_NAMES, "downloaded")
    assert files(root) == sorted(f"MNIST/raw/{name}" for name in FILE_NAMES)
    for name in FILE_NAMES:
        assert (root / "MNIST" / "raw" / name).read_bytes() == tiny.raw[name]


def test_a_bar_shows_each_file_on_stderr(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    fetch(tmp_path, environ=environ, resources=tiny.resources, limits=BRIEF, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    for name in FILE_NAMES:
        assert f"\r{name}.gz:   0%|" in err


def test_what_is_there_is_not_downloaded_again(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str]
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    folder = tiny.put(tmp_path / "root")
    (folder / FILE_NAMES[2]).unlink()
    done = bring(tmp_path / "root", tiny, environ)
    assert done == {**dict.fromkeys(FILE_NAMES, "present"), FILE_NAMES[2]: "downloaded"}
    assert server.asked == [f"/good/{FILE_NAMES[2]}.gz"]
    assert bring(tmp_path / "root", tiny, environ) == dict.fromkeys(FILE_NAMES, "present")


def test_a_corrupt_file_is_replaced(tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str]) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    path = tiny.put(tmp_path / "root") / FILE_NAMES[0]
    path.write_bytes(b"rubbish")
    assert bring(tmp_path / "root", tiny, environ)[FILE_NAMES[0]] == "replaced"
    assert path.read_bytes() == tiny.raw[FILE_NAMES[0]]


def test_packed_files_are_unpacked_without_a_network(tmp_path: Path, tiny: Tiny, environ: dict[str, str]) -> None:
    folder = tiny.put(tmp_path / "root", packed=True)
    assert bring(tmp_path / "root", tiny, environ) == dict.fromkeys(FILE_NAMES, "unpacked")
    for name in FILE_NAMES:
        assert (folder / name).read_bytes() == tiny.raw[name]
        assert (folder / f"{name}.gz").exists()


@pytest.mark.parametrize("bad", [b"no gzip at all", b"\x1f\x8b\x08\x00"])
def test_a_corrupt_packed_file_is_passed_over_for_a_download(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str], bad: bytes
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    folder = tiny.put(tmp_path / "root", packed=True)
    (folder / f"{FILE_NAMES[1]}.gz").write_bytes(bad)
    assert bring(tmp_path / "root", tiny, environ)[FILE_NAMES[1]] == "downloaded"
    assert (folder / FILE_NAMES[1]).read_bytes() == tiny.raw[FILE_NAMES[1]]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("missing", "HTTP 404"),
        ("broken", "HTTP 503"),
        ("corrupt", "wrong bytes"),
        ("cut", "the connection broke off half-way"),
        ("stall", "stalled: no byte within 0.3 s"),
    ],
)
def test_after_a_bad_mirror_comes_the_next(
    tmp_path: Path,
    tiny: Tiny,
    server: Server,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
    words: str,
) -> None:
    root = tmp_path / "root"
    environ["MNIST_BENCH_MIRROR"] = server.url(behaviour)
    with pytest.raises(DownloadError) as caught:
        bring(root, tiny, environ)
    assert f"{server.url(behaviour)}{FILE_NAMES[0]}.gz: {words}" in str(caught.value)
    assert files(root) == []  # nothing bad, and nothing half

    public(monkeypatch, environ, server.url(behaviour), server.url("good"))
    assert bring(root, tiny, environ) == dict.fromkeys(FILE_NAMES, "downloaded")


def test_a_refused_connection_is_said_in_a_few_words(tmp_path: Path, tiny: Tiny, environ: dict[str, str]) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/.*: no connection: Connection refused"):
        bring(tmp_path / "root", tiny, environ)


def test_a_body_that_trickles_is_left_after_the_time_in_all(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str]
) -> None:
    # Each byte comes well within read_s: only the limit over all ends it.
    environ["MNIST_BENCH_MIRROR"] = server.url("trickle")
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"not there after 0\.6 s in all"):
        bring(tmp_path / "root", tiny, environ, Limits(connect_s=1, read_s=1, total_s=0.6, rounds=3, pause_s=0))
    assert time.monotonic() - started < 3
    assert files(tmp_path / "root") == []


def test_a_fault_that_passes_is_tried_again_and_a_missing_file_is_not(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    public(monkeypatch, environ, server.url("broken"), server.url("missing"))
    with pytest.raises(DownloadError):
        bring(tmp_path / "root", tiny, environ, Limits(connect_s=1, read_s=1, total_s=5, rounds=3, pause_s=0))
    kinds = [path.split("/")[1] for path in server.asked]
    assert kinds == ["broken", "missing", "broken", "broken"]


def test_the_mirror_of_the_environment_is_the_only_one() -> None:
    assert mirrors({"MNIST_BENCH_MIRROR": "https://mirror.example/mnist"}) == ("https://mirror.example/mnist/",)
    assert mirrors({}) == MIRRORS


def test_a_mirror_that_is_no_address_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="MNIST_BENCH_MIRROR=ftp://x: not an http"):
        mirrors({"MNIST_BENCH_MIRROR": "ftp://x"})


def test_an_interruption_leaves_no_half_file(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    environ["MNIST_BENCH_MIRROR"] = server.url("stall")
    monkeypatch.setattr("concurrent.futures.Future.result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bring(tmp_path / "root", tiny, environ)
    assert files(tmp_path / "root") == []
    assert not list((tmp_path / "root" / "MNIST" / "raw").iterdir())


def test_a_place_that_cannot_be_written_says_what_to_do(tmp_path: Path, tiny: Tiny, environ: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"cannot be put there; give a --data-dir that can be written"):
        bring(tmp_path / "file", tiny, environ)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_says_what_to_do(
    tmp_path: Path, tiny: Tiny, server: Server, environ: dict[str, str]
) -> None:
    environ["MNIST_BENCH_MIRROR"] = server.url("good")
    (tmp_path / "root").mkdir(mode=0o500)
    with pytest.raises(DownloadError, match=r"Permission denied.*--data-dir that can be written"):
        bring(tmp_path / "root", tiny, environ)


def test_the_table_agrees_with_torchvision() -> None:
    # Its source is read, not imported: that would take torch along.
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "datasets" / "mnist.py").read_text(encoding="utf-8")
    body = next(each.body for each in ast.parse(source).body if isinstance(each, ast.ClassDef) and each.name == "MNIST")
    assigned = [each for each in body if isinstance(each, ast.Assign)]
    values = {ast.unparse(each.targets[0]): ast.literal_eval(each.value) for each in assigned[:2]}
    assert values["resources"] == [(f"{each.name}.gz", each.gz_md5) for each in RESOURCES]
    assert values["mirrors"] == list(MIRRORS)


def test_the_tiny_table_is_of_the_tiny_files(tiny: Tiny) -> None:
    for each in tiny.resources:
        assert hashlib.md5(tiny.packed[each.name]).hexdigest() == each.gz_md5
