"""What the history keeps of a run: its rows, and for each what it may be compared with. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mnist_bench.analysis.keys import Key, digest, key_of, settings
from mnist_bench.analysis.summary import Run
from mnist_bench.figures import Row
from mnist_bench.records import Cell, Manifest, Measurement, Session, Trial

SHA_DIGITS = 16  # of the digests below: enough to tell a cell's series apart


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """A row of a run and its place among other runs.

    ``series``: a digest of the comparability key; empty where nothing was measured, for the key holds what only a
    measurement knows (the GPU, the threads). ``base``: a digest of what is known without one. ``machine`` and
    ``setup``: the same for people.
    """

    row: Row
    series: str
    base: str
    machine: str
    setup: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as the history keeps it. ``merged_from``: ids of the runs that it was made of, by ``merge``."""

    status: str
    started_at: str
    commit: str | None
    dirty: bool
    planned: int
    finished: int
    merged_from: tuple[str, ...]
    cells: tuple[CellRecord, ...]


def record(manifest: Manifest, trials: Sequence[Trial], sessions: Sequence[Session]) -> RunRecord:
    """A run in the words of the history.

    Raises:
        UsageError: a trial's model or variant is none of the run's matrix.
    """
    return RunRecord(
        status=manifest.status,
        started_at=manifest.started_at,
        commit=manifest.environment.commit,
        dirty=manifest.environment.dirty,
        planned=len(manifest.trials),
        finished=len(trials),
        merged_from=manifest.options.merged_from,
        cells=tuple(
            _cell(manifest, row, trials) for row in Run(manifest=manifest, trials=trials, sessions=sessions).rows
        ),
    )


def machine_label(gpu: str | None, cpu: str, cores: int, torch: str | None) -> str:
    """``AMD EPYC 9B14, 2 cores, torch 2.13.0``: the device that computed, and with what."""
    device = gpu or f"{_short(cpu)}, {cores} core{'s' if cores != 1 else ''}"
    return device if torch is None else f"{device}, torch {torch}"


def _cell(manifest: Manifest, row: Row, trials: Sequence[Trial]) -> CellRecord:
    key = _key(manifest, row.cell, trials)
    environment = manifest.environment
    epochs = manifest.matrix.epochs
    base = {
        "cell": digest(settings(manifest.matrix, row.cell)),
        "cpu": environment.cpu,
        "cores": environment.cores,
        "torch": environment.packages.get("torch"),
        "recipe": manifest.matrix.recipe,
        "epochs": epochs,
        "dataset": manifest.dataset.sha256,
    }
    return CellRecord(
        row=row,
        series=_digest(asdict(key)) if key else "",
        base=_digest(base),
        machine=machine_label(
            key.gpu if key else None, environment.cpu, environment.cores, environment.packages.get("torch")
        ),
        setup=f"{row['dataset']}, {row['recipe']}, {epochs} epoch{'s' if epochs != 1 else ''}",
    )


def _key(manifest: Manifest, cell: Cell, trials: Sequence[Trial]) -> Key | None:
    """The comparability key of a cell, by its first measurement."""
    for trial in trials:
        if trial.cell == cell and isinstance(trial.outcome, Measurement):
            return key_of(manifest, cell, trial.outcome)
    return None


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:SHA_DIGITS]


def _short(cpu: str) -> str:
    """A processor's name without trade marks, ``CPU`` and its nominal frequency."""
    return " ".join(re.sub(r"\((R|TM|tm|r)\)|\bCPU\b|\bProcessor\b|@.*|\b\d+-Core\b", " ", cpu).split())
