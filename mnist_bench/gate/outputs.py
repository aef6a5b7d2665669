"""What a check prints and writes: a table for people and programs, check.json, what GitHub shows, JUnit. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mnist_bench import figures
from mnist_bench.gate import judge as gate
from mnist_bench.gate.evidence import ADVISED_OF_RUNS, CellEvidence, Check, Record, read, write
from mnist_bench.gate.judge import WORST_FIRST, Verdict, VerdictKind, change, noise
from mnist_bench.records import Cell, Tree
from mnist_bench.stats import Interval
from mnist_bench.table import Column, Document, Table, by_reason, escape, joined, listed, plain, shortened, wrapped

if TYPE_CHECKING:
    from rich.text import Text

SCHEMA_VERSION = 1  # of check.json
# Of their size, two figures may differ by this much: on another machine, functions like exp() may round otherwise.
# Kinds, decisions, counts and sentences must be the same.
SAME = 1e-9
MARKER = "<!-- mnist-bench check -->"  # by which a bot finds the comment that it is to replace
SUMMARY_BYTES = 1 << 20  # of all summaries of one step together
COMMENT_BYTES = 65_000  # GitHub takes 65,536 characters
HEAD_BYTES = 16_000  # of facts, whatever notes and names there are
LONGEST_TEXT = 1000  # characters of one text
FEW = 5  # changed files that are named in a head, reasons that stand in the open
LONGEST_FILE = 100  # characters of such a name
MOST_ANNOTATIONS = 10  # of a level that GitHub shows of a step
PACKAGE = "mnist_bench.check"
Level = Literal["error", "warning", "notice"]
# Each kind that wants a person's eye: the colour on a terminal, the level of an annotation.
LOOKS: dict[VerdictKind, tuple[str, Level]] = {
    "failed": ("red", "error"),
    "missing": ("red", "error"),
    "regression": ("red", "error"),
    "inconclusive": ("yellow", "warning"),
    "not_comparable": ("yellow", "warning"),
    "improvement": ("cyan", "notice"),
}


# What programs get of a verdict: the name of the column, where it stands.
PATHS = {
    "verdict": "kind",
    "text": "text",
    "speed_ratio": "speed.ratio.estimate",
    "speed_ratio_low": "speed.ratio.low",
    "speed_ratio_high": "speed.ratio.high",
    "speed_decision": "speed.decision",
    "pairs": "speed.count",
    "p_slower": "speed.p_slower",
    "p_within": "speed.p_within",
    "alpha": "speed.alpha",
    "accuracy_a": "accuracy.a",
    "accuracy_b": "accuracy.b",
    "accuracy_change": "accuracy.change.estimate",
    "accuracy_change_low": "accuracy.change.low",
    "accuracy_change_high": "accuracy.change.high",
    "accuracy_decision": "accuracy.decision",
    "seeds": "accuracy.seeds",
    "identical_seeds": "accuracy.identical",
}


class Stored(Record, frozen=True, kw_only=True):
    """``check.json``: the evidence and the verdicts that follow from it."""

    schema_version: int
    check: Check
    verdicts: tuple[Verdict, ...]


def encode(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    """``check.json``: figures keep all their digits, a verdict judged again from rounded ones might be another."""
    return write(Stored(schema_version=SCHEMA_VERSION, check=check, verdicts=tuple(verdicts)))


def decode(data: bytes) -> tuple[Check, tuple[Verdict, ...]]:
    """Raises ValueError: no check.json of this version, or a broken one; the message says where."""
    stored = read(data, Stored, SCHEMA_VERSION)
    return stored.check, stored.verdicts


def disagreements(check: Check, stored: Sequence[Verdict]) -> Iterator[str]:
    """Every place where the verdicts do not follow from the evidence, in words; none: all is as stored."""
    before, now = (
        {one.cell.id: _flat(msgspec.to_builtins(one)) for one in side} for side in (stored, gate.judge(check))
    )
    for cell in {**now, **before}:
        was, is_ = before.get(cell, {}), now.get(cell, {})
        for name in {**is_, **was}:
            if not _same(was.get(name), is_.get(name)):
                yield f"{cell}: {name}: stored {was.get(name)!r:.200}, judged {is_.get(name)!r:.200}"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {path: leaf for key, item in value.items() for path, leaf in _flat(item, f"{name}.{key}".strip(".")).items()}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        # Sums and products in another order leave an absolute error too, where the figure itself is about 0.
        return math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)
    return bool(one == other)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Line:
    """A cell's verdict with its evidence."""

    verdict: Verdict
    evidence: CellEvidence

    @property
    def cell(self) -> Cell:
        return self.verdict.cell

    @property
    def ratio(self) -> Interval | None:
        return self.verdict.speed.ratio if self.verdict.speed else None

    @property
    def skipped(self) -> bool:
        """A device that is missing is one line, not half of the table."""
        b = self.evidence.b
        return self.verdict.kind == "not_comparable" and b is not None and b.status == "skipped"


