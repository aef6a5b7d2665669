"""Outputs without what differs between machines, times and versions of libraries."""

import json
import re
from collections.abc import Iterator
from typing import Any

from lxml import html

REPLACED = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        # What is dated 2020 or later is dated by the command (``make.py``): the same in as many characters.
        (r"\b20[2-9]\d{5}T\d{6}Z-[a-z0-9]{6}", "29991231T235959Z-zzzzzz"),
        (r"\b20[2-9]\d-\d\d-\d\d([T ])\d\d:\d\d:\d\d", r"2999-12-31\g<1>23:59:59"),
        (r"\b20[2-9]\d-\d\d-\d\d([T ])\d\d:\d\d", r"2999-12-31\g<1>23:59"),
        # Digests of records change with every field; those that ``make.py`` makes up do not.
        (r"\b(?!0123|fedc|c0ff|badc|f00d)(?=\d*[a-f])[0-9a-f]{12,64}\b", "digest"),
        (r"\b(0123|fedc)[0-9a-f]{60}\b", r"\1..."),
        (r'("(?:manifest\.json|trials\.jsonl|sessions\.jsonl)": )\d+', r"\1(bytes)"),
    )
)
# The last digits differ between versions of Python, numpy and scipy.
LONG, DIGITS = re.compile(r"(?<![\w.])-?\d+\.\d{7,}(?:e[+-]?\d+)?(?![\w.])"), 9
CELLS, INLINE = ("td", "th"), ("span", "a", "code", "b", "i", "em", "strong", "sup", "abbr")
LABELS = ("title", "aria-label", "alt", "placeholder")


def normal(text: str, *folders: object) -> str:
    """A text as it is stored."""
    for folder in folders:
        text = text.replace(str(folder), "<folder>")
    for pattern, instead in REPLACED:
        text = pattern.sub(instead, text)
    return LONG.sub(lambda found: f"{float(found[0]):.{DIGITS}g}", text)


def page(source: str) -> str:
    """What stands on a page, a line for each block and row of a table; and what its plots draw, in short."""
    document = html.fromstring(source)
    data = "".join(document.xpath("//script[@id='data']/text()")) or '{"plots": {}}'
    for hidden in document.xpath("//head | //script | //style"):
        hidden.drop_tree()
    text = re.sub(r"[ \t]+", " ", "".join(_texts(document)))
    plots = json.loads(data)["plots"].items()
    return "\n".join((re.sub(r"\s*\n\s*", "\n", text).strip(), *(line for plot in plots for line in _plot(*plot)), ""))


def _texts(element: Any) -> Iterator[str]:
    in_cell = next(element.iterancestors(*CELLS), None) is not None
    yield " | " if element.tag in CELLS else " " if element.tag in INLINE or in_cell else "\n"
    yield from (f"[{value}] " for name, value in element.items() if name in LABELS and value)
    yield re.sub(r"\s+", " ", element.text or "")
    for child in element.iterchildren(tag="*"):
        yield from _texts(child)
        yield re.sub(r"\s+", " ", child.tail or "")


def _plot(name: str, plot: dict[str, Any]) -> Iterator[str]:
    """The words of its specification that say what is drawn; of each panel, the figures and words of each field."""
    drawn = re.findall(r'"(?:mark|type|field|title)": "([^"]*)"', json.dumps(plot["spec"], ensure_ascii=False))
    yield f"plot {name}: {', '.join(dict.fromkeys(drawn))}"
    for panel in plot["panels"]:
        fields = {key: [row.get(key) for row in panel["values"]] for row in panel["values"] for key in row}
        yield f"  {len(panel['values'])} values: " + "; ".join(f"{key} {_span(fields[key])}" for key in sorted(fields))


def _span(values: list[Any]) -> str:
    """Figures as lowest..highest (sum), words as they are."""
    found = [value for value in values if value is not None]
    if found and all(isinstance(value, int | float) for value in found):
        return f"{min(found):.4g}..{max(found):.4g} ({sum(found):.4g})"
    words = list(dict.fromkeys(map(str, found)))
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")
