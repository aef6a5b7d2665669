"""A selftest from calibration to the last check: what is put on side B, and what the gate says of it.

Extra work is a plug-in that the matrix names (``worker.models``): to the harness a model like any other. Both sides of
a check have the same matrix; only the rows of work in their environments differ, so nothing but the time of a forward
pass does. The amount is a number of rows: time grows with it in small steps, and a compiled graph stays as short as it
is.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from mnist_bench import __version__
from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.catalogue import FILE_NAMES, SELFTEST, training_of
from mnist_bench.cells import model_of
from mnist_bench.data.mnist import TRAIN_LABELS_FILE, proven, raw_folder, read_idx, write_idx, write_sums
from mnist_bench.disk.folder import RunFolder, new_run_id
from mnist_bench.errors import UsageError, WorkerError
from mnist_bench.gate import sides as benches
from mnist_bench.gate.conduct import measure
from mnist_bench.gate.evidence import Check, Pair, differences
from mnist_bench.gate.judge import judge
from mnist_bench.gate.sides import Side
from mnist_bench.labs.selftest_report import CheckResult, Mislabelled, Report, Slowed, summarise
from mnist_bench.machine import environment
from mnist_bench.records import Cell, DataSet, Matrix, Measurement, RunOptions, Selector, Session, Sides, Tree, Trial
from mnist_bench.run.protocol import LOAD_DEPTH, LOAD_VARIABLE, LOAD_WIDTH
from mnist_bench.run.runner import new_manifest
from mnist_bench.stats import FloatArray, t_interval

AIMS = (1.05, 1.10, 1.20)  # seconds per step, B / A
ROW_FLOPS = 2 * LOAD_DEPTH * LOAD_WIDTH**2
GUESSED_FLOPS = 2e10  # a second: of the first guess only
TOLERANCE = 0.01  # of a measured ratio from the one that is aimed at
SESSIONS = 4  # of fresh processes behind one measured ratio: one of them knows it to 1.5 % (ratios.PROCESS_SD)
PROBES = 6  # single sessions: 4,096 times the guessed speed is within reach
ATTEMPTS = 3
MOST_CHANGE = 4.0  # of the rows from one measurement to the next: a wild session must not lead astray
MOST_ROWS = 1 << 20  # 256 MiB
LEAST_RATIO = 0.1  # of a wild session, scaled
DROP = 0.006  # of accuracy, at least, that mislabelled training data are to cost
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)  # of the training labels that are shuffled, until the accuracy has dropped

Rows = npt.NDArray[np.int64]  # of extra work, shape (len(AIMS),)
# Times fresh processes, so many times over: for each number of rows a pair of the plain model and the laden one. Gives
# the ln of seconds per step, laden / plain, shape (times, len(AIMS)).
Ratios = Callable[[Rows, int], FloatArray]


class NotHere(WorkerError):
    """This machine cannot execute the cell."""


class Warned(benches.CheckObserver):
    """Of a check, its warnings: a selftest that can decide nothing should not take hours."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def notice(self, text: str, *, warning: bool = False) -> None:
        if warning:
            self._say(text)


