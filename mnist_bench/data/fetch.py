"""From what was asked for (auto, mnist, synthetic) to a verified data set on disk: found, unpacked, fetched or drawn.

Only verified bytes get a name, each file by one rename: what comes over the network is held in memory until then.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mnist_bench.catalogue import SETS
from mnist_bench.data import mnist, synthetic
from mnist_bench.data.mnist import FileState, Name, digest, inspect, is_drawn, is_synthetic, proven, raw_folder
from mnist_bench.disk.files import try_folder, write_atomically
from mnist_bench.errors import DataError, DownloadError, UsageError
from mnist_bench.records import DataSet

Action = Literal["present", "copied", "unpacked", "downloaded", "replaced"]

# Where a data root may have the files: where they belong, and under the shapes that people give it.
_PLACES = ("{folder}/raw", ".", "raw", "{folder}", "*", "*/raw", "*/{folder}/raw")
_LEFT_OVER_SECONDS = 3600
_CHUNK_BYTES = 1 << 14


class Limits(NamedTuple):
    """How patient downloads are: seconds without a byte, seconds for all files and mirrors, tries of each mirror."""

    stall_s: float
    total_s: float
    tries: int
    pause_s: float = 1.0


PATIENT = Limits(stall_s=30, total_s=900, tries=3)
# For dataset: auto, which turns to the synthetic set where MNIST cannot be had within 10 s in all.
HURRIED = Limits(stall_s=4, total_s=10, tries=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How a data set is to be had.

    Attributes:
        root: as ``default_root`` returns it.
        environ: for the cache folder and ``MNIST_BENCH_MIRROR``.
        notify: told what goes on, one line each; several for a warning.
        offline: download nothing.
        progress: draw a bar on stderr while downloading.
        repair: replace a corrupt file once a good one is there; else it is an error, for the user to judge.
        name: of the set.
    """

    root: Path
    environ: Mapping[str, str]
    notify: Callable[[str], None]
    offline: bool = False
    progress: bool = False
    repair: bool = False
    name: Name = "mnist"


class _MissingError(DataError):
    """The set is not at the root, and nothing may be downloaded; or synthetic digits are in its place."""


def resolve(kind: Literal["auto", "mnist", "synthetic"], request: Request) -> DataSet:
    """Finds, fetches or draws a data set, and verifies it.

    Args:
        kind: ``mnist``: MNIST at the root, else downloaded there; ``synthetic``: the synthetic set at the root or in
            the cache folder, drawn there when absent; ``auto``: MNIST where it is or can be had within 10 s, else the
            synthetic set, with a warning.

    Raises:
        DataError: a file at the root is corrupt or unreadable (``auto`` too), or MNIST is missing and ``offline``.
        DownloadError: ``mnist`` could not be downloaded, or the root not be written.
    """
    root, environ, notify = request.root, request.environ, request.notify
    if kind != "synthetic":
        try:
            root, _ = fetch(request, HURRIED if kind == "auto" else PATIENT)
            return proven(request.name, root, environ)
        except (_MissingError, DownloadError) as error:
            if kind == "mnist":
                raise
            notify(f"WARNING: MNIST is not at {root} and could not be had:")
            for line in str(error).splitlines():
                notify(f"  {line.strip()}")
            notify("WARNING: taking the SYNTHETIC digits instead: their figures do NOT compare with MNIST's.")
            notify(f"  `mnist-bench data fetch --data-dir {root}` downloads MNIST; `dataset: mnist` insists on it.")
    if not is_synthetic(root, environ):
        root = synthetic.ensure(synthetic.SEED, notify=notify, environ=environ)
    return proven("synthetic", root, environ)


