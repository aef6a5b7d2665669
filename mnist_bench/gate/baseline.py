"""A baseline: a run, trimmed to what later runs are held against, as a file of the repository keeps it. Pure.

Its cells are evidence of side A alone, sorted, in indented JSON: the file's diff can be reviewed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from msgspec import structs

from mnist_bench import __version__, figures
from mnist_bench.analysis import results
from mnist_bench.analysis.keys import Key, differences, key_of
from mnist_bench.analysis.summary import Run
from mnist_bench.cells import digest, reference_variant, trials_of
from mnist_bench.errors import UsageError
from mnist_bench.figures import Row
from mnist_bench.gate import evidence, outputs
from mnist_bench.gate.evidence import CellEvidence, Check, Record, SessionRatio, SideEvidence
from mnist_bench.gate.samples import shift_of
from mnist_bench.records import Cell, Manifest, RunOptions, Tree
from mnist_bench.records import encode as encoded
from mnist_bench.table import Column, Document, Table, at, listed, plain

FORMAT: Literal["mnist-bench baseline"] = "mnist-bench baseline"
COMPARED = ("test_accuracy", "speedup_vs_eager", "step_ms_p50", "train_samples_per_s")  # when it is updated

Choice = Callable[[Cell], bool]


class Source(Record, frozen=True, kw_only=True):
    """The run that figures of a baseline come from, its trials left out, and why it was made one, on one line."""

    reason: str
    manifest: Manifest

    @property
    def words(self) -> str:
        """When, of what, where and why, on one line."""
        manifest = self.manifest
        where = ", ".join(results.machine(manifest.environment))
        what = f"{manifest.dataset.name}, {manifest.matrix.recipe}"
        return f"{manifest.started_at[:10]}, run {manifest.run_id}; {where}; {what}: {self.reason}"


class Baseline(Record, frozen=True, kw_only=True):
    """The content of a baseline file: cells in the order of their ids' parts, and the runs that they come from."""

    format: Literal["mnist-bench baseline"]
    schema_version: int
    runs: tuple[Source, ...]
    cells: tuple[CellEvidence, ...]

    def __post_init__(self) -> None:
        runs = {source.manifest.run_id for source in self.runs}
        for number, one in enumerate(self.cells):
            if one.a is None or one.b or one.pairs or (one.a.status == "ok" and not (one.a.trainings and one.a.key)):
                raise ValueError(f"cells[{number}]: has figures of side `a`, a key and at least one training")
            if one.a.failed or one.a.run_id not in runs:
                raise ValueError(f"cells[{number}].a.run_id: {one.a.run_id!r:.60} is not among the runs")
        if len({one.cell for one in self.cells}) < len(self.cells):
            raise ValueError("cells: a cell stands there twice")


def decode(data: bytes) -> Baseline:
    """Raises ValueError: no baseline, or a broken one; the message says where."""
    return outputs.read(data, Baseline)


def encode(baseline: Baseline) -> bytes:
    """Indented JSON, figures with all their digits."""
    return encoded(baseline, indent=2)


# ── a run -> a baseline ──────────────────────────────────────────────────────────────────────────────────────────────


def baseline_of(run: Run, reason: str, chosen: Choice | None = None, old: Baseline | None = None) -> Baseline:
    """What a run measured as a baseline.

    Args:
        reason: why it is one: for those who read the file's history.
        chosen: the cells to take; None: all.
        old: the baseline that is updated; its cells that are not chosen stay.

    Raises:
        UsageError: no reason; a chosen cell is not finished or failed; none was measured.
    """
    if not plain(reason):
        raise UsageError('--reason: a baseline needs one, as in --reason "compile is 10 % faster since torch 2.14"')
    rows = [row for row in run.rows if chosen is None or chosen(row.cell)]
    _refuse_unfit(run, rows, chosen)
    about = replace(  # no path of the machine's stands in a file that is committed
        run.manifest,
        order=(),
        trials=(),
        matrix_path=run.manifest.matrix_path.rpartition("/")[2],
        dataset=replace(run.manifest.dataset, root=""),
        options=RunOptions(),
    )
    kept = [one for one in old.cells if not chosen(one.cell)] if old and chosen else []
    new = [CellEvidence(cell=row.cell, a=side_of_run(run, row)) for row in rows]
    cells = tuple(sorted([*kept, *new], key=lambda one: one.cell))
    needed = {one.a.run_id for one in cells if one.a}
    # Of a run that is there already, the new words hold: they were given for all its cells that are here now.
    known = [*(old.runs if old else ()), Source(reason=plain(reason), manifest=about)]
    runs = {one.manifest.run_id: one for one in known if one.manifest.run_id in needed}
    sources = tuple(runs[run_id] for run_id in sorted(runs))
    return Baseline(format=FORMAT, schema_version=outputs.SCHEMA_VERSION, runs=sources, cells=cells)


