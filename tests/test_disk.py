"""Runs on disk: what is written survives a kill at any instant, what strangers wrote is refused by file and field."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_factory import (
    RUN_ID,
    make_cell,
    make_epochs,
    make_failed,
    make_manifest,
    make_measurement,
    make_session,
    make_trial,
)

from mnist_bench.disk import files, folder, samples
from mnist_bench.disk.folder import LINE_LIMIT, RunFolder, known_runs, new_run_id, point_latest
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.records import Failure, ImageSets, Measurement, Skip, encode

SEEDS = range(4)
OTHER = "20261124T101500Z-bbbbbb"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def run(results: Path) -> RunFolder:
    return RunFolder.create(results, make_manifest([make_trial(seed=seed) for seed in SEEDS]))


@pytest.fixture
def locked(run: RunFolder) -> Iterator[RunFolder]:
    with run.lock():
        yield run


def kill(*_: object) -> None:
    raise KeyboardInterrupt


def test_run_ids_are_utc_time_and_six_characters_of_the_generator() -> None:
    now = datetime(2026, 11, 23, 12, 15, tzinfo=timezone(timedelta(hours=2)))
    assert re.fullmatch(r"20261123T101500Z-[a-z0-9]{6}", new_run_id(now, random.Random(1)))
    assert new_run_id(now, random.Random(1)) == new_run_id(now.astimezone(UTC), random.Random(1))
    assert new_run_id(now, random.Random(1)) != new_run_id(now, random.Random(2))


# ── making and finding ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_made_whole_and_latest_names_it(run: RunFolder, results: Path) -> None:
    assert {entry.name for entry in run.path.iterdir()} == {"manifest.json", "logs", "samples"}
    assert (results / "latest").readlink() == Path(RUN_ID)
    assert run.manifest() == make_manifest([make_trial(seed=seed) for seed in SEEDS])
    newer = RunFolder.create(results, make_manifest(run_id=OTHER))
    assert RunFolder.open(results, "latest").path == newer.path
    assert known_runs(results) == (RUN_ID, OTHER)
    assert known_runs(results / "nowhere") == ()
    with pytest.raises(UsageError, match="is there already"):
        RunFolder.create(results, make_manifest(status="stopped"))
    assert run.manifest().status == "complete"


def test_places_where_no_run_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"a run cannot be made here: .*; choose another"):
        RunFolder.create(tmp_path / "file", make_manifest())
    (tmp_path / "latest").mkdir()
    with pytest.raises(UsageError, match="rename it"):
        RunFolder.create(tmp_path, make_manifest())


def test_without_symlinks_latest_is_a_text_file(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no symlinks here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = RunFolder.create(results, make_manifest())
    assert (results / "latest").read_text() == f"{RUN_ID}\n"
    assert RunFolder.open(results, "latest").path == run.path


@pytest.mark.parametrize("reference", ["latest", RUN_ID, RUN_ID[:4], "PATH", "PATH/manifest.json", "PATH/../latest"])
def test_a_run_is_found_by_name_and_by_path(run: RunFolder, results: Path, reference: str) -> None:
    where = Path("nowhere") if "PATH" in reference else results
    assert RunFolder.open(where, reference.replace("PATH", str(run.path))).path == run.path


@pytest.mark.parametrize("reference", ["", "1999", "../etc", "."])
def test_what_is_unknown_or_ambiguous_lists_what_is_known(run: RunFolder, results: Path, reference: str) -> None:
    with pytest.raises(UsageError, match=f"known: {RUN_ID}"):
        RunFolder.open(results, reference)
    RunFolder.create(results, make_manifest(run_id="20261123T101500Z-bbbbbb"))
    with pytest.raises(UsageError, match=f"ambiguous.*20261123T101500Z-bbbbbb, {RUN_ID}"):
        RunFolder.open(results, "2026")
    for n in range(12):
        RunFolder.create(results, make_manifest(run_id=f"2027112{n % 3}T101500Z-aaaa{n:02}"))
    with pytest.raises(UsageError, match=r"Z-aaaa11, .* and 4 more"):
        RunFolder.open(results, "1999")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda p: (p.unlink(), p.symlink_to("gone"))])
def test_a_lost_latest_is_the_newest_run(run: RunFolder, results: Path, spoil: Callable) -> None:
    spoil(results / "latest")
    assert RunFolder.open(results, "latest").path == run.path
    with pytest.raises(UsageError, match=r"no run in .* yet"):
        RunFolder.open(results / "nowhere", "latest")


# ── kills while something is written ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_kill_in_the_middle_keeps_the_old_manifest(
    locked: RunFolder, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    before = locked.update_manifest(status="running")
    assert before.status == locked.manifest().status == "running"
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, kill)
        with pytest.raises(KeyboardInterrupt):
            locked.update_manifest(status="complete")
    assert locked.manifest() == before
    assert not list(locked.path.glob(".*.tmp"))


def test_a_kill_while_a_run_is_made_leaves_none_or_a_whole_one(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, step in [(Path, "rename"), (Path, "replace"), (os, "fsync")]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, kill)
            with pytest.raises(KeyboardInterrupt):
                RunFolder.create(results, make_manifest())
        assert known_runs(results) == ()
    with monkeypatch.context() as patch:
        patch.setattr(folder, "point_latest", kill)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(results, make_manifest())
    assert RunFolder.open(results, "latest").manifest() == make_manifest()


def test_a_kill_while_latest_is_moved_keeps_the_old_one(
    run: RunFolder, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        point_latest(results, "other")
    assert (results / "latest").readlink() == Path(RUN_ID)
    assert not list(results.glob(".*.tmp"))


def make_and_wait(results: Path, inside: Any, go_on: Any) -> None:
    def fill(hidden: Path) -> None:
        inside.set()
        assert go_on.wait(60)

    RunFolder.create(results, make_manifest(run_id=OTHER), fill)


@pytest.fixture
def writer(results: Path) -> Iterator[tuple[Any, Any]]:
    """A process that is making the run ``OTHER``, and the event that lets it go on."""
    context = multiprocessing.get_context("spawn")
    inside, go_on = context.Event(), context.Event()
    process = context.Process(target=make_and_wait, args=(results, inside, go_on))
    process.start()
    assert inside.wait(60)
    yield process, go_on
    process.kill()
    process.join()


def hidden(results: Path) -> list[str]:
    return sorted(path.name for path in results.iterdir() if path.name.startswith("."))


def test_what_a_killed_writer_left_goes_with_the_next_run(results: Path, writer: tuple[Any, Any]) -> None:
    process, _ = writer
    process.kill()
    process.join()
    assert hidden(results) == [f".{OTHER}.{process.pid}.tmp"]
    RunFolder.create(results, make_manifest())
    assert {path.name for path in results.iterdir()} == {RUN_ID, "latest"}


def test_a_run_that_is_being_made_is_left_alone(results: Path, writer: tuple[Any, Any]) -> None:
    process, go_on = writer
    dead = results / ".20260101T000000Z-aaaaaa.1.tmp"
    dead.mkdir()
    RunFolder.create(results, make_manifest())
    assert hidden(results) == [dead.name, f".{OTHER}.{process.pid}.tmp"]
    go_on.set()
    process.join()
    assert process.exitcode == 0
    RunFolder.create(results, make_manifest(run_id="20261125T101500Z-cccccc"))
    assert hidden(results) == []


def test_other_peoples_files_are_left_alone(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.mkdir()
    foreign = [".20260101T000000Z-aaaaaa.1.tmp", ".mine.123.tmp", ".results.csv.123.0badcafe.tmp"]
    (results / foreign[0]).symlink_to(tmp_path)
    (results / foreign[1]).mkdir()
    (results / foreign[2]).write_text("half a table")
    (results / ".latest.123.0badcafe.tmp").symlink_to("20260101T000000Z-aaaaaa")
    RunFolder.create(results, make_manifest())
    assert hidden(results) == foreign

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(folder.fcntl, "flock", refuse)  # as on some network file systems
    (results / ".20260101T000000Z-bbbbbb.1.tmp").mkdir()
    RunFolder.create(results, make_manifest(run_id=OTHER))
    assert ".20260101T000000Z-bbbbbb.1.tmp" in hidden(results)


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────

OUTCOMES = [
    make_measurement(),
    make_measurement(
        class_="B",
        compile_s=12.5,
        device_peak_bytes=1 << 33,
        noisy=("load 3.1 on 2 cores",),
        marks=("the waterfall lacks 5 %",),
        final=ImageSets(train=0.9196, test=0.9203),
    ),
    Failure(kind="oom", reason="needs 20 GiB | `raise` memory_gib\nor use a smaller batch"),
    Failure(kind="crashed", reason="signal 11 \x00 ✗"),
    Skip(reason="no CUDA device: install a CUDA build of torch"),
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
def test_a_trial_comes_back(locked: RunFolder, outcome: Any) -> None:
    trial = make_trial(outcome=outcome)
    assert locked.append(trial) == trial
    assert locked.trials() == (trial,)
    (line,) = map(json.loads, (locked.path / "trials.jsonl").read_bytes().splitlines())
    assert line["outcome"]["type"] == type(outcome).__name__.lower()
    assert "class_" not in line["outcome"]


def test_figures_have_six_digits_and_are_finite(locked: RunFolder) -> None:
    stored = locked.append(make_trial(outcome=make_measurement(total_s=123.4567891)))
    assert isinstance(stored.outcome, Measurement)
    assert stored.outcome.total_s == 123.457
    assert locked.trials() == (stored,)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            locked.append(make_trial(seed=1, outcome=make_measurement(total_s=bad)))
    assert locked.trials() == (stored,)


def test_of_two_lines_for_one_trial_the_first_holds(locked: RunFolder) -> None:
    first, other, second = make_trial(), make_trial(seed=1), make_failed()
    for trial in (first, other, second):
        locked.append(trial)
    assert locked.trials() == (first, other)


def test_fifty_epochs_fit_in_a_line(locked: RunFolder) -> None:
    rng = np.random.default_rng(0)
    epochs = replace(
        make_epochs(rng.uniform(1, 20, 50).tolist(), rng.uniform(0.9, 1, 50).tolist()),
        loss=tuple(rng.uniform(0, 0.1, 50).tolist()),
        eval_s=tuple(rng.uniform(0.1, 1, 50).tolist()),
    )
    words = tuple(f"other processes used {n} % of the cores' time" for n in range(50))
    stored = locked.append(make_trial(outcome=make_measurement(epochs=epochs, noisy=words)))
    assert (locked.path / "trials.jsonl").stat().st_size <= LINE_LIMIT
    assert isinstance(stored.outcome, Measurement)
    *kept, more = stored.outcome.noisy
    assert tuple(kept) == words[: len(kept)]
    assert more == f"and {50 - len(kept)} more"
    assert len(stored.outcome.epochs.train_s) == 50
    assert locked.trials() == (stored,)


@pytest.mark.parametrize("letter", ["x", "é", "✗", "\n"])
@pytest.mark.parametrize("kind", [lambda text: Failure(kind="failed", reason=text), lambda text: Skip(reason=text)])
def test_long_reasons_end_in_an_ellipsis(locked: RunFolder, letter: str, kind: Callable) -> None:
    stored = locked.append(make_trial(outcome=kind("why: " + letter * 9000)))
    assert (LINE_LIMIT - 20 if letter != "\n" else 0) < (locked.path / "trials.jsonl").stat().st_size <= LINE_LIMIT
    assert stored.reason.startswith("why:")
    assert stored.reason.endswith("…")
    assert locked.trials() == (stored,)


@pytest.mark.parametrize("outcome", [Failure(kind="failed", reason=""), make_measurement()])
def test_a_line_that_cannot_be_short_is_refused(locked: RunFolder, outcome: Any) -> None:
    with pytest.raises(BenchError, match="over 4096 bytes"):
        locked.append(make_trial(outcome=outcome, dataset="x" * 5000))
    assert locked.trials() == ()


def test_sessions_come_back(locked: RunFolder) -> None:
    one = make_session(["a", "b"], [[1.25, 2.5], [1.5, 0]], noisy=("steal 12 %",), stopped="budget", seconds=3.5)
    solo = make_session(["a"], [[1.25]], paired=False, stopped="alone")
    assert [locked.append(session) for session in (one, solo, one)] == [one, solo, one]
    assert locked.sessions() == (one, solo)


# ── what strangers wrote ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff", "malformed|utf-8"),
        (b"{}", "missing required field `schema_version`"),
        (b'{"schema_version": true}', "Expected `int`, got `bool`"),
        (b'{"schema_version": 1}', "missing required field `run_id`"),
        (b'{"schema_version": 99}', "newer mnist_bench .schema 99; this one reads up to 1.: upgrade"),
        (b'{"schema_version": NaN}', "NaN is not a figure"),
        (b'{"a":' * 200_000, "nested too deep"),
    ],
)
def test_a_broken_manifest(run: RunFolder, results: Path, content: bytes, message: str) -> None:
    (run.path / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError, match=f"(?s)manifest.json: .*({message})"):
        RunFolder.open(results, RUN_ID)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed|utf-8"),
        (b'"no trial"', "Expected `object`, got `str`"),
        (b'{"a":' * 200_000, "recursion"),
        (encode(make_trial(seed=9)), "id: 'mlp/cpu/b100/eager/s9' is no trial of this run"),
        (encode(make_trial(make_cell(variant="compile"), id=make_trial().id)), "is no trial of this run"),
        (encode(make_trial()).replace(b'"seed":0', b'"seed":-1'), r"Expected `int` >= 0 - at `\$.seed`"),
        (encode(make_trial()).replace(b'"type":"measurement"', b'"type":"skip"'), r"`reason` - at `\$.outcome`"),
        (
            encode(make_trial()).replace(b'"loss":[', b'"loss":[1.0,'),
            r"lists differ in length - at `\$.outcome.epochs`",
        ),
        (encode(make_failed()).replace(b"use less", b"\\udc80"), "surrogate"),
    ],
)
def test_a_broken_line_is_named(run: RunFolder, line: bytes, message: str) -> None:
    path = run.path / "trials.jsonl"
    path.write_bytes(encode(make_trial()) + b"\n" + line.rstrip(b"\n") + b"\n" + encode(make_trial(seed=1)))
    with pytest.raises(UsageError, match=rf"trials\.jsonl:3: .*({message})"):
        run.trials()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"steps":[10,', b'"steps":[', r"rounds\[0\] does not fit the 2 members"),
        (b'"order":[0,1]', b'"order":[0,2]', r"rounds\[0\] does not fit the 2 members"),
        (b'"seconds":[0.0125,', b'"seconds":[0.0,', r"rounds\[0\] has steps that took no time"),
    ],
)
def test_rounds_that_do_not_fit_are_refused(run: RunFolder, old: bytes, new: bytes, message: str) -> None:
    line = encode(make_session(["a", "b"], [[1.25, 2.5]]))
    assert old in line, line
    (run.path / "sessions.jsonl").write_bytes(line.replace(old, new))
    with pytest.raises(UsageError, match=rf"sessions\.jsonl:1: .*{message}"):
        run.sessions()


def values(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a JSON document."""
    yield path
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in pairs:
        yield from values(value, (*path, key))


