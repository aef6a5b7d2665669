"""Runs on disk: ``results/<run-id>/`` with its manifest, trials, sessions and tables.

Readers need no lock: whole files are replaced atomically, and a torn last line is not read. One writer at a time. What
is read may come from a stranger: it must be such a record, and no link in the folder is followed.
"""

import contextlib
import dataclasses
import fcntl
import gc
import io
import json
import math
import os
import re
import secrets
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from mnist_bench.cells import trials_of
from mnist_bench.disk import files
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.records import MAX_CELLS, Manifest, Measurement, Session, Trial, decode, encode, group_id, trial_id
from mnist_bench.table import listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA_VERSION = 2
MANIFEST, TRIALS, SESSIONS = "manifest.json", "trials.jsonl", "sessions.jsonl"
RESULTS = "results.json"  # the table that the history reads
MANIFEST_LIMIT, LINES_LIMIT = 256 << 20, 2 << 30  # bytes of a manifest, and of a file of lines
LINE_LIMIT = 4096  # bytes of a line of trials.jsonl, newline included
SIGNIFICANT_DIGITS = 6  # of a figure on disk: finer than any clock here, and 50 epochs fit a line
FOLDERS = ("logs", "samples")
LATEST = "latest"
MOST_LISTED = 10
# What a killed writer may leave in a results folder. It may hold other people's files: only names that are made here.
_HIDDEN = re.compile(r"\.(latest|\d{8}T\d{6}Z-[a-z0-9]{6})\.\d+\.[0-9a-f]{8}\.tmp")

# A file of raw step times. A sample of warm-up or session holds a duration in ``done_ns`` (``loaded_ns`` is 0); one of
# training holds two stamps.
SAMPLES = [("phase", "u1"), ("index", "u4"), ("loaded_ns", "i8"), ("done_ns", "i8")]
WARMUP, SESSION, TRAINING = 0, 1, 2  # ``phase`` of a sample
SAMPLES_LIMIT = 1 << 30  # bytes

Line = TypeVar("Line", bound=Trial | Session)
_DECODERS: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (Trial, Session)}
_FILES: dict[type, str] = {Trial: TRIALS, Session: SESSIONS}
# Of a measurement what is often equal to another's.
OFTEN_EQUAL = (
    *("class_", "predictions_sha256", "order_sha256", "device_name"),
    *("loss_trace", "train_samples", "eval_samples"),
)


