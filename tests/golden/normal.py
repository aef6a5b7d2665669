"""Outputs without what differs between machines, times and versions of libraries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

# What is dated 2020 or later is dated by the command (``make.py``): the same in as many characters.
NOW = (
    (re.compile(r"\b20[2-9]\d{5}T\d{6}Z-[a-z0-9]{6}"), "29991231T235959Z-zzzzzz"),
    (re.compile(r"\b20[2-9]\d-\d\d-\d\d([T ])\d\d:\d\d:\d\d"), r"2999-12-31\g<1>23:59:59"),
    (re.compile(r"\b20[2-9]\d-\d\d-\d\d([T ])\d\d:\d\d"), r"2999-12-31\g<1>23:59"),
)
LONG = re.compile(r"(?<![\w.])-?\d+\.\d{7,}(?:e[+-]?\d+)?(?![\w.])")
# Digests of records change with every field; those that ``make.py`` makes up do not.
DIGEST = re.compile(r"\b(?!0123|fedc|c0ff|badc|f00d)(?=\d*[a-f])[0-9a-f]{12,64}\b")
LONG_SHA = re.compile(r"\b(0123|fedc)[0-9a-f]{60}\b")
DIGITS = 9  # the last ones differ between versions of Python, numpy and scipy
HIDDEN = ("script", "style", "head")
CELLS = ("td", "th")
INLINE = ("span", "a", "code", "b", "i", "em", "strong", "sup", "abbr")
LABELS = ("title", "aria-label", "alt", "placeholder")
BREAKS = re.compile(r"\s*\n\s*")


def normal(text: str, *folders: object) -> str:
    """A text as it is stored."""
    for folder in folders:
        text = text.replace(str(folder), "<folder>")
    for pattern, instead in NOW:
        text = pattern.sub(instead, text)
    text = LONG_SHA.sub(r"\1...", DIGEST.sub("digest", text))
    return LONG.sub(lambda found: f"{float(found[0]):.{DIGITS}g}", text)


def page(html: str) -> str:
    """What stands on a page, line by line, and what its plots draw, in short."""
    reader = _Reader()
    reader.feed(html)
    text = BREAKS.sub("\n", re.sub(r"[ \t]+", " ", "".join(reader.text))).strip()
    plots = json.loads("".join(reader.data) or '{"plots": {}}')["plots"]
    return "\n".join((text, *(line for name, plot in plots.items() for line in _plot(name, plot)), ""))


class _Reader(HTMLParser):
    """The texts of a page, a line for each row of a table and each block; and the JSON of its plots."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.data: list[str] = []
        self.inside: list[str] = []  # hidden elements and cells, not yet ended

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in HIDDEN or tag in CELLS:
            self.inside.append("data" if ("id", "data") in attrs else tag)
        apart = " | " if tag in CELLS else " " if tag in INLINE or set(CELLS) & set(self.inside) else "\n"
        self.text += [apart, *(f"[{value}]" for key, value in attrs if key in LABELS and value)]

    def handle_endtag(self, tag: str) -> None:
        if tag in HIDDEN or tag in CELLS:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if "data" in self.inside:
            self.data.append(data)
        elif not set(HIDDEN) & set(self.inside):
            self.text.append(re.sub(r"\s+", " ", data))


def _plot(name: str, plot: dict[str, Any]) -> Iterator[str]:
    yield f"plot {name}: {', '.join(sorted(set(_drawn(plot['spec']))))}"
    for panel in plot["panels"]:
        values = panel["values"]
        keys = sorted({key for value in values for key in value})
        yield f"  {len(values)} values, " + "; ".join(f"{key} {_span(v.get(key) for v in values)}" for key in keys)


def _drawn(spec: Any) -> Iterator[str]:
    """Marks and encoded fields of a specification, however deep its layers."""
    if isinstance(spec, list):
        for part in spec:
            yield from _drawn(part)
    elif isinstance(spec, dict):
        if mark := spec.get("mark"):
            yield f"mark {mark['type'] if isinstance(mark, dict) else mark}"
        for channel, encoding in (spec.get("encoding") or {}).items():
            if isinstance(encoding, dict) and "field" in encoding:
                yield f"{channel} {encoding['field']}"
        for part in spec.values():
            yield from _drawn(part)


def _span(values: Iterable[Any]) -> str:
    """Figures as lowest..highest (sum), words as they are."""
    found = [value for value in values if value is not None]
    if found and all(isinstance(value, int | float) for value in found):
        return f"{min(found):.4g}..{max(found):.4g} ({sum(found):.4g})"
    words = list(dict.fromkeys(map(str, found)))
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")
