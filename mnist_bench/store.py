"""Runs on disk: ``results/<run-id>/`` with its manifest, trials, sessions and tables.

Readers need no lock: whole files are replaced atomically, and a torn last line is not read. One writer at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

from filelock import FileLock, Timeout

from mnist_bench import codec
from mnist_bench.codec import LINE_LIMIT, SCHEMA_VERSION
from mnist_bench.errors import UsageError
from mnist_bench.files import append_line, link_atomically, sync_folder, whole_lines, write_atomically
from mnist_bench.garbage import no_garbage
from mnist_bench.leavings import hidden_run, making, sweep
from mnist_bench.records import Manifest, Session, Trial
from mnist_bench.run_names import MANIFEST, known_runs

__all__ = ["LINE_LIMIT", "SCHEMA_VERSION", "RunFolder", "known_runs", "new_run_id", "point_latest"]

LATEST = "latest"

_T = TypeVar("_T")


def new_run_id(now: datetime, rng: random.Random) -> str:
    """UTC time and 6 random characters: ``20261123T101500Z-a1b2c3``. ``now`` must know its time zone."""
    if now.tzinfo is None:
        raise ValueError("a run id needs a time with its zone")
    suffix = "".join(rng.choices(string.ascii_lowercase + string.digits, k=6))
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{suffix}"


def point_latest(output_dir: Path, run_id: str) -> None:
    """Makes ``latest`` name this run, atomically: a symlink, or a text file where there are none."""
    latest = output_dir / LATEST
    if latest.is_dir() and not latest.is_symlink():
        raise UsageError(f"{latest}: is a folder, but the name is taken by the newest run: rename it")
    link_atomically(latest, run_id)


class RunFolder:
    """One run on disk. Make it with ``create`` or ``open``; write to it inside ``with folder.lock():``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Not per thread: the run has one writer, whichever thread of the process it is.
        self._lock = FileLock(path / ".lock", thread_local=False)

    @classmethod
    def create(cls, output_dir: Path, manifest: Manifest, fill: Callable[[Path], None] | None = None) -> Self:
        """Makes ``output_dir/<run-id>/`` and points ``latest`` to it.

        The folder is made under a hidden name and renamed: no run ever stands without its manifest, nor without what
        ``fill`` writes into the hidden folder (which has its manifest, ``logs/`` and ``samples/`` by then). Hidden
        folders of writers that were killed are removed.

        Raises:
            UsageError: the folder cannot be made, or is there already.
        """
        final = output_dir / manifest.run_id
        try:
            if final.exists():
                raise UsageError(f"{final}: is there already; resume it with --resume {manifest.run_id}")
            if not output_dir.exists():
                output_dir.mkdir(parents=True, exist_ok=True)
            sweep(output_dir)
            with making(output_dir):
                _make_folder(hidden_run(output_dir, manifest.run_id), final, manifest, fill)
                sync_folder(output_dir)
                point_latest(output_dir, manifest.run_id)
        except OSError as error:
            detail = error.strerror or str(error)
            raise UsageError(
                f"{output_dir}: a run cannot be made here: {detail}; choose another folder with --output-dir"
            ) from error
        return cls(final)

    @classmethod
    def open(cls, output_dir: Path, reference: str) -> Self:
        """Finds a run by ``latest``, its id, a unique beginning of its id, or a path.

        Raises:
            UsageError: there is none, or several, or its manifest cannot be read; the message lists what is known.
        """
        run = cls(_find(output_dir, reference))
        run.manifest()
        return run

    @property
    def run_id(self) -> str:
        return self.path.name

    def manifest(self) -> Manifest:
        """Raises UsageError where the manifest is missing, broken, or of a newer schema."""
        path = self.path / MANIFEST
        try:
            return codec.decode_manifest(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror or error}; is this a run folder?") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: {error}") from error

    def update_manifest(self, **changes: Any) -> Manifest:
        """Replaces fields of the manifest (``status="complete"``, ``ended_at=...``) and returns the new one."""
        self._require_lock()
        manifest = dataclasses.replace(self.manifest(), **changes)
        write_atomically(self.path / MANIFEST, codec.encode_manifest(manifest))
        return manifest

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes this process the one writer of the run.

        Raises:
            UsageError: another process is writing this run.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(f"{self.path}: another process is writing this run; wait for it, or stop it") from error
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written to: {error.strerror or error}") from error
        try:
            yield
        finally:
            self._lock.release()

    def append_trial(self, trial: Trial) -> Trial:
        """Writes one line, durably, and returns the trial as it now stands on disk (figures of 6 digits).

        A reason that is too long ends in an ellipsis; figures that are too many go to a file in ``samples/`` that
        reading merges again: nothing measured is lost.

        Raises:
            BenchError: the line is over 4,096 bytes all the same.
            OSError: the disk is full or broken.
        """
        self._require_lock()
        record, more = codec.fit_line(codec.encode_trial(trial))
        line = codec.to_json(record) + b"\n"
        stored = codec.decode_trial(codec.merge_line(record, more))  # what cannot be read back is not written
        if more:
            write_atomically(self._more_path(trial.id), codec.to_json(more) + b"\n")
        append_line(self.path / "trials.jsonl", line)
        return stored

    def append_session(self, session: Session) -> Session:
        """Writes one line, durably, and returns the session as it now stands on disk."""
        self._require_lock()
        record = codec.encode_session(session)
        stored = codec.decode_session(record)
        append_line(self.path / "sessions.jsonl", codec.to_json(record) + b"\n")
        return stored

    def trials(self) -> tuple[Trial, ...]:
        """The finished trials in the order of their ends; of two lines for one trial the first holds.

        Raises:
            UsageError: a line in the middle is broken; the message names file and line.
        """
        found: dict[str, Trial] = {}
        with no_garbage():
            for trial in self._read("trials.jsonl", self._decode_trial):
                found.setdefault(trial.id, trial)
        return tuple(found.values())

    def sessions(self) -> tuple[Session, ...]:
        """The finished sessions in order; of two with the same group and members the first holds. As ``trials``."""
        found: dict[tuple[str, tuple[str, ...]], Session] = {}
        with no_garbage():
            for session in self._read("sessions.jsonl", codec.decode_session):
                found.setdefault((session.group, session.members), session)
        return tuple(found.values())

    def write_tables(self, texts: Mapping[str, str]) -> None:
        """Writes ``results.csv``, ``results.md``, ``results.json`` and ``epochs.csv``, each atomically."""
        for name, text in texts.items():
            write_atomically(self.path / name, text.encode("utf-8", "backslashreplace"))

    def log_path(self, trial_id: str) -> Path:
        """Where the worker of a trial prints to."""
        return self.path / "logs" / f"{_file_name(trial_id)}.log"

    def samples_path(self, trial_id: str) -> Path:
        """Where a trial's raw step stamps go."""
        return self.path / "samples" / f"{_file_name(trial_id)}.npy"

    @property
    def report_path(self) -> Path:
        """Where the page of the run goes unless another place is named."""
        return self.path / "report.html"

    @property
    def check_path(self) -> Path:
        """Where the last check of the run against a baseline goes."""
        return self.path / "check.json"

    def _more_path(self, trial_id: str) -> Path:
        return self.path / "samples" / f"{_file_name(trial_id)}.json"

    def _decode_trial(self, record: dict[str, Any]) -> Trial:
        if not codec.is_partial(record):
            return codec.decode_trial(record)
        path = self._more_path(str(record.get("id")))
        try:
            more = codec.from_json(path.read_bytes())
        except OSError as error:
            raise ValueError(f"its figures in {path} cannot be read: {error.strerror or error}") from error
        return codec.decode_trial(codec.merge_line(record, more))

    def _read(self, name: str, decode: Callable[[dict[str, Any]], _T]) -> Iterator[_T]:
        path = self.path / name
        for number, line in whole_lines(path):
            try:
                yield decode(codec.from_json(line))
            except (ValueError, RecursionError) as error:
                raise UsageError(
                    f"{path}:{number}: broken line: {error}; mend it from a copy, or delete it and "
                    f"measure again with --resume {self.run_id}"
                ) from error

    def _require_lock(self) -> None:
        if not self._lock.is_locked:
            raise RuntimeError("a run is written to inside `with folder.lock():` only")


