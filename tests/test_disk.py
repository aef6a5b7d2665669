"""Runs on disk: what is written survives a kill at any instant, what strangers wrote is refused by file and field."""

import errno
import json
import math
import multiprocessing
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from record_factory import RUN_ID, make_cell, make_epochs, make_failed, make_manifest, make_measurement
from record_factory import make_session as session
from record_factory import make_trial as trial

from mnist_bench.disk import files, folder
from mnist_bench.disk.folder import LINE_LIMIT, RunFolder, known_runs, new_run_id
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.records import Extras, Failure, ImageSets, Session, Skip, StepTimes, Trial, encode

SEEDS = range(4)
OTHER, LATER = "20261124T101500Z-bbbbbb", "20261125T101500Z-cccccc"
HIDDEN = f".{OTHER}.1.0badcafe.tmp"
MANIFEST = make_manifest([trial(seed=seed) for seed in SEEDS])


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def run(results):
    return RunFolder.create(results, MANIFEST)


@pytest.fixture
def locked(run):
    with run.lock():
        yield run


def make(results: Path, run_id: str = RUN_ID) -> RunFolder:
    return RunFolder.create(results, make_manifest(run_id=run_id))


def hidden(place: Path) -> list[str]:
    return sorted(path.name for path in place.rglob(".*") if path.name != ".lock")


# ── making and finding ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_made_whole_and_latest_names_it(run, results):
    assert {entry.name for entry in run.path.iterdir()} == {"manifest.json", "logs", "samples"}
    assert (results / "latest").readlink() == Path(RUN_ID)
    assert run.manifest() == MANIFEST
    newer = make(results, OTHER)
    assert RunFolder.open(results, "latest").path == newer.path
    assert known_runs(results) == (RUN_ID, OTHER)
    assert known_runs(results / "nowhere") == ()
    ids = {new_run_id() for _ in range(9)}
    assert len(ids) == 9
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[a-z0-9]{6}", one) for one in ids)