NASTY = [
    None,
    True,
    -1,
    2**70,
    1e308,
    "",
    "\x1b[2J\u202e",
    "a\nb::error",
    "\x00",
    "\ud800",
    [],
    [[]],
    {},
    {"x": 1},
    0.5,
]
RECORDS = {
    "manifest.json": make_manifest([make_trial(seed=seed) for seed in SEEDS]),
    "trials.jsonl": make_trial(outcome=OUTCOMES[1]),
    "sessions.jsonl": make_session(["a", "b"], [[1.25, 2.5], [1.5, 0]]),
}


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutant_of_any_field_is_read_or_refused_in_words(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(RECORDS)))
    document = json.loads(encode(RECORDS[name]))
    *where, last = data.draw(st.sampled_from([path for path in values(document) if path]))
    inner = document
    for key in where:
        inner = inner[key]
    inner[last] = data.draw(st.sampled_from(NASTY))
    run = RunFolder(tmp_path)
    (tmp_path / "manifest.json").write_bytes(encode(RECORDS["manifest.json"]))
    (tmp_path / name).write_bytes(json.dumps(document).encode() + b"\n")
    try:
        manifest, trials, sessions = run.manifest(), run.trials(), run.sessions()
        encode((trials, sessions, manifest))
        assert all(trial.id in manifest.trials for trial in trials)
    except UsageError as error:
        if str(tmp_path / name) not in str(error):
            raise
    finally:
        (tmp_path / name).unlink()


