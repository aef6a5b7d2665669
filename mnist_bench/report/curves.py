"""What cells learned: accuracy epoch by epoch, over their seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mnist_bench.records import Cell

Epoch = Mapping[str, Any]  # a line of epochs.csv


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a cell learned, epoch by epoch over its seeds (those that got that far)."""

    cell: Cell
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seconds: tuple[float, ...]  # of training up to the end of the epoch, mean over seeds
    seeds: int


def curves(epochs: Iterable[Epoch]) -> tuple[Curve, ...]:
    """One for each cell that finished an epoch, in the order in which the cells first come."""
    return tuple(_curve(rows) for rows in _together(epochs, _cell_of))


def _curve(rows: Sequence[Epoch]) -> Curve:
    by_seed = _together(rows, lambda row: row["trial"])
    lasting = max(len(own) for own in by_seed)
    accuracies = [[own[e]["accuracy"] for own in by_seed if len(own) > e] for e in range(lasting)]
    elapsed = [list(accumulate(row["train_s"] for row in own)) for own in by_seed]
    seconds = [[own[e] for own in elapsed if len(own) > e] for e in range(lasting)]
    return Curve(
        cell=_cell_of(rows[0]),
        mean=tuple(map(statistics.fmean, accuracies)),
        low=tuple(map(min, accuracies)),
        high=tuple(map(max, accuracies)),
        seconds=tuple(map(statistics.fmean, seconds)),
        seeds=len(by_seed),
    )


def _cell_of(row: Epoch) -> Cell:
    return Cell(**{name: row[name] for name in ("model", "device", "batch_size", "variant")})


def _together(rows: Iterable[Epoch], key: Callable[[Epoch], Hashable]) -> list[list[Epoch]]:
    found: dict[Hashable, list[Epoch]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.values())
