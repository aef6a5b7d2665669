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
from hypothesis import given
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

from mnist_bench import codec, files
from mnist_bench.analysis.results import files as tables
from mnist_bench.analysis.summary import Run
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.records import Failure, ImageSets, Manifest, Measurement, Skip, Trial
from mnist_bench.store import LINE_LIMIT, RunFolder, known_runs, new_run_id, point_latest


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def run(results: Path) -> RunFolder:
    return RunFolder.create(results, make_manifest([make_trial(seed=s) for s in (0, 1, 2)]))


@pytest.fixture
def locked(run: RunFolder) -> Iterator[RunFolder]:
    with run.lock():
        yield run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class TestRunId:
    def test_is_utc_time_and_six_characters(self) -> None:
        now = datetime(2026, 11, 23, 12, 15, tzinfo=timezone(timedelta(hours=2)))
        assert re.fullmatch(r"20261123T101500Z-[a-z0-9]{6}", new_run_id(now, random.Random(1)))

    def test_follows_the_generator(self) -> None:
        now = datetime.now(UTC)
        assert new_run_id(now, random.Random(1)) == new_run_id(now, random.Random(1))
        assert new_run_id(now, random.Random(1)) != new_run_id(now, random.Random(2))

    def test_needs_a_zone(self) -> None:
        with pytest.raises(ValueError, match="zone"):
            new_run_id(datetime(2026, 1, 1), random.Random(1))