def new_run_id() -> str:
    """UTC time and 6 random characters: ``20261123T101500Z-a1b2c3``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def known_runs(output_dir: Path) -> tuple[str, ...]:
    """The names of the runs in a results folder, oldest first (their ids begin with the time)."""
    try:
        entries = list(output_dir.iterdir())
    except OSError:
        return ()
    runs = [e.name for e in entries if not e.name.startswith(".") and not e.is_symlink() and (e / MANIFEST).is_file()]
    return tuple(sorted(runs))


class RunFolder:
    """One run on disk. Make it with ``create`` or ``open``; write to it inside ``with folder.lock():``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, output_dir: Path, manifest: Manifest, fill: Callable[[Path], None] = lambda hidden: None) -> Self:
        """Makes ``output_dir/<run-id>/`` and points ``latest`` to it.

        The folder is made under a hidden name and renamed: no run ever stands without its manifest, nor without what
        ``fill`` writes into the hidden folder (which has its manifest, ``logs/`` and ``samples/`` by then). Hidden
        folders of writers that were killed are removed.

        Raises:
            UsageError: the folder cannot be made, or is there already.
        """
        final = output_dir / manifest.run_id
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            _sweep(output_dir)
            with files.locked(os.open(output_dir, os.O_RDONLY), fcntl.LOCK_SH):
                with files.replacing(final) as hidden:
                    for name in FOLDERS:
                        (hidden / name).mkdir(parents=True)
                    files.write_atomically(hidden / MANIFEST, encode(manifest, indent=2))
                    fill(hidden)
                point_latest(output_dir, manifest.run_id)
        except OSError as error:
            raise no_place(output_dir, error) from error
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
            return _manifest(files.read_regular(path, MANIFEST_LIMIT))
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror or error}; is this a run folder?") from error
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from error

    def update_manifest(self, **changes: Any) -> Manifest:
        """Replaces fields of the manifest (``status="complete"``, ``ended_at=...``) and returns the new one."""
        manifest = dataclasses.replace(self.manifest(), **changes)
        files.write_atomically(self.path / MANIFEST, encode(manifest, indent=2))
        return manifest

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes this process the one writer of the run; what a killed one left half written goes.

        Raises:
            UsageError: another process is writing this run, or nobody can.
        """
        try:
            for name in FOLDERS:
                self.own_folder(name).mkdir(exist_ok=True)
            descriptor = files.open_regular(self.path / ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written to: {error.strerror or error}") from error
        with files.locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) as got:
            if not got:
                raise UsageError(f"{self.path}: another process is writing this run; wait for it, or stop it")
            for torn in self.path.glob(".*.tmp"):
                files.remove(torn)
            yield

    def append(self, record: Line) -> Line:
        """Writes a trial or a session as one line, durably; returns it as it now stands on disk (figures of 6 digits).

        A reason that is too long ends in an ellipsis; of too many disturbances the first are kept.

        Raises:
            BenchError: a trial's line is over 4,096 bytes all the same.
            OSError: the disk is full or broken.
        """
        values = json.loads(encode(record), parse_float=_rounded)
        line, kind = encode(_fitting(values) if isinstance(record, Trial) else values), type(record)
        stored: Line = _DECODERS[kind].decode(line)  # what cannot be read back is not written
        files.append_line(self.path / _FILES[kind], line)
        return stored

    def write_lines(self, kind: type[Line], records: Iterable[Line]) -> None:
        """Writes all trials, or all sessions, of a run at once."""
        files.write_atomically(self.path / _FILES[kind], b"".join(map(encode, records)))

    def trials(self) -> tuple[Trial, ...]:
        """The finished trials in the order of their ends; of two lines for one trial the first holds.

        Raises:
            UsageError: a line in the middle is broken, or of another run; the message names file and line.
        """
        manifest = self.manifest()
        known = set(manifest.trials)

        def own_id(trial: Trial) -> str:
            if not manifest.check and (trial.id not in known or trial.id != trial_id(trial.cell, trial.seed)):
                raise ValueError(f"id: {trial.id!r} is no trial of this run")
            return trial.id

        return self._read(Trial, own_id)

    def sessions(self) -> tuple[Session, ...]:
        """The finished sessions in order; of two with the same group and members the first holds. As ``trials``."""
        return self._read(Session, lambda session: (session.group, session.members))

    def own_folder(self, name: str) -> Path:
        """A folder in that of the run, which may be missing; raises UsageError where it is a link, or no folder."""
        if (place := self.path / name).is_symlink() or (place.exists() and not place.is_dir()):
            raise UsageError(f"{place}: must be a folder of the run's own, and no link: remove it")
        return place

    def sizes(self) -> dict[str, int]:
        """The bytes of the files that its tables are made of; 0 of one that is not there."""
        found = dict.fromkeys((MANIFEST, TRIALS, SESSIONS), 0)
        for name in found:
            with contextlib.suppress(OSError):
                found[name] = os.lstat(f"{self.path}/{name}").st_size
        return found

    def write_tables(self, texts: Mapping[str, Iterable[str]]) -> None:
        """Writes tables, in parts by the names of their files, each atomically."""
        for name, parts in texts.items():
            files.write_atomically(self.path / name, (part.encode("utf-8", "backslashreplace") for part in parts))

    def log_path(self, trial_id: str) -> Path:
        """Where the worker of a trial prints to."""
        return self.path / "logs" / f"{file_name(trial_id)}.log"

    def samples_path(self, trial_id: str) -> Path:
        """Where a trial's raw step stamps go."""
        return self.path / "samples" / f"{file_name(trial_id)}.npy"

    def session_ms(self, trial_id: str) -> "NDArray[np.float64] | None":
        """The durations of a trial's single steps in its timing session, shape (n,), ms, in their order; None: no file.

        Raises:
            ValueError: it is no file of samples; the message names it.
        """
        import numpy as np  # here: most commands have no use for it

        path = self.samples_path(trial_id)
        try:
            rows = np.load(io.BytesIO(files.read_regular(path, SAMPLES_LIMIT)), allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, MemoryError) as error:  # a header may promise more than there is
            raise ValueError(f"{path}: cannot be read as samples: {error}") from error
        if rows.dtype != np.dtype(SAMPLES) or rows.ndim != 1:
            raise ValueError(f"{path}: holds {rows.dtype} of shape {rows.shape}, not samples")
        durations: NDArray[np.float64] = rows["done_ns"][rows["phase"] == SESSION] * 1e-6
        return durations

    @property
    def check_path(self) -> Path:
        """Where the last check of the run against a baseline goes."""
        return self.path / "check.json"

    def _read(self, kind: type[Line], key: Callable[[Line], Hashable]) -> tuple[Line, ...]:
        """The lines of a file, of several with one key the first; ``key`` may refuse one by a ValueError."""
        path, decode_line = self.path / _FILES[kind], _DECODERS[kind].decode
        found: dict[Hashable, Line] = {}
        once: dict[Any, Any] = {name: name for name in self.manifest().trials}
        try:
            with no_garbage():
                for number, line in enumerate(files.read_lines(path, LINES_LIMIT), start=1):
                    try:
                        if line.strip():
                            record = decode_line(line)
                            _share(record, once)
                            found.setdefault(key(record), record)
                    except (ValueError, RecursionError) as error:
                        mend = f"mend it from a copy, or delete it and measure again with --resume {self.run_id}"
                        raise UsageError(f"{path}:{number}: broken line: {error}; {mend}") from error
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
        return tuple(found.values())