def ordered(check: Check, verdicts: Sequence[Verdict]) -> list[Line]:
    """By kind, worst first, then the slowest, then by name."""
    evidence = {one.cell: one for one in check.cells}
    lines = [Line(one, evidence[one.cell]) for one in verdicts]
    worst = {kind: number for number, kind in enumerate(WORST_FIRST)}
    return sorted(
        lines, key=lambda line: (worst[line.verdict.kind], line.ratio.estimate if line.ratio else 1, line.cell)
    )


def verdicts_table(check: Check, lines: Sequence[Line], *, why: bool = False) -> Table[Line]:
    """The cells, one a line; for programs a figure that is not known is empty."""
    unit = "pairs" if check.mode == "against" else "sessions"
    people: list[Column[Line]] = [
        Column("verdict", lambda line: line.verdict.kind.replace("_", " "), right=False),
        *figures.cell_columns(),
        Column("speed", lambda line: _speed(line.ratio.estimate) if line.ratio else "", right=False),
        Column("95 %", lambda line: figures.bounds(line.ratio.low, line.ratio.high) if line.ratio else "", 1, False),
        Column("accuracy", _accuracy, 2, right=False),
        Column(unit, lambda line: str(line.verdict.speed.count) if line.verdict.speed else "", 4),
        Column("", lambda line: "†" if any(noise(line.evidence)) else "", 3, right=False),
        Column("seeds", lambda line: str(line.verdict.accuracy.seeds) if line.verdict.accuracy else "", 5),
    ]
    if why:
        people.append(Column("why", lambda line: shortened(line.verdict.text, LONGEST_TEXT), right=False))
    programs: list[Column[Line]] = [Column(None, key=key, value=partial(_at, path)) for key, path in PATHS.items()]
    programs.append(Column(None, key="noisy_pairs", value=lambda line: sum(noise(line.evidence))))
    for name, side in product(ADVISED_OF_RUNS, ("a", "b")):
        programs.append(Column(None, key=f"{name}_{side}", value=partial(_figure, name, side)))
    style = {kind: look[0] for kind, look in LOOKS.items()}
    columns = (*people, *programs)
    return Table("Verdicts, worst first", columns, lines, lambda line: style.get(line.verdict.kind, ""))


def advisory_table(lines: Sequence[Line]) -> Table[Line]:
    """What is shown beside the verdicts and decides nothing, A -> B."""

    def show(name: str, line: Line) -> str:
        return _advisory(_figure(name, "a", line), _figure(name, "b", line))

    columns: list[Column[Line]] = [
        Column(figures.BY_KEY[name].title, partial(show, name), rank) for rank, name in enumerate(ADVISED_OF_RUNS, 1)
    ]
    measured = [line for line in lines if any(column.show(line) for column in columns)]
    return Table("Advisory: A → B; none of this decides.", (*figures.cell_columns(), *columns), measured)


