"""A selftest from calibration to the last check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from mnist_bench.checks.cells import differences
from mnist_bench.gate.records import Check, Verdict
from mnist_bench.records import Cell
from mnist_bench.selftest.calibration import calibrate
from mnist_bench.selftest.instruments import instrumented, loads
from mnist_bench.selftest.labels import spoil
from mnist_bench.selftest.records import (
    DROP,
    MISLABELLED,
    SLOW_DOWNS,
    CellResult,
    CheckResult,
    Condition,
    Mislabelled,
    RunCheck,
    Side,
    Slowed,
)
from mnist_bench.selftest.sessions import NotHere, Timer, Workshop, train

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)  # of the training labels that are shuffled, until the accuracy has dropped
Say = Callable[[str], None]


def measurable(workshop: Workshop, cells: Sequence[Cell], say: Say) -> tuple[Cell, ...]:
    """The cells that this machine can execute and time side by side; of the others it says why not."""
    found = []
    for cell in cells:
        if reasons := tuple(differences(workshop.matrix, workshop.matrix, cell)):
            say(f"left out: {cell.id}: {'; '.join(reasons)}")
            continue
        try:
            Timer(workshop, cell).step_s()
        except NotHere as error:
            say(f"left out: {error}")
        else:
            found.append(cell)
    return tuple(found)


def slow_down(workshop: Workshop, cells: Sequence[Cell], say: Say) -> tuple[Slowed, ...]:
    """Calibrates the extra work of every cell to each of ``SLOW_DOWNS``."""
    found = []
    for cell in cells:
        say(f"calibrating extra work: {cell.id}")
        timer = Timer(workshop, cell)
        for aim, one in zip(SLOW_DOWNS, calibrate(timer.step_s(), SLOW_DOWNS, timer), strict=True):
            slower = 100 * (one.ratio.estimate - 1)
            say(f"  {cell.id}: {one.rows} rows of work: {slower:.1f} % slower (aim {aim - 1:.0%})")
            found.append(Slowed(cell=cell, aim=aim, rows=one.rows, measured=one.ratio, sessions=one.sessions))
    return tuple(found)


def mislabel(workshop: Workshop, cells: Sequence[Cell], say: Say) -> Mislabelled | None:
    """The least spoilt set of ``SHARES`` that costs every cell ``DROP`` of accuracy, or else the worst of them.

    A training with the first seed of the matrix each. None: not even the worst costs any cell so much.
    """
    seed = workshop.matrix.seeds[0]
    before = {cell: train(workshop, cell, seed) for cell in cells}
    for share in SHARES:
        say(f"calibrating mislabelled data: {share:.0%} of the training labels shuffled")
        spoilt = spoil(workshop.data, workshop.folder / f"mislabelled-{share:g}", share, seed=seed)
        shop = replace(workshop, data=spoilt.data)
        drops = {cell: before[cell] - train(shop, cell, seed) for cell in cells}
        for cell, drop in drops.items():
            say(f"  {cell.id}: accuracy {before[cell]:.4f}, {100 * drop:.2f} pp less with {spoilt.fraction:.0%} wrong")
        if min(drops.values()) >= DROP:
            break
    return Mislabelled(data=spoilt.data, fraction=spoilt.fraction, drops=drops) if max(drops.values()) >= DROP else None


def conditions(
    workshop: Workshop, cells: Sequence[Cell], slowed: Sequence[Slowed], mislabelled: Mislabelled | None
) -> tuple[Condition, ...]:
    """Identical sides, each slow-down, mislabelled data: in every one, all cells at once."""
    plain = Side(matrix=workshop.matrix, environ=workshop.environ, data=workshop.data)
    laden = replace(plain, matrix=instrumented(workshop.matrix, cells))

    def side(rows: Mapping[Cell, int]) -> Side:
        return replace(laden, environ={**workshop.environ, **loads(workshop.matrix, rows)})

    found = [Condition(name="identical", a=plain, b=plain)]
    for aim in dict.fromkeys(one.aim for one in slowed):
        own = [one for one in slowed if one.aim == aim]
        ratios = [one.measured.estimate - 1 for one in own]
        found.append(
            Condition(
                name=f"{aim - 1:.0%} slower".replace("%", " %"),
                a=side(dict.fromkeys(cells, 0)),
                b=side({one.cell: one.rows for one in own}),
                faulty=frozenset(one.cell for one in own),
                size=(min(ratios), max(ratios)),
            )
        )
    if mislabelled is not None:
        hurt = {cell: drop for cell, drop in mislabelled.drops.items() if drop >= DROP}
        found.append(
            Condition(
                name=MISLABELLED,
                a=plain,
                b=replace(plain, data=mislabelled.data),
                faulty=frozenset(hurt),
                size=(min(hurt.values()), max(hurt.values())),
            )
        )
    return tuple(found)


def checks(
    conditions: Sequence[Condition],
    cells: Sequence[Cell],
    *,
    times: int,
    budget_s: float,
    run_check: RunCheck,
    clock: Callable[[], float],
    say: Say,
) -> Iterator[CheckResult]:
    """Each condition ``times`` over, in turns: what the machine does over an hour is shared out, and an interrupted
    selftest has of all of them. Ends early where a check was interrupted; that check counts for nothing.
    """
    total = times * len(conditions)
    for number in range(total):
        condition = conditions[number % len(conditions)]
        say(f"check {number + 1} of {total}: {condition.name}")
        begin = clock()
        check, verdicts = run_check(condition.a, condition.b, cells, budget_s)
        if check.status != "complete":
            return
        seconds = clock() - begin
        yield CheckResult(condition=condition.name, seconds=seconds, cells=_results(check, verdicts))


def _results(check: Check, verdicts: Sequence[Verdict]) -> tuple[CellResult, ...]:
    evidence = {one.cell: one for one in check.cells}
    return tuple(
        CellResult(
            cell=verdict.cell,
            kind=verdict.kind,
            pairs=len(evidence[verdict.cell].pairs),
            seeds=len(evidence[verdict.cell].seeds),
            ratio=None if verdict.speed is None else verdict.speed.ratio.estimate,
            change=None if verdict.accuracy is None else verdict.accuracy.change.estimate,
        )
        for verdict in verdicts
    )
