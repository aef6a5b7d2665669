"""What a check prints and writes: a document for people, rows for programs, check.json, annotations, JUnit. Pure."""

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from mnist_bench import figures
from mnist_bench.gate import judge as gate
from mnist_bench.gate.evidence import ADVISED_OF_RUNS, CellEvidence, Check, Record
from mnist_bench.gate.judge import WORST_FIRST, Verdict, VerdictKind, noise
from mnist_bench.records import Cell, Tree
from mnist_bench.records import decode as decoded
from mnist_bench.records import encode as encoded
from mnist_bench.table import Column, Document, Table, at, by_reason, duration, grouped, listed, plain, shortened

SCHEMA_VERSION = 1  # of check.json, and of a baseline
MARKER = "<!-- mnist-bench check -->"  # by which a bot finds the comment that it is to replace
COMMENT_BYTES = 65_000  # GitHub takes 65,536 characters
LONGEST_TEXT = 500  # characters of one text
MOST_TEXTS = 12  # facts, or reasons for which cells are skipped; a page has room for so many whatever they say
FEW, LONGEST_NAME = 5, 80  # changed files that are named, and characters of such a name
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
STYLES = {0: "green", 4: "yellow", 5: "yellow"}  # of the whole, by the exit code; all others: red

_T = TypeVar("_T")


class Versioned(Struct, frozen=True, kw_only=True):
    """The least that a stored document says."""

    schema_version: Annotated[int, Meta(ge=1)]


class Stored(Record, frozen=True, kw_only=True):
    """``check.json``: the evidence and the verdicts that follow from it."""

    schema_version: int
    check: Check
    verdicts: tuple[Verdict, ...]


def encode(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    """``check.json``: figures keep all their digits, a verdict judged again from rounded ones might be another."""
    return encoded(Stored(schema_version=SCHEMA_VERSION, check=check, verdicts=tuple(verdicts)), indent=2)


def decode(data: bytes) -> tuple[Check, tuple[Verdict, ...]]:
    """Raises ValueError: no check.json of this version, or a broken one; the message says where."""
    stored = read(data, Stored)
    return stored.check, stored.verdicts


def disagreements(stored: Sequence[Verdict], judged: Sequence[Verdict]) -> list[str]:
    """Every cell of which the evidence now says something else than is stored, in words; none: all is as stored."""
    before, now = ({one.cell.id: f"{one.kind}: {one.text}" for one in verdicts} for verdicts in (stored, judged))
    return [
        f"{cell}: stored {before.get(cell)!r:.300}, judged {now.get(cell)!r:.300}"
        for cell in {**now, **before}
        if before.get(cell) != now.get(cell)
    ]


# ── how a document is stored ─────────────────────────────────────────────────────────────────────────────────────────


def read(data: bytes, kind: type[_T]) -> _T:
    """A check or a baseline: one schema, held against all that comes from a file.

    Raises:
        ValueError: no JSON, another schema version, a key that is missing or unknown, a value that is none of its field
            or out of bounds; the message says where.
    """
    version = decoded(data, Versioned).schema_version
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version: is {version}, this mnist-bench reads {SCHEMA_VERSION}: use the one that wrote it"
        )
    return decoded(data, kind)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Line:
    """A cell's verdict with its evidence."""

    verdict: Verdict
    evidence: CellEvidence

    @property
    def cell(self) -> Cell:
        return self.verdict.cell

    @property
    def skipped(self) -> bool:
        """A device that is missing is one line, not half of the table."""
        b = self.evidence.b
        return self.verdict.kind == "not_comparable" and b is not None and b.status == "skipped"


def ordered(check: Check, verdicts: Sequence[Verdict]) -> list[Line]:
    """By kind, worst first, then the slowest, then by name."""
    evidence = {one.cell: one for one in check.cells}

    def place(line: Line) -> tuple[int, float, Cell]:
        speed = line.verdict.speed
        return WORST_FIRST.index(line.verdict.kind), speed.ratio.estimate if speed else 1, line.cell

    return sorted((Line(one, evidence[one.cell]) for one in verdicts), key=place)


