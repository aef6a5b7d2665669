"""From what was asked for (auto, the name of a set) to a verified data set on disk: found, unpacked, fetched or drawn.

Only verified bytes get a name, each file by one rename: what comes over the network is held in memory until then. No
torch in this room.
"""

import contextlib
import gzip
import io
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mnist_bench.catalogue import FETCHED, FILE_NAMES, SETS
from mnist_bench.data import mnist, synthetic
from mnist_bench.data.mnist import FileState, cache_root, default_root, raw_folder, verify
from mnist_bench.disk.files import try_folder, write_atomically
from mnist_bench.errors import DataError, DownloadError, UsageError
from mnist_bench.records import DataSet

__all__ = ["Request", "cache_root", "copies", "default_root", "fetch", "raw_folder", "resolve", "verify"]

# Where a data root may have the files: where they belong, and under the shapes that people give it.
_PLACES = ("{folder}/raw", ".", "raw", "{folder}", "*", "*/raw", "*/{folder}/raw")
_LEFT_OVER_SECONDS = 3600
_CHUNK_BYTES = 1 << 14
_PAUSE_SECONDS = 1.0  # before a mirror is tried again


class Limits(NamedTuple):
    """How patient downloads are: seconds without a byte, seconds for all files and mirrors, tries of each mirror."""

    stall_s: float
    total_s: float
    tries: int


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
        repair: replace a corrupt file once a good one is there; else it is an error, for the user to judge.
        name: of the set.
    """

    root: Path
    environ: Mapping[str, str]
    notify: Callable[[str], None]
    offline: bool = False
    repair: bool = False
    name: str = "mnist"


class _MissingError(DataError):
    """The set is not at the root, and nothing may be downloaded; or synthetic digits are in its place."""


def resolve(kind: str, request: Request) -> DataSet:
    """Finds, fetches or draws a data set, and verifies it.

    Args:
        kind: ``mnist`` or another that can be downloaded: at the root, else downloaded there; ``synthetic``: the
            synthetic set at the root or in the cache folder, drawn there when absent; ``auto``: MNIST where it is or
            can be had within 10 s, else the synthetic set, with a warning.

    Raises:
        DataError: a file at the root is corrupt or unreadable (``auto`` too), or the set is missing and ``offline``.
        DownloadError: the set could not be downloaded, or the root not be written.
    """
    root, notify = request.root, request.notify
    if kind in FETCHED:
        return mnist.proven(kind, fetch(replace(request, name=kind), PATIENT))
    if kind == "auto":
        try:
            return mnist.proven(request.name, fetch(request, HURRIED))
        except (_MissingError, DownloadError) as error:
            notify(f"WARNING: MNIST is not at {root} and could not be had:")
            for line in str(error).splitlines():
                notify(f"  {line.strip()}")
            notify("WARNING: taking the SYNTHETIC digits instead: their figures do NOT compare with MNIST's.")
            notify(f"  `mnist-bench data fetch --data-dir {root}` downloads MNIST; `dataset: mnist` insists on it.")
    if not mnist.is_drawn(root) or mnist.combined(mnist.inspect(root, "mnist")):  # MNIST with sums beside it
        root = synthetic.ensure(synthetic.SEED, notify=notify, environ=request.environ)
    return mnist.proven("synthetic", root)


def fetch(request: Request, limits: Limits) -> Path:
    """Makes a root hold the raw files: ``request.root``, or the cache folder where that is packed and read-only.

    Returns:
        The root.

    Raises:
        DataError: a file is corrupt or cannot be read, or synthetic digits are there, or one is missing and nothing
            may be downloaded.
        DownloadError: no mirror served a file, or the folder cannot be written.
        UsageError: ``MNIST_BENCH_MIRROR`` is no address.
    """
    root, name = request.root, request.name
    states = mnist.inspect(root, name)
    if name == "mnist" and any(state.status == "corrupt" for state in states) and mnist.is_drawn(root):
        other = "`dataset: synthetic` takes them; for MNIST give another --data-dir"
        raise _MissingError(f"{root}: holds synthetic digits that `data synthesize` drew: {other}")
    if not request.repair:
        mnist.demand_whole([state for state in states if state.found], name, root)
    if any(state.status != "ok" for state in states) and _is_packed_and_read_only(request):
        root = mnist.cache_root(request.environ)
        request.notify(f"{request.root}: cannot be written; what lies there is unpacked into {root}")
        states = mnist.inspect(root, name)
    deadline = time.monotonic() + limits.total_s
    for state in states:
        if state.status != "ok":
            _obtain(state, request, limits, deadline)
    if SETS[name].packed and any(state.status != "ok" for state in states):
        mnist.write_sums(raw_folder(root, name))
    return root


def _is_packed_and_read_only(request: Request) -> bool:
    try:
        try_folder(raw_folder(request.root, request.name))
    except OSError:
        return all(copies(request.root, request.name, file) for file in FILE_NAMES)
    return False


def contents(data: DataSet) -> dict[str, bytes]:
    """The files of a set by their places in its folder: what another machine needs to have it. Code has none."""
    if data.is_code:
        return {}
    folder = raw_folder(Path(data.root), data.name).parent
    places = (*(f"raw/{name}" for name in FILE_NAMES), mnist.SUMS_FILE)
    return {place: found for place in places if (found := mnist.read_file(folder / place)) is not None}


def placed(data: DataSet, fetch: Callable[[], Mapping[str, bytes]], cache: Path) -> DataSet:
    """A set that was found on another machine, on this one, verified: where it lies there, else in the cache folder.

    Args:
        fetch: gives its ``contents``; called where it is in neither place, to be written into the second.

    Raises:
        DataError, DownloadError: they are others, or cannot be written.
    """
    own = replace(data, root=str(cache / f"placed-{data.sha256[:16]}"))
    for known in (data, own):
        with contextlib.suppress(DataError):
            verify(known)
            return known
    for place, content in fetch().items():
        _put(raw_folder(Path(own.root), own.name).parent / place, content)
    verify(own)
    return own


def here(data: DataSet, environ: Mapping[str, str]) -> DataSet:
    """A set that was found on another machine: at the same path on this one, else where data sets are kept.

    Raises:
        DataError: what is there is another.
    """
    with contextlib.suppress(DataError):
        verify(data)
        return data
    verify(own := replace(data, root=str(default_root(None, environ))))
    return own


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        mend = "give a --data-dir that can be written and has 60 MB left"
        raise DownloadError(f"{error.filename or folder}: {error.strerror or error}: {mend}") from error


def _obtain(state: FileState, request: Request, limits: Limits, deadline: float) -> None:
    """Puts one file into its place: a copy under another shape with the right bytes, else a download."""
    file, folder, facts = state.path.name, state.path.parent, SETS[request.name]
    wrong = copies(request.root, request.name, file)  # but for the one that is right
    for path in wrong:
        content = _unpacked(mnist.read_file(path) or b"", facts.checksums[file])
        if content is not None:
            _put(state.path, content)
            return
    other = f"; not {facts.title}'s bytes: {', '.join(map(str, wrong))}" if wrong else ""
    if not request.repair and (packed := folder / f"{file}.gz") in wrong:
        mend = facts.mend.format(name=request.name, root=request.root)
        raise DataError(f"{packed}: corrupt: does not unpack to {file}\n{mend}")
    if request.offline:
        command = f"mnist-bench data fetch --dataset {request.name} --data-dir {request.root}"
        mend = f"`{command}` where there is a network, or dataset: synthetic"
        raise _MissingError(f"{state.path}: missing, and --offline forbids to download: {mend}{other}")
    with _writing(folder):
        try_folder(folder)  # before anything is waited for
    request.notify(f"downloading {file}.gz into {folder}{other}")
    _put(state.path, _download(file, request, limits, deadline))


def _put(path: Path, content: bytes) -> None:
    with _writing(path.parent):
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed
            if time.time() - left.stat().st_mtime > _LEFT_OVER_SECONDS:
                left.unlink(missing_ok=True)
        write_atomically(path, content)


def _unpacked(content: bytes, checksum: str) -> bytes | None:
    """The bytes of a raw file, from a .gz or as they are; the checksum is of either. None: they are others."""
    known = mnist.digest(content) == checksum
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(mnist.MOST_BYTES)  # a bomb unpacks no further
        except (gzip.BadGzipFile, EOFError, zlib.error):
            return None
    return content if known or mnist.digest(content) == checksum else None


def copies(root: Path, name: str, file: str) -> list[Path]:
    """Where a file may lie under another shape, its bytes unknown: packed, with dots in its name, a level off."""
    dotted, raw = file.replace("-idx", ".idx"), raw_folder(root, name)
    names = (file, f"{file}.gz", dotted, f"{dotted}.gz")
    patterns = [f"{place.format(folder=SETS[name].folder)}/{each}" for place in _PLACES for each in names]
    found = dict.fromkeys(path for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_file())
    # A folder below that has sums of its own, or another set's name, holds another set.
    others = {one.folder for one in SETS.values()} - {SETS[name].folder}
    own = (path for path in found if not others & {*path.relative_to(root).parts})
    return [path for path in own if path.parent == raw or not (path.parent.parent / mnist.SUMS_FILE).exists()]


def mirrors(name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The addresses to try in order: ``MNIST_BENCH_MIRROR`` alone where it is set, else the public ones.

    Raises:
        UsageError: ``MNIST_BENCH_MIRROR`` is no http(s) address.
    """
    named = environ.get("MNIST_BENCH_MIRROR", "").strip()
    if named and not named.startswith(("http://", "https://")):
        raise UsageError(f"MNIST_BENCH_MIRROR={named}: not an http:// or https:// address; mend or unset it")
    return (named.rstrip("/") + "/",) if named else SETS[name].mirrors


