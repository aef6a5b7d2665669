"""Annotations of GitHub Actions: ``::error``, ``::warning`` or ``::notice`` for each cell that wants a person's eye.

Source of the form: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands, and of what
must be escaped: ``packages/core/src/command.ts`` of actions/toolkit. The runner looks for commands on stdout and on
stderr alike (``src/Runner.Worker/Handlers/ScriptHandler.cs`` of actions/runner).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mnist_bench.gate.output import words
from mnist_bench.gate.records import Check, Verdict, VerdictKind
from mnist_bench.table import plain

Level = Literal["error", "warning", "notice"]

LEVELS: dict[VerdictKind, Level] = {
    "failed": "error",
    "missing": "error",
    "regression": "error",
    "inconclusive": "warning",
    "not_comparable": "warning",
    "improvement": "notice",
}
MOST = 10  # of a level that GitHub shows of a step


def commands(check: Check, verdicts: Sequence[Verdict]) -> list[str]:
    """The commands, worst first, a line each; the tenth of a level counts what GitHub would not show any more."""
    by_level: dict[Level, list[Verdict]] = {"error": [], "warning": [], "notice": []}
    for one in words.sorted_worst_first(verdicts):
        if one.kind in LEVELS:
            by_level[LEVELS[one.kind]].append(one)
    return [line for level, found in by_level.items() for line in _lines(check, level, found)]


def inert(line: str) -> str:
    """A line of text that no runner takes for a command; almost always the line itself.

    A runner obeys ``::name`` at the beginning of a line, after spaces too, and the older ``##[name]`` anywhere in it.
    """
    line = line.replace("##[", "# [")
    return line.replace("::", ": :", 1) if line.lstrip().startswith("::") else line


def _lines(check: Check, level: Level, found: Sequence[Verdict]) -> list[str]:
    shown = found if len(found) <= MOST else found[: MOST - 1]
    lines = [_command(level, check.matrix_path, f"{words.kind(one)}: {one.cell.id}", one.text) for one in shown]
    if rest := found[len(shown) :]:
        text = f"{len(rest)} more cells: {words.counted(rest)}. GitHub shows {MOST} annotations of a kind; "
        lines.append(_command(level, check.matrix_path, "more cells", text + "check.json has every cell."))
    return lines


def _command(level: Level, file: str, title: str, text: str) -> str:
    return f"::{level} file={_property(file)},title={_property(title)}::{_data(text)}"


def _data(text: str) -> str:
    return plain(text).replace("%", "%25")  # no CR or LF is left


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
