"""The faults that a selftest puts on side B: extra work of a known size, and mislabelled data that cost accuracy.

Extra work is a plug-in that the matrix names (``worker.models``): to the harness a model like any other. Both sides of
a check have the same matrix; only the rows of work in their environments differ, so nothing but the time of a forward
pass does. The amount is a number of rows: time grows with it in small steps, and a compiled graph stays as short as it
is.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.catalogue import FILE_NAMES, SELFTEST, training_of
from mnist_bench.cells import model_of
from mnist_bench.data.mnist import TRAIN_LABELS_FILE, proven, raw_folder, read_idx, write_idx, write_sums
from mnist_bench.errors import UsageError, WorkerError
from mnist_bench.gate import sides
from mnist_bench.gate.evidence import Pair, differences
from mnist_bench.gate.sides import Side
from mnist_bench.records import Cell, DataSet, Matrix, Measurement, Selector, Session, Trial
from mnist_bench.running.protocol import LOAD_DEPTH, LOAD_VARIABLE, LOAD_WIDTH
from mnist_bench.stats import FloatArray, Interval, t_interval

AIMS = (0.05, 0.10, 0.20)  # of a step's time
ROW_FLOPS = 2 * LOAD_DEPTH * LOAD_WIDTH**2
GUESSED_FLOPS = 2e10  # a second: of the first guess only
PROBES = 6  # single sessions: 4,096 times the guessed speed is within reach
SESSIONS = 6  # of fresh processes behind a measured size: one of them knows it to 1.5 % (ratios.PROCESS_SD)
MOST_CHANGE = 4.0  # of the rows from one measurement to the next: a wild session must not lead astray
MOST_ROWS = 1 << 20  # 256 MiB
DROP = 0.006  # of accuracy, at least, that mislabelled training data are to cost
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)  # of the training labels that are shuffled, until the accuracy has dropped

Rows = npt.NDArray[np.int64]  # of extra work, shape (len(AIMS),)
# Times fresh processes, so many times over: for each number of rows a pair of the plain model and the laden one. Gives
# what a step of the laden one takes more (0.1: 10 %), shape (times, len(AIMS)).
Slower = Callable[[Rows, int], FloatArray]


class NotHere(WorkerError):
    """This machine cannot execute the cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What makes one cell of side B worse.

    Args:
        injected: rows of extra work, or the share of the training labels that are wrong.
        size: as measured: what a step takes more (0.1: 10 %), the mean over sessions of fresh process pairs with its
            95 % t interval; or the accuracy that is lost, of one training.
    """

    cell: str
    injected: float
    size: Interval


def instrumented(matrix: Matrix, cells: Sequence[Cell]) -> Matrix:
    """A matrix of ``cells`` alone, with the plug-in for their models, trained as these are.

    Raises:
        UsageError: under the recipe ``tutorial`` inputs are scaled by a built-in model's name, which a plug-in has not;
            or the data set is code.
    """
    if matrix.recipe != "standard":
        raise UsageError(f"recipe: {matrix.recipe}: selftest measures the recipe standard only; give it such a matrix")
    if ":" in matrix.dataset:
        raise UsageError(f"dataset: {matrix.dataset}: selftest spoils labels in files: give it a matrix with mnist")
    models = []
    for name in dict.fromkeys(cell.model for cell in cells):
        entry = model_of(matrix, name)
        training = training_of(entry, matrix.recipe)
        models.append(replace(entry, model=SELFTEST, optimizer=training.optimizer, lr=training.lr))
    return replace(matrix, models=tuple(models), exclude=(Selector(),), include=tuple(cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a selftest measures: ``gate`` has the user's own side twice, its folder takes logs, sets and checks."""

    gate: sides.Bench
    matrix: Matrix
    say: Callable[[str], None]

    @property
    def folder(self) -> Path:
        return self.gate.folder.path

    def laden(self, rows: Mapping[Cell, int]) -> tuple[Side, Side]:
        """Two sides of the same plug-in: A without extra work, B with so many rows of it."""
        matrix = instrumented(self.matrix, list(rows))

        def side(plain: Side, rows: Mapping[Cell, int]) -> Side:
            plan = {cell.id: [model_of(self.matrix, cell.model).model, count] for cell, count in rows.items()}
            return replace(plain, matrix=matrix, environ={**plain.environ, LOAD_VARIABLE: json.dumps(plan)})

        return side(self.gate.a, dict.fromkeys(rows, 0)), side(self.gate.b, rows)

    def pair(self, cell: Cell, rows: int, number: int) -> Pair:
        """A process of the plain model and one with extra work, timed in turns.

        Raises:
            NotHere: its device, or its compiler, is missing.
            WorkerError: one of them failed.
        """
        a, b = self.laden({cell: rows})
        [(_, [found, *_])] = replace(self.gate, a=a, b=b).pairs([(cell, number)])
        match found:
            case Session(rounds=rounds):
                return Pair(rounds=rounds)
            case Trial(status="skipped", reason=reason):
                raise NotHere(f"{cell.id}: {reason}")
            case Trial(reason=reason):
                raise WorkerError(f"{cell.id}: {reason}; logs: {self.folder}")

    def accuracy(self, cell: Cell, data: DataSet, seed: int) -> float:
        """Of a cell after its training on ``data``.

        Raises:
            WorkerError: the trial failed.
        """
        b = replace(self.gate.b, data=data)
        match replace(self.gate, b=b).train(cell, seed, ["B"], math.inf):
            case [Trial(outcome=Measurement(epochs=epochs))]:
                return epochs.accuracy[-1]
            case found:
                raise WorkerError(f"{cell.id}: its training failed: {found}; logs: {self.folder}")