def read_and_write(run: RunFolder) -> None:
    with run.lock():
        run.manifest(), run.trials(), run.sessions()
        run.append(make_trial())


@pytest.mark.parametrize("name", ["manifest.json", "trials.jsonl", "sessions.jsonl", "logs", "samples", ".lock"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_only_files_of_the_run_itself_are_read_and_written(
    run: RunFolder, tmp_path: Path, name: str, kind: str
) -> None:
    target, place = tmp_path / "elsewhere", run.path / name
    target.mkdir() if name in ("logs", "samples") else target.write_bytes(b"")
    if place.is_dir():
        place.rmdir()
    place.unlink(missing_ok=True)
    match kind:
        case "link":
            place.symlink_to(target)
        case "device":
            place.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(place)
        case "folder" if name in ("logs", "samples"):
            place.write_bytes(b"a file where a folder belongs")
        case "folder":
            place.mkdir()
    with pytest.raises(UsageError, match=r"is a link|no regular file|[Ii]s a directory|must be a folder"):
        read_and_write(run)
    assert target.is_dir() or target.read_bytes() == b""


@pytest.mark.parametrize("shape", ["(99999999999999999,)", "(9999,)"])
def test_samples_that_promise_more_than_there_is(tmp_path: Path, shape: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3, dtype=samples.SAMPLES))
    whole = (tmp_path / "a.npy").read_bytes()
    wide = b"(3,), }" + b" " * (len(shape) - 4)
    assert wide in whole
    (tmp_path / "a.npy").write_bytes(whole.replace(wide, shape.encode() + b", }"))
    (tmp_path / "pipe.npy").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "pipe.npy")
    for name in ("a.npy", "pipe.npy"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as samples"):
            samples.session_ms(tmp_path / name)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 101)
    assert files.read_regular(tmp_path / "large", 101) == b"x" * 101
    with pytest.raises(OSError, match="is larger than 100 bytes"):
        files.read_regular(tmp_path / "large", 100)
    (tmp_path / "link").symlink_to("large")
    assert files.read_regular(tmp_path / "link", 101, follow=True)
    with pytest.raises(OSError, match="is no regular file"):
        files.read_regular(Path("/dev/zero"), 101)


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_torn_at_every_byte(locked: RunFolder) -> None:
    path = locked.path / "trials.jsonl"
    first, second, third = (make_failed(seed=seed) for seed in range(3))
    locked.append(first)
    start = path.stat().st_size
    locked.append(second)
    whole = path.read_bytes()
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert locked.trials() == (first,), cut
        locked.append(third)
        assert locked.trials() == (first, third), cut
        assert path.read_bytes().startswith(whole[:start]), cut
    path.write_bytes(whole[:start] + b"x" * 200_000)
    locked.append(second)
    assert path.read_bytes() == whole


