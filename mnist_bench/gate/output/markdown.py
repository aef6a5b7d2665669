"""A check as GitHub shows it: the summary of a step, and a comment on a pull request.

GitHub drops a summary or refuses a comment that is too long, so nothing here is ever longer than it is told: passes are
left out first, then advisory figures, then the mildest of the other cells, and how many were is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mnist_bench import figures
from mnist_bench.gate.judge import exit_code
from mnist_bench.gate.output import words
from mnist_bench.gate.records import Check, Verdict
from mnist_bench.markdown import escape, table

MARKER = "<!-- mnist-bench check -->"  # by which a bot finds the comment that it is to replace
SUMMARY_BYTES = 1 << 20  # of all summaries of one step together
COMMENT_BYTES = 65_000  # GitHub takes 65,536 characters
HEAD_BYTES = 16_000  # of facts, whatever notes and names there are
LONGEST_TEXT = 1000  # characters of one text

Show = Callable[[Verdict], str]


@dataclass(frozen=True, slots=True)
class _Table:
    """Lines that may be left out from the end. ``title``: of the fold that they stand in; empty: they stand open."""

    title: str
    header: tuple[str, ...]
    lines: tuple[str, ...]

    def text(self, lines: Sequence[str]) -> str:
        body = "\n".join([table(self.header, (), ["---"] * len(self.header)), *lines])
        return f"<details><summary>{self.title}</summary>\n\n{body}\n\n</details>" if self.title else body


def comment(check: Check, verdicts: Sequence[Verdict]) -> str:
    """For a pull request, at most ``COMMENT_BYTES`` long; the first line is ``MARKER``."""
    return f"{MARKER}\n{page(check, verdicts, COMMENT_BYTES - len(MARKER) - 1)}"


def page(check: Check, verdicts: Sequence[Verdict], limit: int = SUMMARY_BYTES) -> str:
    """The verdict in a sentence; a table of the cells that are not a pass; folded: passes, advisory figures, the head.

    Args:
        limit: bytes of UTF-8 that it may take, ``HEAD_BYTES`` and some thousands more at least.
    """
    code = exit_code(check, verdicts)
    ordered = words.sorted_worst_first(verdicts)
    remarks = (words.unfinished(check), words.noise(check))
    parts = [f"### {_heading(check, code)}", _text(words.overall(verdicts, code)), *map(escape, filter(None, remarks))]
    head = _head(check)
    room = limit - sum(_size(part) + 2 for part in [*parts, head]) - 300  # what is said of lines left out
    others, passes, advisories = _tables(check, ordered)
    left_out = []
    shown = {}
    for name, one in (("cells", others), ("advisory lines", advisories), ("passes", passes)):
        kept = _fitting(one, room)
        room -= _size(one.text(kept)) + 2 if kept else 0
        shown[name] = one.text(kept) if kept else ""
        if len(kept) < len(one.lines):
            left_out.append(f"{len(one.lines) - len(kept):,} of {len(one.lines):,} {name}")
    if left_out:
        parts.append(f"Left out for want of room: {', '.join(left_out)}. check.json has them.")
    parts += [shown["cells"], shown["passes"], shown["advisory lines"], head]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(check: Check, code: int) -> str:
    return f"{words.OVERALL[code][0]}: {_text(check.b.label)} against {_text(check.a.label)}"


def _tables(check: Check, ordered: Sequence[Verdict]) -> tuple[_Table, _Table, _Table]:
    noisy = words.noisy_pairs(check)
    columns: dict[str, Show] = {
        "cell": lambda one: figures.joined(_text(one.cell.id), "†" if one.cell in noisy else ""),
        "speed": lambda one: _text(words.speed(one)),
        "accuracy": lambda one: _text(words.accuracy(one)),
        "pairs": words.pairs,
        "seeds": words.seeds,
    }
    long: dict[str, Show] = {"verdict": lambda one: f"**{words.kind(one)}**", **columns, "why": lambda one: _text(one.text)}
    passes = [one for one in ordered if one.kind == "pass"]
    others = [one for one in ordered if one.kind != "pass"]
    advisory = [
        (_text(one.cell.id), _text(f"{item.name}, {item.unit}"), _text(words.advisory(item)))
        for one in ordered
        for item in one.advisories
    ]
    return (
        _Table("", tuple(long), _lines([show(one) for show in long.values()] for one in others)),
        _Table(f"{len(passes):,} pass", tuple(columns), _lines([show(one) for show in columns.values()] for one in passes)),
        _Table("Advisory figures (A → B): none of them decides", ("cell", "figure", "A → B"), _lines(advisory)),
    )


def _lines(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(f"| {' | '.join(row)} |" for row in rows)


def _fitting(one: _Table, room: int) -> tuple[str, ...]:
    """The first lines that fit with their header."""
    room -= _size(one.text(())) + 2
    for number, line in enumerate(one.lines):
        room -= _size(line) + 1
        if room < 0:
            return one.lines[:number]
    return one.lines


def _head(check: Check) -> str:
    """The facts, folded; those that do not fit are counted."""
    lines: list[str] = []
    room = HEAD_BYTES - 300
    facts = [f"- {_text(fact)}" for fact in words.facts(check)]
    for line in facts:
        room -= _size(line) + 1
        if room < 0:
            lines.append(f"- {len(facts) - len(lines):,} more facts stand in check.json")
            break
        lines.append(line)
    body = "\n".join(lines)
    return f"<details><summary>What was compared</summary>\n\n{body}\n\n</details>"


def _text(text: str) -> str:
    return escape(figures.shortened(figures.plain(text), LONGEST_TEXT))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))
