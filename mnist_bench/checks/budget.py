"""Wall time over all sittings of a check: how much there is, and how much is spent."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mnist_bench.errors import UsageError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
MOST_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """``total_s`` over all sittings, of which ``before_s`` went in earlier ones.

    Args:
        clock: seconds.
        started_s: the clock at the start of this sitting.
    """

    total_s: float
    before_s: float
    clock: Callable[[], float]
    started_s: float

    def spent_s(self) -> float:
        return self.before_s + self.clock() - self.started_s

    def left_s(self) -> float:
        return self.total_s - self.spent_s()


def parse(text: str) -> float:
    """Reads ``--budget``.

    Args:
        text: a number and its unit.

    Returns:
        Seconds.

    >>> parse("90s"), parse("20m"), parse("1.5h")
    (90.0, 1200.0, 5400.0)
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text.strip(), re.ASCII)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= MOST_S:
        raise UsageError(f"--budget: {text[:40]!r} is no time up to a week: say 90s, 20m or 1h")
    return seconds


def words(seconds: float) -> str:
    """A time as a person says it.

    >>> words(42), words(150), words(5400)
    ('42 s', '2 min 30 s', '1 h 30 min')
    """
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min" + (f" {rest} s" if rest and minutes < 10 else "")
    hours, rest = divmod(whole, 3600)
    return f"{hours} h" + (f" {rest // 60} min" if rest // 60 else "")
