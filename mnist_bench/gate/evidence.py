"""The evidence of a check: what its lines say of every cell on two sides. Pure.

A is the reference, B the change. A check is a run whose trials and sessions have sides: a process pair is a session of
``@A`` and ``@B``, a seed is two trials, a fault is a trial that failed. A baseline is the same evidence, of side A
alone. Accuracy is a fraction in [0, 1]; a speed-up is a ratio of times, above 1 where the cell is the faster one.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from mnist_bench.analysis.keys import Key, settings
from mnist_bench.analysis.ratios import round_log_ratios
from mnist_bench.analysis.summary import Run
from mnist_bench.cells import expand, variant_of
from mnist_bench.errors import UsageError
from mnist_bench.figures import MIB, Row
from mnist_bench.records import Cell, Count, Manifest, Matrix, Measurement, Round, Session, Sides, Status, Tree, Trial
from mnist_bench.stats import median

PEAKS = ("host_peak_mib", "device_peak_mib")  # judged where the matrix asks for it, over the processes of the pairs
# What is shown beside the verdicts and decides nothing: columns of a run's table.
ADVISED = ("compile_s", "time_to_first_step_s", "eval_samples_per_s", "host_peak_mib", "device_peak_mib")
ADVISED_OF_RUNS = ("step_ms_p50", "train_samples_per_s", *ADVISED)  # a check's trainings are deterministic, thus slower

# What a stored figure can be at all: beyond, a file was edited, and a judge that took it would overflow.
Share = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0, le=1e30)]
Ratio = Annotated[float, Meta(ge=1e-20, le=1e20)]  # of two times
Peak = Annotated[float, Meta(ge=1e-6, le=1e15)]  # MiB
Deviation = Annotated[float, Meta(ge=1e-9, le=50)]  # of the log of a ratio
Line = Trial | Session


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the gate stores; a default is not written."""


class Margins(Record, frozen=True, kw_only=True):
    """What is tolerated, what is certified, and how often each may be wrong.

    Args:
        margin: a cell fails when a ratio <= 1 + margin is rejected.
        detect: it passes when a ratio >= 1 + detect is rejected.
        alpha: chance of a false alarm of speed over all cells and looks.
        drop: of accuracy; a cell fails when a drop beyond it is shown.
        drop_detect: it passes when a drop of so much is rejected.
        drop_alpha: the level of both.
        memory: of peak memory; a cell fails when a ratio <= 1 + memory is rejected, and passes when one >= 1 + 2 memory
            is, with a chance of a false alarm of its own that is alpha again; None: it is not judged.
    """

    margin: Amount = 0.03
    detect: Amount = 0.10
    alpha: Share = 0.01
    drop: Share = 0.0005
    drop_detect: Share = 0.003
    drop_alpha: Share = 0.005
    memory: Ratio | None = None

    def __post_init__(self) -> None:
        if not (self.margin < self.detect and self.drop < self.drop_detect and min(self.alpha, self.drop_alpha) > 1e-9):
            raise ValueError("margin < detect, drop < drop_detect and levels above 1e-9 are wanted")


class Training(Record, frozen=True, kw_only=True):
    """One side trained with one seed. ``images``: scored in one evaluation."""

    seed: int
    accuracy: Share
    images: Annotated[int, Meta(ge=1, le=2**53)]
    predictions_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPair:
    """Both sides trained with one seed. ``identical``: they predict the same, which is the exact tier."""

    a: Training
    b: Training

    @property
    def identical(self) -> bool:
        return self.a == self.b and self.a.predictions_sha256 != ""


class Pair(Record, frozen=True, kw_only=True):
    """One fresh process of each side, alive together, passing the token: the unit of replication.

    The members of each round are (A, B). ``noisy`` are the disturbances found, each in words. ``peaks`` are those of
    memory of (A, B) that were measured, by the figure's key. ``node``: of a cluster.
    """

    rounds: tuple[Round, ...]
    node: str = ""
    noisy: tuple[str, ...] = ()
    peaks: dict[str, tuple[Peak, Peak]] = {}

    def __post_init__(self) -> None:
        if not self.rounds or not all(map(_sound, self.rounds)):
            raise ValueError("a pair has rounds, each with an order, and with steps and seconds of A and of B")

    @property
    def log_ratio(self) -> float:
        """The median over rounds of ln(seconds per step, B / A)."""
        return median(round_log_ratios(self.rounds, 1, 0))


