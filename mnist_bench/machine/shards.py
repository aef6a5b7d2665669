"""Parts of a run for machines that do not know of each other: about as long each, and the same on every machine."""

import functools
import heapq
import re
from collections.abc import Sequence

from mnist_bench.cells import GroupTrials
from mnist_bench.errors import UsageError
from mnist_bench.machine.forecast import MEASURED_CORES, trial_s
from mnist_bench.records import Cell, Matrix


def parse(text: str) -> tuple[int, int]:
    """Reads ``--shard``: ``K/N``, K from 1 to N.

    >>> parse("2/4")
    (2, 4)
    """
    found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise UsageError(f"--shard: {text!r} is not K/N with K from 1 to N (as in 2/4: the second of four shards)")


def shard(matrix: Matrix, groups: Sequence[GroupTrials], text: str | None) -> tuple[GroupTrials, ...]:
    """The groups of a shard, as ``--shard`` has it; None: all. None where there are fewer groups than shards."""
    if text is None:
        return tuple(groups)
    number, count = parse(text)
    shards = split(matrix, groups, count)
    return shards[number - 1] if number <= len(shards) else ()


def split(matrix: Matrix, groups: Sequence[GroupTrials], count: int) -> tuple[tuple[GroupTrials, ...], ...]:
    """The shards that have a group: as many as were asked for, or as there are groups.

    The longest group first, each to the shard with the least so far (Graham, 1969: at most 4/3 of the best there is).
    The time is that of a machine with two cores and every device, in whole milliseconds: machines that shared out by
    what each of them has and measures would lose groups between them.

    Args:
        groups: in matrix order, as each shard has them again.
    """

    @functools.cache
    def trial_ms(cell: Cell) -> int:
        timing_s = matrix.timing.budget_seconds / len(matrix.seeds)
        return round(1000 * (trial_s(cell, matrix, matrix.epochs, MEASURED_CORES) + timing_s))

    times = [sum(trial_ms(cell) for cell, _ in trials) for _, trials in groups]
    shards: list[list[int]] = [[] for _ in range(min(count, len(groups)))]
    loads = [(0, number) for number in range(len(shards))]  # a heap
    for group in sorted(range(len(groups)), key=lambda group: -times[group]):
        load, number = loads[0]
        shards[number].append(group)
        heapq.heapreplace(loads, (load + times[group], number))
    return tuple(tuple(groups[group] for group in sorted(own)) for own in shards)