def to_json(check: Check, verdicts: Sequence[Verdict]) -> str:
    """One document; a figure that is not known is null."""
    code, lines = gate.exit_code(check, verdicts), ordered(check, verdicts)
    head = {name: getattr(check, name) for name in check.__struct_fields__ if name not in ("cells", "a", "b")}
    document = {
        "schema_version": SCHEMA_VERSION,
        **head,
        "exit_code": code,
        "overall": gate.overall(verdicts, code),
        "a": asdict(check.a),
        "b": asdict(check.b),
        "cells": verdicts_table(check, lines).records(),
    }
    # ##[ would be a command to a CI runner; its escape is the same text to a reader of JSON.
    return json.dumps(document, indent=2, allow_nan=False).replace("##[", "#\\u0023[") + "\n"


def terminal(check: Check, verdicts: Sequence[Verdict], width: int) -> Iterator[Text]:
    """Lines for a terminal of ``width`` columns: print them without wrapping.

    The head; the cells, worst first; a sentence for each that is not a pass; what is advisory; the verdict on the
    whole.
    """
    from rich.text import Text

    code, lines = gate.exit_code(check, verdicts), ordered(check, verdicts)
    told = [line for line in lines if not line.skipped]
    document = Document(
        title=f"Check {check.id}: {check.b.label} (B) against {check.a.label} (A)",
        facts=facts(check),
        tables=(verdicts_table(check, told),),
        notes=(
            *filter(None, [noise_words(check)]),
            *(line.verdict.text for line in told if line.verdict.kind != "pass"),
            *_skips(lines),
        ),
    )
    yield from document.terminal(width)
    advisory = advisory_table(told)
    if advisory.rows:
        yield Text()
        yield from (Text(line.plain, "dim") for line in advisory.terminal(width))
    yield Text()
    style = {0: "green", 4: "yellow", 5: "yellow"}.get(code, "red")
    yield from (Text(line, f"bold {style}") for line in wrapped(gate.overall(verdicts, code), width))


def page(check: Check, verdicts: Sequence[Verdict], limit: int = SUMMARY_BYTES) -> str:
    """The verdict in a sentence; a table of the cells that are not a pass; folded: passes, advisory figures, the head.

    Markdown as GitHub shows it, which drops a summary and refuses a comment that is too long: passes are left out
    first, then advisory figures, then the mildest of the other cells, and how many were is said.

    Args:
        limit: bytes of UTF-8 that it may take, ``HEAD_BYTES`` and some thousands more at least.
    """
    code, lines = gate.exit_code(check, verdicts), ordered(check, verdicts)
    told = [line for line in lines if not line.skipped]
    passes = [line for line in told if line.verdict.kind == "pass"]
    others = [line for line in told if line.verdict.kind != "pass"]
    heading = f"### {gate.OVERALL[code][0]}: {_text(check.b.label)} against {_text(check.a.label)}"
    skips = _skips(lines)
    remarks = filter(None, (gate.overall(verdicts, code), _unfinished(check), noise_words(check), *skips[:FEW]))
    told_facts = [f"- {_text(fact)}" for fact in (*facts(check), *skips[FEW:])]
    kept = _fitting(told_facts, HEAD_BYTES)
    if len(kept) < len(told_facts):
        kept.append(f"- {len(told_facts) - len(kept):,} more facts stand in check.json")
    parts, head = [heading, *map(_text, remarks)], _folded("What was compared", "\n".join(kept))
    room = limit - sum(_size(part) + 2 for part in [*parts, head]) - 300  # what is said of lines left out
    shown, left_out = {}, []
    for name, fold, table in (
        ("cells", "", verdicts_table(check, others, why=True)),
        ("advisory lines", "Advisory figures (A → B): none of them decides", advisory_table(told)),
        ("passes", f"{len(passes):,} pass", verdicts_table(check, passes)),
    ):
        frame = _folded(fold, "{}") if fold else "{}"
        start, rule, *rows = table.markdown().splitlines() if table.rows else ["", ""]
        kept = _fitting(rows, room - _size(frame + start + rule) - 4)
        shown[name] = frame.replace("{}", "\n".join([start, rule, *kept])) if kept else ""
        room -= _size(shown[name]) + 2
        if len(kept) < len(rows):
            left_out.append(f"{len(rows) - len(kept):,} of {len(rows):,} {name}")
    if left_out:
        parts.append(f"Left out for want of room: {', '.join(left_out)}. check.json has them.")
    parts += [shown["cells"], shown["passes"], shown["advisory lines"], head]
    return "\n\n".join(part for part in parts if part) + "\n"


