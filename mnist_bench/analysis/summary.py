"""Trials and sessions to one row per cell. Figures come from the seeds that are ok (``figures.FIGURES``)."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Self

from mnist_bench.analysis import answers
from mnist_bench.analysis.answers import CLASS_MARGIN, ENOUGH_SEEDS
from mnist_bench.analysis.keys import BETWEEN, environment_of, threads_of
from mnist_bench.analysis.ratios import SessionIndex, SpeedUp, speed_up, weakest
from mnist_bench.cells import in_one_process, reference_variant
from mnist_bench.figures import BY_KEY, Measured, Row, bounds, points, ratio, take, throughput
from mnist_bench.records import STATUSES, Cell, Manifest, Matrix, Measurement, Session, Trial, VariantClass
from mnist_bench.stats import Interval
from mnist_bench.table import grouped, joined

if TYPE_CHECKING:
    from mnist_bench.disk.folder import RunFolder

TRACE_RTOL = 1e-3  # of every loss of the first steps, dropout off, against the reference variant's

Ok = Mapping[int, tuple[str, Measurement]]  # of a cell, by seed: trial id, measurement


def common(one: Ok, other: Ok) -> list[tuple[tuple[str, Measurement], tuple[str, Measurement]]]:
    """What two cells measured with the same seeds, by seed."""
    return [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as its folder tells it. ``made_of``: the sizes of the files that were read."""

    manifest: Manifest
    trials: Sequence[Trial]
    sessions: Sequence[Session]
    made_of: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: "RunFolder") -> Self:
        made_of = folder.sizes()  # first: what is written meanwhile must not seem to be in it
        return cls(manifest=folder.manifest(), trials=folder.trials(), sessions=folder.sessions(), made_of=made_of)

    @cached_property
    def cells(self) -> Mapping[Cell, Measured]:
        """Each cell with a finished trial, in the order of the matrix, not yet held against another (which takes long).

        ``pending`` is still to come.
        """
        return {cell: _measured(self, cell) for cell in self.by_cell}

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """One row for each of ``cells``. What is held against each other is of one model and batch size."""
        found: dict[Cell, Row] = {}
        for cells in grouped(self.cells, lambda cell: (cell.model, cell.batch_size)).values():
            others = {cell: (self.reference_of(cell), replace(cell, device="cpu")) for cell in cells}
            self.index.measure(pair for cell in cells for other in others[cell] for pair in self.pairs(other, cell))
            fastest = _fastest(self, cells)
            found |= {cell: _row(_compared(self, self.cells[cell], *others[cell], cell in fastest)) for cell in cells}
            self.index.forget()  # of 100,000 trials they would take 140 MiB
        return tuple(found[cell] for cell in self.cells)

    def reference_of(self, cell: Cell) -> Cell:
        """The cell of the reference variant; itself, where there is none."""
        return replace(cell, variant=reference_variant(self.manifest.matrix) or cell.variant)

    @cached_property
    def in_one_process(self) -> Mapping[str, tuple[str, int]]:
        return in_one_process(self.manifest.matrix)

    @cached_property
    def pending(self) -> tuple[str, ...]:
        """The ids of the trials that the run set out to do and has not finished."""
        done = {trial.id for trial in self.trials}
        return tuple(trial_id for trial_id in self.manifest.trials if trial_id not in done)

    @cached_property
    def index(self) -> SessionIndex:
        """Its sessions by member."""
        return SessionIndex(self.sessions)

    @cached_property
    def by_cell(self) -> Mapping[Cell, Sequence[Trial]]:
        """The trials of each cell, cells in the order in which the matrix names them."""
        place = {trial_id: number for number, trial_id in enumerate(self.manifest.trials)}
        found = grouped(self.trials, lambda trial: trial.cell)
        return dict(sorted(found.items(), key=lambda item: place.get(item[1][0].id, len(place))))

    @cached_property
    def ok(self) -> Mapping[Cell, Ok]:
        """The measurements of each cell."""
        return {
            cell: {trial.seed: (trial.id, trial.outcome) for trial in own if isinstance(trial.outcome, Measurement)}
            for cell, own in self.by_cell.items()
        }

    def manifest_of(self, cell: Cell) -> Manifest:
        """The manifest, with the environment that a cell was measured in: of a cluster its nodes', of a cell on several
        machines the processors of all."""
        nodes = [trial.node for trial in self.by_cell.get(cell, ())]
        environment = environment_of(self.manifest, nodes)
        found = (str(measurement.numerics.get("cpus", "")) for _, measurement in self.ok.get(cell, {}).values())
        cpu = BETWEEN.join(dict.fromkeys(filter(None, found))) or environment.cpu
        return replace(self.manifest, environment=replace(environment, cpu=cpu))

    def pairs(self, reference: Cell, this: Cell) -> list[tuple[str, str]]:
        """The trial ids (reference, this) of the seeds that are ok in both cells; none of a cell with itself."""
        both = common(self.ok.get(reference, {}), self.ok.get(this, {}))
        return [(theirs, own) for (theirs, _), (own, _) in both] if reference != this else []

    def log_step_s(self, cell: Cell) -> list[float]:
        """ln of the seconds per step of each seed that was timed."""
        found = (self.index.log_step_s.get(trial_id) for trial_id, _ in self.ok[cell].values())
        return [log for log in found if log is not None]

    def break_even(self, cell: Cell, reference: Cell, speed: SpeedUp) -> answers.BreakEven | None:
        """When a cell's compilation pays; None where nothing was compiled, or its reference never timed."""
        cold, beside = (BY_KEY["compile_s"].take(self.cells[one]) for one in (cell, reference))
        steps = [math.exp(log) for log in self.log_step_s(reference)]
        if cold is None or not steps:
            return None
        return answers.break_even(
            cell,
            reference,
            speed,
            compile_s=cold - (beside or 0.0),
            step_s=statistics.median(steps),
            epoch_samples=statistics.median(m.train_samples / len(m.epochs.train_s) for m in self.cells[cell].ok),
        )