class SessionRatio(Record, frozen=True, kw_only=True):
    """What one session of a run says of a cell and its reference variant, which it timed together.

    ``sd`` is the standard error of the log, with what differs between two processes of the same code in it.
    """

    seed: int
    speedup: Ratio
    sd: Deviation
    rounds: Count
    noisy: bool = False  # the machine was disturbed


class SideEvidence(Record, frozen=True, kw_only=True):
    """One side of a cell: the worst of its trials, what its trainings gave, and figures that decide nothing.

    Args:
        run_id: of a run or a baseline; the rest as well.
        key: what a measurement must have in common with this one.
        reference: the id of the cell that its time is held against; empty: it is itself of the reference variant.
        reference_sha256: of that cell's settings and threads.
    """

    status: Status = "ok"
    reason: str = ""
    trainings: tuple[Training, ...] = ()
    figures: dict[str, Amount] = {}
    run_id: str = ""
    key: Key | None = None
    reference: str = ""
    reference_sha256: str = ""
    ratios: tuple[SessionRatio, ...] = ()

    def __post_init__(self) -> None:
        if len({one.seed for one in self.trainings}) < len(self.trainings):
            raise ValueError("a seed stands there twice")

    @property
    def failed(self) -> bool:
        return self.status not in ("ok", "skipped")


class CellEvidence(Record, frozen=True, kw_only=True):
    """All that was measured of one cell.

    Args:
        a: None: the reference has no such cell; ``b`` likewise.
        differences: why its sides may not be compared, each in words; empty: they may.
        margins_before: A's, where B's matrix has others.
        min_accuracy: B's floor of ``expect``, the highest that applies; over the seeds ``floor_seeds``, as in a run.
        min_train_samples_per_s: likewise, of ``samples_per_s``.
        samples_per_s: what B trains in a second; None: not measured (a deterministic training does not tell).
        why_no_ratio: why the sides' ratios to the reference variant cannot be held against each other.
    """

    cell: Cell
    a: SideEvidence | None = None
    b: SideEvidence | None = None
    differences: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    margins: Margins = Margins()
    margins_before: Margins | None = None
    min_accuracy: Share | None = None
    floor_seeds: tuple[int, ...] = ()
    min_train_samples_per_s: Amount | None = None
    samples_per_s: Amount | None = None
    why_no_ratio: str = ""

    @property
    def comparable(self) -> bool:
        """Whether the cell is on both sides, means the same there, and has not failed."""
        sound = all(side is not None and side.status == "ok" for side in (self.a, self.b))
        return sound and not self.differences

    @property
    def seeds(self) -> tuple[SeedPair, ...]:
        """Those that both sides were trained with, in that order."""
        if self.a is None or self.b is None:
            return ()
        after = {one.seed: one for one in self.b.trainings}
        return tuple(SeedPair(a=one, b=after[one.seed]) for one in self.a.trainings if one.seed in after)

    @property
    def seeds_awaited(self) -> tuple[int, ...]:
        """Those that the floor of accuracy is still to be held over."""
        if self.min_accuracy is None or self.b is None:
            return ()
        known = {one.seed for one in self.b.trainings}
        return tuple(seed for seed in self.floor_seeds if seed not in known)


class Check(Record, frozen=True, kw_only=True):
    """One check, whole: its verdicts follow from this record alone. Times are UTC labels (ISO 8601)."""

    id: str
    program_version: str
    mode: Literal["against", "baseline"]
    status: Literal["running", "complete", "interrupted"]
    a: Tree
    b: Tree
    matrix_path: str
    dataset: str
    recipe: str
    cells: tuple[CellEvidence, ...]
    started_at: str
    ended_at: str | None = None
    budget_s: Amount | None = None
    spent_s: Amount = 0.0  # wall time over all sittings
    notes: tuple[str, ...] = ()  # of the whole check, for a person

    def __post_init__(self) -> None:
        if len({one.cell for one in self.cells}) < len(self.cells):
            raise ValueError("a cell stands there twice")