def comment(check: Check, verdicts: Sequence[Verdict]) -> str:
    """For a pull request, at most ``COMMENT_BYTES`` long; the first line is ``MARKER``."""
    return f"{MARKER}\n{page(check, verdicts, COMMENT_BYTES - len(MARKER) - 1)}"


def facts(check: Check) -> list[str]:
    """The head: both sides, what was measured, and for how long."""
    time = ""
    if check.spent_s:  # a run against a baseline takes none
        budget = f" of {_minutes(check.budget_s)}" if check.budget_s is not None else ""
        time = f"; {_minutes(check.spent_s)} min spent{budget}"
    tolerated, seen = (
        " to ".join(sorted({gate.percent(getattr(one.margins, name)) for one in check.cells}, key=float))
        for name in ("margin", "detect")
    )
    relative = "" if check.mode == "against" else " relative to the reference variant's"
    return [
        f"A: {_side(check.a)}",
        f"B: {_side(check.b)}",
        f"Matrix {check.matrix_path}, data {check.dataset}, recipe {check.recipe}{time}",
        *filter(None, [_unfinished(check)]),
        *check.notes,
        f"Speed: B's steps in a second{relative} against A's, and the 95 % interval; {tolerated} % slower is "
        f"tolerated, and a pass says that {seen} % would have been seen.",
    ]


def noise_words(check: Check) -> str:
    """What is to be said of disturbed pairs, or sessions; empty without any."""
    every = [disturbed for one in check.cells for disturbed in noise(one)]
    unit = "pairs" if check.mode == "against" else "sessions"
    return f"† noisy: other work disturbed {sum(every):,} of {len(every):,} {unit}" if any(every) else ""


def _at(path: str, line: Line) -> Any:
    """What stands there in a verdict; None where the way ends before."""
    found: Any = line.verdict
    for name in path.split("."):
        found = None if found is None else getattr(found, name)
    return found


def _figure(name: str, side: str, line: Line) -> float | None:
    evidence = getattr(line.evidence, side)
    return evidence.figures.get(name) if evidence else None


def _speed(ratio: float) -> str:
    """``0.89x``, above 1 where B is faster; a far one in words: ``16x slower``."""
    return figures.ratio(ratio) if 1 / gate.FAR < ratio < gate.FAR else change(ratio)


def _accuracy(line: Line) -> str:
    """``-0.31 pp [-0.40, -0.22]``: percentage points, B less A; ``identical`` where every prediction is."""
    found = line.verdict.accuracy
    if found is None:
        return ""
    if found.identical == found.seeds:
        return "identical"
    bounds = figures.bounds(found.change.low, found.change.high, lambda end: _signed(100 * (end or 0.0), 2))
    return joined(f"{_signed(100 * found.change.estimate, 2)} pp", bounds)


def _advisory(a: float | None, b: float | None) -> str:
    """``10.4 → 11.0 (+6 %)``."""
    if a is None or b is None:
        return ""
    share = f" ({_signed(100 * (b / a - 1), 0)} %)" if a > 0 else ""
    return f"{figures.significant(a)} → {figures.significant(b)}{share}"


def _signed(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:+,.{decimals}f}"  # + 0.0: no minus before a nought


def _skips(lines: Sequence[Line]) -> list[str]:
    skipped = [line.verdict for line in lines if line.skipped]
    return by_reason((one.cell.id, one.text.removeprefix(f"{plain(one.cell.id)} ")) for one in skipped)


def _unfinished(check: Check) -> str:
    return "" if check.status == "complete" else f"The check is {check.status}: samples may be missing."


