"""How much extra work makes a step 5, 10 or 20 % longer: arithmetic on measured ratios. Pure.

The amount is a number of rows (``injected.Laden``): time grows with it in small steps, and a compiled graph stays as
short as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.stats import Interval, t_interval

DEPTH = 4  # products in a row
WIDTH = 64  # of the matrices
ROW_FLOPS = 2 * DEPTH * WIDTH * WIDTH
GUESSED_FLOPS = 2e10  # a second: of the first guess only
TOLERANCE = 0.01  # of a measured ratio from the one that is aimed at
SESSIONS = 4  # of fresh processes behind one measured ratio: one of them knows it to 1.5 % (session_ratios.PROCESS_SD)
PROBES = 6  # single sessions: 4,096 times the guessed speed is within reach
ATTEMPTS = 3
MOST_CHANGE = 4.0  # of the rows from one measurement to the next: a wild session must not lead astray
MOST_ROWS = 1 << 20  # 256 MiB
LEAST_RATIO = 0.1  # of a wild session, scaled


class Ratios(Protocol):
    """Times sessions of fresh processes: the plain model, and one with each number of rows, alive together.

    Returns the ln of seconds per step over those of the plain model: a session each, a figure for each of ``rows``.
    """

    def __call__(self, rows: Sequence[int], sessions: int) -> Sequence[Sequence[float]]: ...


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

    All ratios of a session share its plain process, and small ones drown in the noise between processes: so the time
    of a row is that of all of them together (least squares through 1), and not each one's own.
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
