"""Checks on disk: ``results/checks/<check-id>/`` with its head, a durable line for all that was measured, and the end.

Readers need no lock, a torn last line is not read, and one process writes at a time: as runs are kept (``store``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
from filelock import FileLock, Timeout

from mnist_bench.checks.ledger import Ledger, Line
from mnist_bench.disk.files import append_line, sync_folder, whole_lines, write_atomically
from mnist_bench.disk.folder import point_latest
from mnist_bench.errors import UsageError
from mnist_bench.gate.records import CellEvidence, Check, Margins, SideInfo
from mnist_bench.records import DataSet, Recipe, decode, encode

CHECKS = "checks"  # in the output folder; it holds no manifest.json, so it is no run
HEAD = "head.json"
RESULT = "check.json"
LATEST = "latest"
LINES = {"pair": "pairs.jsonl", "seed": "seeds.jsonl", "solo": "solos.jsonl", "fault": "faults.jsonl"}
Status = Literal["running", "complete", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a check set out to do: ``head.json``.

    Args:
        cells: as planned, nothing measured.
        content_sha256: of the working tree's changed files.
        untracked: files that git does not know, which are part of it; percent-encoded (names need not be UTF-8).
        options: those that a resumed check takes over.
        spent_s: of the budget, by the end of the last sitting.
    """

    id: str
    schema_version: int
    program_version: str
    status: Status
    a: SideInfo
    b: SideInfo
    content_sha256: str
    untracked: tuple[str, ...]
    matrix_path: str
    dataset: DataSet
    recipe: Recipe
    margins: Margins
    cells: tuple[CellEvidence, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Any]
    budget_s: float
    started_at: str
    ended_at: str | None = None
    spent_s: float = 0.0
    notes: tuple[str, ...] = ()


class CheckFolder:
    """One check on disk. Make it with ``create`` or ``open``; write to it inside ``with folder.lock():``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", thread_local=False)

    @classmethod
    def create(cls, output_dir: Path, head: Head) -> Self:
        """Makes ``output_dir/checks/<id>/``, whole from its first instant, and points ``latest`` to it.

        Raises:
            UsageError: it cannot be made.
        """
        parent = output_dir / CHECKS
        final, hidden = parent / head.id, parent / f".{head.id}.{os.getpid()}.tmp"
        try:
            (hidden / "logs").mkdir(parents=True)
            try:
                write_atomically(hidden / HEAD, encode(head, indent=2))
                hidden.rename(final)
            except BaseException:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            sync_folder(parent)
            point_latest(parent, head.id)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"{parent}: a check cannot be made here: {reason}; choose another folder with --output-dir"
            ) from error
        return cls(final)

    @classmethod
    def open(cls, output_dir: Path, reference: str) -> Self:
        """Finds a check by ``latest``, its id, a unique beginning of its id, or a path.

        Raises:
            UsageError: there is none, or several, or its head cannot be read.
        """
        folder = cls(_find(output_dir / CHECKS, reference))
        folder.head()
        return folder

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def result(self) -> Path:
        return self.path / RESULT

    def head(self) -> Head:
        path = self.path / HEAD
        try:
            return decode(path.read_bytes(), Head)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror or error}; is this a check's folder?") from error
        except ValueError as error:
            raise UsageError(f"{path}: {error}: another version wrote it, or it was edited") from error

    def update(self, **changes: Any) -> Head:
        head = replace(self.head(), **changes)
        write_atomically(self.path / HEAD, encode(head, indent=2))
        return head

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes this process the one writer of the check.

        Raises:
            UsageError: another process is writing it.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(f"{self.path}: another process is at this check; wait for it, or stop it") from error
        try:
            yield
        finally:
            self._lock.release()

    def append(self, line: Line) -> None:
        """Writes one line, durably."""
        (kind,) = (name for name in LINES if getattr(line, name) is not None)
        values = msgspec.to_builtins(line)
        record = {name: value for name, value in values.items() if name not in LINES or name == kind}
        append_line(self.path / LINES[kind], encode(record))

    def lines(self) -> tuple[Line, ...]:
        """All that was measured, pairs first; each kind in the order in which it was measured.

        Raises:
            UsageError: a line in the middle is broken.
        """
        return tuple(line for name in LINES.values() for line in self._read(self.path / name))

    def _read(self, path: Path) -> Iterator[Line]:
        for number, line in whole_lines(path):
            try:
                yield decode(line, Line)
            except ValueError as error:
                raise UsageError(
                    f"{path}:{number}: broken line: {error}; delete it, and measure again with "
                    f"--resume {self.path.name}"
                ) from error

    def ledger(self) -> Ledger:
        """The evidence so far; what is added to it is appended here.

        Raises:
            UsageError: a line is of no cell of this check.
        """
        ledger = Ledger(self.head().cells, self.append)
        for line in self.lines():
            try:
                ledger.take(line)
            except ValueError as error:
                raise UsageError(f"{self.path}: {error}: its files are of several checks") from error
        return ledger

    def spent_s(self) -> float:
        """Of the budget so far: a killed sitting has left it in its last line alone."""
        return max([self.head().spent_s, *(line.spent_s for line in self.lines())])

    def check(self) -> Check:
        """The record that the verdicts follow from, as it now stands on disk."""
        head = self.head()
        return Check(
            id=head.id,
            schema_version=head.schema_version,
            program_version=head.program_version,
            mode="against",
            status=head.status,
            a=head.a,
            b=head.b,
            matrix_path=head.matrix_path,
            dataset=head.dataset.name,
            recipe=head.recipe,
            margins=head.margins,
            cells=self.ledger().cells(),
            started_at=head.started_at,
            ended_at=head.ended_at,
            budget_s=head.budget_s,
            spent_s=self.spent_s(),
            notes=head.notes,
        )


def _find(parent: Path, reference: str) -> Path:
    known = _known(parent)
    if reference == LATEST and (parent / LATEST / HEAD).is_file():
        return (parent / LATEST).resolve()
    if reference == LATEST and known:  # the link is gone, or there are no links here
        return parent / known[-1]
    if reference in known:
        return parent / reference
    path = Path(reference).expanduser()
    if reference and (path / HEAD).is_file():
        return path.resolve()
    matches = [name for name in known if reference and name.startswith(reference)]
    if len(matches) == 1:
        return parent / matches[0]
    listed = ", ".join(reversed(known[-10:])) or "none"
    what = f"check {reference!r} is ambiguous" if matches else f"no check {reference!r}"
    raise UsageError(f"{what} in {parent} (known: {listed})")


def _known(parent: Path) -> list[str]:
    try:
        entries = list(parent.iterdir())
    except OSError:
        return []
    return sorted(e.name for e in entries if not e.name.startswith(".") and not e.is_symlink() and (e / HEAD).is_file())
