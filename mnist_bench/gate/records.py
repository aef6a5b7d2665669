"""The frozen records of the gate: what was measured of a cell on two sides, and what follows from it.

Units are in the names, as in ``mnist_bench.records``. Accuracy is a fraction in [0, 1]; ``log_ratio`` is
ln(seconds per step, B / A).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from pydantic import PlainSerializer, PlainValidator

from mnist_bench.analysis.summary import FloorResult
from mnist_bench.records import Cell, Failure, Round, Skip
from mnist_bench.stats import Interval

Side = Literal["A", "B"]
Mode = Literal["against", "baseline"]
VerdictKind = Literal["pass", "improvement", "new", "regression", "missing", "failed", "inconclusive", "not_comparable"]
Decision = Literal["fail", "pass", "improvement", "undecided"]

CHECK_SCHEMA_VERSION = 2  # of check.json: a changed record bumps it


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """What is tolerated, what is certified, and how often each may be wrong.

    Args:
        margin: a cell fails when a ratio <= 1 + margin is rejected.
        detect: it passes when a ratio >= 1 + detect is rejected.
        alpha: chance of a false alarm of speed over all cells and looks.
        drop: of accuracy; a cell fails when a drop beyond it is shown.
        drop_detect: it passes when a drop of so much is rejected.
        drop_alpha: the level of both.
    """

    margin: float = 0.03
    detect: float = 0.10
    alpha: float = 0.01
    drop: float = 0.0005
    drop_detect: float = 0.003
    drop_alpha: float = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPair:
    """One fresh process of each side, alive together, passing the token: the unit of replication.

    ``log_ratio`` is the median over ``rounds`` of ln(seconds per step, B / A); each round's members are (A, B).
    ``noisy`` are the disturbances found, each in words.
    """

    number: int
    log_ratio: float
    rounds: tuple[Round, ...]
    noisy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One side trained with one seed in deterministic mode. ``images``: scored in one evaluation."""

    accuracy: float
    images: int
    predictions_sha256: str
    device_name: str
    compile_s: float | None
    time_to_first_step_s: float
    train_samples_per_s: float
    eval_samples_per_s: float
    host_peak_bytes: int
    device_peak_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPair:
    """Both sides trained with one seed."""

    seed: int
    a: Training
    b: Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Solo:
    """B trained alone with one seed, where there is nothing to compare it with."""

    seed: int
    b: Training


Fault = Annotated[
    Failure | Skip,
    PlainValidator(lambda value: msgspec.convert(value, Failure | Skip)),
    PlainSerializer(msgspec.to_builtins),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFault:
    """What went wrong with one side of a cell: it failed, or this machine cannot execute it."""

    side: Side
    outcome: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLogRatio:
    """What one session says of a cell against its reference variant, which it timed together.

    ``log_ratio`` is ln(seconds per step, this cell / reference); ``sd`` is its standard error, with what differs
    between two processes of the same code in it (``PROCESS_SD``).
    """

    seed: int
    log_ratio: float
    sd: float
    rounds: int
    noisy: bool = False  # the machine was disturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioEvidence:
    """Mode ``baseline``: the sessions' ratios of a cell to its reference, on both sides. ``reference`` is a cell's id.

    A side without sessions was never timed together with its reference; ``why_none`` says why.
    """

    reference: str
    a: tuple[SessionLogRatio, ...]
    b: tuple[SessionLogRatio, ...]
    why_none: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvidence:
    """All that was measured of one cell.

    Args:
        sides: where the cell is in the matrix.
        differences: why its sides may not be compared, each in words; empty: they may.
        faults: at most one of each side; the cell is measured no further then.
        solo: of a cell that only B has, whose sides differ, or whose reference failed: that it works, its floors.
        min_accuracy: B's floor of ``expect``, the highest that applies.
        min_train_samples_per_s: likewise.
        ratios: mode ``baseline``; None there: the cell is itself the reference variant, its accuracy alone decides.
        floors: mode ``baseline``: B's figures against its floors of ``expect``, whatever else is comparable.
        figures: mode ``baseline``: what is shown beside the verdict.
    """

    cell: Cell
    sides: Literal["both", "only A", "only B"] = "both"
    differences: tuple[str, ...] = ()
    faults: tuple[SideFault, ...] = ()
    pairs: tuple[ProcessPair, ...] = ()
    seeds: tuple[SeedPair, ...] = ()
    solo: Solo | None = None
    min_accuracy: float | None = None
    min_train_samples_per_s: float | None = None
    ratios: RatioEvidence | None = None
    floors: tuple[FloorResult, ...] = ()
    figures: tuple[Advisory, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedFinding:
    """What the pairs say. ``ratio`` is exp(Hodges-Lehmann estimate) with its 95 % interval, B / A.

    In mode ``baseline`` the ratio is that of two ratios, and ``pairs`` the sessions (``unit``) of the side with fewer.
    ``next_look`` is the number of pairs at which the cell is looked at again; None: no more looks.
    """

    decision: Decision
    ratio: Interval
    pairs: int
    p_slower: float  # of H0: ratio <= 1 + margin
    p_within: float  # of H0: ratio >= 1 + detect
    alpha: float  # the level of one test at one look
    next_look: int | None
    unit: Literal["pair", "session"] = "pair"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyFinding:
    """What the seeds say. ``change`` is the mean of B - A over the seeds that differ, with its 95 % interval.

    ``identical`` counts the seeds with equal predictions, ``seeds`` all of them.
    """

    decision: Decision
    a: float
    b: float
    change: Interval
    seeds: int
    identical: int
    more_seeds: int  # how many more are needed for a decision, about; 0: decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """A figure that is shown and decides nothing: medians of both sides, in ``unit``."""

    name: str
    unit: str
    a: float
    b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict of one cell. ``text`` is a sentence for a person who knows no statistics."""

    cell: Cell
    kind: VerdictKind
    text: str
    speed: SpeedFinding | None = None
    accuracy: AccuracyFinding | None = None
    advisories: tuple[Advisory, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SideInfo:
    """Where a side's code came from. ``changed``: files that differ from the commit (the working tree)."""

    label: str  # what the user typed, or "working tree"
    commit: str | None
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check, whole: its verdicts follow from this record alone.

    ``started_at`` and ``ended_at`` are UTC labels (ISO 8601); ``spent_s`` is wall time over all sittings.
    """

    id: str
    schema_version: int
    program_version: str
    mode: Mode
    status: Literal["running", "complete", "interrupted"]
    a: SideInfo
    b: SideInfo
    matrix_path: str
    dataset: str
    recipe: str
    margins: Margins
    cells: tuple[CellEvidence, ...]
    started_at: str
    ended_at: str | None = None
    budget_s: float | None = None
    spent_s: float = 0.0
    notes: tuple[str, ...] = field(default=())  # of the whole check, for a person
