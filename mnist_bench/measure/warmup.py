"""When a trial is warm: the steady state is found, not assumed."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

WINDOW_NS = 50_000_000  # a window of steps lasts about this long
WINDOWS = 3  # so many windows in a row must agree
AGREEMENT = 0.05  # their medians, within this fraction
LIMIT_NS = 3_000_000_000  # a machine that never settles is taken as it is; the session's noise will tell


def settle(time_steps: Callable[[int], list[int]]) -> list[int]:
    """Executes steps until they are steady.

    Args:
        time_steps: executes that many steps and returns the ns of each.

    Returns:
        The durations of all steps executed, in ns; the last window's are the steady ones.
    """
    durations = time_steps(2)
    medians: list[float] = []
    while True:
        count = max(1, round(WINDOW_NS / max(1, median(durations[-5:]))))
        durations += (window := time_steps(count))
        medians.append(median(window))
        recent = medians[-WINDOWS:]
        if len(recent) == WINDOWS and max(recent) <= (1 + AGREEMENT) * min(recent):
            return durations
        if sum(durations) >= LIMIT_NS:
            return durations


def block_steps(durations: list[int], block_ns: int = 100_000_000) -> int:
    """How many steps make a block of about 0.1 s, from the latest steps' median."""
    return max(1, round(block_ns / max(1, median(durations[-50:]))))