# ── a check's folder -> evidence ─────────────────────────────────────────────────────────────────────────────────────


def gather(run: Run) -> Check:
    """The check as its manifest and lines tell it, in the order in which they were written.

    Args:
        run: with a ``check`` in its manifest; a session is a process pair, its ``group`` the cell's id.

    Raises:
        UsageError: a line is none of the check; the message names its file and field.
    """
    manifest, check = run.manifest, run.manifest.check
    status = "running" if manifest.status == "stopped" else manifest.status
    own = {name: getattr(check, name) for name in ("a", "b", "budget_s", "spent_s", "notes")}
    version = manifest.program_version
    try:
        cells = tuple(measured(manifest, *known) for known in by_cell(run).values())
        return check_of(manifest, program_version=version, mode="against", status=status, cells=cells, **own)
    except ValueError as error:
        raise UsageError(
            f"check {manifest.run_id}: a broken line: {error}; restore its files, or start anew"
        ) from error


def check_of(manifest: Manifest, **more: Any) -> Check:
    """A check of what a run has measured; ``more``: what the run does not say."""
    return Check(
        id=manifest.run_id,
        matrix_path=manifest.matrix_path,
        dataset=manifest.dataset.name,
        recipe=manifest.matrix.recipe,
        started_at=manifest.started_at,
        ended_at=manifest.ended_at,
        **more,
    )


def rules_of(matrix: Matrix, cell: Cell) -> dict[str, Any]:
    """What B's matrix asks of a cell: fields of its evidence."""
    floors = [floor for floor in matrix.expect if floor.matches(cell)]
    rates = [floor.min_train_samples_per_s for floor in floors if floor.min_train_samples_per_s is not None]
    accuracies = [floor.min_accuracy for floor in floors if floor.min_accuracy is not None]
    return {
        "margins": margins_of(matrix, cell),
        "min_accuracy": max(accuracies, default=None),
        "floor_seeds": matrix.seeds if accuracies else (),
        "min_train_samples_per_s": max(rates, default=None),
    }


def margins_of(matrix: Matrix, cell: Cell) -> Margins:
    """Those of the first rule of ``gate`` that matches."""
    rule = next((rule for rule in matrix.gate if rule.matches(cell)), None)
    return Margins(margin=rule.margin, detect=rule.detect, memory=rule.memory) if rule else Margins()


def side_of(row: Row, trials: Iterable[Trial], names: Iterable[str]) -> SideEvidence:
    """One side of a cell: its row and its trials; ``names``: the figures that are shown beside the verdict."""
    trainings = tuple(
        Training(
            seed=trial.seed,
            accuracy=trial.outcome.epochs.accuracy[-1],
            images=max(1, round(trial.outcome.eval_samples / len(trial.outcome.epochs.accuracy))),
            predictions_sha256=trial.outcome.predictions_sha256,
        )
        for trial in trials
        if isinstance(trial.outcome, Measurement)
    )
    shown = {name: row[name] for name in names if row[name] is not None}
    return SideEvidence(status=row.status, reason=row.reason, trainings=trainings, figures=shown)


def differences(a: Matrix, b: Matrix, cell: Cell) -> Iterator[str]:
    """What a cell's names stand for on each side, where it is not the same; and what cannot be paired."""
    before, after = (
        settings(side, cell)
        | {"threads": variant_of(side, cell.variant).threads or "all cores"}
        | {"recipe": side.recipe, "epochs": side.epochs}
        for side in (a, b)
    )
    yield from (f"{name}: {before[name]} in A, {after[name]} in B" for name in before if before[name] != after[name])
    if workers := variant_of(b, cell.variant).workers:
        yield f"workers: {workers}: loader processes work out of turn, so no pair can be timed; check with workers: 0"