def fetch(request: Request, limits: Limits) -> tuple[Path, dict[str, Action]]:
    """Makes a root hold the raw files: ``request.root``, or the cache folder where that is packed and read-only.

    Returns:
        The root, and what was done for each file.

    Raises:
        DataError: a file is corrupt or cannot be read, or synthetic digits are there, or one is missing and nothing
            may be downloaded.
        DownloadError: no mirror served a file, or the folder cannot be written.
        UsageError: ``MNIST_BENCH_MIRROR`` is no address.
    """
    root, name = request.root, request.name
    states = inspect(root, name, request.environ)
    if any(state.status == "corrupt" for state in states) and is_drawn(root, request.environ):
        raise _MissingError(
            f"{root}: holds synthetic digits that `data synthesize` drew: `dataset: synthetic` takes them; "
            f"for {SETS[name].title} give another --data-dir"
        )
    if not request.repair:
        mnist.demand_whole([state for state in states if state.found], name, root)
    found = any(state.found is None and copies(root, name, state.path.name) for state in states)
    if any(state.status != "ok" for state in states) and (found or not request.offline):
        root = _writable_root(request, found)
        states = inspect(root, name, request.environ)
    deadline = time.monotonic() + limits.total_s
    actions: dict[str, Action] = {}
    for state in states:
        actions[state.path.name] = "present" if state.status == "ok" else _obtain(state, request, limits, deadline)
    return root, actions


def _writable_root(request: Request, found: bool) -> Path:
    """The root, tried before anything is waited for; the cache folder where it cannot be written but has copies."""
    raw = raw_folder(request.root, request.name)
    try:
        with _writing(raw):
            try_folder(raw)
    except DownloadError:
        if not found:
            raise
        cache = mnist.cache_root(request.environ)
        request.notify(f"{raw}: cannot be written; what lies in {request.root} is unpacked into {cache}")
        return cache
    return request.root


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DownloadError(
            f"{error.filename or folder}: {error.strerror or error}: the files cannot be put there; "
            f"give a --data-dir that can be written and has 60 MB left, or one that holds them already"
        ) from error


def _obtain(state: FileState, request: Request, limits: Limits, deadline: float) -> Action:
    """Puts one file into its place: a copy under another shape with the right bytes, else a download."""
    file, facts = state.path.name, SETS[request.name]
    wrong = []
    for path in copies(request.root, request.name, file):
        content = _unpacked(mnist.read_file(path) or b"", facts.checksums[file])
        if content is not None:
            _put(state.path, content)
            return "unpacked" if path.suffix == ".gz" else "copied"
        wrong.append(path)
    other = f"; not {facts.title}'s bytes: {', '.join(map(str, wrong))}" if wrong else ""
    if not request.repair and (packed := raw_folder(request.root, request.name) / f"{file}.gz") in wrong:
        raise DataError(f"{packed}: corrupt: does not unpack to {file}\n{facts.mend.format(root=request.root)}")
    if request.offline:
        raise _MissingError(
            f"{state.path}: missing, and --offline forbids to download; run `mnist-bench data fetch --data-dir "
            f"{request.root}` where there is a network, or use dataset: synthetic{other}"
        )
    request.notify(f"downloading {file}.gz into {state.path.parent}{other}")
    _put(state.path, _download(file, request, limits, deadline))
    return "replaced" if state.found else "downloaded"


def _put(path: Path, content: bytes) -> None:
    with _writing(path.parent):
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed
            if time.time() - left.stat().st_mtime > _LEFT_OVER_SECONDS:
                left.unlink(missing_ok=True)
        write_atomically(path, content)


def _unpacked(content: bytes, checksum: str) -> bytes | None:
    """The bytes of a raw file, from a .gz or as they are; None: they are others."""
    if content.startswith(mnist.GZIP):
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(mnist.MOST_BYTES)  # a bomb unpacks no further
        except (gzip.BadGzipFile, EOFError, zlib.error):
            return None
    return content if digest(content) == checksum else None