def instrumented(matrix: Matrix, cells: Sequence[Cell]) -> Matrix:
    """A matrix of ``cells`` alone, with the plug-in for their models, trained as these are.

    Raises:
        UsageError: under the recipe ``tutorial`` inputs are scaled by a built-in model's name, which a plug-in has not.
    """
    if matrix.recipe != "standard":
        raise UsageError(f"recipe: {matrix.recipe}: selftest measures the recipe standard only; give it such a matrix")
    models = []
    for name in dict.fromkeys(cell.model for cell in cells):
        entry = model_of(matrix, name)
        training = training_of(entry, matrix.recipe)
        models.append(replace(entry, model=SELFTEST, optimizer=training.optimizer, lr=training.lr))
    return replace(matrix, models=tuple(models), exclude=(Selector(),), include=tuple(cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a selftest measures: ``setting`` has the user's own side twice, ``folder`` takes logs, sets and checks."""

    setting: benches.Setting
    matrix: Matrix
    folder: Path
    say: Callable[[str], None]

    def laden(self, rows: Mapping[Cell, int]) -> tuple[Side, Side]:
        """Two sides of the same plug-in: A without extra work, B with so many rows of it."""
        matrix = instrumented(self.matrix, list(rows))

        def side(plain: Side, rows: Mapping[Cell, int]) -> Side:
            plan = {cell.id: [model_of(self.matrix, cell.model).model, count] for cell, count in rows.items()}
            return replace(plain, matrix=matrix, environ={**plain.environ, LOAD_VARIABLE: json.dumps(plan)})

        return side(self.setting.a, dict.fromkeys(rows, 0)), side(self.setting.b, rows)

    def pair(self, cell: Cell, rows: int, number: int) -> Pair:
        """A process of the plain model and one with extra work, timed in turns.

        Raises:
            NotHere: its device, or its compiler, is missing.
            WorkerError: one of them failed.
        """
        match self._at(*self.laden({cell: rows})).pair(cell, number)[0]:
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
        b = replace(self.setting.b, data=data)
        match self._at(self.setting.a, b).train(cell, seed, ["B"], math.inf):
            case [Trial(outcome=Measurement(epochs=epochs))]:
                return epochs.accuracy[-1]
            case found:
                raise WorkerError(f"{cell.id}: its training failed: {found}; logs: {self.folder}")

    def check(self, a: Side, b: Side, cells: Sequence[Cell], budget_s: float) -> Check:
        """The gate itself, by the path that ``check --against`` takes below git.

        Raises: as ``gate.conduct.measure`` does.
        """
        assert b.matrix is not None
        tree, name = Tree(label="selftest", commit=None), new_run_id()
        sides = Sides(a=tree, b=tree, matrix=a.matrix, cells=tuple(cells), budget_s=budget_s)
        options = RunOptions(allow_plugins=self.setting.allow_plugins)
        matrix = replace(b.matrix, expect=())  # a missed floor fails whatever the sides do
        manifest = new_manifest(name, matrix, b.data, b.environ, options, str(b.matrix_path))
        folder = RunFolder.create(self.folder / "checks", replace(manifest, check=sides))
        setting = replace(self.setting, a=a, b=b, budget_s=budget_s, started_s=self.setting.clock())
        return measure(folder, setting)

    def _at(self, a: Side, b: Side) -> benches.Bench:
        """Where these sides are measured for calibration."""
        (self.folder / "logs").mkdir(exist_ok=True)
        return benches.Bench(RunFolder(self.folder), replace(self.setting, a=a, b=b, observer=benches.CheckObserver()))


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


def slow_down(bench: Bench, cell: Cell, step_s: float) -> Iterator[Slowed]:
    """Calibrates the extra work of a cell to each of ``AIMS``."""
    bench.say(f"calibrating extra work: {cell.id}")
    numbers = itertools.count(1)  # every pair has a seed of its own

    def ratios(rows: Rows, times: int) -> FloatArray:
        return np.array([[bench.pair(cell, int(n), next(numbers)).log_ratio for n in rows] for _ in range(times)])

    for one in calibrate(cell.id, step_s, ratios):
        slower = 100 * (one.measured.estimate - 1)
        bench.say(f"  {cell.id}: {one.rows} rows of work: {slower:.1f} % slower (aim {one.aim - 1:.0%})")
        yield one


def calibrate(cell: str, step_s: float, ratios: Ratios) -> list[Slowed]:
    """The rows for each of ``AIMS``, with what was measured.

    Single sessions correct the guess until its order is right. Then come batches of ``SESSIONS``, at most ``ATTEMPTS``:
    rows whose ratio is off its aim change from one to the next. Near the aim or not, what is returned was measured,
    and over all that is known: to take the batch that happened to be near would be to choose the luckiest.

    Args:
        step_s: of the plain model, about.
        ratios: measures them.
    """
    aims = np.array(AIMS) - 1
    better = _whole(aims * step_s * GUESSED_FLOPS / ROW_FLOPS)
    for _ in range(PROBES):
        slower = np.expm1(ratios(better, 1)[0])
        # Small ratios drown in the noise between processes: a row takes what all of them together say of it.
        a_row = better @ slower / (better @ better)
        better = _changed(better, a_row * better, aims)
        if 1 / 2 <= slower[-1] / aims[-1] <= 2:
            break
    seen: list[tuple[Rows, FloatArray]] = []
    for _ in range(ATTEMPTS):
        rows = better
        seen += [(rows, session) for session in ratios(rows, SESSIONS)]
        found = [
            pooled(cell, aim, int(rows[n]), [(int(counts[n]), session[n]) for counts, session in seen])
            for n, aim in enumerate(AIMS)
        ]
        slower = np.array([one.measured.estimate for one in found]) - 1
        better = np.where(abs(slower - aims) <= TOLERANCE, rows, _changed(rows, slower, aims))
        if (better == rows).all():
            break
    return found


def _changed(rows: Rows, slower: FloatArray, aims: FloatArray) -> Rows:
    """The rows that should have met the aims, if time grows with them in proportion."""
    factors = np.divide(aims, slower, out=np.full_like(aims, MOST_CHANGE), where=slower > 0)
    return _whole(rows * factors.clip(1 / MOST_CHANGE, MOST_CHANGE))


def _whole(rows: FloatArray) -> Rows:
    return rows.round().clip(1, MOST_ROWS).astype(np.int64)


def pooled(cell: str, aim: float, rows: int, seen: Sequence[tuple[int, float]]) -> Slowed:
    """The ratio with ``rows`` of work over sessions with about as many, each scaled in proportion.

    In its interval a session's variance is at least that between processes.

    Args:
        seen: rows, and the ln ratio that a session found with them.
    """
    near = [(count, log) for count, log in seen if rows / 2 <= count <= 2 * rows]
    logs = [math.log(max(1 + math.expm1(log) * rows / count, LEAST_RATIO)) for count, log in near]
    measured = t_interval(logs, variance_floor=PROCESS_SD**2).exp()
    return Slowed(cell=cell, aim=aim, rows=rows, measured=measured, sessions=len(logs))


# ── mislabelled data ─────────────────────────────────────────────────────────────────────────────────────────────────


def mislabel(bench: Bench, cells: Sequence[Cell]) -> tuple[DataSet, Mislabelled] | None:
    """The least spoilt set of ``SHARES`` that costs every cell ``DROP`` of accuracy, or else the worst of them.

    A training with the first seed of the matrix each. None: not even the worst costs any cell so much.
    """
    seed, plain = bench.matrix.seeds[0], bench.setting.a.data
    before = {cell: bench.accuracy(cell, plain, seed) for cell in cells}
    for share in SHARES:
        bench.say(f"calibrating mislabelled data: {share:.0%} of the training labels shuffled")
        data, fraction = spoil(plain, bench.folder / f"mislabelled-{share:g}", share, seed=seed)
        drops = {cell.id: before[cell] - bench.accuracy(cell, data, seed) for cell in cells}
        for cell, drop in drops.items():
            bench.say(f"  {cell}: {100 * drop:.2f} pp less accuracy with {fraction:.0%} wrong")
        if min(drops.values()) >= DROP:
            break
    return (data, Mislabelled(fraction=fraction, drops=drops)) if max(drops.values()) >= DROP else None


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
    raw, old = raw_folder(root), raw_folder(Path(source.root))
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
    return proven("mislabelled", root), float((shuffled != labels).mean())


# ── what the gate says of it ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What differs between the sides of a check; ``faulty`` and ``size`` as in ``summarise``."""

    name: str
    a: Side
    b: Side
    faulty: frozenset[str] = frozenset()
    size: str = ""


def conditions(
    bench: Bench, cells: Sequence[Cell], slowed: Sequence[Slowed], spoilt: tuple[DataSet, Mislabelled] | None
) -> Iterator[Condition]:
    """Identical sides, each slow-down, mislabelled data: in every one, all cells at once."""
    plain, b = bench.setting.a, bench.setting.b
    yield Condition(name="identical", a=plain, b=b)
    for aim in AIMS:
        own = {one.cell: one for one in slowed if one.aim == aim}
        slow_a, slow_b = bench.laden({cell: own[cell.id].rows for cell in cells})
        size = f"{_spread(one.measured.estimate - 1 for one in own.values())} %"
        name = f"{100 * (aim - 1):.0f} % slower"
        yield Condition(name=name, a=slow_a, b=slow_b, faulty=frozenset(own), size=size)
    if spoilt:
        data, found = spoilt
        hurt = {cell: drop for cell, drop in found.drops.items() if drop >= DROP}
        size = f"{_spread(hurt.values())} pp"
        yield Condition(name="mislabelled", a=plain, b=replace(b, data=data), faulty=frozenset(hurt), size=size)


def _spread(shares: Iterable[float]) -> str:
    """The least and the most, in percent."""
    each = sorted(shares)
    return "-".join(dict.fromkeys(f"{100 * share:.1f}" for share in (each[0], each[-1])))


def measure_gate(bench: Bench, cells: Sequence[Cell], times: int, budget_s: float) -> Iterator[Report]:
    """Calibration, then the checks: each condition so many times over, in turns.

    So what the machine does over an hour is shared out, and an interrupted selftest has of all of them.

    Yields:
        What is known: before the first check, and after each. It ends early where a check was interrupted, which
        counts for nothing.
    """
    step_s = measurable(bench, cells)
    slowed = tuple(one for cell, seconds in step_s.items() for one in slow_down(bench, cell, seconds))
    spoilt = mislabel(bench, list(step_s)) if step_s else None
    plan = list(conditions(bench, list(step_s), slowed, spoilt)) if step_s else []
    results: list[CheckResult] = []
    machine = environment.describe(bench.setting.a.environ)

    def report() -> Report:
        return Report(
            program_version=__version__,
            machine=f"{machine.cpu}, {machine.cores} cores",
            checks_per_condition=times,
            budget_s=budget_s,
            conditions=tuple(summarise(one.name, one.faulty, one.size, results) for one in plan),
            slowed=slowed,
            mislabelled=spoilt[1] if spoilt else None,
            checks=tuple(results),
        )

    yield report()
    for number, condition in enumerate(plan * times):
        bench.say(f"check {number + 1} of {times * len(plan)}: {condition.name}")
        begin = bench.setting.clock()
        check = bench.check(condition.a, condition.b, list(step_s), budget_s)
        if check.status != "complete":
            return
        seconds = bench.setting.clock() - begin
        results.append(CheckResult(condition=condition.name, seconds=seconds, cells=judge(check)))
        yield report()
