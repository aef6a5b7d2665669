"""What a race says: who is the fastest, or who is not told from it; a table, a document, a variant to paste. Pure."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mnist_bench.analysis.elimination import ERROR, Standing, effects, standing
from mnist_bench.analysis.results import machine
from mnist_bench.analysis.summary import TRACE_RTOL, Run, trace_difference
from mnist_bench.cells import reference_variant, trials_of, variant_of, written
from mnist_bench.errors import UsageError
from mnist_bench.figures import BY_KEY, bounds, cell_columns, interval_columns, ratio, significant
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Failure, Matrix, Session, trial_id
from mnist_bench.stats import Interval
from mnist_bench.table import Column, Document, Table, at, by_reason, duration, joined, listed


@dataclass(frozen=True, kw_only=True)
class Heat:
    """The cells that race each other, each by its trial of the first seed.

    Args:
        seconds: of wall time that it has taken.
        reference: the trial of the reference variant, if it is among them.
        others: those that are of another class than is admitted, by their first losses.
        over: it is decided, or its time is spent.
    """

    id: str
    cells: Mapping[str, Cell]
    sessions: Sequence[Session]
    seconds: float
    standing: Standing
    reference: str | None
    others: Sequence[str] = ()
    over: bool = False

    @property
    def name(self) -> str:
        """``lenet5 on cpu, batch 100``."""
        model, device, *batch = self.id.split("/")
        return f"{model} on {device}" + "".join(f", batch {size.removeprefix('b')}" for size in batch)

    def called(self, name: str) -> str:
        """What a trial is called beside the others: its variant, where batch sizes race each other with its own."""
        cell = self.cells[name]
        several = len({one.batch_size for one in self.cells.values()}) > 1
        return cell.variant + f" at batch {cell.batch_size:,}" * several


def heats(run: Run) -> list[Heat]:
    """The races of a run, as they stand.

    Raises:
        UsageError: it is none.
    """
    kind, matrix = run.manifest.options.race, run.manifest.matrix
    if kind is None:
        raise UsageError(f"run {run.manifest.run_id} is no race: `mnist-bench race` makes one")
    first = {name: cell for name, (cell, seed) in trials_of(matrix).items() if seed == matrix.seeds[0]}
    entered: dict[str, dict[str, Cell]] = {}
    for name in run.manifest.trials:
        if cell := first.get(name):
            keys = (cell.model, cell.device, *([] if kind.across_batch_sizes else [f"b{cell.batch_size}"]))
            entered.setdefault("/".join(keys), {})[name] = cell
    return [_heat(run, name, cells) for name, cells in entered.items()]


def _heat(run: Run, name: str, cells: Mapping[str, Cell]) -> Heat:
    kind, matrix = run.manifest.options.race, run.manifest.matrix
    assert kind is not None
    sessions = [session for session in run.sessions if session.group.rpartition("/p")[0] == name]
    timed = {member for session in sessions for member in session.members}
    lost = {one.id for one in run.trials if isinstance(one.outcome, Failure) or one.id not in timed}
    wanted = reference_variant(matrix)
    reference = next((known for known, cell in cells.items() if cell.variant == wanted), None)
    traces = {member: trace for session in sessions for member, trace in session.traces.items()}
    others = other_losses(traces, cells, matrix) if kind.admitted == "A" else []
    entered = [known for known in cells if known not in lost and known not in others]
    sizes = {known: cell.batch_size for known, cell in cells.items()}
    seconds = math.fsum(session.seconds for session in sessions)
    over = seconds >= kind.budget_s or run.manifest.status == "complete"
    found = standing(
        [effects(session, sizes) for session in sessions],
        entered,
        precision=matrix.timing.precision,
        early=[known for known in entered if sessions and known in _left_early(sessions[0])],
        over=over,
    )
    return Heat(
        id=name,
        cells=cells,
        sessions=sessions,
        seconds=seconds,
        standing=found,
        reference=reference,
        others=others,
        over=over or found.decided,
    )


def _left_early(session: Session) -> set[str]:
    return {name for name, steps in zip(session.members, session.rounds[-1].steps, strict=True) if not steps}


def other_losses(traces: Mapping[str, Sequence[float]], cells: Mapping[str, Cell], matrix: Matrix) -> list[str]:
    """The trials whose first losses are not those of the reference variant at their batch size."""
    wanted, seed = reference_variant(matrix) or "", matrix.seeds[0]
    own = {name: traces.get(trial_id(replace(cells[name], variant=wanted), seed)) for name in traces}
    return [name for name, of in own.items() if of is not None and trace_difference(traces[name], of) > TRACE_RTOL]


# ── what is said of it ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How a cell came out.

    Args:
        ratio: how many times faster it is than the first, of one that left than the first of that time; reference:
            than the reference variant.
        figures: of its row, where it was trained.
    """

    cell: Cell
    word: str
    ratio: Interval | None
    reference: Interval | None
    step_ms: float | None
    groups: int
    figures: Mapping[str, Any]