def _make_folder(hidden: Path, final: Path, manifest: Manifest, fill: Callable[[Path], None] | None) -> None:
    try:
        for name in ("logs", "samples"):
            (hidden / name).mkdir(parents=True)
        write_atomically(hidden / MANIFEST, codec.encode_manifest(manifest))
        if fill is not None:
            fill(hidden)
        hidden.rename(final)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _find(output_dir: Path, reference: str) -> Path:
    runs = known_runs(output_dir)
    if reference == LATEST:
        return _latest(output_dir, runs)
    if reference in runs:
        return output_dir / reference
    as_path = Path(reference).expanduser()
    if reference and (as_path / MANIFEST).is_file():
        return as_path.resolve()
    if reference and as_path.name == MANIFEST and as_path.is_file():
        return as_path.resolve().parent
    matches = [run for run in runs if reference and run.startswith(reference)]
    if len(matches) == 1:
        return output_dir / matches[0]
    if matches:
        raise UsageError(f"run {reference!r} is ambiguous in {output_dir}: {_listed(matches)}")
    raise UsageError(f"no run {reference!r} in {output_dir} ({_known(runs)}), nor a run folder of that path")


def _latest(output_dir: Path, runs: Sequence[str]) -> Path:
    latest = output_dir / LATEST
    if (latest / MANIFEST).is_file():
        return latest.resolve()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        name = latest.read_text(encoding="utf-8").strip()
        if name in runs:
            return output_dir / name
    if runs:  # the link is gone, or names a run that was deleted
        return output_dir / runs[-1]
    raise UsageError(f"no run in {output_dir} yet: `mnist-bench run` makes one, or name another --output-dir")


def _known(runs: Sequence[str]) -> str:
    return f"known: {_listed(runs)}" if runs else "it holds none"


def _listed(runs: Sequence[str], most: int = 10) -> str:
    newest = list(reversed(runs))
    more = f" and {len(newest) - most} more" if len(newest) > most else ""
    return ", ".join(newest[:most]) + more


def _file_name(trial_id: str) -> str:
    """A trial id as a file name: ``mlp/cuda:0/b100/eager/s0`` becomes ``mlp+cuda=0+b100+eager+s0``.

    Names hold neither ``+`` nor ``=`` (the matrix refuses them), so no two trials share a file; whatever else a file
    system might mind is percent-encoded.
    """
    return quote(trial_id.replace("/", "+").replace(":", "="), safe="+=")
