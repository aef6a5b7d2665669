"""One verified file over HTTP: by pooch, from the first mirror that serves the right bytes, within a time."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mnist_bench.errors import DownloadError

# The largest of MNIST's .gz files has 10 MB: whatever is far larger is not it.
_MOST_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How patient a download is: seconds to connect, seconds without a byte, rounds over the mirrors, seconds in all.

    ``total_s`` covers all files and mirrors; ``pause_s`` is the wait before another round.
    """

    connect_s: float
    read_s: float
    total_s: float
    rounds: int
    pause_s: float = 1.0


PATIENT = Limits(connect_s=10, read_s=30, total_s=900, rounds=3)
# For dataset: auto, which turns to the synthetic set where MNIST cannot be had within 10 s in all.
HURRIED = Limits(connect_s=4, read_s=4, total_s=10, rounds=1)


@dataclass(slots=True)
class Deadline:
    """The end of all downloads together, by the monotonic clock."""

    total_s: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        return self.started + self.total_s - time.monotonic()


def download(
    name: str, target: Path, *, md5: str, mirrors: Sequence[str], limits: Limits, deadline: Deadline, progress: bool
) -> None:
    """Fetches ``mirror + name`` into ``target`` from the first mirror whose bytes have the MD5.

    Args:
        target: a file of the caller's own in a temporary folder; it holds verified bytes on return, anything else after
            an error.
        progress: draw a bar on stderr.

    Raises:
        DownloadError: no mirror served it; one line per attempt says why.
        OSError: ``target`` cannot be written.
    """
    problems: list[str] = []
    dead: set[str] = set()
    for attempt in range(limits.rounds):
        for mirror in (each for each in mirrors if each not in dead):
            if deadline.left_s <= 0:
                problems.append(f"gave up after {deadline.total_s:g} s in all")
                raise _failed(name, problems)
            url = mirror + name
            problem = _attempt(url, target, md5, limits, deadline, progress)
            if problem is None:
                return
            problems.append(f"{url}: {problem}")
            # It will not have the file a second later either.
            if problem.startswith("HTTP 4"):
                dead.add(mirror)
        if attempt + 1 < limits.rounds and len(dead) < len(mirrors):
            time.sleep(max(0.0, min(limits.pause_s, deadline.left_s)))
    raise _failed(name, problems)


def _failed(name: str, problems: Sequence[str]) -> DownloadError:
    lines = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
    return DownloadError(f"{name} could not be downloaded:\n{lines}")


def _attempt(url: str, target: Path, md5: str, limits: Limits, deadline: Deadline, progress: bool) -> str | None:
    """One try; returns what was wrong, or None."""
    with target.open("wb") as file, _bar(url, progress) as bar:
        sink = _Sink(file)
        # A thread of its own: neither a name server that is silent nor a body that trickles heeds a socket's time-out.
        future: Future[None] = Future()
        threading.Thread(target=_transfer, args=(url, sink, bar, limits, future), daemon=True).start()
        try:
            future.result(timeout=max(0.0, deadline.left_s))
        except TimeoutError:
            if not future.done():
                return f"not there after {deadline.total_s:g} s in all"
            return "timed out"
        except _Refused as error:
            return str(error)
        except OSError as error:
            if sink.error is not None:
                raise sink.error from error
            return _words(error, limits)
        finally:
            sink.stop()
    found = sink.md5.hexdigest()
    return None if found == md5 else f"wrong bytes ({sink.size} of them): MD5 {found}, expected {md5}"


def _transfer(url: str, sink: _Sink, bar: Any, limits: Limits, future: Future[None]) -> None:
    import pooch

    responses: list[Any] = []
    fetch = pooch.HTTPDownloader(
        progressbar=bar,
        chunk_size=_CHUNK_BYTES,
        timeout=(limits.connect_s, limits.read_s),
        # Otherwise a server that labels .gz files as an encoding would have them unpacked on the way.
        headers={"Accept-Encoding": "identity"},
        # pooch leaves the connection of a transfer that failed open.
        hooks={"response": lambda response, **_: responses.append(response)},
    )
    try:
        fetch(url, sink, None)
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        future.set_exception(error)
    else:
        future.set_result(None)
    finally:
        for response in responses:
            response.close()


class _Refused(Exception):
    """The transfer was stopped from this side."""


class _Sink:
    """The file as pooch's downloader sees it: hashes what passes, and stops it once nobody waits any more."""

    def __init__(self, file: IO[bytes]) -> None:
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0
        self.error: OSError | None = None
        self._file = file
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        with self._lock:
            self._stopped = True

    def write(self, block: bytes) -> int:
        with self._lock:
            if self._stopped:
                raise _Refused("stopped")
            self.size += len(block)
            if self.size > _MOST_BYTES:
                raise _Refused(f"more than {_MOST_BYTES >> 20} MiB: not one of MNIST's files")
            self.md5.update(block)
            try:
                return self._file.write(block)
            except OSError as error:  # a full disk must not be taken for a bad mirror
                self.error = error
                raise

    def flush(self) -> None:
        """Asked for after each chunk; the file is closed in time by its owner."""


@contextlib.contextmanager
def _bar(url: str, progress: bool) -> Iterator[Any]:
    if not progress:
        yield False
        return
    from tqdm import tqdm  # type: ignore[import-untyped] # it ships no types

    # pooch sets the total once it knows it; without any, a bar counts as false and pooch takes it for none.
    with tqdm(desc=url.rpartition("/")[2], total=1, unit="B", unit_scale=True, file=sys.stderr, leave=False) as bar:
        yield bar


def _words(error: OSError, limits: Limits) -> str:
    """The error in a few words: the libraries' own texts run over several lines of nested representations."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP {status}"
    text = str(error)
    if "timed out" in text:
        phase = "connection" if "connect timeout" in text else "byte"
        seconds = limits.connect_s if phase == "connection" else limits.read_s
        return f"stalled: no {phase} within {seconds:g} s"
    for words in ("Connection refused", "Name or service not known", "Temporary failure in name resolution"):
        if words in text:
            return f"no connection: {words}"
    if "IncompleteRead" in text or "broken" in text:
        return "the connection broke off half-way"
    return f"{type(error).__name__}: {text.splitlines()[0][:200] if text else 'no reason given'}"