def _samples(line: Line) -> str:
    speed = line.verdict.speed
    return f"{speed.count} {speed.unit}s" if speed else ""


def _noisy(line: Line) -> int:
    return sum(noise(line.evidence))


def _seeds(line: Line) -> str:
    found = line.verdict.accuracy
    return f"{found.seeds}{f' ({found.identical} identical)' * bool(found.identical)}" if found else ""


CHANGE = "verdict.accuracy.change"
COLUMNS: tuple[Column[Line], ...] = (
    Column("verdict", lambda line: _kind(line.verdict), right=False, key="verdict", value=at("verdict.kind")),
    *figures.cell_columns(),
    *figures.interval_columns("speed", "speed_ratio", "verdict.speed.ratio"),
    *figures.interval_columns("Δ pp", "accuracy_change", CHANGE, text=figures.points, rank=2, rank_beside=3),
    *figures.interval_columns(
        "host memory", "host_memory_ratio", "verdict.memory.host_peak_mib.ratio", rank=3, rank_beside=4
    ),
    *figures.interval_columns(
        "device memory", "device_memory_ratio", "verdict.memory.device_peak_mib.ratio", rank=3, rank_beside=4
    ),
    Column("samples", _samples, 6, key="pairs", value=at("verdict.speed.count")),
    Column("", lambda line: "†" * bool(_noisy(line)), 4, False, key="noisy_pairs", value=_noisy),
    Column("seeds", _seeds, 5, False, key="seeds", value=at("verdict.accuracy.seeds")),
    Column(None, key="identical_seeds", value=at("verdict.accuracy.identical")),
    Column(None, key="speed_decision", value=at("verdict.speed.decision")),
    Column(None, key="p_slower", value=at("verdict.speed.p_slower")),
    Column(None, key="p_within", value=at("verdict.speed.p_within")),
    Column(None, key="alpha", value=at("verdict.speed.alpha")),
    Column(None, key="accuracy_decision", value=at("verdict.accuracy.decision")),
    Column(None, key="accuracy_a", value=at("verdict.accuracy.a")),
    Column(None, key="accuracy_b", value=at("verdict.accuracy.b")),
    Column(None, key="text", value=at("verdict.text")),
)
SIDES = {"a": "evidence.a.figures", "b": "evidence.b.figures"}
# What is shown beside the verdicts and decides nothing.
ADVISED: tuple[Column[Line], ...] = tuple(
    column for rank, key in enumerate(ADVISED_OF_RUNS, 1) for column in figures.both_columns(key, SIDES, rank)
)
ADVISORY = (*figures.cell_columns(), *ADVISED)


def rows(check: Check, verdicts: Sequence[Verdict]) -> Table[Line]:
    """The cells, one a line, as programs get them; a figure that is not known is empty."""
    return Table("", (*COLUMNS, *ADVISED), ordered(check, verdicts))


def to_json(check: Check, verdicts: Sequence[Verdict]) -> str:
    """One document; a figure that is not known is null."""
    code = gate.exit_code(check, verdicts)
    document = {
        "schema_version": SCHEMA_VERSION,
        **msgspec.structs.asdict(check),
        "exit_code": code,
        "overall": gate.overall(verdicts, code),
        "cells": rows(check, verdicts).records(),
    }
    # ##[ would be a command to a CI runner; its escape is the same text to a reader of JSON.
    return json.dumps(document, indent=2, allow_nan=False, default=asdict).replace("##[", "#\\u0023[") + "\n"


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────────────────


