"""A tiny MNIST (20 + 10 digits) in the place of the real one, and an HTTP server that serves it well, badly or not."""

import contextlib
import gzip
import hashlib
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mnist_bench.catalogue import FILE_NAMES, SETS
from mnist_bench.data import Limits, Request, fetch, raw_folder, resolve
from mnist_bench.data.synthetic import write_set
from mnist_bench.records import DataSet

BRIEF = Limits(stall_s=0.3, total_s=3, tries=1)


def pack(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The raw files by name."""
    root = tmp_path_factory.mktemp("tiny")
    write_set(root, seed=1, sizes=(20, 10))
    return {name: (raw_folder(root) / name).read_bytes() for name in FILE_NAMES}


@dataclass
class World:
    """A data root, the program's environment, and what it was told."""

    tiny: dict[str, bytes]
    root: Path
    raw: Path
    cache: Path
    environ: dict[str, str]
    notices: list[str] = field(default_factory=list)

    def put(self, *, packed: bool = False, below: str = "MNIST/raw", dots: bool = False) -> Path:
        """Writes the files below the root; returns their folder."""
        folder = self.root / below
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.tiny.items():
            written = name.replace("-idx", ".idx") if dots else name
            (folder / (written + ".gz" * packed)).write_bytes(pack(content) if packed else content)
        return folder

    def ask(self, kind: str, *, offline: bool = False) -> DataSet:
        return resolve(kind, self.request(offline=offline))

    def fetch(self, limits: Limits = BRIEF) -> None:
        fetch(self.request(repair=True), limits)

    def request(self, **flags: bool) -> Request:
        return Request(root=self.root, environ=self.environ, notify=self.notices.append, **flags)

    def files(self) -> list[str]:
        """All that is below the root."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())

    def is_whole(self, raw: Path) -> bool:
        return all((raw / name).read_bytes() == content for name, content in self.tiny.items())


@pytest.fixture
def world(tmp_path, tiny, monkeypatch):
    """The tiny MNIST, small synthetic sets, little patience; nothing leaves this machine or the test's folder."""
    checksums = {name: hashlib.sha256(raw).hexdigest() for name, raw in tiny.items()}
    monkeypatch.setitem(SETS, "mnist", replace(SETS["mnist"], checksums=checksums, mirrors=()))
    monkeypatch.setattr("mnist_bench.data.synthetic.SIZES", (40, 20))
    for name in ("PATIENT", "HURRIED"):
        monkeypatch.setattr(f"mnist_bench.data.{name}", BRIEF)
    root, cache = tmp_path / "root", tmp_path / "cache"
    own = {"XDG_CACHE_HOME": str(cache), "MNIST_BENCH_DATA": str(root), "MNIST_BENCH_MIRROR": "http://127.0.0.1:9/"}
    for name, value in {**own, "NO_PROXY": "127.0.0.1", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    return World(tiny, root, root / "MNIST" / "raw", cache / "mnist_bench", own)


@dataclass
class Server:
    """``url("good")`` is a mirror of that behaviour; ``asked`` are the paths that were asked for."""

    address: str
    asked: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def url(self, behaviour: str) -> str:
        return f"{self.address}/{behaviour}/"


@pytest.fixture
def server(tiny):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour, _, name = self.path.strip("/").partition("/")
            state.asked.append(self.path)
            raw = tiny.get(name.removesuffix(".gz"), b"")
            status = {"missing": 404, "broken": 503, "redirect": 302}.get(behaviour, 200 if raw else 404)
            if behaviour == "unpacked" and name.endswith(".gz"):
                status = 404
            bodies = {
                "unpacked": raw,
                "corrupt": pack(raw)[:-1],
                "recompressed": gzip.compress(raw[:9]) + gzip.compress(raw[9:]),
            }
            body = bodies.get(behaviour, pack(raw))
            self.send_response(status)
            self.send_header("Location", state.url("good") + name)
            self.send_header("Content-Length", str(len(body)))
            if behaviour == "labelled" and "gzip" in self.headers.get("Accept-Encoding", ""):
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            size, wait_s = {"trickle": (1, 0.05), "stall": (10, 20), "cut": (10, 0)}.get(behaviour, (len(body), 0))
            for start in range(0, len(body) if status == 200 else 0, size):
                self.wfile.write(body[start : start + size])
                if behaviour == "cut" or state.released.wait(wait_s):
                    return

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