class TestCreate:
    def test_makes_folders_manifest_and_latest(self, run: RunFolder, results: Path) -> None:
        assert run.path == results / RUN_ID
        assert {entry.name for entry in run.path.iterdir()} == {"manifest.json", "logs", "samples"}
        assert (results / "latest").readlink() == Path(RUN_ID)
        assert {entry.name for entry in results.iterdir()} == {RUN_ID, "latest"}

    def test_manifest_comes_back(self, run: RunFolder) -> None:
        assert run.manifest() == make_manifest([make_trial(seed=s) for s in (0, 1, 2)])

    def test_newer_run_takes_latest(self, run: RunFolder, results: Path) -> None:
        newer = RunFolder.create(results, make_manifest(run_id="20270101T000000Z-zzzzzz"))
        assert RunFolder.open(results, "latest").path == newer.path
        assert known_runs(results) == (RUN_ID, "20270101T000000Z-zzzzzz")

    def test_run_that_is_there_is_kept(self, run: RunFolder, results: Path) -> None:
        with pytest.raises(UsageError, match="is there already"):
            RunFolder.create(results, make_manifest(status="stopped"))
        assert run.manifest().status == "complete"

    def test_place_that_cannot_be_written_is_a_usage_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match=r"a run cannot be made here: Not a directory; choose another"):
            RunFolder.create(tmp_path / "file", make_manifest())

    def test_latest_that_is_a_folder_is_left_alone(self, results: Path) -> None:
        (results / "latest").mkdir(parents=True)
        with pytest.raises(UsageError, match="rename it"):
            RunFolder.create(results, make_manifest())

    def test_without_symlinks_latest_is_a_text_file(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError("no symlinks here")

        monkeypatch.setattr(Path, "symlink_to", refuse)
        run = RunFolder.create(results, make_manifest())
        assert (results / "latest").read_text() == f"{RUN_ID}\n"
        assert RunFolder.open(results, "latest").path == run.path


class TestOpen:
    @pytest.mark.parametrize("reference", ["latest", RUN_ID, RUN_ID[:4], RUN_ID[:-1]])
    def test_by_name(self, run: RunFolder, results: Path, reference: str) -> None:
        assert RunFolder.open(results, reference).path == run.path

    @pytest.mark.parametrize("name", ["", "manifest.json"])
    def test_by_path(self, run: RunFolder, tmp_path: Path, name: str) -> None:
        assert RunFolder.open(tmp_path / "elsewhere", str(run.path / name)).run_id == RUN_ID

    def test_by_path_of_latest(self, run: RunFolder, results: Path) -> None:
        assert RunFolder.open(Path("nowhere"), str(results / "latest")).run_id == RUN_ID

    def test_ambiguous_prefix_lists_the_matches(self, run: RunFolder, results: Path) -> None:
        RunFolder.create(results, make_manifest(run_id="20261123T101500Z-bbbbbb"))
        with pytest.raises(UsageError, match=f"ambiguous.*20261123T101500Z-bbbbbb, {RUN_ID}"):
            RunFolder.open(results, "2026")

    @pytest.mark.parametrize("reference", ["", "1999", "../etc", "."])
    def test_unknown_lists_what_is_known(self, run: RunFolder, results: Path, reference: str) -> None:
        with pytest.raises(UsageError, match=f"known: {RUN_ID}"):
            RunFolder.open(results, reference)

    def test_long_lists_are_cut(self, results: Path) -> None:
        for n in range(12):
            RunFolder.create(results, make_manifest(run_id=f"2026112{n % 3}T101500Z-aaaa{n:02}"))
        with pytest.raises(UsageError, match=r"Z-aaaa11, .* and 2 more"):
            RunFolder.open(results, "1999")

    @pytest.mark.parametrize("reference", ["latest", "2026"])
    def test_empty_folder(self, results: Path, reference: str) -> None:
        with pytest.raises(UsageError, match=r"no run .*in .*results"):
            RunFolder.open(results, reference)

    @pytest.mark.parametrize("spoil", [Path.unlink, lambda p: (p.unlink(), p.symlink_to("gone"))])
    def test_lost_latest_is_the_newest_run(self, run: RunFolder, results: Path, spoil: Callable) -> None:
        spoil(results / "latest")
        assert RunFolder.open(results, "latest").path == run.path

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "Expecting value"),
            (b"[]", "a manifest is a JSON object, not list"),
            (b"\xff", "utf-8"),
            (b"{}", "schema_version must be a whole number"),
            (b'{"schema_version": true}', "schema_version must be"),
            (b'{"schema_version": 1}', "missing required field .run_id"),
            (b'{"schema_version": 99}', "newer mnist_bench .schema 99; this one reads up to 2.: upgrade"),
            (b'{"schema_version": NaN}', "NaN is not a figure"),
            (b"[" * 200_000, "recursion|Expecting"),
        ],
    )
    def test_broken_manifest(self, run: RunFolder, results: Path, content: bytes, message: str) -> None:
        (run.path / "manifest.json").write_bytes(content)
        with pytest.raises(UsageError, match=f"(?s)manifest.json: .*{message}"):
            RunFolder.open(results, RUN_ID)

    def test_missing_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is this a run folder"):
            RunFolder(tmp_path).manifest()