def _download(file: str, request: Request, limits: Limits, deadline: float) -> bytes:
    """The verified bytes of a raw file from the first mirror that serves them, packed in any way or not at all.

    Raises:
        DownloadError: no mirror served it; a line of each address says why.
    """
    expected, places = SETS[request.name].checksums[file], mirrors(request.name, request.environ)
    problems: dict[str, str] = {}
    for url in [f"{place}{file}{ending}" for ending in (".gz", "") for place in places] * limits.tries:
        if url in problems:
            if problems[url].startswith("HTTP 4"):  # it will not have the file a second later either
                continue
            time.sleep(max(0.0, min(_PAUSE_SECONDS, deadline - time.monotonic())))
        content: Future[bytes] = Future()
        # A thread of its own: neither a name server that is silent nor a body that trickles heeds a socket's time-out.
        with io.BytesIO() as sink:
            threading.Thread(target=_stream, args=(url, limits.stall_s, expected, sink, content), daemon=True).start()
            try:
                return content.result(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                problems.setdefault(url, f"not there after {limits.total_s:g} s in all")
            except (OSError, ValueError) as error:
                problems.setdefault(url, _words(error, url))
    lines = "\n".join(f"  {url}: {problem}" for url, problem in problems.items())
    mend = "set MNIST_BENCH_MIRROR to a mirror that can be reached, or give a --data-dir that holds the files"
    raise DownloadError(f"{file} could not be downloaded:\n{lines}\n{mend}")


def _stream(url: str, stall_s: float, expected: str, sink: io.BytesIO, content: Future[bytes]) -> None:
    """One try, until ``sink`` is closed: ``content`` gets the file with the checksum ``expected``, or the error."""
    import requests

    try:
        # As it is: a server that labels .gz files as an encoding would have them unpacked on the way.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=stall_s, headers=headers) as response:
            response.raise_for_status()
            for block in response.iter_content(_CHUNK_BYTES):
                sink.write(block)
                if sink.tell() > mnist.MOST_BYTES:
                    raise ValueError(f"more than {mnist.MOST_BYTES >> 20} MiB: no file of a data set")
        found = _unpacked(sink.getvalue(), expected)
        if found is None:
            raise ValueError(f"wrong bytes ({sink.tell()} of them): they are not, and do not unpack to, {expected}")
        content.set_result(found)
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        content.set_exception(error)


def _words(error: Exception, url: str) -> str:
    """What lies at the bottom of an error: the libraries' own texts nest several of them, over several lines."""
    from requests import utils

    response = getattr(error, "response", None)
    bottom: BaseException = error
    while bottom.__context__ is not None:
        bottom = bottom.__context__
    words = str(bottom) if isinstance(bottom, ValueError) else f"{type(bottom).__name__}: {bottom}"[:200]
    words = words if response is None else f"HTTP {response.status_code}"
    proxy = utils.select_proxy(url, utils.get_environ_proxies(url))
    return f"{words} (through the proxy {proxy.rpartition('@')[2]})" if proxy else words