def mirrors(name: Name, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The addresses to try in order: ``MNIST_BENCH_MIRROR`` alone where it is set, else the public ones.

    Raises:
        UsageError: ``MNIST_BENCH_MIRROR`` is no http(s) address.
    """
    named = environ.get("MNIST_BENCH_MIRROR", "").strip()
    if named and not named.startswith(("http://", "https://")):
        raise UsageError(f"MNIST_BENCH_MIRROR={named}: not an http:// or https:// address; mend or unset it")
    return (named.rstrip("/") + "/",) if named else SETS[name].mirrors


def copies(root: Path, name: Name, file: str) -> list[Path]:
    """Where a file may lie under another shape, its bytes unknown: packed, with dots in its name, a level off."""
    dotted = file.replace("-idx", ".idx")
    names = (file, f"{file}.gz", dotted, f"{dotted}.gz")
    patterns = [f"{place.format(folder=SETS[name].folder)}/{each}" for place in _PLACES for each in names]
    found = dict.fromkeys(path for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_file())
    # A folder below that has sums of its own holds another set.
    raw = raw_folder(root, name)
    return [path for path in found if path.parent == raw or not (path.parent.parent / mnist.SUMS_FILE).exists()]


def _download(file: str, request: Request, limits: Limits, deadline: float) -> bytes:
    """The verified bytes of a raw file from the first mirror that serves them, packed in any way or not at all.

    Raises:
        DownloadError: no mirror served it; one line per attempt says why.
    """
    expected = SETS[request.name].checksums[file]
    # Grows: where a mirror has no .gz file, the raw one is tried.
    urls = [f"{mirror}{file}.gz" for mirror in mirrors(request.name, request.environ)] * limits.tries
    problems: dict[str, str] = {}
    for url in urls:
        before = problems.get(url, "")
        if before.startswith("HTTP 4"):  # it will not have the file a second later either
            continue
        if before:
            time.sleep(max(0.0, min(limits.pause_s, deadline - time.monotonic())))
        served = _transfer(url, limits, deadline, request.progress)
        if isinstance(served, bytes):
            content = _unpacked(served, expected)
            if content is not None:
                return content
            served = f"wrong bytes ({len(served)} of them): they are not, and do not unpack to, SHA-256 {expected}"
        problems.setdefault(url, served)
        if served.startswith("HTTP 4") and url.endswith(".gz"):
            urls.append(url.removesuffix(".gz"))
    lines = "\n".join(f"  {url}: {problem}" for url, problem in problems.items())
    raise DownloadError(
        f"{file} could not be downloaded:\n{lines}\n"
        "set MNIST_BENCH_MIRROR to a mirror that can be reached, or give a --data-dir that holds the files"
    )


def _transfer(url: str, limits: Limits, deadline: float, progress: bool) -> bytes | str:
    """One try: what was served, or what was wrong."""
    import requests
    from tqdm import tqdm

    late = f"not there after {limits.total_s:g} s in all"
    if (left_s := deadline - time.monotonic()) <= 0:
        return late
    future: Future[None] = Future()

    def stream() -> None:
        try:
            # As it is: a server that labels .gz files as an encoding would have them unpacked on the way.
            headers = {"Accept-Encoding": "identity"}
            with requests.get(url, stream=True, timeout=limits.stall_s, headers=headers) as response:
                response.raise_for_status()
                bar.reset(int(response.headers.get("Content-Length", 0)))
                for block in response.iter_content(_CHUNK_BYTES):
                    bar.update(sink.write(block))  # fails once nobody waits any more: the sink is closed
                    if sink.tell() > mnist.MOST_BYTES:
                        raise ValueError(f"more than {mnist.MOST_BYTES >> 20} MiB: no file of a data set")
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            future.set_exception(error)

    name = url.rpartition("/")[2]
    with io.BytesIO() as sink, tqdm(desc=name, unit="B", unit_scale=True, leave=False, disable=not progress) as bar:
        # A thread of its own: neither a name server that is silent nor a body that trickles heeds a socket's time-out.
        threading.Thread(target=stream, daemon=True).start()
        try:
            future.result(timeout=left_s)
            return sink.getvalue()
        except requests.RequestException as error:
            return _words(error, url, limits)
        except TimeoutError:
            return late
        except ValueError as error:
            return str(error)


def _words(error: Any, url: str, limits: Limits) -> str:
    """The error in a few words: the libraries' own texts run over several lines of nested representations."""
    from requests import utils

    text = str(error)
    if error.response is not None:
        words = f"HTTP {error.response.status_code}"
    elif "timed out" in text:
        words = f"stalled: nothing within {limits.stall_s:g} s"
    elif "IncompleteRead" in text or "broken" in text:
        words = "the connection broke off half-way"
    elif reason := re.search(r"(?:\[Errno -?\d+\]|Tunnel connection failed:) ([\w ]+)", text):
        words = f"no connection: {reason[1]}"
    else:
        words = f"{type(error).__name__}: {text.splitlines()[0][:200] if text else 'no reason given'}"
    proxy = utils.select_proxy(url, utils.get_environ_proxies(url))
    return f"{words} (through the proxy {proxy.rpartition('@')[2]})" if proxy else words