def side_of_run(run: Run, row: Row) -> SideEvidence:
    """A cell of a run as one side of a check."""
    about: dict[str, Any] = {"run_id": run.manifest.run_id, "reason": plain(row.reason), "key": _key(run, row.cell)}
    reference = run.reference_of(row.cell)
    if row.status == "ok" and reference != row.cell:
        key = _key(run, reference)
        about["reference"] = reference.id
        about["reference_sha256"] = digest([key.settings, key.threads]) if key else ""
        about["ratios"] = tuple(_ratios(run, row.cell, reference))
    return structs.replace(evidence.side_of(row, run.by_cell[row.cell], evidence.ADVISED_OF_RUNS), **about)


def cells_of(run: Run) -> list[Cell]:
    """All that a run set out to measure."""
    planned = trials_of(run.manifest.matrix)
    return [*(row.cell for row in run.rows), *(planned[one][0] for one in run.manifest.trials if one in planned)]


def refuse_unfinished(run: Run, chosen: Choice | None) -> None:
    """Raises UsageError where trials of chosen cells are still to come: such a cell is neither measured nor gone."""
    name, planned = plain(run.manifest.run_id), trials_of(run.manifest.matrix)
    wanted = [plain(one) for one in run.pending if chosen is None or (one in planned and chosen(planned[one][0]))]
    if wanted:
        raise UsageError(
            f"run {name} is {run.manifest.status}, {len(wanted)} trials are missing ({listed(wanted)}): `mnist-bench "
            f"run --resume {name}` goes on, or leave their cells out with --filter"
        )


def _refuse_unfit(run: Run, rows: Sequence[Row], chosen: Choice | None) -> None:
    name = plain(run.manifest.run_id)
    refuse_unfinished(run, chosen)
    if failed := [row for row in rows if row.status not in ("ok", "skipped")]:
        lines = [f"  {plain(row.cell.id)}: {row.status}: {plain(row.reason)}" for row in failed]
        head = f"run {name}: a failed cell cannot be a baseline: mend it and run again, or leave it out with --filter:"
        raise UsageError("\n".join([head, *lines]))
    if not any(row.status == "ok" for row in rows):
        raise UsageError(f"run {name}: nothing was measured, so nothing can be a baseline")


def _key(run: Run, cell: Cell) -> Key | None:
    """What must be alike for its figures to be compared; None: not measured."""
    measured = run.ok.get(cell)
    return key_of(run.manifest_of(cell), cell, next(iter(measured.values()))[1]) if measured else None


def _ratios(run: Run, cell: Cell, reference: Cell) -> Iterator[SessionRatio]:
    """What each session says that timed both together; those of fewer rounds than an interval needs are left out."""
    seeds = {trial: seed for seed, (trial, _) in run.ok[cell].items()}
    for theirs, own in sorted(run.pairs(reference, cell), key=lambda pair: seeds[pair[1]]):
        for timed, ratio in run.index.ratios([(theirs, own)]):
            if ratio.variance is not None and ratio.interval.low is not None:
                yield SessionRatio(
                    seed=seeds[own],
                    speedup=math.exp(ratio.interval.estimate),
                    sd=math.sqrt(ratio.variance),
                    rounds=ratio.rounds,
                    noisy=bool(timed.session.noisy),
                )


# ── a run against a baseline ─────────────────────────────────────────────────────────────────────────────────────────


def held_against(run: Run, baseline: Baseline, name: str, chosen: Choice | None = None) -> Check:
    """Every cell of the run and of the baseline, held against each other.

    Args:
        name: of the baseline.
        chosen: the cells to check; None: all.
    """
    manifest, here = run.manifest, run.manifest.environment
    before = {one.cell: one.a for one in baseline.cells}
    rows = {row.cell: row for row in run.rows}
    cells = [cell for cell in {**rows, **before} if chosen is None or chosen(cell)]
    commits = {source.manifest.environment.commit for source in baseline.runs}
    return evidence.check_of(
        manifest,
        program_version=__version__,  # of the judge
        mode="baseline",
        status="complete",
        a=Tree(label=name, commit=commits.pop() if len(commits) == 1 else None),
        b=Tree(label=f"run {manifest.run_id}{', with changes' if here.dirty else ''}", commit=here.commit),
        cells=tuple(_evidence(run, cell, before.get(cell), rows) for cell in cells),
        notes=tuple(_notes(run, baseline)),
    )


def _notes(run: Run, baseline: Baseline) -> Iterator[str]:
    for source in baseline.runs:
        yield f"The baseline is of {source.words}"
    for name in ("filter", "shard"):
        if value := getattr(run.manifest.options, name):
            yield f"The run was made with --{name} {value}: cells that it left out are missing here."
    if any(rule.memory is not None for rule in run.manifest.matrix.gate):
        yield "Memory is not judged here: `check --against` does it, over process pairs."
    yield "Ratios to the reference variant are compared: a slow-down of both alike is not seen."