def test_places_where_no_run_can_be_made(run, results, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", results):  # a run of this name is there already
        with pytest.raises(UsageError, match=r"a run cannot be made here: .*; choose another"):
            make(place)
    assert run.manifest() == MANIFEST
    (tmp_path / "latest").mkdir()
    with pytest.raises(UsageError, match="rename it"):
        make(tmp_path)


@pytest.mark.parametrize("reference", ["latest", RUN_ID, RUN_ID[:4], "PATH", "PATH/manifest.json", "PATH/../latest"])
def test_a_run_is_found_by_name_and_by_path(run, results, reference):
    where = Path("nowhere") if "PATH" in reference else results
    assert RunFolder.open(where, reference.replace("PATH", str(run.path))).path == run.path


@pytest.mark.parametrize("spoil", ["gone", "dangling", "impossible"])
def test_a_lost_latest_is_the_newest_run(results, monkeypatch, spoil):
    if spoil == "impossible":
        monkeypatch.setattr(Path, "symlink_to", Mock(side_effect=PermissionError("no symlinks here")))
    runs = [make(results), make(results, OTHER)]
    (results / "latest").unlink(missing_ok=True)
    if spoil == "dangling":
        (results / "latest").symlink_to("gone")
    assert RunFolder.open(results, "latest").path == runs[1].path
    assert hidden(results) == []


# ── kills while something is written ─────────────────────────────────────────────────────────────────────────────────


ACTIONS: dict[str, Callable[[RunFolder], Any]] = {
    "change": lambda run: run.update_manifest(status="stopped"),
    "make": lambda run: make(run.path.parent, OTHER),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace"), (Path, "mkdir"), (Path, "symlink_to")])
def test_a_kill_leaves_what_was_there_or_the_whole_new(run, monkeypatch, owner, step, action):
    results, needed = run.path.parent, action == "make" or step in ("fsync", "replace")
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt) if needed else nullcontext():
            ACTIONS[action](run)
    assert run.manifest() == (MANIFEST if needed else replace(MANIFEST, status="stopped"))
    assert known_runs(results) == ((RUN_ID, OTHER) if (action, step) == ("make", "symlink_to") else (RUN_ID,))
    assert all(RunFolder.open(results, name).manifest().run_id == name for name in known_runs(results))
    assert RunFolder.open(results, "latest").path == run.path
    assert hidden(results) == []


def make_and_wait(results: Path, inside: Any, go_on: Any) -> None:
    def fill(_: Path) -> None:
        inside.set()
        assert go_on.wait(60)

    RunFolder.create(results, make_manifest(run_id=OTHER), fill)


@pytest.mark.parametrize("end", ["killed", "done"])
def test_what_a_killed_writer_left_goes_with_the_next_run_but_not_what_is_being_made(results, end):
    context = multiprocessing.get_context("spawn")
    inside, go_on = context.Event(), context.Event()
    writer = context.Process(target=make_and_wait, args=(results, inside, go_on))
    writer.start()
    assert inside.wait(60)
    (results / ".20260101T000000Z-aaaaaa.1.0badcafe.tmp").mkdir()
    make(results)
    _, own = hidden(results)  # nothing goes while a run is being made
    assert own.startswith(f".{OTHER}.{writer.pid}.")
    writer.kill() if end == "killed" else go_on.set()
    writer.join()
    make(results, LATER)
    assert hidden(results) == []
    assert known_runs(results) == ((RUN_ID, LATER) if end == "killed" else (RUN_ID, OTHER, LATER))


def test_other_peoples_files_are_left_alone(results, tmp_path, monkeypatch):
    results.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (results / ".mine.123.tmp").mkdir()
    (results / ".results.csv.123.0badcafe.tmp").write_text("half a table")
    (results / HIDDEN).symlink_to(tmp_path / "elsewhere")
    (results / ".latest.123.0badcafe.tmp").symlink_to(RUN_ID)
    make(results)
    assert hidden(results) == [".mine.123.tmp", ".results.csv.123.0badcafe.tmp"]
    assert (tmp_path / "elsewhere").is_dir()

    no_locks = Mock(side_effect=OSError(errno.ENOLCK, "no locks here"))
    monkeypatch.setattr(folder.fcntl, "flock", no_locks)  # as on some network file systems
    (results / HIDDEN).mkdir()
    make(results, LATER)
    assert HIDDEN in hidden(results)


# ── what was appended is read back ───────────────────────────────────────────────────────────────────────────────────

EXTRAS = Extras(
    sample_flops=2.26408e6,
    ceiling_flops_s=1.30123e11,
    latency=StepTimes(p50_ms=0.123456, p95_ms=0.234567, p99_ms=0.345678, count=300),
    graph_breaks=0,
    recompilations=3,
    kernels=123.45,
    busy=0.912345,
)
MEASURED = make_measurement(
    class_="B",
    compile_s=12.5,
    device_peak_bytes=1 << 33,
    noisy=("load 3.1 on 2 cores",),
    marks=("the waterfall lacks 5 %",),
    final=ImageSets(train=0.9196, test=0.9203),
    extras=EXTRAS,
    energy_j=12345.6,
)
RECORDS: list[Trial | Session] = [
    trial(outcome=MEASURED),
    trial(seed=1),
    make_failed(seed=2, reason="needs 20 GiB | `raise` memory_gib\nor use a smaller batch"),
    make_failed(seed=3, kind="crashed", reason="signal 11 \x00 ✗"),
    session(["a", "b"], [[1.25, 2.5], [1.5, 0]], noisy=("steal 12 %",), stopped="budget", seconds=3.5),
    session(["a"], [[1.25]], paired=False, stopped="alone"),
]


def everything(run: RunFolder) -> list[Trial | Session]:
    return [*run.trials(), *run.sessions()]


def test_lines_come_back_and_of_two_for_one_thing_the_first_holds(locked):
    for record in (*RECORDS, make_failed(), RECORDS[-1]):
        locked.append(record)
    assert everything(locked) == RECORDS
    line, *_ = map(json.loads, (locked.path / "trials.jsonl").read_bytes().splitlines())
    assert line["outcome"]["type"] == "measurement"
    assert "class_" not in line["outcome"]


def test_what_trials_have_in_common_is_in_memory_once_and_nothing_else_is(locked):
    """Numbers that are equal and not the same stay apart: True and 1, 1 and 1.0."""
    numerics: list[dict[str, Any]] = [{"threads": 1}, {"threads": 1}, {"threads": True}, {"threads": 1.5}]
    for seed, each in enumerate(numerics):
        locked.append(trial(seed=seed, outcome=make_measurement(numerics=each, total_s=1.5 + seed)))
    found: list[Any] = [one.outcome for one in locked.trials()]
    for name in ("loss_trace", "predictions_sha256", "device_name"):
        assert all(getattr(one, name) is getattr(found[0], name) for one in found)
    assert found[0].numerics is found[1].numerics
    assert [json.dumps(one.numerics) for one in found] == [json.dumps(each) for each in numerics]
    assert [one.total_s for one in found] == [1.5, 2.5, 3.5, 4.5]


def test_figures_have_six_digits_and_are_finite(locked):
    stored: Any = locked.append(trial(outcome=make_measurement(total_s=123.4567891)))
    assert stored.outcome.total_s == 123.457
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            locked.append(trial(seed=1, outcome=make_measurement(total_s=bad)))
    assert locked.trials() == (stored,)


def test_fifty_epochs_fit_in_a_line(locked):
    rng = np.random.default_rng(0)
    columns = {name: tuple(rng.uniform(0.1, 1, 50).tolist()) for name in ("train_s", "loss", "eval_s", "accuracy")}
    epochs = replace(make_epochs(), **columns, loader_s=(0.5,) * 50)
    words = tuple(f"other processes used {n} % of the cores' time" for n in range(50))
    more = {"extras": EXTRAS, "energy_j": 12345.6, "final": MEASURED.final}
    stored: Any = locked.append(trial(outcome=make_measurement(epochs=epochs, noisy=words, **more)))
    assert (locked.path / "trials.jsonl").stat().st_size <= LINE_LIMIT
    *kept, more = stored.outcome.noisy
    assert (tuple(kept), more) == (words[: len(kept)], f"and {50 - len(kept)} more")
    assert locked.trials() == (stored,)


@pytest.mark.parametrize("letter", ["x", "é", "✗", "\n"])
@pytest.mark.parametrize("kind", [lambda text: Failure(kind="failed", reason=text), lambda text: Skip(reason=text)])
def test_long_reasons_end_in_an_ellipsis(locked, letter, kind):
    stored = locked.append(trial(outcome=kind("why: " + letter * 9000)))
    assert (LINE_LIMIT - 20 if letter != "\n" else 0) < (locked.path / "trials.jsonl").stat().st_size <= LINE_LIMIT
    assert stored.reason.startswith("why:")
    assert stored.reason.endswith("…")
    assert locked.trials() == (stored,)


@pytest.mark.parametrize("outcome", [Failure(kind="failed", reason=""), make_measurement()])
def test_a_line_that_cannot_be_short_is_refused(locked, outcome):
    with pytest.raises(BenchError, match="over 4096 bytes"):
        locked.append(trial(outcome=outcome, dataset="x" * 5000))
    assert locked.trials() == ()


# ── what strangers wrote ─────────────────────────────────────────────────────────────────────────────────────────────

GOOD, PAIR = encode(trial()), encode(session(["a", "b"], [[1.25, 2.5]]))
DEEP = b'{"a":' * 200_000
BROKEN = [
    ("manifest.json", b"", "Expecting value"),
    ("manifest.json", b"\xff", "malformed|utf-8"),
    ("manifest.json", b"{}", "missing required field `run_id`"),
    ("manifest.json", b'{"schema_version": 99}', "newer mnist_bench .schema 99; this one reads up to 2.: upgrade"),
    ("manifest.json", b'{"schema_version": NaN}', "NaN is not a figure"),
    ("manifest.json", DEEP, "nested too deep"),
    ("trials.jsonl", b"{", "truncated"),
    ("trials.jsonl", DEEP, "recursion"),
    ("trials.jsonl", encode(trial(seed=9)), "id: 'mlp/cpu/b100/eager/s9' is no trial of this run"),
    ("trials.jsonl", encode(trial(make_cell(variant="compile"), id=trial().id)), "is no trial of this run"),
    ("trials.jsonl", GOOD.replace(b'"seed":0', b'"seed":-1'), r"Expected `int` >= 0 - at `\$.seed`"),
    ("trials.jsonl", GOOD.replace(b'"type":"measurement"', b'"type":"skip"'), r"`reason` - at `\$.outcome`"),
    ("trials.jsonl", GOOD.replace(b'"loss":[', b'"loss":[1.0,'), r"lists differ in length - at `\$.outcome.epochs`"),
    ("trials.jsonl", encode(make_failed()).replace(b"use less", b"\\udc80"), "surrogate"),
    ("sessions.jsonl", PAIR.replace(b'"steps":[10,', b'"steps":['), r"rounds\[0\] does not fit the 2 members"),
    ("sessions.jsonl", PAIR.replace(b'"order":[0,1]', b'"order":[0,2]'), r"rounds\[0\] does not fit the 2 members"),
    ("sessions.jsonl", PAIR.replace(b"[0.0125,", b"[0.0,"), r"rounds\[0\] has steps that took no time"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_broken_is_refused_by_file_and_line(run, name, content, message):
    before = {"manifest.json": b"", "trials.jsonl": GOOD + b"\n", "sessions.jsonl": PAIR + b"\n"}[name]
    (run.path / name).write_bytes(before + content.rstrip(b"\n") + (b"\n" + before if before else b""))
    with pytest.raises(UsageError, match=rf"(?s){name}{':3' if before else ''}: .*({message})"):
        run.manifest(), everything(run)


@pytest.mark.parametrize("name", ["manifest.json", "trials.jsonl", "sessions.jsonl", "logs", "samples", ".lock"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_only_files_of_the_run_itself_are_read_and_written(run, tmp_path, name, kind):
    target, place = tmp_path / "elsewhere", run.path / name
    target.mkdir() if name in ("logs", "samples") else target.write_bytes(b"")
    files.remove(place)
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
    with pytest.raises(UsageError, match=r"is a link|no regular file|[Ii]s a directory|must be a folder"), run.lock():
        run.manifest(), everything(run)
    assert target.is_dir() or target.read_bytes() == b""


@pytest.mark.parametrize("shape", ["(99999999999999999,)", "(9999,)"])
def test_samples_that_promise_more_than_there_is(run, shape):
    np.save(run.samples_path("a"), np.zeros(3, dtype=folder.SAMPLES))
    whole = run.samples_path("a").read_bytes()
    wide = b"(3,), }" + b" " * (len(shape) - 4)
    assert wide in whole
    run.samples_path("a").write_bytes(whole.replace(wide, shape.encode() + b", }"))
    os.mkfifo(run.samples_path("pipe"))
    for name in ("a", "pipe"):
        with pytest.raises(ValueError, match=f"{name}.npy: cannot be read as samples"):
            run.session_ms(name)


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lines", [[make_failed(), make_failed(seed=1)], RECORDS[5:]], ids=["second", "only"])
def test_torn_at_every_byte(locked, lines):
    *before, last = lines
    path = locked.path / ("trials.jsonl" if before else "sessions.jsonl")
    for line in before:
        locked.append(line)
    start = path.stat().st_size if before else 0
    locked.append(last)
    whole = path.read_bytes()
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert everything(locked) == before, cut
        locked.append(last)
        assert path.read_bytes() == whole, cut
    path.write_bytes(whole[:start] + b"x" * 200_000)
    locked.append(last)
    assert path.read_bytes() == whole


def test_a_write_that_fails_or_is_not_durable_counts_at_most_once(locked, monkeypatch):
    locked.append(make_failed())
    path, write = locked.path / "trials.jsonl", os.write
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))
        with pytest.raises(OSError, match=r"only 50 of .* bytes could be written"):
            locked.append(make_failed(seed=1))
    assert path.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            locked.append(make_failed(seed=1))
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EINVAL, "no folders")))  # which is no error
        files.sync_folder(locked.path)
    locked.append(make_failed(seed=1))
    assert locked.trials() == (make_failed(), make_failed(seed=1))