def by_cell(run: Run) -> dict[Cell, tuple[CellEvidence, list[Line]]]:
    """What is known of every cell before anything is measured, and its lines.

    Raises:
        ValueError: a line of no cell that its side has, or a cell that stands there twice.
    """
    check = run.manifest.check
    assert check is not None
    found: dict[Cell, tuple[CellEvidence, list[Line]]] = {one.cell: (one, []) for one in _planned(run.manifest, check)}
    by_id = {cell.id: cell for cell in found}
    if len(by_id) < len(check.cells):
        raise ValueError("manifest.json: check.cells: a cell stands there twice")
    for trial in run.trials:
        one, lines = found.get(trial.cell, (None, []))
        if one is None or one.b is None or trial.side is None or (trial.side == "A" and one.a is None):
            raise ValueError(f"trials.jsonl: cell: {trial.cell.id!r:.80} is none of this check's on side {trial.side}")
        lines.append(trial)
    for session in run.sessions:
        one, lines = found[by_id[session.group]] if session.group in by_id else (None, [])
        if one is None or one.a is None or one.b is None:
            raise ValueError(f"sessions.jsonl: group: {session.group!r:.80} is no cell that both sides have")
        lines.append(session)
    return found


def _planned(manifest: Manifest, check: Sides) -> Iterator[CellEvidence]:
    """Which side has each cell, why it may not be compared, and what is asked of it."""
    here = [frozenset(expand(matrix)) if matrix else frozenset() for matrix in (check.matrix, manifest.matrix)]
    for cell in check.cells:
        a, b = (SideEvidence() if cell in known else None for known in here)
        one = CellEvidence(cell=cell, a=a, b=b, **(rules_of(manifest.matrix, cell) if b else {}))
        if a and b and check.matrix:
            before, differing = margins_of(check.matrix, cell), differences(check.matrix, manifest.matrix, cell)
            one = replace(
                one,
                differences=(check.incomparable,) if check.incomparable else tuple(differing),
                margins_before=before if before != one.margins else None,
            )
        yield one


def measured(manifest: Manifest, one: CellEvidence, lines: Sequence[Line]) -> CellEvidence:
    """A cell with all that was measured of it.

    Raises:
        ValueError: a broken line.
    """
    pairs = tuple(
        Pair(rounds=line.rounds, node=line.node, noisy=line.noisy, peaks=_peaks(line))
        for line in lines
        if isinstance(line, Session)
    )
    sides = {}
    for name in ("A", "B"):
        if trials := [line for line in lines if isinstance(line, Trial) and line.side == name]:
            (row,) = Run(manifest=manifest, trials=trials, sessions=()).rows
            sides[name.lower()] = side_of(row, trials, ADVISED)
    one = replace(one, pairs=pairs, **sides)
    return replace(one, samples_per_s=_samples_per_s(one)) if pairs else one


def _peaks(line: Session) -> dict[str, tuple[float, float]]:
    """Those that both members of a pair have."""
    known = [line.peaks[member] for member in line.members if member in line.peaks]
    both = zip(PEAKS, zip(*((one.host_bytes, one.device_bytes) for one in known), strict=True), strict=False)
    return {key: (a / MIB, b / MIB) for key, (a, b) in both if a and b}


def _samples_per_s(one: CellEvidence) -> float:
    rounds = [each for pair in one.pairs for each in pair.rounds]
    steps, seconds = sum(each.steps[1] for each in rounds), math.fsum(each.seconds[1] for each in rounds)
    return one.cell.batch_size * steps / seconds


def _sound(one: Round) -> bool:
    """Whether a round of a pair can have been: each side took steps, in some time, or none."""
    if not len(one.steps) == len(one.seconds) == 2 or not set(one.order) <= {0, 1}:
        return False
    return all(0 < steps < 1e12 and 0 < seconds < 1e9 for steps, seconds in zip(one.steps, one.seconds, strict=True))