def _evidence(run: Run, cell: Cell, before: SideEvidence | None, rows: dict[Cell, Row]) -> CellEvidence:
    row = rows.get(cell)
    if row is None:
        return CellEvidence(cell=cell, a=before)
    found: tuple[str, ...] = ()
    here, why = side_of_run(run, row), ""
    if before and before.status == here.status == "ok":
        found = tuple(_differences(before, here))
        why = "" if found else _why_no_ratio(run, cell, before, here)
    return CellEvidence(
        cell=cell,
        a=before,
        b=here,
        differences=found,
        samples_per_s=here.figures.get("train_samples_per_s"),
        why_no_ratio=why,
        **evidence.rules_of(run.manifest.matrix, cell),
    )


def _differences(before: SideEvidence, here: SideEvidence) -> Iterator[str]:
    """Why the cell's figures may not be compared, what moves speed most first."""
    found = differences(before.key, here.key) if before.key and here.key else ()
    for one in found:
        yield f"{one.name}: {one.a} in the baseline, {one.b} here (moves {one.affects})"
    there, now = ({one.seed for one in side.trainings} for side in (before, here))
    if not found and not there & now:
        seeds = [", ".join(map(str, sorted(each))) for each in (there, now)]
        yield f"seeds: {seeds[0]} in the baseline, {seeds[1]} here: none in common (moves accuracy)"


def _why_no_ratio(run: Run, cell: Cell, before: SideEvidence, here: SideEvidence) -> str:
    """Why a ratio is missing on one side, or the two are not of one kind; empty: they can be compared, or need not."""
    variant = reference_variant(run.manifest.matrix)
    if variant == cell.variant:
        itself = "it is itself the reference variant here, and in the baseline it is not: update the baseline"
        return itself if before.reference else ""
    if variant is None:
        return "this run has no reference variant to hold it against: name one with --reference"
    if not before.reference:
        return "the baseline holds it against no reference variant: update it"
    if not before.ratios:
        return f"the baseline has no ratio to {before.reference}: never timed together, or in too few rounds"
    if here.ratios:
        same = before.reference_sha256 == here.reference_sha256
        return "" if same else f"the settings of its reference {here.reference} are others than in the baseline"
    return f"it was never timed with {here.reference} here (which failed, --solo, loader processes, too few rounds)"


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Change:
    """One cell before and after an update; None: not there."""

    cell: Cell
    before: SideEvidence | None
    after: SideEvidence | None

    @property
    def word(self) -> str:
        if self.before is None or self.after is None:
            return "new" if self.before is None else "removed"
        return "same" if self.before == self.after else "changed"

    @property
    def differs(self) -> str:
        """What it was measured with otherwise, in words."""
        keys = [side.key for side in (self.before, self.after) if side and side.key]
        return "; ".join(f"{one.name} {one.a} → {one.b}" for one in differences(*keys)) if len(keys) == 2 else ""


def changed(old: Baseline | None, new: Baseline, name: str) -> Document:
    """What an update changes, old -> new; cells that stay as they are are counted alone."""
    before, after = ({one.cell: _compared(one.a) for one in each.cells if one.a} if each else {} for each in (old, new))
    found = [Change(cell, before.get(cell), after.get(cell)) for cell in sorted({**before, **after})]
    told = [one for one in found if one.word != "same"]
    counts = Counter(one.word for one in found)
    words = [f"{counts[word]} {word}" for word in ("new", "changed", "removed", "same") if counts[word]]
    sides = {"before": "before.figures", "after": "after.figures"}
    columns = (
        *figures.cell_columns(),
        Column("change", right=False, key="change", value=at("word")),
        *(column for rank, key in enumerate(COMPARED, 1) for column in figures.both_columns(key, sides, rank)),
        Column(None, key="differs", value=at("differs")),
    )
    return Document(
        title=f"Baseline {name}: {', '.join(words)}",
        tables=(Table("Old → new", columns, told),),
        notes=[f"{one.cell.id}: {one.differs}" for one in told if one.differs],
    )


def without_ratio(baseline: Baseline) -> list[str]:
    """The ids of the cells whose speed no check can judge, though they have a reference variant."""
    return [one.cell.id for one in baseline.cells if one.a and one.a.reference and not one.a.ratios]


def _compared(side: SideEvidence) -> SideEvidence:
    """With the figures of its seeds together."""
    found = dict(side.figures)
    if side.trainings:
        found["test_accuracy"] = fmean(one.accuracy for one in side.trainings)
    if side.ratios:
        found["speedup_vs_eager"] = shift_of((side.ratios, 1)).faster.estimate
    return structs.replace(side, figures=found)