def append_for_ever(path: Path, first: Any) -> None:
    run = RunFolder(path)
    with run.lock():
        for number in range(1_000_000):
            run.append(make_failed(seed=number % len(SEEDS), reason="x" * (number % 3000)))
            if number == 3:
                first.set()


def test_one_writer_free_again_after_its_death_with_all_that_it_has_finished(run):
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
    torn = run.path / ".results.csv.4711.0badcafe.tmp"
    torn.write_bytes(b"half")
    with run.lock():
        run.append(make_failed(reason="the last"))
    assert not torn.exists()
    *_, last = (run.path / "trials.jsonl").read_bytes().splitlines()
    assert (run.path / "trials.jsonl").read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert json.loads(last)["outcome"]["reason"] == "the last"


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_paths_never_lead_out_and_those_of_different_trials_differ(run):
    ids = ["a/b", "a.b", "a_b", "a-b", "a:b", "a%2Fb", "../../etc/passwd", "a\0b", "-rf /", "..", "é|*?"]
    paths = {run.log_path(one) for one in ids}
    assert len(paths) == len(ids)
    for path in paths:
        path.write_text("")
        assert path.resolve().parent == (run.path / "logs").resolve()
    name = trial(make_cell(device="cuda:0")).id
    assert run.log_path(name) == run.path / "logs" / "mlp+cuda=0+b100+eager+s0.log"
    assert run.samples_path(f"{name}@A") == run.path / "samples" / "mlp+cuda=0+b100+eager+s0@A.npy"
