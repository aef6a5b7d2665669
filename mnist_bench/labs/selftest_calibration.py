"""Extra work: how it reaches a model, and how much of it makes a step 5, 10 or 20 % longer. Pure.

The matrix names a plug-in (``worker.models``): to the harness a model like any other. Both sides of a check have the
same matrix; only the rows of work in their environments differ, so nothing but the time of a forward pass does.

The amount is a number of rows (``worker.models.Laden``): time grows with it in small steps, and a compiled graph
stays as short as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.catalogue import SELFTEST, training_of
from mnist_bench.cells import model_of
from mnist_bench.errors import UsageError
from mnist_bench.records import Cell, Matrix, ModelEntry, Selector
from mnist_bench.run.protocol import LOAD_DEPTH, LOAD_VARIABLE, LOAD_WIDTH
from mnist_bench.stats import Interval, t_interval

AIMS = (1.05, 1.10, 1.20)  # seconds per step, B / A
ROW_FLOPS = 2 * LOAD_DEPTH * LOAD_WIDTH**2
GUESSED_FLOPS = 2e10  # a second: of the first guess only
TOLERANCE = 0.01  # of a measured ratio from the one that is aimed at
SESSIONS = 4  # of fresh processes behind one measured ratio: one of them knows it to 1.5 % (session_ratios.PROCESS_SD)
PROBES = 6  # single sessions: 4,096 times the guessed speed is within reach
ATTEMPTS = 3
MOST_CHANGE = 4.0  # of the rows from one measurement to the next: a wild session must not lead astray
MOST_ROWS = 1 << 20  # 256 MiB
LEAST_RATIO = 0.1  # of a wild session, scaled


# Times fresh processes, so many times over: for each number of rows a pair of the plain model and the laden one. Gives
# the ln of seconds per step, laden / plain: a list for each time, in it a figure for each number of rows.
Ratios = Callable[[Sequence[int], int], Sequence[Sequence[float]]]


def instrumented(matrix: Matrix, cells: Sequence[Cell]) -> Matrix:
    """A matrix of ``cells`` alone, with the plug-in for their models, trained as these are.

    Raises:
        UsageError: under the recipe ``tutorial`` inputs are scaled by a built-in model's name, which a plug-in has not.
    """
    if matrix.recipe != "standard":
        raise UsageError(f"recipe: {matrix.recipe}: selftest measures the recipe standard only; give it such a matrix")
    models = tuple(_laden(matrix, name) for name in dict.fromkeys(cell.model for cell in cells))
    return replace(matrix, models=models, exclude=(Selector(),), include=tuple(cells))


def _laden(matrix: Matrix, name: str) -> ModelEntry:
    entry = model_of(matrix, name)
    training = training_of(entry, matrix.recipe)
    return replace(entry, model=SELFTEST, optimizer=training.optimizer, lr=training.lr)


def loads(matrix: Matrix, rows: Mapping[Cell, int]) -> dict[str, str]:
    """The environment that tells the plug-in what to build.

    Args:
        matrix: before ``instrumented``: it knows the models themselves.
        rows: of extra work, for every cell that is measured; 0: the model as it is.
    """
    plan = {cell.id: [model_of(matrix, cell.model).model, count] for cell, count in rows.items()}
    return {LOAD_VARIABLE: json.dumps(plan, separators=(",", ":"))}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Rows of work, and the ratio that ``sessions`` sessions measured with them (or scaled to them: ``pooled``)."""

    rows: int
    ratio: Interval
    sessions: int


def calibrate(step_s: float, aims: Sequence[float], ratios: Ratios) -> tuple[Calibrated, ...]:
    """The rows for each aim, with what was measured.

    Single sessions correct the guess until its order is right. Then come batches of ``SESSIONS``, at most ``ATTEMPTS``:
    rows whose ratio is off its aim change from one to the next. Near the aim or not, what is returned was measured,
    and over all that is known: to take the batch that happened to be near would be to choose the luckiest.

    Args:
        step_s: of the plain model, about.
        aims: ratios above 1, ascending.
        ratios: measures them.
    """
    rows = _probe([guess(step_s, aim) for aim in aims], aims, ratios)
    seen: list[list[tuple[int, float]]] = [[] for _ in aims]
    for attempt in range(ATTEMPTS):
        for session in ratios(rows, SESSIONS):
            for one, count, value in zip(seen, rows, session, strict=True):
                one.append((count, value))
        found = [pooled(one, count) for one, count in zip(seen, rows, strict=True)]
        better = nudged(rows, [one.ratio.estimate for one in found], aims)
        if better == rows or attempt == ATTEMPTS - 1:
            break
        rows = better
    return tuple(found)


def _probe(rows: list[int], aims: Sequence[float], ratios: Ratios) -> list[int]:
    for _ in range(PROBES):
        measured = [math.exp(value) for value in ratios(rows, 1)[0]]
        rows = scaled(rows, measured, aims)
        if (aims[-1] - 1) / 2 <= measured[-1] - 1 <= 2 * (aims[-1] - 1):
            break
    return rows


def guess(step_s: float, aim: float) -> int:
    """Rows that take ``aim - 1`` of a step at an assumed rate."""
    return _whole((aim - 1) * step_s * GUESSED_FLOPS / ROW_FLOPS)


def scaled(rows: Sequence[int], measured: Sequence[float], aims: Sequence[float]) -> list[int]:
    """The rows that should have met the aims, from one session, if time grows with them in proportion.

    Small ratios drown in the noise between processes: so the time of a row is that of all of them together (least
    squares through 1), and not each one's own.
    """
    slope = sum(count * (ratio - 1) for count, ratio in zip(rows, measured, strict=True)) / sum(n * n for n in rows)
    return [_changed(count, aim, 1 + slope * count) for count, aim in zip(rows, aims, strict=True)]


def nudged(rows: Sequence[int], measured: Sequence[float], aims: Sequence[float]) -> list[int]:
    """Better rows for those whose ratio, known from several sessions, is off its aim; the others as they are."""
    return [
        count if abs(ratio - aim) <= TOLERANCE else _changed(count, aim, ratio)
        for count, ratio, aim in zip(rows, measured, aims, strict=True)
    ]


def _changed(rows: int, aim: float, ratio: float) -> int:
    factor = (aim - 1) / (ratio - 1) if ratio > 1 else MOST_CHANGE
    return _whole(rows * min(max(factor, 1 / MOST_CHANGE), MOST_CHANGE))


def pooled(seen: Sequence[tuple[int, float]], rows: int) -> Calibrated:
    """The ratio with ``rows`` of work over sessions with about as many, each scaled in proportion.

    Args:
        seen: rows, and the ln ratio that a session found with them.
        rows: those of the last sessions.

    Returns:
        The mean and its 95 % t interval, in which a session's variance is at least that between processes.
    """
    near = [(count, value) for count, value in seen if rows / 2 <= count <= 2 * rows]
    values = [math.log(max(1 + math.expm1(value) * rows / count, LEAST_RATIO)) for count, value in near]
    ratio = t_interval(values, variance_floor=PROCESS_SD**2).exp()
    return Calibrated(rows=rows, ratio=ratio, sessions=len(values))


def _whole(rows: float) -> int:
    return min(max(1, round(rows)), MOST_ROWS)