def test_the_only_line_torn_at_every_byte(locked: RunFolder) -> None:
    path = locked.path / "sessions.jsonl"
    session = make_session(["a", "b"], [[1.0, 2.0]])
    locked.append(session)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert locked.sessions() == (), cut
    locked.append(session)
    assert path.read_bytes() == whole


def test_a_full_disk_takes_the_write_back(locked: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    locked.append(make_failed())
    before = (locked.path / "trials.jsonl").read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))
        with pytest.raises(OSError, match=r"only 50 of .* bytes could be written"):
            locked.append(make_failed(seed=1))
    assert (locked.path / "trials.jsonl").read_bytes() == before


def test_a_failed_sync_and_another_try_count_once(locked: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> Callable[[int], None]:
        def fsync(_: int) -> None:
            raise OSError(number, "Input/output error")

        return fsync

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            locked.append(make_failed())
        patch.setattr(os, "fsync", fail(errno.EINVAL))  # folders that cannot be synced: no error
        files.sync_folder(locked.path)
    locked.append(make_failed())
    assert locked.trials() == (make_failed(),)


def test_one_write_and_one_sync_per_line(locked: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    locked.append(make_failed())
    calls: list[str] = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda *a: (calls.append("write"), write(*a))[1])
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a))[1])
    locked.append(make_failed(seed=1))
    assert calls == ["write", "fsync"]


