"""``results/history.db``: the SQLite file of the history, a cache of what stands in the runs' own files.

A file that is missing, broken or of another version is begun anew, empty. Any number of processes may do this at once:
SQLite's WAL keeps their transactions apart, and a lock beside the file, shared while it is used and exclusive while it
is replaced, keeps a broken file from being taken away under a reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from mnist_bench.trends import METRICS

VERSION = 1  # of the index: raise it when its tables, or what the rooms below it compute for them, mean something else
INDEX = "history.db"
LOCK = ".history.lock"
WAIT_S = 30.0  # for another process's transaction, or for it to leave an index that has to be replaced

RUN_COLUMNS = (
    "folder", "fingerprint", "problem", "status", "started_at", "commit_sha", "dirty", "planned", "finished",
    "merged_from",
)  # fmt: skip
# From the model on they are columns of results.csv.
CELL_COLUMNS = (
    "folder", "series", "base", "machine", "setup", "model", "device", "batch_size", "variant", "status", "reason",
    "seeds", "noisy", *METRICS,
)  # fmt: skip
SCHEMA = (
    f"CREATE TABLE runs ({RUN_COLUMNS[0]} PRIMARY KEY, {', '.join(RUN_COLUMNS[1:])})",
    f"CREATE TABLE cells ({', '.join(CELL_COLUMNS)})",
    "CREATE INDEX cells_by_folder ON cells (folder)",
)


class _Unsound(Exception):
    """The index is missing, broken, or of another version."""


@contextlib.contextmanager
def opened(output_dir: Path) -> Iterator[sqlite3.Connection]:
    """The index, sound when it is handed out; nobody replaces the file meanwhile.

    Raises:
        OSError, sqlite3.OperationalError: it cannot be opened, made, or written to.
    """
    path = output_dir / INDEX
    with _lock_file(output_dir / LOCK) as lock:
        for _ in range(2):
            _take(lock, fcntl.LOCK_SH)
            try:
                with contextlib.closing(_connect_sound(path)) as db:
                    yield db
                return
            except _Unsound:
                _take(lock, fcntl.LOCK_EX)
                _begin_anew(path)
        raise OSError(f"{path}: is broken again as soon as it is made")


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    # flock is the kernel's, and can be shared; filelock, which cannot everywhere, takes 0.1 s to import.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(lock: int, mode: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _connect_sound(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise _Unsound
    db = connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        if not _sound(db):
            raise _Unsound
        db.execute("PRAGMA synchronous = NORMAL")  # a cache may lose its last transaction in a power cut
    except BaseException as error:
        db.close()
        if is_corruption(error):
            raise _Unsound from error
        raise
    return db


def connect(uri: str) -> sqlite3.Connection:
    """Waits for other writers; transactions are begun and ended by ``transaction`` alone."""
    return sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)


def _sound(db: sqlite3.Connection) -> bool:
    return (
        db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        and [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY rowid")]
        == list(SCHEMA)
        and db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
    )


def is_corruption(error: BaseException) -> bool:
    """Whether SQLite says that the file is broken, or no database."""
    # The primary code is the lowest byte of the extended one.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _begin_anew(path: Path) -> None:
    """An empty index in place of the one that is there, unless another process has just made it."""
    with contextlib.suppress(_Unsound):
        _connect_sound(path).close()
        return
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with contextlib.closing(connect(f"{path.absolute().as_uri()}?mode=rwc")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        create(db)


def create(db: sqlite3.Connection) -> None:
    """The tables of an empty index."""
    with transaction(db):
        for statement in SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """From before its first reading the only one that writes."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # after some errors SQLite has rolled back itself
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