def no_place(output_dir: Path, error: OSError) -> UsageError:
    """What a person is told where no run can be made."""
    detail = error.strerror or str(error)
    return UsageError(f"{output_dir}: a run cannot be made here: {detail}; choose another folder with --output-dir")


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """While thousands of records are made there is none: to look for it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what was made counts as old, and is not looked through now
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def file_name(trial_id: str) -> str:
    """A trial id as a file name: ``mlp/cuda:0/b100/eager/s0`` becomes ``mlp+cuda=0+b100+eager+s0``.

    Names hold neither ``+`` nor ``=`` (the matrix refuses them), so no two trials share a file; whatever else a file
    system might mind is percent-encoded.
    """
    return quote(trial_id.replace("/", "+").replace(":", "="), safe="+=@")


def point_latest(output_dir: Path, run_id: str) -> None:
    """Makes ``latest`` a link to this run, atomically; where there are no links, the newest run is the latest."""
    latest = output_dir / LATEST
    if latest.is_dir() and not latest.is_symlink():
        raise UsageError(f"{latest}: is a folder, but the name is taken by the newest run: rename it")
    with contextlib.suppress(PermissionError), files.replacing(latest) as hidden:
        hidden.symlink_to(run_id)


@lru_cache(maxsize=2)  # a command reads it several times, and of 100,000 trials that takes seconds
def _manifest(data: bytes) -> Manifest:
    document = decode(data, dict[str, Any])
    if isinstance(version := document.get("schema_version"), int) and version > SCHEMA_VERSION:
        raise ValueError(
            f"written by a newer mnist_bench (schema {version}; this one reads up to {SCHEMA_VERSION}): upgrade it"
        )
    manifest = msgspec.convert(document, Manifest)
    if manifest.check is None:
        _demand_own_trials(manifest)
    return manifest


def _demand_own_trials(manifest: Manifest) -> None:
    """Raises ValueError where a trial or a group is none of the manifest's own matrix."""
    matrix = manifest.matrix
    axes = (matrix.models, matrix.devices, matrix.batch_sizes, matrix.variants)
    if math.prod(map(len, axes)) > MAX_CELLS or max(len(matrix.include), len(matrix.seeds)) > MAX_CELLS:
        raise ValueError(f"matrix: more than {MAX_CELLS:,} cells or seeds")
    known = trials_of(matrix)
    if foreign := set(manifest.trials) - known.keys():
        raise ValueError(f"trials: {min(foreign)!r} is not of its matrix")
    if foreign := set(manifest.order) - {group_id(*pair) for pair in known.values()}:
        raise ValueError(f"order: {min(foreign)!r} is not of its matrix")


