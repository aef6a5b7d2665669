"""``results/history.db``: an SQLite index over the runs of a results folder, a cache of what stands in their files.

A run is read again when its files have changed; a run that is gone is forgotten. An index that is missing, broken or of
another version is begun anew. Any number of processes may do this at once: SQLite's WAL keeps their transactions (one
per run) apart, and a lock beside the file, shared while it is used and exclusive while it is replaced, keeps a broken
file from being taken away under a reader. What can be read at all is read: without a usable index (a read-only folder,
a full disk) it is made in memory.

Only the standard library and rooms that are quick to load are imported here: a query of an index that is up to date
must not wait for pydantic or scipy.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench import __version__
from mnist_bench.errors import BenchError
from mnist_bench.records import Cell
from mnist_bench.rows import Row, columns
from mnist_bench.run_names import MANIFEST, known_runs
from mnist_bench.trends import METRICS, Point

if TYPE_CHECKING:
    from mnist_bench.lineage import RunRecord

VERSION = 1  # of the index: raise it when its tables, or what the rooms below it compute for them, mean something else
INDEX = "history.db"
LOCK = ".history.lock"
FILES = (MANIFEST, "trials.jsonl", "sessions.jsonl")  # what a run's rows depend on, ...
FOLDERS = ("samples",)  # ... and where figures lie that did not fit a line: it changes when such a file comes or goes
WAIT_S = 30.0  # for another process's transaction, or for it to leave an index that has to be replaced
READINGS = 3  # of a run that is being written to meanwhile

RUN_COLUMNS = (
    "folder", "fingerprint", "problem", "status", "started_at", "commit_sha", "dirty", "planned", "finished",
    "merged_from",
)  # fmt: skip
CELL_COLUMNS = ("folder", "series", "base", "machine", "setup", *(f'"{name}"' for name in columns(Row)))
SCHEMA = (
    f"CREATE TABLE runs ({RUN_COLUMNS[0]} PRIMARY KEY, {', '.join(RUN_COLUMNS[1:])})",
    f"CREATE TABLE cells ({', '.join(CELL_COLUMNS)})",
    "CREATE INDEX cells_by_folder ON cells (folder)",
)

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A run that is left out of the history, and why."""

    run_id: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A run that has not ended: how many of its trials are finished."""

    run_id: str
    finished: int
    planned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One figure of every cell of every run, oldest run first; runs that were merged stand in the merged run alone."""

    points: tuple[Point, ...]
    unreadable: tuple[Unreadable, ...]
    running: tuple[Running, ...]


class _Unsound(Exception):
    """The index is missing, broken, or of another version."""


def read(output_dir: Path, metric: str, notify: Notify) -> History:
    """The history of ``metric`` (a name of ``trends.METRICS``), from an index brought up to date.

    Args:
        notify: told, in a line, when reading takes time, or the index cannot be kept.
    """
    if not output_dir.is_dir():
        return History(points=(), unreadable=(), running=())
    try:
        with _opened(output_dir) as db:
            update(db, output_dir, notify)
            return _query(db, metric)
    except (OSError, sqlite3.DatabaseError) as error:
        if not (isinstance(error, OSError | sqlite3.OperationalError) or _is_corruption(error)):
            raise  # a bug of ours
        notify(f"{output_dir / INDEX}: cannot be used ({error}); every run is read anew")
    with contextlib.closing(_connect(":memory:")) as db:
        create(db)
        update(db, output_dir, notify)
        return _query(db, metric)


def update(db: sqlite3.Connection, output_dir: Path, notify: Notify) -> None:
    """Brings the index up to date: runs that are new or have changed, and runs that are gone."""
    found = {_text(name): output_dir / name for name in known_runs(output_dir)}
    indexed = dict(db.execute("SELECT folder, fingerprint FROM runs"))
    changed = [name for name, folder in found.items() if indexed.get(name) != _fingerprint(folder)]
    if len(changed) > 1:
        notify(f"reading {len(changed)} runs that are new or have changed")
    for name in changed:
        _index(db, name, found[name])
    for name in indexed.keys() - found.keys():
        with _transaction(db):
            if not (output_dir / name / MANIFEST).is_file():  # or it has come since, and another process indexed it
                _forget(db, name)


@contextlib.contextmanager
def _opened(output_dir: Path) -> Iterator[sqlite3.Connection]:
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
    db = _connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        if not _sound(db):
            raise _Unsound
    except BaseException as error:
        db.close()
        if _is_corruption(error):
            raise _Unsound from error
        raise
    return db


def _connect(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)
    db.execute("PRAGMA synchronous = NORMAL")  # a cache may lose its last transaction in a power cut
    return db


