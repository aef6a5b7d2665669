"""A check as GitHub shows it: the summary of a step, and a comment on a pull request.

GitHub drops a summary or refuses a comment that is too long, so nothing here is ever longer than it is told: passes are
left out first, then advisory figures, then the mildest of the other cells, and how many were is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mnist_bench.gate.judge import exit_code
from mnist_bench.gate.output import words
from mnist_bench.gate.records import Check, Verdict
from mnist_bench.sheets import markdown_table as table
from mnist_bench.table import escape, joined, plain, shortened

MARKER = "<!-- mnist-bench check -->"  # by which a bot finds the comment that it is to replace
SUMMARY_BYTES = 1 << 20  # of all summaries of one step together
COMMENT_BYTES = 65_000  # GitHub takes 65,536 characters
HEAD_BYTES = 16_000  # of facts, whatever notes and names there are
LONGEST_TEXT = 1000  # characters of one text

Show = Callable[[Verdict], str]


@dataclass(frozen=True, slots=True)
class _Table:
    """Lines that may be left out from the end, and are made only if there is room for them.

    Args:
        title: of the fold that they stand in; empty: they stand open.
        lines: as many as ``count``.
    """

    title: str
    header: Sequence[str]
    count: int
    lines: Iterator[Sequence[str]]

    def text(self, lines: Iterable[str]) -> str:
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
        if len(kept) < one.count:
            left_out.append(f"{one.count - len(kept):,} of {one.count:,} {name}")
    if left_out:
        parts.append(f"Left out for want of room: {', '.join(left_out)}. check.json has them.")
    parts += [shown["cells"], shown["passes"], shown["advisory lines"], head]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(check: Check, code: int) -> str:
    return f"{words.OVERALL[code][0]}: {_text(check.b.label)} against {_text(check.a.label)}"


def _tables(check: Check, ordered: Sequence[Verdict]) -> tuple[_Table, _Table, _Table]:
    noisy = words.noisy_pairs(check)
    short: dict[str, Show] = {
        "cell": lambda one: joined(_text(one.cell.id), "†" if one.cell in noisy else ""),
        "speed": lambda one: _text(words.speed(one)),
        "accuracy": lambda one: _text(words.accuracy(one)),
        words.unit(check): words.pairs,
        "seeds": words.seeds,
    }
    long: dict[str, Show] = {
        "verdict": lambda one: f"**{words.kind(one)}**",
        **short,
        "why": lambda one: _text(one.text),
    }
    passes = [one for one in ordered if one.kind == "pass"]
    others = [one for one in ordered if one.kind != "pass"]
    return (
        _table_of_cells("", long, others),
        _table_of_cells(f"{len(passes):,} pass", short, passes),
        _table_of_advisories(ordered),
    )


def _table_of_cells(title: str, columns: Mapping[str, Show], verdicts: Sequence[Verdict]) -> _Table:
    lines = ([show(one) for show in columns.values()] for one in verdicts)
    return _Table(title, tuple(columns), len(verdicts), lines)


def _table_of_advisories(verdicts: Sequence[Verdict]) -> _Table:
    lines = (
        (_text(one.cell.id), _text(f"{item.name}, {item.unit}"), _text(words.advisory(item)))
        for one in verdicts
        for item in one.advisories
    )
    title = "Advisory figures (A → B): none of them decides"
    return _Table(title, ("cell", "figure", "A → B"), sum(len(one.advisories) for one in verdicts), lines)


def _fitting(one: _Table, room: int) -> list[str]:
    """The first lines that fit with their header."""
    room -= _size(one.text(())) + 2
    kept = []
    for cells in one.lines:
        line = f"| {' | '.join(cells)} |"
        room -= _size(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


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
    return escape(shortened(plain(text), LONGEST_TEXT))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))