class TestManifest:
    def test_update_replaces_fields(self, locked: RunFolder) -> None:
        changed = locked.update_manifest(status="interrupted", ended_at="2026-11-23T11:00:00Z")
        assert locked.manifest() == changed == replace(changed, status="interrupted")
        assert changed.ended_at == "2026-11-23T11:00:00Z"

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_kill_between_steps_keeps_the_old_one(
        self, locked: RunFolder, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        def kill(*_: object) -> None:
            raise KeyboardInterrupt

        before = locked.manifest()
        with monkeypatch.context() as patch:
            patch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), kill)
            with pytest.raises(KeyboardInterrupt):
                locked.update_manifest(status="running")
        assert locked.manifest() == before
        assert not list(locked.path.glob(".*.tmp"))

    def test_kill_while_it_is_created_leaves_no_run(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def kill(*_: object) -> None:
            raise KeyboardInterrupt

        for owner, step in [(Path, "rename"), (Path, "replace"), (os, "fsync")]:
            with monkeypatch.context() as patch:
                patch.setattr(owner, step, kill)
                with pytest.raises(KeyboardInterrupt):
                    RunFolder.create(results, make_manifest())
            assert known_runs(results) == ()
        RunFolder.create(results, make_manifest())
        assert known_runs(results) == (RUN_ID,)

    def test_kill_before_latest_leaves_a_whole_run(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mnist_bench.store.point_latest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(results, make_manifest())
        assert RunFolder.open(results, "latest").manifest() == make_manifest()

    def test_kill_while_latest_is_moved_keeps_the_old_one(
        self, run: RunFolder, results: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def kill(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", kill)
            with pytest.raises(KeyboardInterrupt):
                point_latest(results, "other")
        assert (results / "latest").readlink() == Path(RUN_ID)
        assert not list(results.glob(".*.tmp"))


def make_and_wait(results: Path, run_id: str, inside: Any, go_on: Any) -> None:
    def fill(hidden: Path) -> None:
        inside.set()
        assert go_on.wait(60)

    RunFolder.create(results, make_manifest(run_id=run_id), fill)


class TestLeavings:
    """What is left of a run whose writer was killed while it was being made."""

    OTHER = "20261124T101500Z-bbbbbb"

    @pytest.fixture
    def writer(self, results: Path) -> Iterator[tuple[Any, Any]]:
        """A process that is making the run ``OTHER``, and the event that lets it go on."""
        context = multiprocessing.get_context("spawn")
        inside, go_on = context.Event(), context.Event()
        process = context.Process(target=make_and_wait, args=(results, self.OTHER, inside, go_on))
        process.start()
        assert inside.wait(30)
        yield process, go_on
        process.kill()
        process.join()

    def hidden(self, results: Path) -> list[str]:
        return [path.name for path in results.iterdir() if path.name.startswith(".")]

    def test_next_run_removes_it(self, results: Path, writer: tuple[Any, Any]) -> None:
        process, _ = writer
        process.kill()
        process.join()
        assert self.hidden(results) == [f".{self.OTHER}.{process.pid}.tmp"]
        RunFolder.create(results, make_manifest())
        assert {path.name for path in results.iterdir()} == {RUN_ID, "latest"}

    def test_run_that_is_being_made_is_left_alone(self, results: Path, writer: tuple[Any, Any]) -> None:
        process, go_on = writer
        dead = results / ".20260101T000000Z-aaaaaa.1.tmp"
        dead.mkdir()
        RunFolder.create(results, make_manifest())
        assert sorted(self.hidden(results)) == [dead.name, f".{self.OTHER}.{process.pid}.tmp"]
        go_on.set()
        process.join()
        assert process.exitcode == 0
        assert known_runs(results) == (RUN_ID, self.OTHER)
        RunFolder.create(results, make_manifest(run_id="20261125T101500Z-cccccc"))
        assert self.hidden(results) == []

    def test_other_peoples_files_are_left_alone(self, results: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.mkdir()
        results.mkdir()
        (results / ".mine.123.tmp").mkdir()
        (results / ".results.csv.123.0badcafe.tmp").write_text("half a table")
        (results / ".20260101T000000Z-aaaaaa.1.tmp").symlink_to(target)
        (results / ".latest.123.0badcafe.tmp").symlink_to("20260101T000000Z-aaaaaa")
        RunFolder.create(results, make_manifest())
        assert sorted(self.hidden(results)) == [
            ".20260101T000000Z-aaaaaa.1.tmp",
            ".mine.123.tmp",
            ".results.csv.123.0badcafe.tmp",
        ]
        assert target.is_dir()

    def test_folder_that_cannot_be_locked(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on some network file systems: a run is made all the same, and nothing is removed."""

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "no locks here")

        monkeypatch.setattr("mnist_bench.leavings.fcntl.flock", refuse)
        (results / ".20260101T000000Z-aaaaaa.1.tmp").mkdir(parents=True)
        RunFolder.create(results, make_manifest())
        assert known_runs(results) == (RUN_ID,)
        assert self.hidden(results) == [".20260101T000000Z-aaaaaa.1.tmp"]


OUTCOMES = [
    make_measurement(),
    make_measurement(
        class_="B",
        compile_s=12.5,
        device_peak_bytes=1 << 33,
        noisy=("load 3.1 on 2 cores",),
        marks=("the waterfall lacks 5 %",),
    ),
    Failure(kind="oom", reason="needs 20 GiB | `raise` memory_gib\nor use a smaller batch"),
    Failure(kind="crashed", reason="signal 11 \udcff ✗"),
    Skip(reason="no CUDA device: install a CUDA build of torch"),
]


class TestTrials:
    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
    def test_comes_back(self, locked: RunFolder, outcome: object) -> None:
        trial = make_trial(outcome=outcome)
        stored = locked.append_trial(trial)
        assert locked.trials() == (stored,) == (trial,)

    def test_line_says_its_status_and_no_python(self, locked: RunFolder) -> None:
        locked.append_trial(make_trial())
        locked.append_trial(make_failed(seed=1, reason="why"))
        ok, failed = lines(locked.path / "trials.jsonl")
        assert list(ok)[:2] == ["id", "status"]
        assert (ok["status"], ok["outcome"]["class"]) == ("ok", "A")
        assert "class_" not in ok["outcome"]
        assert (failed["status"], failed["outcome"]) == ("oom", {"kind": "oom", "reason": "why"})

    def test_figures_have_six_digits(self, locked: RunFolder) -> None:
        stored = locked.append_trial(make_trial(outcome=make_measurement(total_s=123.4567891)))
        assert isinstance(stored.outcome, Measurement)
        assert stored.outcome.total_s == 123.457
        assert locked.trials() == (stored,)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_figures_that_are_not_finite_are_refused(self, locked: RunFolder, bad: float) -> None:
        trial = make_trial(outcome=make_measurement(phases={"import": 1.0, "data": bad}))
        with pytest.raises(ValueError, match=r"trial\.outcome\.phases\.data is (nan|inf)"):
            locked.append_trial(trial)
        assert locked.trials() == ()

    def test_first_of_two_holds(self, locked: RunFolder) -> None:
        first, other, second = make_trial(), make_failed(seed=1), make_failed()
        for trial in (first, other, second):
            locked.append_trial(trial)
        assert locked.trials() == (first, other)

    def test_fifty_epochs_fit_in_a_line(self, locked: RunFolder) -> None:
        rng = np.random.default_rng(0)
        epochs = replace(
            make_epochs(rng.uniform(1, 20, 50), rng.uniform(0.9, 1, 50)),
            loss=tuple(rng.uniform(0, 0.1, 50)),
            eval_s=tuple(rng.uniform(0.1, 1, 50)),
        )
        locked.append_trial(make_trial(outcome=make_measurement(epochs=epochs)))
        assert "more" not in lines(locked.path / "trials.jsonl")[0]["outcome"]
        assert (locked.path / "trials.jsonl").stat().st_size <= LINE_LIMIT

    def test_a_thousand_epochs_lose_nothing(self, locked: RunFolder) -> None:
        epochs = make_epochs([n / 7 for n in range(1, 1001)], [n / 1234 for n in range(1000)])
        stored = locked.append_trial(make_trial(outcome=make_measurement(epochs=epochs, noisy=("x" * 3000,))))
        assert (locked.path / "trials.jsonl").stat().st_size <= LINE_LIMIT
        assert locked.trials() == (stored,)
        assert isinstance(stored.outcome, Measurement)
        assert stored.outcome.epochs.train_s == tuple(float(f"{n / 7:.6g}") for n in range(1, 1001))
        assert len(stored.outcome.loss_trace) == 20
        assert (locked.path / "samples" / "mlp+cpu+b100+eager+s0.json").is_file()

    @pytest.mark.parametrize("content", [None, b"[]", b"{", b"{}"])
    def test_lost_figures_are_an_error(self, locked: RunFolder, content: bytes | None) -> None:
        locked.append_trial(make_trial(outcome=make_measurement(epochs=make_epochs([1.5] * 2000, [0.5] * 2000))))
        path = locked.path / "samples" / "mlp+cpu+b100+eager+s0.json"
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UsageError, match=r"trials.jsonl:1: broken line"):
            locked.trials()

    @pytest.mark.parametrize("letter", ["x", "é", "✗", "\n", "\udc80"])
    @pytest.mark.parametrize(
        "type_", [lambda text: Failure(kind="failed", reason=text), lambda text: Skip(reason=text)]
    )
    def test_long_reasons_end_in_an_ellipsis(self, locked: RunFolder, letter: str, type_: Callable) -> None:
        stored = locked.append_trial(make_trial(outcome=type_("why: " + letter * 9000)))
        line = (locked.path / "trials.jsonl").read_bytes()
        assert LINE_LIMIT - 20 < len(line) <= LINE_LIMIT or letter == "\n"
        assert stored.reason.startswith("why:")
        assert stored.reason.endswith("…")
        assert locked.trials() == (stored,)

    @pytest.mark.parametrize("outcome", [Failure(kind="failed", reason="x"), make_measurement()])
    def test_line_that_cannot_be_short_is_refused(self, locked: RunFolder, outcome: object) -> None:
        with pytest.raises(BenchError, match="over 4096 bytes"):
            locked.append_trial(make_trial(outcome=outcome, log="x" * 5000))
        assert locked.trials() == ()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda r: "no json", "a trial is a JSON object"),
            (lambda r: {**r, "status": "oom"}, "outcome: Object missing required field .kind."),
            (lambda r: {**r, "outcome": 1}, "outcome is a JSON object, not int"),
            (lambda r: {k: v for k, v in r.items() if k != "seed"}, "missing required field .seed."),
            (lambda r: {**r, "seed": "zero"}, r"Expected .int., got .str. - at .\$\.seed."),
            (
                lambda r: {**r, "outcome": {**r["outcome"], "epochs": {**r["outcome"]["epochs"], "loss": [1.0]}}},
                "length",
            ),
            (lambda r: {**r, "status": "failed", "outcome": {"kind": "oom", "reason": ""}}, "does not fit"),
        ],
    )
    def test_broken_line_is_named(self, locked: RunFolder, change: Callable, message: str) -> None:
        good = codec.encode_trial(make_trial())
        path = locked.path / "trials.jsonl"
        path.write_bytes(b"\n".join(codec.to_json(r) for r in (good, change(good), good)) + b"\n")
        with pytest.raises(UsageError, match=rf"trials\.jsonl:2: broken line: .*({message}).*--resume {RUN_ID}"):
            locked.trials()

    @pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b'{"a": NaN}', b"\0\0\0"])
    def test_broken_bytes_are_named(self, locked: RunFolder, line: bytes) -> None:
        (locked.path / "trials.jsonl").write_bytes(line + b"\n")
        with pytest.raises(UsageError, match=r"trials\.jsonl:1: broken line"):
            locked.trials()

    def test_blank_lines_are_no_trials(self, locked: RunFolder) -> None:
        (locked.path / "trials.jsonl").write_bytes(b"\n\n" + codec.to_json(codec.encode_trial(make_trial())) + b"\n")
        assert locked.trials() == (make_trial(),)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


class TestJson:
    @given(json_values)
    def test_is_read_as_it_was_written(self, value: object) -> None:
        assert codec.from_json(codec.to_json(value)) == value == json.loads(codec.to_json(value))

    @pytest.mark.parametrize(
        "text",
        [b"NaN", b"[Infinity]", b"1e999", b"[-1e999]", b"{'a': 1}", b"[1,]", b"01", b"1 2", b"\xff", b""],
    )
    def test_refusals_are_those_of_json(self, text: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            codec.from_json(text)


class TestCrash:
    """A process can die at any instant, and leave any beginning of its last line."""

    def test_torn_at_every_byte(self, locked: RunFolder) -> None:
        path = locked.path / "trials.jsonl"
        first, second, third = (make_failed(seed=seed) for seed in range(3))
        locked.append_trial(first)
        start = path.stat().st_size
        locked.append_trial(second)
        whole = path.read_bytes()
        for cut in range(start, len(whole)):
            path.write_bytes(whole[:cut])
            assert locked.trials() == (first,), cut
            locked.append_trial(third)
            assert locked.trials() == (first, third), cut
            assert path.read_bytes().startswith(whole[:start]), cut
        path.write_bytes(whole)
        assert locked.trials() == (first, second)

    def test_only_line_torn_at_every_byte(self, locked: RunFolder) -> None:
        path = locked.path / "sessions.jsonl"
        session = make_session(["a", "b"], [[1.0, 2.0]])
        locked.append_session(session)
        whole = path.read_bytes()
        for cut in range(len(whole)):
            path.write_bytes(whole[:cut])
            assert locked.sessions() == (), cut
        locked.append_session(session)
        assert path.read_bytes() == whole

    def test_long_torn_end(self, locked: RunFolder) -> None:
        locked.append_trial(make_failed())
        with (locked.path / "trials.jsonl").open("ab") as file:
            file.write(b"x" * 200_000)
        locked.append_trial(make_failed(seed=1))
        assert [trial.seed for trial in locked.trials()] == [0, 1]

    def test_full_disk_takes_the_write_back(self, locked: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        locked.append_trial(make_failed())
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))
            with pytest.raises(OSError, match=r"only 50 of .* bytes could be written"):
                locked.append_trial(make_failed(seed=1))
        assert (locked.path / "trials.jsonl").read_bytes().count(b"\n") == 1
        assert (locked.path / "trials.jsonl").read_bytes().endswith(b"\n")
        locked.append_trial(make_failed(seed=1))
        assert [trial.seed for trial in locked.trials()] == [0, 1]

    def test_failed_sync_and_another_try_count_once(self, locked: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="Input/output"):
                locked.append_trial(make_failed())
        locked.append_trial(make_failed())
        assert locked.trials() == (make_failed(),)

    def test_one_write_and_one_sync_per_line(self, locked: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        locked.append_trial(make_failed())
        calls: list[str] = []
        write, fsync = os.write, os.fsync
        monkeypatch.setattr(os, "write", lambda *a: (calls.append("write"), write(*a))[1])
        monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a))[1])
        locked.append_trial(make_failed(seed=1))
        assert calls == ["write", "fsync"]

    def test_folder_that_cannot_be_synced_is_no_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unsupported(_: int) -> None:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(os, "fsync", unsupported)
        files.sync_folder(tmp_path)


def hold(path: Path, ready: object, leave: object) -> None:
    with RunFolder(path).lock():
        ready.set()
        leave.wait(30)


def append_for_ever(path: Path, first: object) -> None:
    run = RunFolder(path)
    with run.lock():
        for seed in range(1_000_000):
            run.append_trial(make_failed(seed=seed, reason="x" * (seed % 3000)))
            if seed == 3:
                first.set()


def test_killed_writer_leaves_whole_trials(run: RunFolder) -> None:
    context = multiprocessing.get_context("spawn")
    first = context.Event()
    writer = context.Process(target=append_for_ever, args=(run.path, first))
    writer.start()
    assert first.wait(30)
    writer.kill()
    writer.join()
    seeds = [trial.seed for trial in run.trials()]
    assert seeds == list(range(len(seeds)))
    assert len(seeds) >= 4
    with run.lock():
        run.append_trial(make_failed(seed=len(seeds)))
    assert len(run.trials()) == len(seeds) + 1


class TestLock:
    def test_one_writer_and_free_again_after_its_death(self, run: RunFolder) -> None:
        context = multiprocessing.get_context("spawn")
        ready, leave = context.Event(), context.Event()
        other = context.Process(target=hold, args=(run.path, ready, leave))
        other.start()
        assert ready.wait(30)
        with pytest.raises(UsageError, match="another process is writing this run"), run.lock():
            pytest.fail("two writers")
        assert run.trials() == ()  # readers go on
        other.kill()
        other.join()
        with run.lock():
            run.append_trial(make_trial())

    @pytest.mark.parametrize(
        "write",
        [
            lambda run: run.append_trial(make_trial()),
            lambda run: run.append_session(make_session(["a"], [[1.0]])),
            lambda run: run.update_manifest(status="running"),
        ],
    )
    def test_writing_without_it_is_a_bug(self, run: RunFolder, write: Callable) -> None:
        with pytest.raises(RuntimeError, match="lock"):
            write(run)

    def test_folder_that_is_gone(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="cannot be written to"), RunFolder(tmp_path / "file").lock():
            pytest.fail("locked a file's inside")


class TestSessions:
    def test_come_back(self, locked: RunFolder) -> None:
        one = make_session(["a", "b"], [[1.25, 2.5], [1.5, 0]], noisy=("steal 12 %",), stopped="budget")
        solo = make_session(["a"], [[1.25]], paired=False, stopped="alone")
        assert [locked.append_session(s) for s in (one, solo, one)] == [one, solo, one]
        assert locked.sessions() == (one, solo)

    @pytest.mark.parametrize("field", ["steps", "seconds"])
    def test_rounds_that_do_not_fit_are_refused(self, locked: RunFolder, field: str) -> None:
        record = codec.encode_session(make_session(["a", "b"], [[1.25, 2.5]]))
        record["rounds"][0][field] = [1]
        (locked.path / "sessions.jsonl").write_bytes(codec.to_json(record) + b"\n")
        with pytest.raises(UsageError, match=r"sessions.jsonl:1: .*rounds\[0\] does not fit the 2 members"):
            locked.sessions()


class TestPaths:
    def test_are_files_in_the_run(self, run: RunFolder) -> None:
        trial = make_trial(make_cell(device="cuda:0")).id
        assert run.log_path(trial) == run.path / "logs" / "mlp+cuda=0+b100+eager+s0.log"
        assert run.samples_path(trial) == run.path / "samples" / "mlp+cuda=0+b100+eager+s0.npy"

    @pytest.mark.parametrize("trial", ["../../etc/passwd", "a\0b", "-rf /", "..", "é|*?"])
    def test_never_lead_out(self, run: RunFolder, trial: str) -> None:
        path = run.log_path(trial)
        assert path.resolve().parent == (run.path / "logs").resolve()
        path.write_text("")

    def test_differ_for_different_trials(self, run: RunFolder) -> None:
        ids = ["a/b", "a.b", "a_b", "a-b", "a:b", "a+b", "a=b", "a%2Fb"]
        # + and = cannot stand in a name; everything that can is kept apart.
        assert len({run.log_path(i) for i in ids if not set(i) & set("+=")}) == len(ids) - 2


def test_tables_are_written_whole(locked: RunFolder) -> None:
    trials = [make_trial(), make_failed(seed=1)]
    manifest: Manifest = locked.manifest()
    locked.write_tables(tables(Run(manifest=manifest, trials=trials, sessions=())))
    csv_text = (locked.path / "results.csv").read_text()
    assert csv_text.startswith("model,device,batch_size,variant,status,reason,seeds,test_accuracy,")
    assert len(csv_text.splitlines()) == 2
    assert json.loads((locked.path / "results.json").read_text())["rows"][0]["status"] == "oom"
    assert (locked.path / "results.md").read_text().startswith("# MNIST benchmark")
    assert len((locked.path / "epochs.csv").read_text().splitlines()) == 3


def test_known_runs_of_nowhere(tmp_path: Path) -> None:
    assert known_runs(tmp_path / "nowhere") == ()


def test_a_line_of_schema_1_is_still_read() -> None:
    record = codec.encode_trial(make_trial())
    assert record["outcome"].pop("final") is None
    assert codec.decode_trial(record) == make_trial()


def test_both_image_sets_round_trip() -> None:
    trial = make_trial(outcome=make_measurement(final=ImageSets(train=0.9196, test=0.9203)))
    record = codec.from_json(codec.to_json(codec.encode_trial(trial)))
    assert record["outcome"]["final"] == {"train": 0.9196, "test": 0.9203}
    assert codec.decode_trial(record) == trial


def test_records_of_every_status_round_trip() -> None:
    for outcome in OUTCOMES:
        trial: Trial = make_trial(outcome=outcome)
        assert codec.decode_trial(codec.from_json(codec.to_json(codec.encode_trial(trial)))) == trial
