"""Figures as people read them: as many digits as they are worth, never an exponent. None is an empty text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_bench.records import VariantClass
    from mnist_bench.rows import Row

FOOTNOTES = {
    "†": "noisy: the machine was disturbed while this was measured",
    "‡": "unpaired: the two sides were never timed together; drift of the machine is in the ratio",
    "§": "class B (changed numerics) or C (changed algorithm): judge the speed-up together with the accuracy",
}


def significant(value: float | None, digits: int = 3) -> str:
    """``12345.6`` is ``12,346``, ``12.345`` is ``12.3``, ``0.012345`` is ``0.0123``."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), 9)}f}"


def ratio(value: float | None) -> str:
    """``1.43x``; a slow-down of a hundred times is ``0.010x``, not ``0.01x``."""
    if value is None:
        return ""
    return f"{value:.2f}x" if value >= 0.1 else f"{significant(value, 2)}x"


def bounds(low: float | None, high: float | None) -> str:
    """A ratio's interval: ``[1.38, 1.49]``."""
    return "" if low is None or high is None else f"[{ratio(low)[:-1]}, {ratio(high)[:-1]}]"


def rate_bounds(low: float | None, high: float | None) -> str:
    """A rate's interval: ``[11,900, 12,800]``."""
    return "" if low is None or high is None else f"[{significant(low)}, {significant(high)}]"


def accuracy(mean: float | None, deviation: float | None) -> str:
    """``0.9753 ± 0.0012``: the standard deviation over seeds, where there are two."""
    if mean is None:
        return ""
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def joined(*parts: str) -> str:
    """The parts that are not empty, with a space between."""
    return " ".join(part for part in parts if part)


def plain(text: str) -> str:
    """Text from outside on one line, without control characters (a terminal obeys them)."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def shortened(text: str, most: int) -> str:
    """A text of at most ``most`` characters, cut in its middle: ``lenet5/…/eager``."""
    if len(text) <= most:
        return text
    begin = most // 2
    return f"{text[:begin]}…{text[len(text) - (most - begin - 1) :]}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def marks(row: Row) -> str:
    """What a reader must know before comparing this row with another, as signs of ``FOOTNOTES``."""
    return signs(noisy=row.noisy is True, unpaired=row.paired == "unpaired", class_=row.class_)


def signs(*, noisy: bool, unpaired: bool, class_: VariantClass | None) -> str:
    """The signs of ``FOOTNOTES`` that hold."""
    holds = {"†": noisy, "‡": unpaired, "§": class_ in ("B", "C")}
    return "".join(mark for mark, held in holds.items() if held)


def footnotes(rows: Iterable[Row]) -> list[str]:
    """What the signs mean that these rows carry."""
    used = {mark for row in rows for mark in marks(row)}
    return [f"{mark} {text}" for mark, text in FOOTNOTES.items() if mark in used]


def fastest(rows: Sequence[Row]) -> frozenset[str]:
    """The ids of the cells with the best training throughput of their model, where it has several to choose from."""
    best: dict[str, Row] = {}
    count: dict[str, int] = {}
    for row in rows:
        if row.status != "ok" or row.train_samples_per_s is None:
            continue
        count[row.model] = count.get(row.model, 0) + 1
        known = best.get(row.model)
        if known is None or row.train_samples_per_s > (known.train_samples_per_s or 0):
            best[row.model] = row
    return frozenset(row.cell.id for model, row in best.items() if count[model] > 1)