def document(check: Check, verdicts: Sequence[Verdict], most: int | None = None) -> Document:
    """What was compared; the cells, worst first; a sentence for each that is no pass; the verdict on the whole.

    Args:
        most: cells that it may tell of, the worst; None: all.
    """
    code, counts, lines = gate.exit_code(check, verdicts), gate.counted(verdicts), ordered(check, verdicts)
    every = [line for line in lines if not line.skipped]
    told = every[:most]
    passes = [line for line in told if line.verdict.kind == "pass"]
    others = [line for line in told if line.verdict.kind != "pass"]
    skips = by_reason((x.cell.id, x.verdict.text.removeprefix(f"{plain(x.cell.id)} ")) for x in lines if x.skipped)
    left_out = f"Left out for want of room: the mildest {len(every) - len(told):,} of {len(every):,} cells."
    advisory = [line for line in told if any(column.title and column.show(line) for column in ADVISED)]
    return Document(
        title=f"{gate.OVERALL[code][0]}: {_name(check.b.label)} (B) against {_name(check.a.label)} (A): {counts}",
        style=STYLES.get(code, "red"),
        facts=_few(facts(check, verdicts)),
        tables=(
            Table("Verdicts, worst first", COLUMNS, others, lambda line: LOOKS.get(line.verdict.kind, ("",))[0]),
            Table(f"{len(passes):,} pass", COLUMNS, passes, folded=True),
            Table("Advisory: A → B; none of this decides", ADVISORY, advisory, lambda _: "dim", folded=True),
        ),
        notes=(
            *_noise(check),
            *(shortened(line.verdict.text, LONGEST_TEXT) for line in others),
            *_few(skips),
            *([f"{left_out} check.json has them."] if len(told) < len(every) else []),
            gate.overall(verdicts, code),
        ),
    )


def page(check: Check, verdicts: Sequence[Verdict], limit: int) -> str:
    """The document as Markdown of so many bytes at most: of the mildest cells nothing is told where it is too long.

    GitHub drops a summary and refuses a comment that is.
    """

    def cut(most: int) -> str:
        return document(check, verdicts, most).markdown()

    return cut(bisect_right(range(1, len(verdicts) + 1), limit, key=lambda most: len(cut(most).encode())))