def _sound(db: sqlite3.Connection) -> bool:
    return (
        db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        and [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY rowid")]
        == list(SCHEMA)
        and db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
    )


def _is_corruption(error: BaseException) -> bool:
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
    with contextlib.closing(_connect(f"{path.absolute().as_uri()}?mode=rwc")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        create(db)


def create(db: sqlite3.Connection) -> None:
    """The tables of an empty index."""
    with _transaction(db):
        for statement in SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """From before its first reading the only one that writes."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _fingerprint(folder: Path) -> str:
    """Changes when the run's files do, or the program that reads them."""
    found = [__version__]
    for name in (*FILES, *FOLDERS):
        try:
            status = (folder / name).stat()
        except OSError as error:
            found.append(f"errno {error.errno}")
        else:
            size = "" if name in FOLDERS else status.st_size
            # The time of the inode tells of a change of rights, and of one that kept size and time.
            found.append(f"{size} {status.st_mtime_ns} {status.st_ctime_ns}")
    return ";".join(found)


def _index(db: sqlite3.Connection, name: str, folder: Path) -> None:
    """Reads one run and stores it in one transaction, unless it was deleted meanwhile."""
    for reading in range(1, READINGS + 1):
        fingerprint = _fingerprint(folder)
        run, cells = _values(name, fingerprint, folder)
        with _transaction(db):
            # If the run has grown since it was read, another process may have stored what is newer: look again.
            # A run that always grows is stored as it was; its old fingerprint has the next query read it again.
            if _fingerprint(folder) != fingerprint and reading < READINGS:
                continue
            _forget(db, name)
            if (folder / MANIFEST).is_file():
                _insert(db, "runs", [run])
                _insert(db, "cells", cells)
        return


def _values(name: str, fingerprint: str, folder: Path) -> tuple[list[Any], list[list[Any]]]:
    """The lines of both tables; of a run that cannot be read, its problem."""
    try:
        run = _read_run(folder)
        merged_from = json.dumps(run.merged_from)
        line = [
            None, run.status, run.started_at, run.commit, run.dirty, run.planned, run.finished, merged_from
        ]  # fmt: skip
        cells = [[name, cell.series, cell.base, cell.machine, cell.setup, *_row_values(cell.row)] for cell in run.cells]
        return [*map(_value, [name, fingerprint, *line])], [[*map(_value, cell)] for cell in cells]
    # A line of sound form may hold figures that no arithmetic can take. They are told of on every query.
    except (BenchError, OSError, ValueError, ArithmeticError, LookupError) as error:
        return [name, fingerprint, _text(str(error)), *[None] * (len(RUN_COLUMNS) - 3)], []


def _read_run(folder: Path) -> RunRecord:
    from mnist_bench.lineage import record
    from mnist_bench.store import RunFolder

    run = RunFolder(folder)
    return record(run.manifest(), run.trials(), run.sessions())


def _row_values(row: Row) -> list[Any]:
    return [getattr(row, field) for field in Row.__dataclass_fields__]


def _insert(db: sqlite3.Connection, table: str, lines: list[list[Any]]) -> None:
    if lines:
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(lines[0]))})", lines)


def _forget(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM cells WHERE folder = ?", (name,))
    db.execute("DELETE FROM runs WHERE folder = ?", (name,))


def _value(value: Any) -> Any:
    """As SQLite can keep it.

    Raises:
        ValueError: it cannot.
    """
    match value:
        case str():
            return _text(value)
        case float() if not math.isfinite(value):
            raise ValueError(f"a figure is {value}")
        case int() if abs(value) >= 1 << 63:
            raise ValueError(f"a number is too large: {str(value)[:20]}...")
        case _:
            return value


def _text(text: str) -> str:
    """A lone surrogate (bytes that were no UTF-8) becomes its escape: SQLite keeps UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _query(db: sqlite3.Connection, metric: str) -> History:
    if metric not in METRICS:
        raise ValueError(metric)
    sources = {
        source
        for (merged,) in db.execute("SELECT merged_from FROM runs WHERE merged_from != '[]'")
        for source in json.loads(merged)
    }
    found = db.execute(
        "SELECT folder, started_at, runs.status, commit_sha, dirty, machine, setup, series, base, model, device, "
        f'batch_size, variant, cells.status, reason, seeds, noisy, "{metric}" '
        "FROM runs JOIN cells USING (folder) ORDER BY started_at, folder, cells.rowid"
    )
    problems = db.execute("SELECT folder, problem FROM runs WHERE problem NOT NULL ORDER BY folder")
    running = db.execute("SELECT folder, finished, planned FROM runs WHERE status = 'running' ORDER BY folder")
    return History(
        points=tuple(_point(*values) for values in found if values[0] not in sources),
        unreadable=tuple(Unreadable(run_id=name, problem=problem) for name, problem in problems),
        running=tuple(Running(run_id=name, finished=done, planned=planned) for name, done, planned in running),
    )


def _point(
    folder: str, started_at: str, run_status: str, commit: str | None, dirty: int, machine: str, setup: str,
    series: str, base: str, model: str, device: str, batch_size: int, variant: str, status: str, reason: str,
    seeds: int, noisy: int | None, value: float | None,
) -> Point:  # fmt: skip
    return Point(
        run_id=folder,
        started_at=started_at,
        run_status=run_status,
        commit=commit,
        dirty=bool(dirty),
        machine=machine,
        setup=setup,
        series=series,
        base=base,
        cell=Cell(model=model, device=device, batch_size=batch_size, variant=variant),
        status=status,
        reason=reason,
        seeds=seeds,
        noisy=bool(noisy),
        value=value,
    )
