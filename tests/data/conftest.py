"""A tiny MNIST (20 + 10 digits) and an HTTP server that serves it well, badly or not at all."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mnist_bench.data.idx import write_images, write_labels
from mnist_bench.data.mnist import FILE_NAMES, Resource
from mnist_bench.data.pen import draw_digits


@dataclass(frozen=True)
class Tiny:
    """The set in memory: raw and packed bytes by name, and the table that describes them."""

    raw: dict[str, bytes]
    packed: dict[str, bytes]
    resources: tuple[Resource, ...]

    def put(self, root: Path, *, packed: bool = False) -> Path:
        """Writes the files where a data root has them; returns their folder."""
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for name in self.raw:
            if packed:
                (folder / f"{name}.gz").write_bytes(self.packed[name])
            else:
                (folder / name).write_bytes(self.raw[name])
        return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    for split, (images_name, labels_name) in enumerate((FILE_NAMES[:2], FILE_NAMES[2:])):
        images, labels = draw_digits(20 if split == 0 else 10, seed=1, split=split)
        write_images(folder / images_name, images)
        write_labels(folder / labels_name, labels)
    raw = {name: (folder / name).read_bytes() for name in FILE_NAMES}
    packed = {name: gzip.compress(raw[name], mtime=0) for name in FILE_NAMES}
    resources = tuple(
        Resource(
            name=name,
            size=len(raw[name]),
            md5=hashlib.md5(raw[name]).hexdigest(),
            gz_md5=hashlib.md5(packed[name]).hexdigest(),
        )
        for name in FILE_NAMES
    )
    return Tiny(raw, packed, resources)


@dataclass
class Server:
    """``url("good")`` is a mirror of that behaviour; ``asked`` are the paths that were asked for."""

    address: str
    asked: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def url(self, behaviour: str) -> str:
        return f"{self.address}/{behaviour}/"


@pytest.fixture
def server(tiny: Tiny) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour, _, name = self.path.strip("/").partition("/")
            state.asked.append(self.path)
            body = tiny.packed.get(name.removesuffix(".gz"))
            if behaviour == "missing" or body is None:
                self.send_error(404)
                return
            if behaviour == "broken":
                self.send_error(503)
                return
            if behaviour == "corrupt":
                body = body[:-1] + bytes([body[-1] ^ 1])
            if behaviour == "redirect":
                self.send_response(302)
                self.send_header("Location", state.url("good") + name)
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if behaviour == "labelled" and "gzip" in self.headers.get("Accept-Encoding", ""):
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            if behaviour == "stall":
                self.wfile.write(body[:10])
                self.wfile.flush()
                state.released.wait(20)
            elif behaviour == "trickle":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if state.released.wait(0.05):
                        return
            elif behaviour == "cut":
                self.wfile.write(body[: len(body) // 2])
            else:
                self.wfile.write(body)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client has given up, as it should
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = False  # joined at the end: no thread outlives its test
    state = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.released.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose cache folder is the test's own, and in which nothing leaves this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "MNIST_BENCH_MIRROR": "http://127.0.0.1:9/"}