def _measured(run: Run, cell: Cell) -> Measured:
    worst = max(run.by_cell[cell], key=lambda trial: STATUSES.index(trial.status))  # of several equally bad, the first
    own = run.ok[cell]
    if not own:
        return Measured(cell=cell, worst=worst)
    sessions = {trial_id: [timed.session for timed in run.index.get(trial_id, ())] for trial_id, _ in own.values()}
    class_, doubts = _class(run, cell)
    return Measured(
        cell=cell,
        worst=worst,
        ok=[measurement for _, measurement in own.values()],
        steps=[times for id_, found in sessions.items() for session in found if (times := session.steps.get(id_))],
        noise=[(*m.noisy, *(why for session in sessions[id_] for why in session.noisy)) for id_, m in own.values()],
        class_=class_,
        doubts=doubts,
        threads=threads_of(run.manifest.matrix, cell, next(iter(own.values()))[1]),
    )


def _compared(run: Run, one: Measured, reference: Cell, on_cpu: Cell, fastest: bool) -> Measured:
    """With its ratios."""
    eager, cpu = (speed_up(run.pairs(other, one.cell), run.index) for other in (reference, on_cpu))
    pays = run.break_even(one.cell, reference, eager) if eager else None
    return replace(
        one,
        doubts=one.doubts + (_disagreement(one, run.cells[reference], eager) if eager and one.noisy else ()),
        vs_eager=eager.interval if eager else None,
        vs_cpu=cpu.interval if cpu else None,
        efficiency=_efficiency(run, one.cell),
        paired=weakest(eager, cpu),
        fastest=fastest,
        pays_after=pays.epochs if pays else None,
    )


def _efficiency(run: Run, cell: Cell) -> Interval | None:
    single, processes = run.in_one_process.get(cell.variant, (cell.variant, 1))
    speed = speed_up(run.pairs(replace(cell, variant=single), cell), run.index)
    return speed.interval.scaled(1 / processes) if speed and speed.paired != "unpaired" else None


def _row(one: Measured) -> Row:
    worst = one.worst
    return Row(cell=one.cell, status=worst.status, reason=worst.reason, seeds=len(one.ok), figures=take(one))


def _disagreement(one: Measured, reference: Measured, eager: SpeedUp) -> tuple[str, ...]:
    """Which figure to trust where samples/s says faster or slower and the steps timed in turn do not."""
    this, other = throughput(one), throughput(reference)
    low, high = eager.interval.low, eager.interval.high
    if this is None or other is None or low is None or high is None or eager.paired == "unpaired":
        return ()
    by_rate = this.estimate / other.estimate
    shown = "faster" if by_rate > max(high, 1) else "slower" if by_rate < min(low, 1) else eager.shown
    if shown == eager.shown:
        return ()
    turns = joined(ratio(eager.interval.estimate), bounds(low, high))
    return (f"{ratio(by_rate)} the reference's samples/s, but {turns} by steps timed in turn: trust the latter",)


