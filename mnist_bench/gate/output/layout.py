"""JSON that a person can read: what fits on a line stands on one, the rest is indented."""

from __future__ import annotations

import json
from typing import Any

WIDTH = 120


def laid_out(value: Any, indent: int = 0) -> str:
    """A JSON value as text; every sample of a round thus stays on one line.

    Raises:
        ValueError: a number is not finite.
    """
    match value:
        case dict():
            items = [f"{_scalar(str(key))}: {laid_out(item, indent + 2)}" for key, item in value.items()]
            return _container("{", items, "}", indent)
        case list() | tuple():
            return _container("[", [laid_out(item, indent + 2) for item in value], "]", indent)
        case _:
            return _scalar(value)


def _container(opening: str, items: list[str], closing: str, indent: int) -> str:
    short = indent + sum(map(len, items)) + 2 * len(items) <= WIDTH
    if short and not any("\n" in item for item in items):
        return f"{opening}{', '.join(items)}{closing}"
    space = " " * (indent + 2)
    return f"{opening}\n{space}" + f",\n{space}".join(items) + f"\n{' ' * indent}{closing}"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
