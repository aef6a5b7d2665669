"""What a check asks of the gate while it measures: is this cell decided, and what could so many pairs show?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnist_bench.gate.records import AccuracyFinding, CellEvidence, Margins, ProcessPair, SeedPair, SpeedFinding

POWER = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The judges of one check.

    Args:
        looks: numbers of pairs at which a cell is judged.
        speed: of a cell's pairs; None without any.
        accuracy: of a cell's seeds and its floor; None without any.
        detectable: from a number of pairs of every cell and their standard deviation to the smallest slow-down that
            they find with probability ``POWER``, as a fraction; infinite: none.
    """

    looks: tuple[int, ...]
    speed: Callable[[Sequence[ProcessPair]], SpeedFinding | None]
    accuracy: Callable[[Sequence[SeedPair], float | None], AccuracyFinding | None]
    detectable: Callable[[int, float], float]


def rules_of(cells: Sequence[CellEvidence], margins: Margins) -> Rules:
    """The gate's own, for so many cells that can be compared: the same that its verdicts follow from."""
    from mnist_bench.gate.accuracy import find_accuracy
    from mnist_bench.gate.judge import cells_compared
    from mnist_bench.gate.power import detectable
    from mnist_bench.gate.speed import find_speed, looks

    count = max(1, cells_compared(cells))
    return Rules(
        looks=looks(count, margins),
        speed=lambda pairs: find_speed(pairs, count, margins),
        accuracy=lambda seeds, floor: find_accuracy(seeds, count, margins, floor),
        detectable=lambda pairs, sd: detectable(pairs, count, sd, margins, power=POWER),
    )