def places(run: Run, heat: Heat) -> list[Place]:
    """Every cell of a race, the fastest first."""
    rows = {row.cell: row for row in run.rows}

    def place(name: str, cell: Cell) -> Place:
        steps = [times.p50_ms for one in heat.sessions if (times := one.steps.get(name))]
        standing, row = heat.standing, rows.get(cell)
        left = standing.left.get(name)
        return Place(
            cell=cell,
            word=word(heat, name) or (row.status if row else "not timed"),
            ratio=left.ratio if left else standing.ratio(name, standing.alive[0]) if standing.alive else None,
            reference=standing.ratio(name, heat.reference) if heat.reference else None,
            step_ms=statistics.median(steps) if steps else None,
            groups=sum(name in one.members for one in heat.sessions),
            figures=row.figures if row else {},
        )

    found = [place(*one) for one in heat.cells.items()]
    return sorted(found, key=lambda one: -one.ratio.estimate if one.ratio else math.inf)


def word(heat: Heat, name: str) -> str:
    """How a trial stands in its race; empty: it is not in it."""
    standing = heat.standing
    if name in heat.others:
        return "other losses"
    if name in standing.left:
        return "slower"
    if name not in standing.alive:
        return ""
    if len(standing.alive) > 1:
        return "not told apart"
    return "fastest"


def why_left(heat: Heat, name: str) -> str:
    """Why a trial is not trained: it is no longer in the race."""
    if name in heat.others:
        return "its first losses are not the reference's (class B): --class B admits it"
    if name not in heat.standing.left:
        return "its trial of the first seed did not go well"
    left = heat.standing.left[name]
    groups = f"{left.groups} process group{'s' * (left.groups > 1)}"
    return f"left the race after {groups}: {_times(left.ratio)} as fast as {heat.called(left.leader)}"


def _times(found: Interval | None) -> str:
    """``1.14x [1.10, 1.17]``."""
    return joined(ratio(found.estimate), bounds(found.low, found.high)) if found else ""


def sentence(heat: Heat) -> str:
    """``lenet5 on cpu, batch 100: channels-last is the fastest.``, or who cannot be told apart."""
    standing = heat.standing
    if not standing.alive or not heat.sessions:
        return f"{heat.name}: nothing raced"
    names = [heat.called(name) for name in standing.alive]
    leader, reference = standing.alive[0], heat.reference
    beside = ""
    if reference and reference != leader:
        beside = f", {_times(standing.ratio(leader, reference))} as fast as {heat.called(reference)}"
    if len(names) == 1:
        return f"{heat.name}: {names[0]} is the fastest{beside}."
    return f"{heat.name}: {listed(names, len(names))} cannot be told apart; {names[0]} comes out first{beside}."


def paste(run: Run) -> str:
    """The winners as the entry ``variants`` of a matrix: JSON, which is YAML too."""
    matrix = run.manifest.matrix
    names = dict.fromkeys(heat.cells[heat.standing.alive[0]].variant for heat in heats(run) if heat.standing.alive)
    known = [variant_of(matrix, name) for name in names]
    return json.dumps([one.name if one == BUILTIN_VARIANTS.get(one.name) else written(one) for one in known])


def document(run: Run) -> Document:
    """The race for people."""
    found = heats(run)
    spent = duration(math.fsum(heat.seconds for heat in found))
    failed = [(row.cell.id, f"{row.status}: {row.reason}") for row in run.rows if row.status not in ("ok", "skipped")]
    return Document(
        title=f"Race {run.manifest.run_id}",
        facts=(
            f"{machine(run.manifest.environment)[0]}; timed for {spent}.",
            "Ratios of seconds an image; above 1 is faster.",
            f"In {100 * (1 - ERROR):.0f} % of races the fastest is among those that are not told apart.",
        ),
        answers=(*map(sentence, found), f"To paste into a matrix: variants: {paste(run)}"),
        tables=[_table(heat.name, places(run, heat)) for heat in found],
        notes=[
            *by_reason((heat.cells[name].id, why_left(heat, name)) for heat in found for name in heat.others),
            *by_reason(failed),
        ],
    )


def table(run: Run) -> Table[Place]:
    """All cells of all races, as programs get them."""
    return _table("", [place for heat in heats(run) for place in places(run, heat)])


def _table(title: str, found: Sequence[Place]) -> Table[Place]:
    def of(key: str, rank: int) -> Column[Place]:
        figure, value = BY_KEY[key], at(f"figures.{key}")
        return Column(figure.title, lambda one: figure.text(value(one)), rank, key=key, value=value)

    columns: tuple[Column[Place], ...] = (
        *cell_columns(),
        Column("", at("word"), right=False, key="word", value=at("word")),
        *interval_columns("vs first", "vs_first", "ratio"),
        *interval_columns("vs reference", "vs_reference", "reference", rank=3, rank_beside=4),
        Column("step ms", lambda one: significant(one.step_ms), 2, key="step_ms_p50", value=at("step_ms")),
        of("test_accuracy", 2),
        of("compile_s", 5),
        of("break_even_epochs", 5),
        Column("groups", rank=6, key="groups", value=at("groups")),
    )
    return Table(title, columns, found, style=lambda one: "bold" if one.word in ("fastest", "not told apart") else "")


def to_json(run: Run) -> str:
    """The race as one document; what is not known is null."""
    races = [
        {"id": heat.id, "said": sentence(heat), "seconds": heat.seconds, "cells": _table("", own).records()}
        for heat, own in ((heat, places(run, heat)) for heat in heats(run))
    ]
    document = {"run_id": run.manifest.run_id, "races": races, "variants": json.loads(paste(run))}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
