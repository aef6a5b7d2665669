"""The clock of a trial, where its time goes, and when it is warm (docs/measurement.md)."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from statistics import median

NS = 1e-9
clock = time.perf_counter_ns  # bound before a model's code is imported: one that replaces it is not read by us
_ASLEEP = "asleep"
WINDOW_NS = 50_000_000  # a window of steps lasts about this long
WINDOWS = 3  # so many windows in a row must agree
AGREEMENT = 0.05  # their medians, within this fraction
LIMIT_NS = 3_000_000_000  # a machine that never settles is taken as it is; the session's noise will tell


class Waterfall:
    """Adds up durations by phase. What no phase claims stays visible: ``elapsed - asleep - sum(phases)`` (rule 6).

    Args:
        now: nanoseconds, the same clock as ``started_ns``.
        started_ns: when the runner started the process.
    """

    def __init__(self, now: Callable[[], int], started_ns: int) -> None:
        self._now, self._started_ns = now, started_ns
        self._phases: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = self._now()
        try:
            yield
        finally:
            self.add(name, self._now() - begin)

    def asleep(self) -> AbstractContextManager[None]:
        return self.phase(_ASLEEP)

    def add(self, name: str, duration_ns: int) -> None:
        self._phases[name] = self._phases.get(name, 0) + duration_ns

    def phases_s(self) -> dict[str, float]:
        return {name: duration * NS for name, duration in self._phases.items() if name != _ASLEEP}

    def elapsed_s(self) -> float:
        return (self._now() - self._started_ns) * NS

    def asleep_s(self) -> float:
        return self._phases.get(_ASLEEP, 0) * NS

    def awake_s(self) -> float:
        return self.elapsed_s() - self.asleep_s()


def settle(time_steps: Callable[[int], list[int]]) -> list[int]:
    """Executes steps until they are steady: warm-up is found, not assumed.

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