def _share(record: Trial | Session, once: dict[Any, Any]) -> None:
    """What many lines have in common becomes objects that are there ``once``: a third of their memory.

    In place, which a record is that nobody has seen yet: to make another of each takes as long as to read it.
    """
    if isinstance(record, Trial):
        for name in ("id", "cell", "dataset", "dataset_sha256", "started_at", "ended_at", "node"):
            object.__setattr__(record, name, once.setdefault(value := getattr(record, name), value))
        if isinstance(outcome := record.outcome, Measurement):
            for name in OFTEN_EQUAL:
                value = getattr(outcome, name)
                msgspec.structs.force_setattr(outcome, name, once.setdefault((name, value), value))
            numerics = outcome.numerics  # 1 and 1.0 and True are equal, and not the same
            key = repr(numerics)
            msgspec.structs.force_setattr(outcome, "numerics", once.setdefault(key, numerics))
    else:
        members = tuple(once.setdefault(name, name) for name in record.members)
        object.__setattr__(record, "members", members)
        for name in ("steps", "peaks", "traces"):
            own = getattr(record, name)
            object.__setattr__(record, name, {once.get(member, member): value for member, value in own.items()})
        for each in record.rounds:
            for name in ("order", "steps"):
                object.__setattr__(each, name, once.setdefault(value := getattr(each, name), value))


def _rounded(figure: str) -> float:
    return float(f"{float(figure):.{SIGNIFICANT_DIGITS}g}")


def _fitting(values: dict[str, Any]) -> dict[str, Any]:
    """A trial's values so that its line is short enough."""
    if len(encode(values)) <= LINE_LIMIT:
        return values
    key = "reason" if "reason" in values["outcome"] else "noisy"
    whole = values["outcome"][key]

    def shortened(kept: int) -> dict[str, Any]:
        left = whole[:kept].rstrip() + "…" if key == "reason" else [*whole[:kept], f"and {len(whole) - kept} more"]
        return {**values, "outcome": {**values["outcome"], key: left}}

    kept = bisect_right(range(len(whole)), LINE_LIMIT, key=lambda count: len(encode(shortened(count)))) - 1
    if kept < 0:
        raise BenchError(f"trial {values['id']}: its line is over {LINE_LIMIT} bytes: use shorter names")
    return shortened(kept)


def _sweep(output_dir: Path) -> None:
    """Removes what killed writers left behind; nothing while a run is being made, or where folders cannot be locked.

    Whoever makes a run holds a shared lock on the results folder; the kernel gives it up when the process ends,
    whatever its end. Who gets the lock for itself alone knows that every hidden run is a dead writer's.
    """
    with files.locked(os.open(output_dir, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        for path in output_dir.iterdir() if alone else ():
            if _HIDDEN.fullmatch(path.name):
                files.remove(path)


def _find(output_dir: Path, reference: str) -> Path:
    runs = known_runs(output_dir)
    if reference in runs:
        return output_dir / reference
    path = output_dir / LATEST if reference == LATEST else Path(reference).expanduser()
    path = path.parent if path.name == MANIFEST else path
    if reference and (path / MANIFEST).is_file():
        return path.resolve()
    if reference == LATEST and runs:  # the link is gone, or names a run that was deleted
        return output_dir / runs[-1]
    if reference == LATEST:
        raise UsageError(f"no run in {output_dir} yet: `mnist-bench run` makes one, or name another --output-dir")
    matches = [run for run in runs if reference and run.startswith(reference)]
    if len(matches) == 1:
        return output_dir / matches[0]
    if matches:
        raise UsageError(f"run {reference!r} is ambiguous in {output_dir}: {listed(matches[::-1], MOST_LISTED)}")
    known = f"known: {listed(runs[::-1], MOST_LISTED)}" if runs else "it holds none"
    raise UsageError(f"no run {reference!r} in {output_dir} ({known}), nor a run folder of that path")
