"""A cell's figures over all runs of a results folder, from an index (``history_db.py``) that is brought up to date.

A run is read again when its files have changed, or the program; a run that is gone is forgotten. What can be read at
all is read: without a usable index (a read-only folder, a full disk) it is made in memory.

Only the standard library and rooms that are quick to load are imported here: a query of an index that is up to date
must not wait for pydantic or scipy.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench import __version__, history_db
from mnist_bench.disk.folder import MANIFEST, known_runs
from mnist_bench.errors import BenchError
from mnist_bench.trends import METRICS, CellName, Place, Point, RunLabel

if TYPE_CHECKING:
    from mnist_bench.lineage import CellRecord, RunRecord

FILES = (MANIFEST, "trials.jsonl", "sessions.jsonl")  # what a run's rows depend on, ...
FOLDERS = ("samples",)  # ... and where figures lie that did not fit a line: it changes when such a file comes or goes
READINGS = 3  # of a run that is being written to meanwhile

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


def read(output_dir: Path, metric: str, notify: Notify) -> History:
    """The history of ``metric`` (a name of ``trends.METRICS``), from an index brought up to date.

    Args:
        notify: told, in a line, when reading takes time, or the index cannot be kept.
    """
    if not output_dir.is_dir():
        return History(points=(), unreadable=(), running=())
    try:
        with history_db.opened(output_dir) as db:
            update(db, output_dir, notify)
            return _query(db, metric)
    except (OSError, sqlite3.DatabaseError) as error:
        if not (isinstance(error, OSError | sqlite3.OperationalError) or history_db.is_corruption(error)):
            raise  # a bug of ours
        notify(f"{output_dir / history_db.INDEX}: cannot be used ({error}); every run is read anew")
    with contextlib.closing(history_db.connect(":memory:")) as db:
        history_db.create(db)
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
        with history_db.transaction(db):
            if not (output_dir / name / MANIFEST).is_file():  # or it has come since, and another process indexed it
                _forget(db, name)


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
        with history_db.transaction(db):
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
        cells = [[name, *_cell_values(cell)] for cell in run.cells]
        return [*map(_value, [name, fingerprint, *line])], [[*map(_value, cell)] for cell in cells]
    # A line of sound form may hold figures that no arithmetic can take. They are told of on every query.
    except (BenchError, OSError, ValueError, ArithmeticError, LookupError) as error:
        return [name, fingerprint, _text(str(error)), *[None] * (len(history_db.RUN_COLUMNS) - 3)], []


def _read_run(folder: Path) -> RunRecord:
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.lineage import record

    run = RunFolder(folder)
    return record(run.manifest(), run.trials(), run.sessions())


def _cell_values(cell: CellRecord) -> list[Any]:
    """As ``history_db.CELL_COLUMNS`` has them, the folder left out."""
    place = [cell.series, cell.base, cell.machine, cell.setup]
    from mnist_bench.analysis.results import records

    (figures,) = records([cell.row])
    return place + [figures[column.rstrip("_")] for column in history_db.CELL_COLUMNS[1 + len(place) :]]


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
    runs = {
        folder: RunLabel(id=folder, started_at=started_at, status=status, commit=commit, dirty=bool(dirty))
        for folder, started_at, status, commit, dirty in db.execute(
            "SELECT folder, started_at, status, commit_sha, dirty FROM runs WHERE problem IS NULL "
            "ORDER BY started_at, folder"
        )
        if folder not in sources
    }
    problems = db.execute("SELECT folder, problem FROM runs WHERE problem NOT NULL ORDER BY folder")
    running = db.execute("SELECT folder, finished, planned FROM runs WHERE status = 'running' ORDER BY folder")
    return History(
        points=_points(db, metric, runs),
        unreadable=tuple(Unreadable(run_id=name, problem=problem) for name, problem in problems),
        running=tuple(Running(run_id=name, finished=done, planned=planned) for name, done, planned in running),
    )


def _points(db: sqlite3.Connection, metric: str, runs: Mapping[str, RunLabel]) -> tuple[Point, ...]:
    """The points of these runs, in their order. What many points have in common is one object."""
    found: dict[str, list[Point]] = {folder: [] for folder in runs}
    one_place, one_cell = cache(Place), cache(CellName)
    for (
        folder,
        series,
        base,
        machine,
        setup,
        model,
        device,
        size,
        variant,
        status,
        reason,
        seeds,
        noisy,
        value,
    ) in db.execute(
        "SELECT folder, series, base, machine, setup, model, device, batch_size, variant, status, reason, seeds, "
        f"noisy, {metric} FROM cells ORDER BY rowid"
    ):
        if folder in found:
            found[folder].append(
                Point(
                    run=runs[folder],
                    cell=one_cell(model, device, size, variant),
                    place=one_place(series, base, machine, setup),
                    status=status,
                    reason=reason,
                    seeds=seeds,
                    noisy=bool(noisy),
                    value=value,
                )
            )
    return tuple(chain.from_iterable(found.values()))
