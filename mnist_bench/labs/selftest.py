"""A selftest from calibration to the last check: what is put on side B, and what the gate says of it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from mnist_bench import __version__
from mnist_bench.catalogue import FILE_NAMES
from mnist_bench.data.mnist import TRAIN_LABELS_FILE, proven, raw_folder, read_labels, write_idx, write_sums
from mnist_bench.disk.folder import RunFolder, new_run_id
from mnist_bench.errors import WorkerError
from mnist_bench.gate import bench as benches
from mnist_bench.gate.conduct import measure
from mnist_bench.gate.evidence import Check, Pair, differences
from mnist_bench.gate.judge import Verdict, judge
from mnist_bench.gate.sides import Side
from mnist_bench.labs.selftest_calibration import AIMS, calibrate, instrumented, loads
from mnist_bench.labs.selftest_report import (
    MISLABELLED,
    CellResult,
    CheckResult,
    Mislabelled,
    Report,
    Slowed,
    summarise,
)
from mnist_bench.machine import environment
from mnist_bench.records import (
    Cell,
    DataSet,
    Matrix,
    Measurement,
    RunOptions,
    Session,
    Sides,
    Skip,
    Tree,
    Trial,
)
from mnist_bench.run.runner import new_manifest

DROP = 0.006  # of accuracy, at least, that mislabelled training data are to cost
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)  # of the training labels that are shuffled, until the accuracy has dropped


class NotHere(WorkerError):
    """This machine cannot execute the cell."""


class Warned(benches.CheckObserver):
    """Of a check, its warnings: a selftest that can decide nothing should not take hours."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def notice(self, text: str, *, warning: bool = False) -> None:
        if warning:
            self._say(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a selftest measures: ``setting`` has the user's own side twice, ``folder`` takes logs, sets and checks."""

    setting: benches.Setting
    matrix: Matrix
    folder: Path
    say: Callable[[str], None]

    @property
    def plain(self) -> Side:
        return self.setting.a

    def laden(self, rows: Mapping[Cell, int]) -> tuple[Side, Side]:
        """Two sides of the same plug-in: A without extra work, B with so many rows of it."""
        matrix = instrumented(self.matrix, list(rows))
        environs = [{**self.plain.environ, **loads(self.matrix, each)} for each in (dict.fromkeys(rows, 0), rows)]
        a, b = self.setting.a, self.setting.b
        return replace(a, matrix=matrix, environ=environs[0]), replace(b, matrix=matrix, environ=environs[1])

    def pair(self, cell: Cell, rows: int, number: int) -> Pair:
        """A process of the plain model and one with extra work, timed in turns.

        Raises:
            NotHere: its device, or its compiler, is missing.
            WorkerError: one of them failed.
        """
        match self._at(*self.laden({cell: rows})).pair(cell, number)[0]:
            case Session(rounds=rounds, noisy=noisy):
                return Pair(rounds=rounds, noisy=noisy)
            case Trial(outcome=Skip(reason=reason)):
                raise NotHere(f"{cell.id}: {reason}")
            case Trial(reason=reason):
                raise WorkerError(f"{cell.id}: {reason}; logs: {self.folder}")

    def accuracy(self, cell: Cell, data: DataSet, seed: int) -> float:
        """Of a cell after its training on ``data``.

        Raises:
            WorkerError: the trial failed.
        """
        match self._at(self.plain, replace(self.setting.b, data=data)).train(cell, seed, ["B"], math.inf):
            case [Trial(outcome=Measurement(epochs=epochs))]:
                return epochs.accuracy[-1]
            case found:
                raise WorkerError(f"{cell.id}: its training failed: {found}; logs: {self.folder}")

    def check(self, a: Side, b: Side, cells: Sequence[Cell], budget_s: float) -> tuple[Check, Sequence[Verdict]]:
        """The gate itself, by the path that ``check --against`` takes below git.

        Raises: as ``gate.conduct.measure`` does.
        """
        assert b.matrix is not None
        tree, name = Tree(label="selftest", commit=None), new_run_id(datetime.now(UTC), random.SystemRandom())
        sides = Sides(a=tree, b=tree, matrix=a.matrix, cells=tuple(cells), budget_s=budget_s)
        options = RunOptions(allow_plugins=self.setting.allow_plugins)
        matrix = replace(b.matrix, expect=())  # a missed floor fails whatever the sides do
        manifest = new_manifest(name, matrix, b.data, b.environ, options, str(b.matrix_path))
        folder = RunFolder.create(self.folder / "checks", replace(manifest, check=sides))
        setting = replace(self.setting, a=a, b=b, budget_s=budget_s, started_s=self.setting.clock())
        check = measure(folder, setting)
        return check, judge(check)

    def _at(self, a: Side, b: Side) -> benches.Bench:
        """Where these sides are measured for calibration."""
        (self.folder / "logs").mkdir(exist_ok=True)
        return benches.Bench(RunFolder(self.folder), replace(self.setting, a=a, b=b, observer=benches.CheckObserver()))


# ── what is put on side B ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What differs between the sides of a check.

    Args:
        name: in the table.
        faulty: the ids of the cells of B that are worse; none: the sides are alike, and every alarm is false.
        size: of the fault as it was measured, least and most over the cells: a ratio less 1, or a drop of accuracy.
    """

    name: str
    a: Side
    b: Side
    faulty: frozenset[str] = frozenset()
    size: tuple[float, float] | None = None


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


def slow_down(bench: Bench, step_s: Mapping[Cell, float]) -> tuple[Slowed, ...]:
    """Calibrates the extra work of every cell to each of ``AIMS``."""
    found = []
    for cell, seconds in step_s.items():
        bench.say(f"calibrating extra work: {cell.id}")
        numbers = itertools.count(1)  # every pair has a seed of its own

        def ratios(
            rows: Sequence[int], times: int, cell: Cell = cell, numbers: Iterator[int] = numbers
        ) -> list[list[float]]:
            return [[bench.pair(cell, count, next(numbers)).log_ratio for count in rows] for _ in range(times)]

        for aim, one in zip(AIMS, calibrate(seconds, AIMS, ratios), strict=True):
            slower = 100 * (one.ratio.estimate - 1)
            bench.say(f"  {cell.id}: {one.rows} rows of work: {slower:.1f} % slower (aim {aim - 1:.0%})")
            found.append(Slowed(cell=cell.id, aim=aim, rows=one.rows, measured=one.ratio, sessions=one.sessions))
    return tuple(found)


def mislabel(bench: Bench, cells: Sequence[Cell]) -> tuple[DataSet, Mislabelled] | None:
    """The least spoilt set of ``SHARES`` that costs every cell ``DROP`` of accuracy, or else the worst of them.

    A training with the first seed of the matrix each. None: not even the worst costs any cell so much.
    """
    seed, plain = bench.matrix.seeds[0], bench.plain.data
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


def conditions(
    bench: Bench, cells: Sequence[Cell], slowed: Sequence[Slowed], spoilt: tuple[DataSet, Mislabelled] | None
) -> Iterator[Condition]:
    """Identical sides, each slow-down, mislabelled data: in every one, all cells at once."""
    yield Condition(name="identical", a=bench.plain, b=bench.setting.b)
    for aim in dict.fromkeys(one.aim for one in slowed):
        own = {one.cell: one for one in slowed if one.aim == aim}
        a, b = bench.laden({cell: own[cell.id].rows for cell in cells})
        sizes = [one.measured.estimate - 1 for one in own.values()]
        name = f"{100 * (aim - 1):.0f} % slower"
        yield Condition(name=name, a=a, b=b, faulty=frozenset(own), size=(min(sizes), max(sizes)))
    if spoilt:
        data, found = spoilt
        hurt = {cell: drop for cell, drop in found.drops.items() if drop >= DROP}
        size = (min(hurt.values()), max(hurt.values()))
        b = replace(bench.setting.b, data=data)
        yield Condition(name=MISLABELLED, a=bench.plain, b=b, faulty=frozenset(hurt), size=size)


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
    labels = read_labels(old / TRAIN_LABELS_FILE)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), size=round(share * len(labels)), replace=False)
    shuffled = labels.copy()
    shuffled[chosen] = labels[rng.permutation(chosen)]
    write_idx(raw / TRAIN_LABELS_FILE, shuffled)
    for name in FILE_NAMES:
        if name != TRAIN_LABELS_FILE:
            (raw / name).symlink_to((old / name).resolve())
    write_sums(raw)
    return proven("mislabelled", root, None), float((shuffled != labels).mean())


# ── what the gate says of it ─────────────────────────────────────────────────────────────────────────────────────────


def measure_gate(bench: Bench, cells: Sequence[Cell], times: int, budget_s: float) -> Iterator[Report]:
    """Calibration, then the checks: each condition so many times over, in turns.

    So what the machine does over an hour is shared out, and an interrupted selftest has of all of them.

    Yields:
        What is known: before the first check, and after each. It ends early where a check was interrupted, which
        counts for nothing.
    """
    step_s = measurable(bench, cells)
    slowed = slow_down(bench, step_s)
    spoilt = mislabel(bench, list(step_s)) if step_s else None
    plan = list(conditions(bench, list(step_s), slowed, spoilt)) if step_s else []
    results: list[CheckResult] = []
    machine = environment.describe(bench.plain.environ)

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
        check, verdicts = bench.check(condition.a, condition.b, list(step_s), budget_s)
        if check.status != "complete":
            return
        seconds = bench.setting.clock() - begin
        results.append(CheckResult(condition=condition.name, seconds=seconds, cells=_said(check, verdicts)))
        yield report()


def _said(check: Check, verdicts: Sequence[Verdict]) -> tuple[CellResult, ...]:
    """What the gate said of each cell."""
    evidence = {one.cell: one for one in check.cells}
    return tuple(
        CellResult(
            cell=verdict.cell.id,
            kind=verdict.kind,
            pairs=len(evidence[verdict.cell].pairs),
            seeds=len(evidence[verdict.cell].seeds),
            ratio=1 / verdict.speed.ratio.estimate if verdict.speed else None,
            change=verdict.accuracy.change.estimate if verdict.accuracy else None,
        )
        for verdict in verdicts
    )
