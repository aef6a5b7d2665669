"""The index of all runs: it always says what the files say, whatever was done to it or to them, by however many."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_cell, make_epochs, make_failed, make_manifest, make_matrix, make_measurement, make_trial

from mnist_bench import history, history_db
from mnist_bench.disk.folder import RunFolder
from mnist_bench.records import ModelEntry, RunOptions, Source, Trial, Variant

RATE = "train_samples_per_s"


def run_id(number: int) -> str:
    return f"202611{number + 1:02}T101500Z-a1b2c3"


def add_run(results: Path, number: int, trials: Sequence[Trial] = (), **changes: Any) -> RunFolder:
    started_at = f"2026-11-{number + 1:02}T10:15:00Z"
    planned = {trial.id: trial for trial in [*trials, *(make_trial(seed=seed) for seed in range(4))]}
    own = {"run_id": run_id(number), "started_at": started_at, **changes}
    run = RunFolder.create(results, make_manifest(list(planned.values()), **own))
    append(run, *(trials or [make_trial()]))
    return run


def source(number: int) -> Source:
    manifest = make_manifest()
    return Source(
        run_id=run_id(number),
        shard=None,
        filter=None,
        started_at=manifest.started_at,
        ended_at=None,
        environment=manifest.environment,
    )


def append(run: RunFolder, *trials: Trial) -> None:
    with run.lock():
        for trial in trials:
            run.append(trial)


def timed(seconds: float, seed: int = 0, **cell: Any) -> Trial:
    measurement = make_measurement(epochs=make_epochs([seconds], [0.9]), train_samples=60_000)
    return make_trial(make_cell(**cell), seed, measurement)


def read(results: Path, metric: str = RATE) -> history.History:
    """A query that nothing went wrong with."""
    notes: list[str] = []
    found = history.read(results, metric, notes.append)
    assert [note for note in notes if "cannot be used" in note] == []
    return found


def contents(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {table: sorted(db.execute(f"SELECT * FROM {table}"), key=repr) for table in ("runs", "cells")}


def indexed(results: Path) -> dict[str, list[tuple[Any, ...]]]:
    with contextlib.closing(sqlite3.connect(results / history_db.INDEX)) as db:
        return contents(db)


def rebuilt(results: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What an index that is made from nothing holds."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        history_db.create(db)
        history.update(db, results, str)
        return contents(db)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    add_run(folder, 0, [timed(6.0)])
    add_run(folder, 1, [timed(3.0)])
    return folder


class TestRead:
    def test_points_are_those_of_the_runs_oldest_first(self, results: Path) -> None:
        found = read(results)
        assert [(p.run.id, p.value, p.run.commit, p.run.dirty) for p in found.points] == [
            (run_id(0), 10_000.0, "c0ffee" * 6 + "beef", True),
            (run_id(1), 20_000.0, "c0ffee" * 6 + "beef", True),
        ]
        assert len({point.place.series for point in found.points}) == 1
        assert (found.unreadable, found.running) == ((), ())

    @pytest.mark.parametrize(
        ("metric", "value"), [("test_accuracy", 0.9), ("epoch_s", 6.0), ("compile_s", None), ("host_peak_mib", 512.0)]
    )
    def test_any_metric(self, results: Path, metric: str, value: float | None) -> None:
        assert read(results, metric).points[0].value == value

    def test_nowhere_nothing_is_made(self, tmp_path: Path) -> None:
        assert read(tmp_path / "nowhere") == history.History(points=(), unreadable=(), running=())
        assert list(tmp_path.iterdir()) == []

    def test_index_is_no_run(self, results: Path) -> None:
        read(results)
        assert {entry.name for entry in results.iterdir() if entry.is_dir()} == {run_id(0), run_id(1), "latest"}
        assert len(read(results).points) == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"cpu": "Intel Xeon"},
            {"cores": 4},
            {"packages": {"torch": "2.99"}},
        ],
    )
    def test_another_machine_is_another_series(self, results: Path, change: dict[str, Any]) -> None:
        add_run(results, 2, environment=replace(make_manifest().environment, **change))
        one, two, other = read(results).points
        assert one.place.series == two.place.series != other.place.series
        assert one.place.machine != other.place.machine

    @pytest.mark.parametrize(
        "change",
        [
            {"epochs": 3},
            {"models": (ModelEntry(name="mlp", model="mlp", lr=0.5),)},
            {"variants": (Variant(name="eager", channels_last=True),)},
        ],
    )
    def test_another_setting_is_another_series(self, results: Path, change: dict[str, Any]) -> None:
        add_run(results, 2, matrix=make_matrix(**change))
        one, two, other = read(results).points
        assert one.place.series == two.place.series != other.place.series

    def test_a_failed_cell_has_a_base_alone(self, results: Path) -> None:
        add_run(results, 2, [make_failed(reason="use less")])
        one, _, failed = read(results).points
        assert (failed.place.series, failed.place.base) == ("", one.place.base)
        assert (failed.status, failed.reason, failed.value) == ("oom", "use less", None)

    def test_a_run_that_has_not_ended_is_shown_as_such(self, results: Path) -> None:
        add_run(results, 2, [timed(2.0), timed(2.0, 1)], status="running")
        found = read(results)
        assert found.points[-1].run.status == "running"
        assert found.running == (history.Running(run_id=run_id(2), finished=2, planned=4),)

    def test_a_run_without_a_finished_trial_has_no_points(self, results: Path) -> None:
        RunFolder.create(results, make_manifest(["mlp/cpu/b100/eager/s0"], run_id=run_id(2), status="running"))
        found = read(results)
        assert len(found.points) == 2
        assert found.running == (history.Running(run_id=run_id(2), finished=0, planned=1),)

    def test_merged_runs_stand_for_their_sources(self, results: Path) -> None:
        add_run(results, 2, options=RunOptions(sources=tuple(source(number) for number in (0, 1))))
        assert [point.run.id for point in read(results).points] == [run_id(2)]
        shutil.rmtree(results / run_id(2))
        assert len(read(results).points) == 2


class TestUpToDate:
    def test_new_grown_changed_and_removed_runs(self, results: Path) -> None:
        read(results)
        add_run(results, 2, [timed(1.0)], status="running")
        assert [point.value for point in read(results).points] == [10_000.0, 20_000.0, 60_000.0]
        run = RunFolder.open(results, run_id(2))
        append(run, timed(1.5, 1))
        assert read(results).points[-1].value == 48_000.0
        with run.lock():
            run.update_manifest(status="complete")
        assert read(results).points[-1].run.status == "complete"
        shutil.rmtree(results / run_id(0))
        assert [point.run.id for point in read(results).points] == [run_id(1), run_id(2)]
        assert indexed(results) == rebuilt(results)

    def test_only_what_changed_is_read(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read(results)
        opened: set[str] = set()
        usual = RunFolder.manifest
        monkeypatch.setattr(RunFolder, "manifest", lambda run: opened.add(run.run_id) or usual(run))
        read(results)
        assert opened == set()
        append(RunFolder(results / run_id(1)), timed(1.0, 1))
        read(results)
        assert opened == {run_id(1)}

    def test_change_that_keeps_size_and_time_is_seen(self, results: Path) -> None:
        read(results)
        path = results / run_id(0) / "trials.jsonl"
        before = path.stat()
        path.write_bytes(path.read_bytes().replace(b'"train_samples":60000', b'"train_samples":30000'))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert read(results).points[0].value == 5_000.0

    def test_another_version_of_the_program_reads_anew(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read(results)
        monkeypatch.setattr(history, "__version__", "99")
        read(results)
        assert {fingerprint.partition(";")[0] for _, fingerprint, *_ in indexed(results)["runs"]} == {"99"}

    def test_a_run_that_grows_while_it_is_read_is_read_again(
        self, results: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual, grown = history._read_run, []

        def grow(folder: Path) -> Any:
            read_before = usual(folder)
            if not grown:
                grown.append(folder)
                append(RunFolder(folder), timed(3.0, 1))
            return read_before

        monkeypatch.setattr(history, "_read_run", grow)
        assert read(results).points[0].seeds == 2

    def test_a_run_that_vanishes_while_it_is_read_is_none(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usual = history._read_run

        def vanish(folder: Path) -> Any:
            found = usual(folder)
            shutil.rmtree(results / run_id(1), ignore_errors=True)
            return found

        monkeypatch.setattr(history, "_read_run", vanish)
        found = read(results)
        assert [point.run.id for point in found.points] == [run_id(0)]
        assert found.unreadable == ()

    def test_a_run_that_came_since_the_listing_is_not_forgotten(self, results: Path) -> None:
        read(results)
        with contextlib.closing(sqlite3.connect(results / history_db.INDEX, isolation_level=None)) as db:
            names = history.known_runs(results)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(history, "known_runs", lambda _: names[:1])  # a listing of before
                history.update(db, results, str)
        assert len(indexed(results)["runs"]) == 2


BREAKS: dict[str, Callable[[Path], object]] = {
    "no manifest's text": lambda run: (run / "manifest.json").write_text("{"),
    "newer schema": lambda run: (run / "manifest.json").write_text('{"schema_version": 99}'),
    "broken line": lambda run: (run / "trials.jsonl").write_bytes(b"{}\n" + (run / "trials.jsonl").read_bytes()),
    "broken session": lambda run: (run / "sessions.jsonl").write_bytes(b"[]\n"),
    "infinite figure": lambda run: (run / "trials.jsonl").write_bytes(
        (run / "trials.jsonl").read_bytes().replace(b'"train_s":[3.0]', b'"train_s":[1e999]')
    ),
    "huge number": lambda run: (run / "trials.jsonl").write_bytes(
        (run / "trials.jsonl").read_bytes().replace(b'"batch_size":100', b'"batch_size":1' + b"0" * 30)
    ),
    "unknown variant": lambda run: (run / "trials.jsonl").write_bytes(
        (run / "trials.jsonl").read_bytes().replace(b'"variant":"eager"', b'"variant":"other"')
    ),
    "folder for a file": lambda run: (run / "sessions.jsonl").mkdir(),
}


class TestBrokenRuns:
    @pytest.mark.parametrize("spoil", BREAKS.values(), ids=BREAKS)
    def test_are_named_and_left_out_until_mended(self, results: Path, spoil: Callable[[Path], object]) -> None:
        copy = results.parent / "copy"
        shutil.copytree(results / run_id(1), copy)
        spoil(results / run_id(1))
        for _ in range(2):  # the second time from the index
            found = read(results)
            assert [point.run.id for point in found.points] == [run_id(0)]
            assert [left_out.run_id for left_out in found.unreadable] == [run_id(1)]
            assert found.unreadable[0].problem
        shutil.rmtree(results / run_id(1))
        shutil.copytree(copy, results / run_id(1))
        assert len(read(results).points) == 2
        assert read(results).unreadable == ()

    def test_torn_last_line_is_no_harm(self, results: Path) -> None:
        with (results / run_id(1) / "trials.jsonl").open("ab") as file:
            file.write(b'{"id": "half')
        assert len(read(results).points) == 2

    def test_hostile_names_come_back_as_they_are(self, results: Path) -> None:
        evil = [
            "'); DROP TABLE runs; --",
            "</script><img src=x onerror=alert(1)>",
            "\x1b[31m",
            "a\nb",
            "=1+1",
            "\0",
            "✗",
        ]
        matrix = make_matrix(models=tuple(ModelEntry(name=name, model=name) for name in evil))
        trials = [make_failed(make_cell(model=name), reason=name) for name in evil]
        add_run(results, 2, trials, matrix=matrix)
        points = read(results).points[2:]
        assert [(point.cell.model, point.reason) for point in points] == [(name, name) for name in evil]
        assert indexed(results) == rebuilt(results)

    def test_folder_whose_name_is_no_unicode(self, results: Path) -> None:
        (results / run_id(1)).rename(results / os.fsdecode(b"run-\xff"))
        for _ in range(2):
            assert [point.run.id for point in read(results).points] == [run_id(0), "run-\\udcff"]


def spoil_with(statement: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(statement)

    return spoil


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page] ^= 0xFF  # the kind of the page
    path.write_bytes(data)


SPOILS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "no database": lambda path: path.write_bytes(b"no database " * 1000),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "flipped": flip,
    "newer version": spoil_with("PRAGMA user_version = 99"),
    "older version": spoil_with("PRAGMA user_version = 0"),
    "a table is missing": spoil_with("DROP TABLE cells"),
    "an index is missing": spoil_with("DROP INDEX cells_by_folder"),
    "another column": spoil_with("ALTER TABLE cells ADD COLUMN more"),
    "another table": spoil_with("CREATE TABLE more (x)"),
}


class TestBrokenIndex:
    @pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
    def test_is_made_anew(self, results: Path, spoil: Callable[[Path], object]) -> None:
        sound = read(results)
        spoil(results / history_db.INDEX)
        assert read(results) == sound
        assert indexed(results) == rebuilt(results)

    def test_version_that_was_raised(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read(results)
        monkeypatch.setattr(history_db, "VERSION", history_db.VERSION + 1)
        assert len(read(results).points) == 2
        with contextlib.closing(sqlite3.connect(results / history_db.INDEX)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (history_db.VERSION,)
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_leavings_of_a_killed_writer_are_taken_up(self, results: Path) -> None:
        """Its write-ahead log is still there: what it committed counts, the transaction it was in does not."""
        read(results)
        context = multiprocessing.get_context("spawn")
        writer = context.Process(target=die_within_a_transaction, args=(results / history_db.INDEX,))
        writer.start()
        writer.join()
        assert writer.exitcode == 9
        assert (results / "history.db-wal").stat().st_size > 0
        assert len(read(results).points) == 2
        assert indexed(results) == rebuilt(results)

    @pytest.mark.parametrize("spoil", [lambda path: path.mkdir(), lambda path: (path.mkdir(), (path / "x").mkdir())])
    def test_place_that_is_taken_is_told_and_the_runs_are_read(
        self, results: Path, spoil: Callable[[Path], object]
    ) -> None:
        spoil(results / history_db.INDEX)
        notes: list[str] = []
        assert len(history.read(results, RATE, notes.append).points) == 2
        assert any("history.db: cannot be used" in note for note in notes)

    def test_lock_that_is_never_let_go_is_told(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read(results)
        monkeypatch.setattr(history_db, "WAIT_S", 0.1)
        notes: list[str] = []
        with history_db._lock_file(results / history_db.LOCK) as lock:
            history_db._take(lock, fcntl.LOCK_EX)
            assert len(history.read(results, RATE, notes.append).points) == 2
        assert any("cannot be used" in note for note in notes)

    def test_disk_that_is_full_is_told(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usual = history_db.connect

        def full(uri: str) -> sqlite3.Connection:
            db = usual(uri)
            if uri != ":memory:":
                db.execute("PRAGMA max_page_count = 1")
            return db

        monkeypatch.setattr(history_db, "connect", full)
        notes: list[str] = []
        assert len(history.read(results, RATE, notes.append).points) == 2
        assert any("disk is full" in note for note in notes)

    def test_a_reader_is_waited_for(self, results: Path) -> None:
        """The file is not replaced under a process that has it open."""
        read(results)
        spoil_with("PRAGMA user_version = 99")(results / history_db.INDEX)
        context = multiprocessing.get_context("spawn")
        begins = context.Event()
        with history_db._lock_file(results / history_db.LOCK) as lock:
            history_db._take(lock, fcntl.LOCK_SH)
            inode = (results / history_db.INDEX).stat().st_ino
            other = context.Process(target=say_and_read, args=(begins, results))
            other.start()
            assert begins.wait(60)
            other.join(2)
            assert other.is_alive(), "it has to wait"
            assert (results / history_db.INDEX).stat().st_ino == inode
        other.join(60)
        assert other.exitcode == 0
        assert indexed(results) == rebuilt(results)


def say_and_read(begins: Any, results: Path) -> None:
    begins.set()
    read(results)


def die_within_a_transaction(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("UPDATE runs SET fingerprint = 'old'")
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM runs")
    db.execute("PRAGMA cache_spill = 1")
    os._exit(9)


OPERATIONS = ("add", "grow", "end", "remove", "break", "mend", "read", "spoil")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3)), min_size=1, max_size=12))
def test_an_index_brought_up_to_date_is_that_made_anew(operations: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        for operation, number in operations:
            perform(results, operation, number)
        if results.is_dir():
            read(results)
            assert indexed(results) == rebuilt(results)


def perform(results: Path, operation: str, number: int) -> None:
    path, manifest = results / run_id(number), results / run_id(number) / "manifest.json"
    match operation:
        case "add" if not path.exists():
            add_run(results, number, [timed(1.0 + number)], status="running")
        case "grow" if path.exists():
            append(RunFolder(path), timed(2.0, len((path / "trials.jsonl").read_bytes().splitlines())))
        case "end" if path.exists() and manifest.read_text() != "broken":
            run = RunFolder(path)
            with run.lock():
                run.update_manifest(status="complete")
        case "remove":
            shutil.rmtree(path, ignore_errors=True)
        case "break" if path.exists() and manifest.read_text() != "broken":
            shutil.copy(manifest, path / "copy")
            manifest.write_text("broken")
        case "mend" if (path / "copy").exists():
            (path / "copy").replace(manifest)
        case "read" if results.exists():
            read(results)
        case "spoil" if (results / history_db.INDEX).exists():
            (results / history_db.INDEX).write_bytes(b"no database")


READERS = 3


def query_until(results: Path, ready: Any, stop: Any, rounds: Any) -> None:
    ready.wait(120)
    while True:
        last = stop.is_set()
        read(results)
        with rounds.get_lock():
            rounds.value += 1
        if last:
            return


@contextlib.contextmanager
def readers(results: Path) -> Iterator[Any]:
    """Processes that query without a pause from the moment that all of them are there; yields how often they did."""
    context = multiprocessing.get_context("spawn")
    ready, stop, rounds = context.Barrier(READERS + 1), context.Event(), context.Value("i", 0)
    started = [context.Process(target=query_until, args=(results, ready, stop, rounds)) for _ in range(READERS)]
    for reader in started:
        reader.start()
    ready.wait(120)
    yield rounds
    stop.set()
    for reader in started:
        reader.join(120)
    assert [reader.exitcode for reader in started] == [0] * READERS


def test_many_processes_over_a_growing_folder(results: Path) -> None:
    """Runs come, grow, end and go while others query, and so bring the index up to date."""
    with readers(results) as rounds:
        for number in range(2, 14):
            run = add_run(results, number, [timed(1.0 + number)], status="running")
            for seed in range(1, 4):
                append(run, timed(1.0 + number, seed))
            with run.lock():
                run.update_manifest(status="complete")
            if number % 4 == 0:
                shutil.rmtree(results / run_id(number - 2))
    assert rounds.value > READERS
    assert len(read(results).points) == 14 - 3
    assert indexed(results) == rebuilt(results)


@pytest.mark.parametrize("spoil", ["missing", "no database"])
def test_many_processes_make_it_anew_at_once(results: Path, spoil: str) -> None:
    for number in range(2, 8):
        add_run(results, number, [timed(1.0 + number)])
    read(results)
    SPOILS[spoil](results / history_db.INDEX)
    with readers(results):
        pass
    assert indexed(results) == rebuilt(results)
