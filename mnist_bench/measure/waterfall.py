"""Where a trial's time goes: named phases that must add up to the time awake (docs/measurement.md, rule 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

NS = 1e-9


class Waterfall:
    """Adds up durations by phase. What no phase claims stays visible: ``elapsed - asleep - sum(phases)``.

    Args:
        clock: nanoseconds, the same clock as ``started_ns``.
        started_ns: when the runner started the process.
    """

    def __init__(self, clock: Callable[[], int], started_ns: int) -> None:
        self._clock = clock
        self._started_ns = started_ns
        self._phases: dict[str, int] = {}
        self._asleep_ns = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = self._clock()
        try:
            yield
        finally:
            self.add(name, self._clock() - begin)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        begin = self._clock()
        try:
            yield
        finally:
            self._asleep_ns += self._clock() - begin

    def add(self, name: str, duration_ns: int) -> None:
        self._phases[name] = self._phases.get(name, 0) + duration_ns

    def phases_s(self) -> dict[str, float]:
        return {name: duration * NS for name, duration in self._phases.items()}

    def elapsed_s(self) -> float:
        return (self._clock() - self._started_ns) * NS

    def asleep_s(self) -> float:
        return self._asleep_ns * NS

    def awake_s(self) -> float:
        return self.elapsed_s() - self.asleep_s()