def append_for_ever(path: Path, first: Any) -> None:
    run = RunFolder(path)
    with run.lock():
        for number in range(1_000_000):
            run.append(make_failed(seed=number % len(SEEDS), reason="x" * (number % 3000)))
            if number == 3:
                first.set()


def test_one_writer_free_again_after_its_death_with_all_that_it_has_finished(run: RunFolder) -> None:
    context = multiprocessing.get_context("spawn")
    first = context.Event()
    writer = context.Process(target=append_for_ever, args=(run.path, first))
    writer.start()
    assert first.wait(60)
    with pytest.raises(UsageError, match="another process is writing this run"), run.lock():
        pytest.fail("two writers")
    assert {trial.seed for trial in run.trials()} == set(SEEDS)  # readers go on
    writer.kill()
    writer.join()
    before = (run.path / "trials.jsonl").read_bytes()
    torn = run.path / "samples" / ".x.npy.4711.0badcafe.tmp"
    torn.write_bytes(b"half")
    with run.lock():
        run.append(make_failed(reason="the last"))
    assert not torn.exists()
    *_, last = (run.path / "trials.jsonl").read_bytes().splitlines()
    assert (run.path / "trials.jsonl").read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert json.loads(last)["outcome"]["reason"] == "the last"


@pytest.mark.parametrize(
    "write",
    [
        lambda run: run.append(make_trial()),
        lambda run: run.append(make_session(["a"], [[1.0]])),
        lambda run: run.update_manifest(status="running"),
    ],
)
def test_writing_without_the_lock_is_a_bug(run: RunFolder, write: Callable) -> None:
    with pytest.raises(RuntimeError, match="lock"):
        write(run)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trial", ["../../etc/passwd", "a\0b", "-rf /", "..", "é|*?"])
def test_paths_never_lead_out(run: RunFolder, trial: str) -> None:
    path = run.log_path(trial)
    assert path.resolve().parent == (run.path / "logs").resolve()
    path.write_text("")


def test_paths_of_different_trials_differ(run: RunFolder) -> None:
    trial = make_trial(make_cell(device="cuda:0")).id
    assert run.log_path(trial) == run.path / "logs" / "mlp+cuda=0+b100+eager+s0.log"
    assert run.samples_path(f"{trial}@A") == run.path / "samples" / "mlp+cuda=0+b100+eager+s0@A.npy"
    ids = ["a/b", "a.b", "a_b", "a-b", "a:b", "a%2Fb"]  # names hold neither + nor =
    assert len({run.log_path(each) for each in ids}) == len(ids)
