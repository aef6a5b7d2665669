"""What a race says: who is the fastest, or who is not told from it; a table, a document, a variant to paste. Pure."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

from mnist_bench.analysis.elimination import ERROR, Effects, Standing, effects, standing
from mnist_bench.analysis.results import machine
from mnist_bench.analysis.summary import TRACE_RTOL, Run, trace_difference
from mnist_bench.cells import reference_variant, trials_of, variant_of, written
from mnist_bench.errors import UsageError
from mnist_bench.figures import BY_KEY, bounds, cell_columns, interval_columns, ratio, significant
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Failure, Matrix, Race, Session, Trial, trial_id
from mnist_bench.stats import Interval
from mnist_bench.table import Column, Document, Table, at, by_reason, duration, grouped, joined, listed

ALONE = ("only one that ran", "only one of its class")  # nothing was slower


@dataclass(frozen=True, kw_only=True)
class Heat:
    """The cells that race each other, each by its trial of the first seed, and what is known of them.

    Args:
        kind, matrix: those of the run.
        complete: nothing more is timed.
        sessions: of its process groups; ``groups``: what each says.
        lost: the trials that did not go well, or cannot be.
    """

    id: str
    kind: Race
    matrix: Matrix
    cells: Mapping[str, Cell]
    complete: bool
    sessions: tuple[Session, ...] = ()
    groups: tuple[Effects, ...] = ()
    lost: frozenset[str] = frozenset()

    def after(self, line: Session | Trial) -> "Heat":
        """With what one more line says: a session, or a trial that is lost."""
        if isinstance(line, Trial):
            return replace(self, lost=self.lost | {line.id})
        sizes = {name: cell.batch_size for name, cell in self.cells.items()}
        return replace(self, sessions=(*self.sessions, line), groups=(*self.groups, effects(line, sizes)))

    @cached_property
    def standing(self) -> Standing:
        entered = [name for name in self.cells if name not in self.lost and name not in self.others]
        first = [zip(one.members, one.rounds[-1].steps, strict=True) for one in self.sessions[:1]]
        return standing(
            self.groups,
            entered,
            precision=self.matrix.timing.precision,
            early={name for members in first for name, steps in members if not steps},
            over=self.complete or self.seconds >= self.kind.budget_s,
        )

    @property
    def seconds(self) -> float:
        """Of wall time that it has taken."""
        return math.fsum(session.seconds for session in self.sessions)

    @cached_property
    def others(self) -> list[str]:
        """Those that are of another class than is admitted, by their first losses."""
        return self.unlike({name: trace for session in self.sessions for name, trace in session.traces.items()})

    def unlike(self, traces: Mapping[str, Sequence[float]]) -> list[str]:
        """The trials whose first losses are not those of the reference variant at their batch size, and may not be."""
        wanted, seed = reference_variant(self.matrix) or "", self.matrix.seeds[0]
        own = {name: traces.get(trial_id(replace(self.cells[name], variant=wanted), seed)) for name in traces}
        found = [name for name, of in own.items() if of is not None and trace_difference(traces[name], of) > TRACE_RTOL]
        return found if self.kind.admitted == "A" else []

    @property
    def reference(self) -> str | None:
        """The trial of the reference variant, if it is among them."""
        wanted = reference_variant(self.matrix)
        return next((name for name, cell in self.cells.items() if cell.variant == wanted), None)

    @property
    def name(self) -> str:
        """``lenet5 on cpu, batch 100``."""
        one = next(iter(self.cells.values()))
        return f"{one.model} on {one.device}" + f", batch {one.batch_size}" * (not self.kind.across_batch_sizes)

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
    timed = {member for session in run.sessions for member in session.members}
    lost: list[Session | Trial] = [one for one in run.trials if isinstance(one.outcome, Failure) or one.id not in timed]
    entered = [(name, cell) for name, (cell, seed) in trials_of(matrix).items() if seed == matrix.seeds[0]]
    across, complete = kind.across_batch_sizes, run.manifest.status == "complete"
    found = []
    for id_, own in grouped(entered, lambda pair: pair[1].id.rsplit("/", 1 + across)[0]).items():
        heat = Heat(id=id_, kind=kind, matrix=matrix, cells=dict(own), complete=complete)
        lines: list[Session | Trial] = [session for session in run.sessions if session.members[0] in heat.cells]
        found.append(reduce(Heat.after, lines + lost, heat))
    return found


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
    return "fastest" if standing.left else ALONE[bool(heat.others)]


def why_left(heat: Heat, name: str) -> str:
    """Why a trial is not trained: it is no longer in the race."""
    if name in heat.others:
        return "left the race: its first losses are not the reference's (class B): --class B admits it"
    if name not in heat.standing.left:
        return "left the race: its trial of the first seed did not go well"
    left = heat.standing.left[name]
    groups = f"{left.groups} process group{'s' * (left.groups > 1)}"
    return f"left the race after {groups}: {_times(left.ratio)} as fast as {heat.called(left.leader)}"


def _times(found: Interval) -> str:
    """``1.14x [1.10, 1.17]``."""
    return joined(ratio(found.estimate), bounds(found.low, found.high))


def sentence(heat: Heat) -> str:
    """``lenet5 on cpu, batch 100: channels-last is the fastest.``, or who cannot be told apart."""
    standing = heat.standing
    if not standing.alive or not heat.sessions:
        return f"{heat.name}: nothing raced"
    names = [heat.called(name) for name in standing.alive]
    leader, reference = standing.alive[0], heat.reference
    beside = ""
    if reference and reference != leader and (found := standing.ratio(leader, reference)):
        beside = f", {_times(found)} as fast as {heat.called(reference)}"
    if len(names) == 1:
        return f"{heat.name}: {names[0]} is the {word(heat, leader)}{beside}."
    return f"{heat.name}: {listed(names, len(names))} cannot be told apart; {names[0]} comes out first{beside}."


def paste(found: Sequence[Heat]) -> str:
    """The winners as the entry ``variants`` of a matrix: JSON, which is YAML too."""
    names = dict.fromkeys(heat.cells[heat.standing.alive[0]].variant for heat in found if heat.standing.alive)
    known = [variant_of(found[0].matrix, name) for name in names]
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
        answers=(*map(sentence, found), f"To paste into a matrix: variants: {paste(found)}"),
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
    first = (*ALONE, "fastest", "not told apart")
    return Table(title, columns, found, style=lambda one: "bold" if one.word in first else "")


def to_json(run: Run) -> str:
    """The race as one document; what is not known is null."""
    found = heats(run)
    races = [
        {"id": heat.id, "said": sentence(heat), "seconds": heat.seconds, "cells": _table("", own).records()}
        for heat, own in ((heat, places(run, heat)) for heat in found)
    ]
    document = {"run_id": run.manifest.run_id, "races": races, "variants": json.loads(paste(found))}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
