"""In what two JSON values differ, and where."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place. ``missing`` says which value lacks it altogether (a key, or an item of a list)."""

    where: str
    left: Any
    right: Any
    missing: Literal["left", "right"] | None = None


def differences(left: Any, right: Any, *, relative: float = 0.0, where: str = "") -> Iterator[Difference]:
    """Every place where two values differ, in their order.

    Args:
        left: JSON values.
        right: JSON values.
        relative: by how much of their size two figures with decimals may differ and still be the same.
        where: the path so far, as in ``verdicts[3].speed``.
    """
    if isinstance(left, dict) and isinstance(right, dict):
        for key in {**left, **right}:
            path = f"{where}.{key}" if where else str(key)
            yield from _item(left, right, key, path, relative, (key in left, key in right))
    elif isinstance(left, list) and isinstance(right, list):
        for number in range(max(len(left), len(right))):
            path = f"{where}[{number}]"
            yield from _item(left, right, number, path, relative, (number < len(left), number < len(right)))
    elif not _same(left, right, relative):
        yield Difference(where=where, left=left, right=right)


def _item(
    left: Any, right: Any, key: Any, path: str, relative: float, present: tuple[bool, bool]
) -> Iterator[Difference]:
    match present:
        case (True, True):
            yield from differences(left[key], right[key], relative=relative, where=path)
        case (True, False):
            yield Difference(where=path, left=left[key], right=None, missing="right")
        case _:
            yield Difference(where=path, left=None, right=right[key], missing="left")


def _same(left: Any, right: Any, relative: float) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, float) and isinstance(right, float) and relative:
        # Sums and products in another order leave an absolute error too, where the figure itself is about 0.
        return math.isclose(left, right, rel_tol=relative, abs_tol=relative)
    return bool(left == right)