def _side(side: Tree) -> str:
    commit = f", commit {side.commit[:12]}" if side.commit else ""
    names = [shortened(name, LONGEST_FILE) for name in side.changed]
    return f"{side.label}{commit}{f', changed: {listed(names, FEW)}' if names else ''}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.1f}".removesuffix(".0")


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    """The first lines that fit into so many bytes."""
    taken = accumulate(_size(line) + 1 for line in lines)
    return [line for line, end in zip(lines, taken, strict=True) if end <= room]


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _text(text: str) -> str:
    return escape(shortened(plain(text), LONGEST_TEXT))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))


# ── annotations and JUnit ────────────────────────────────────────────────────────────────────────────────────────────


def commands(check: Check, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """``::error``, ``::warning`` or ``::notice`` for each cell that wants a person's eye, worst first, a line each.

    The tenth of a level counts what GitHub would not show any more. Source of the form, and of what must be escaped:
    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands, and
    ``packages/core/src/command.ts`` of actions/toolkit. The runner looks for commands on stdout and on stderr alike
    (``src/Runner.Worker/Handlers/ScriptHandler.cs`` of actions/runner).
    """
    found = [line.verdict for line in ordered(check, verdicts)]
    for level in ("error", "warning", "notice"):
        own = [one for one in found if LOOKS.get(one.kind, ("", ""))[1] == level]
        shown = own if len(own) <= MOST_ANNOTATIONS else own[: MOST_ANNOTATIONS - 1]
        for one in shown:
            yield _command(level, check.matrix_path, f"{one.kind.replace('_', ' ')}: {one.cell.id}", one.text)
        if rest := own[len(shown) :]:
            text = (
                f"{len(rest)} more cells: {gate.counted(rest)}. GitHub shows {MOST_ANNOTATIONS} annotations of a kind; "
            )
            yield _command(level, check.matrix_path, "more cells", text + "check.json has every cell.")


def _command(level: str, file: str, title: str, text: str) -> str:
    data = [plain(part).replace("%", "%25") for part in (file, title, text)]  # no CR or LF is left
    properties = [part.replace(":", "%3A").replace(",", "%2C") for part in data[:2]]
    return f"::{level} file={properties[0]},title={properties[1]}::{data[2]}"


def to_junit(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    """JUnit XML: a suite per model, a test case per cell; its time is that of its timed blocks, of both sides.

    ``regression``, ``missing`` and ``failed`` are failures; ``pass``, ``improvement`` and ``new`` have passed.
    ``not_comparable`` is skipped, and so is ``inconclusive``: nothing was shown to be wrong, and a reader that counted
    it as passed would say more than was measured. The exit code (4) is what tells it from a pass.
    """
    import junitparser  # it brings lxml, which --help need not wait for

    from mnist_bench import junit

    given = {"check_id": check.id, "check_status": check.status, "schema_version": str(SCHEMA_VERSION)}
    given |= {
        name: str(getattr(check, name)) for name in ("program_version", "mode", "matrix_path", "recipe", "dataset")
    }
    for name, tree in (("a", check.a), ("b", check.b)):
        given |= {name: tree.label, f"{name}_commit": tree.commit or "", f"{name}_changed": str(len(tree.changed))}

    kinds: dict[str, type[junit.Result]] = {"error": junitparser.Failure, "warning": junitparser.Skipped}
    lines = ordered(check, verdicts)
    tables = verdicts_table(check, lines), advisory_table(lines)

    def case(line: Line) -> junit.Case:
        one = line.verdict
        level = LOOKS.get(one.kind, ("", ""))[1]
        return junit.Case(
            cell=one.cell,
            seconds=math.fsum(part for pair in line.evidence.pairs for each in pair.rounds for part in each.seconds),
            result=kinds[level](plain(one.text), one.kind) if level in kinds else None,
            figures=[
                (column.title, text)
                for table in tables
                for column in table.columns
                if column.title and not hasattr(one.cell, column.key) and (text := column.show(line))
            ],
        )

    return junit.document(PACKAGE, check.started_at, given, map(case, lines))