def comment(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    """For a pull request, at most ``COMMENT_BYTES`` long; the first line is ``MARKER``."""
    return f"{MARKER}\n{page(check, verdicts, COMMENT_BYTES - len(MARKER) - 1)}".encode()


def facts(check: Check, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Both sides, what was measured, for how long, and what a verdict took."""
    budget = f" of {duration(check.budget_s)}" if check.budget_s is not None else ""
    time = f"; {duration(check.spent_s)} spent{budget}" if check.spent_s else ""  # a run against a baseline takes none
    if decided := check.spent_s and sum(one.speed is not None and one.kind != "inconclusive" for one in verdicts):
        time += f", {figures.significant(check.spent_s / 60 / decided, 2)} minutes a verdict"
    margins = [one.margins for one in check.cells]
    memory = [one.memory for one in margins if one.memory is not None and check.mode == "against"]
    relative = "" if check.mode == "against" else " relative to the reference variant's"
    yield f"A: {_side(check.a)}"
    yield f"B: {_side(check.b)}"
    yield f"Check {check.id}: matrix {check.matrix_path}, data {check.dataset}, recipe {check.recipe}{time}"
    if check.status != "complete":
        yield f"The check is {check.status}: samples may be missing."
    limits = _limits("slower", [one.margin for one in margins], [one.detect for one in margins])
    yield f"Speed: B's steps in a second{relative} against A's, and the 95 % interval; {limits}"
    if memory:
        limits = _limits("more", memory, [2 * one for one in memory])
        yield f"Memory: B's peak against A's, in the processes of the pairs; {limits}"
    yield from check.notes


def _limits(way: str, *shares: Sequence[float]) -> str:
    """Of all cells: what is tolerated, and what a pass excludes."""
    tolerated, seen = (" to ".join(dict.fromkeys(map(gate.percent, sorted(each)))) for each in shares)
    return f"{tolerated} % {way} is tolerated, and a pass says that {seen} % would have been seen."


def _noise(check: Check) -> Iterator[str]:
    """What is to be said of disturbed pairs, or sessions."""
    every = [disturbed for one in check.cells for disturbed in noise(one)]
    if any(every):
        unit = "pairs" if check.mode == "against" else "sessions"
        yield f"† noisy: other work disturbed {sum(every):,} of {len(every):,} {unit}"


def _few(texts: Iterable[str]) -> list[str]:
    """The first of many texts, none of them long."""
    every = list(texts)
    rest = [f"{len(every) - MOST_TEXTS:,} more stand in check.json."] if len(every) > MOST_TEXTS else []
    return [shortened(text, LONGEST_TEXT) for text in every[:MOST_TEXTS]] + rest


def _name(text: str) -> str:
    return shortened(plain(text), LONGEST_NAME)


def _side(side: Tree) -> str:
    commit = f", commit {side.commit[:12]}" if side.commit else ""
    changed = f", changed: {listed([_name(file) for file in side.changed], FEW)}" if side.changed else ""
    return f"{_name(side.label)}{commit}{changed}"


# ── annotations and JUnit ────────────────────────────────────────────────────────────────────────────────────────────


def commands(check: Check, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """``::error``, ``::warning`` or ``::notice`` for each cell that wants a person's eye, worst first, a line each.

    The tenth of a level counts what GitHub would not show any more. Source of the form, and of what must be escaped:
    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands, and
    ``packages/core/src/command.ts`` of actions/toolkit. The runner looks for commands on stdout and on stderr alike
    (``src/Runner.Worker/Handlers/ScriptHandler.cs`` of actions/runner).
    """
    found = [line.verdict for line in ordered(check, verdicts) if line.verdict.kind in LOOKS]
    for level, own in grouped(found, lambda one: LOOKS[one.kind][1]).items():
        told = len(own) if len(own) <= MOST_ANNOTATIONS else MOST_ANNOTATIONS - 1
        texts = [(f"{_kind(one)}: {one.cell.id}", one.text) for one in own[:told]]
        if rest := own[told:]:
            shown = f"GitHub shows {MOST_ANNOTATIONS} annotations of a kind; check.json has every cell."
            texts.append(("more cells", f"{len(rest)} more cells: {gate.counted(rest)}. {shown}"))
        for title, text in texts:
            data = [plain(part).replace("%", "%25") for part in (check.matrix_path, title, text)]  # no CR or LF is left
            file, name = (part.replace(":", "%3A").replace(",", "%2C") for part in data[:2])
            yield f"::{level} file={file},title={name}::{data[2]}"


def to_junit(check: Check, verdicts: Sequence[Verdict]) -> bytes:
    """JUnit XML: a suite per model, a test case per cell; its time is that of its timed blocks, of both sides.

    ``regression``, ``missing`` and ``failed`` are failures; ``pass``, ``improvement`` and ``new`` have passed.
    ``not_comparable`` is skipped, and so is ``inconclusive``: nothing was shown to be wrong, and a reader that counted
    it as passed would say more than was measured. The exit code (4) is what tells it from a pass.
    """
    import junitparser  # it brings lxml, which --help need not wait for

    from mnist_bench import junit

    about = ("id", "status", "program_version", "mode", "matrix_path", "recipe", "dataset")
    given = {name: str(getattr(check, name)) for name in about}
    for name, tree in (("a", check.a), ("b", check.b)):
        given |= {name: tree.label, f"{name}_commit": tree.commit or "", f"{name}_changed": str(len(tree.changed))}
    results: dict[str, type[junit.Result]] = {"error": junitparser.Failure, "warning": junitparser.Skipped}
    columns = [(column.title, column) for column in (*COLUMNS, *ADVISED) if column.title]

    def case(line: Line) -> junit.Case:
        one = line.verdict
        result = results.get(LOOKS.get(one.kind, ("", ""))[1])
        return junit.Case(
            cell=one.cell,
            seconds=math.fsum(part for pair in line.evidence.pairs for each in pair.rounds for part in each.seconds),
            result=result(plain(one.text), one.kind) if result else None,
            figures=[(title, text) for title, column in columns if (text := column.show(line))],
        )

    return junit.document(PACKAGE, check.started_at, given, map(case, ordered(check, verdicts)))


def _kind(one: Verdict) -> str:
    return one.kind.replace("_", " ")