# ── extra work ───────────────────────────────────────────────────────────────────────────────────────────────────────


def measurable(bench: Bench, cells: Sequence[Cell]) -> dict[Cell, float]:
    """The cells that this machine can execute and time side by side, and about how long a step of each takes (s)."""
    found = {}
    for cell in cells:
        if reasons := tuple(differences(bench.matrix, bench.matrix, cell)):
            bench.say(f"left out: {cell.id}: {'; '.join(reasons)}")
            continue
        try:
            rounds = bench.pair(cell, 0, 0).rounds
        except NotHere as error:
            bench.say(f"left out: {error}")
        else:
            found[cell] = median(one.seconds[0] / one.steps[0] for one in rounds)
    return found


def slow_down(bench: Bench, cell: Cell, step_s: float) -> list[Fault]:
    """The extra work of a cell for each of ``AIMS``, calibrated."""
    bench.say(f"calibrating extra work: {cell.id}")
    numbers = itertools.count(1)  # every pair has a seed of its own

    def slower(rows: Rows, times: int) -> FloatArray:
        logs = [[bench.pair(cell, int(n), next(numbers)).log_ratio for n in rows] for _ in range(times)]
        return np.expm1(logs)

    rows, sizes = calibrate(step_s, slower)
    for count, size, aim in zip(rows, sizes, AIMS, strict=True):
        bench.say(f"  {cell.id}: {count} rows of work: {100 * size.estimate:.1f} % slower (aim {aim:.0%})")
    return [Fault(cell=cell.id, injected=count, size=size) for count, size in zip(rows, sizes, strict=True)]


def calibrate(step_s: float, slower: Slower) -> tuple[list[int], list[Interval]]:
    """The rows for each of ``AIMS``, and what they cost.

    Single sessions correct the guess until its order is right, a batch of them once more. What is stated comes from
    another batch, which had no part in the choice of the rows: near the aim or not, it is unbiased.

    Args:
        step_s: of the plain model, about.
        slower: measures.
    """
    aims = np.array(AIMS)
    rows = _whole(aims * step_s * GUESSED_FLOPS / ROW_FLOPS)
    for _ in range(PROBES):
        found = slower(rows, 1)[0]
        # Small slow-downs drown in the noise between processes: a row takes what all of them together say of it.
        rows = _changed(rows, rows * (rows @ found / (rows @ rows)), aims)
        if 1 / 2 <= found[-1] / aims[-1] <= 2:
            break
    rows = _changed(rows, np.median(slower(rows, SESSIONS), axis=0), aims)
    sizes = [t_interval(column, variance_floor=PROCESS_SD**2) for column in slower(rows, SESSIONS).T]
    return rows.tolist(), sizes


def _changed(rows: Rows, found: FloatArray, aims: FloatArray) -> Rows:
    """The rows that should have met the aims, if time grows with them in proportion."""
    factors = np.divide(aims, found, out=np.full_like(aims, MOST_CHANGE), where=found > 0)
    return _whole(rows * factors.clip(1 / MOST_CHANGE, MOST_CHANGE))


def _whole(rows: FloatArray) -> Rows:
    return rows.round().clip(1, MOST_ROWS).astype(np.int64)


# ── mislabelled data ─────────────────────────────────────────────────────────────────────────────────────────────────


def mislabel(bench: Bench, cells: Sequence[Cell]) -> tuple[DataSet, list[Fault]]:
    """The least spoilt set of ``SHARES`` that costs every cell ``DROP`` of accuracy, or else the worst of them.

    A training with the first seed of the matrix each. The faults are of the cells that lose so much.
    """
    seed, plain = bench.matrix.seeds[0], bench.gate.a.data
    before = {cell: bench.accuracy(cell, plain, seed) for cell in cells}
    for share in SHARES:
        bench.say(f"calibrating mislabelled data: {share:.0%} of the training labels shuffled")
        data, wrong = spoil(plain, bench.folder / f"mislabelled-{share:g}", share, seed=seed)
        drops = {cell.id: before[cell] - bench.accuracy(cell, data, seed) for cell in cells}
        for cell, drop in drops.items():
            bench.say(f"  {cell}: {100 * drop:.2f} pp less accuracy with {wrong:.0%} wrong")
        if min(drops.values()) >= DROP:
            break
    return data, [Fault(cell=one, injected=wrong, size=Interval(drop)) for one, drop in drops.items() if drop >= DROP]


def spoil(source: DataSet, root: Path, share: float, *, seed: int) -> tuple[DataSet, float]:
    """A set with the labels of a share of the training images shuffled among themselves; the test set stays.

    Images are linked to. The set has checksums of its own (SHA256SUMS), by which ``verify`` knows it.

    Args:
        source: a verified set; nothing of it is written to.
        root: a folder to put the set in; it must have no ``MNIST`` yet.
        share: of the images, in (0, 1].
        seed: of the choice.

    Returns:
        The set, and the share of wrong labels: some images get the label that they had.

    Raises:
        DataError: the labels cannot be read.
        OSError: the folder cannot be written.
    """
    raw, old = raw_folder(root), raw_folder(Path(source.root), source.name)
    raw.mkdir(parents=True)
    labels = read_idx(old / TRAIN_LABELS_FILE)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), size=round(share * len(labels)), replace=False)
    shuffled = labels.copy()
    shuffled[chosen] = labels[rng.permutation(chosen)]
    write_idx(raw / TRAIN_LABELS_FILE, shuffled)
    for name in FILE_NAMES:
        if name != TRAIN_LABELS_FILE:
            (raw / name).symlink_to((old / name).resolve())
    write_sums(raw)
    return replace(proven("mislabelled", root), mean=source.mean, std=source.std), float((shuffled != labels).mean())