def _class(run: Run, cell: Cell) -> tuple[VariantClass, tuple[str, ...]]:
    """The class of a cell by its settings (the least alike of the seeds), and what is not proven of it (rule 8).

    A is held against the loss traces of the reference variant; B, also what A came to, against its accuracies.
    """
    by_settings: VariantClass = max(measurement.class_ for _, measurement in run.ok[cell].values())
    reference = run.reference_of(cell)
    if reference == cell:
        return by_settings, ()
    pairs = [(other, this) for (_, other), (_, this) in common(run.ok.get(reference, {}), run.ok[cell])]
    worst = max((trace_difference(this.loss_trace, other.loss_trace) for other, this in pairs), default=0.0)
    if by_settings == "A" and worst <= TRACE_RTOL:
        return "A", () if pairs else ("class A not proven: the reference variant has no such trial",)
    differs = f"its losses differ from the reference variant's by up to {worst:.1%} in the first steps: class B"
    doubts = [differs] if by_settings == "A" else []
    found = answers.compare_accuracy(pairs, margin=CLASS_MARGIN)
    if found is None or found.mark:
        what = f"class B not proven: accuracy within {100 * CLASS_MARGIN:g} pp of the reference variant's"
        known = found.difference if found and found.seeds >= ENOUGH_SEEDS else None
        shown = f"is not shown: {bounds(known.low, known.high, points)} pp" if known else ""
        doubts.append(f"{what} {shown or f'takes {ENOUGH_SEEDS} seeds to show'}")
    return max(by_settings, "B"), tuple(doubts)


def trace_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest relative difference of two loss traces; infinite where one ends early (a loss was not finite)."""
    if one == other:  # mostly
        return 0.0
    worst = max((abs(a - b) / max(abs(b), 1e-12) for a, b in zip(one, other, strict=False)), default=0.0)
    return worst if len(one) == len(other) else float("inf")


def _fastest(run: Run, cells: Iterable[Cell]) -> list[Cell]:
    """Of cells of one model and batch size, if several are of class A, the fastest and those not told from it."""
    known: dict[Cell, float] = {}
    for cell in cells:
        one = run.cells[cell]
        if one.worst.status == "ok" and one.class_ == "A" and (logs := run.log_step_s(cell)):
            known[cell] = math.fsum(logs) / len(logs)
    if len(known) < 2:
        return []
    leader = min(known, key=known.__getitem__)
    run.index.measure(pair for cell in known for pair in run.pairs(leader, cell))
    return _leaders(run, leader, [*known])


def _leaders(run: Run, leader: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """The cell with the shortest step, or the one that was shown to be faster than that, and all not told from it.

    None where nothing was paired with it (``--solo``): an unpaired ratio shows no winner.
    """
    for _ in cells:
        known = ((cell, speed_up(run.pairs(leader, cell), run.index)) for cell in cells if cell != leader)
        ratios = {cell: one for cell, one in known if one and one.paired != "unpaired"}
        faster = {cell: one.interval.estimate for cell, one in ratios.items() if one.shown == "faster"}
        if not faster:
            break
        leader = max(faster, key=faster.__getitem__)
    return [leader, *(cell for cell, one in ratios.items() if one.shown != "slower")] if ratios else []


EPOCH_COLUMNS = (
    *("trial", "model", "device", "batch_size", "variant", "seed", "epoch", "train_s", "train_samples_per_s"),
    *("loader_s", "loss", "eval_s", "accuracy", "dataset", "dataset_sha256", "recipe"),
)


def epochs(run: Run) -> Iterator[tuple[Any, ...]]:
    """The lines of ``epochs.csv``: one per epoch (from 1) of each trial that is ok, in their order."""
    for trial in run.trials:
        if not isinstance(trial.outcome, Measurement):
            continue
        one, cell = trial.outcome.epochs, trial.cell
        names = (trial.id, cell.model, cell.device, cell.batch_size, cell.variant, trial.seed)
        samples = trial.outcome.train_samples / len(one.train_s)
        lines = zip(one.train_s, one.loader_s, one.loss, one.eval_s, one.accuracy, strict=True)
        for number, (train_s, *others) in enumerate(lines, start=1):
            rate = samples / train_s if train_s > 0 else None
            yield (*names, number, train_s, rate, *others, trial.dataset, trial.dataset_sha256, trial.recipe)


FLOORS = {"test_accuracy": "test accuracy", "train_samples_per_s": "training samples per second"}


def missed_floors(matrix: Matrix, rows: Iterable[Row]) -> list[tuple[Cell, str]]:
    """The floors of ``expect`` that a row does not hold: its cell, and how it misses.

    A missing figure misses its floor, except that of a skipped cell: a machine without the device cannot hold it.
    """
    found = []
    for row, floor in product(rows, matrix.expect):
        wanted = (floor.min_accuracy, floor.min_train_samples_per_s) if floor.matches(row.cell) else ()
        for (key, name), least in zip(FLOORS.items(), wanted, strict=False):
            value = row[key]
            if least is None or (row.status == "skipped" if value is None else value >= least):
                continue
            how = f"was not measured ({row.status}), so the floor {least:g} is missed"
            deviation = row["test_accuracy_std"] if key == "test_accuracy" else None
            spread = "" if deviation is None else f", over {row.seeds} seeds that spread by {deviation:.2g},"
            how = how if value is None else f"{value:.8g}{spread} is below the floor {least:g}"
            found.append((row.cell, f"{row.cell.id}: {name} {how}"))
    return found
