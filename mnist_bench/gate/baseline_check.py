"""A run against a baseline: both sides' evidence of every cell, as the record that the verdicts follow from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mnist_bench.analysis.keys import differences, key_of
from mnist_bench.analysis.summary import FloorResult, Run, floors
from mnist_bench.cells import reference_variant
from mnist_bench.figures import Row
from mnist_bench.gate.baseline import Baseline, BaselineCell
from mnist_bench.gate.baseline_tables import shown, source_words
from mnist_bench.gate.indexed import Indexed, index
from mnist_bench.gate.records import (
    CHECK_SCHEMA_VERSION,
    Advisory,
    CellEvidence,
    Check,
    Margins,
    RatioEvidence,
    SeedPair,
    SideFault,
    SideInfo,
)
from mnist_bench.gate.run_figures import (
    Choice,
    reference_of,
    reference_sha256,
    session_ratios,
    telling_settings,
    training_of,
)
from mnist_bench.records import Cell, Failure, Measurement, Skip

ABSENT = "as eager has it"  # a setting that is a default


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a check is called by, none of which its verdicts depend on.

    ``baseline`` and ``run`` are what the user named; ``at`` is the time of the check (UTC, ISO 8601); ``matrix_path``
    is the matrix file from the root of its repository, None: as the run names it.
    """

    id: str
    baseline: str
    run: str
    at: str
    program_version: str
    matrix_path: str | None = None


def check_baseline(
    run: Run, baseline: Baseline, margins: Margins, labels: Labels, chosen: Choice | None = None
) -> Check:
    """Every cell of the run and of the baseline, held against each other.

    Args:
        run: with the rows of ``summary.summarise``: the floors of ``expect`` are held against their figures.
        chosen: the cells to check; None: all.
    """
    indexed = index(run)
    before = {one.cell: one for one in baseline.cells}
    results = floors(run.manifest.matrix, run.rows)
    names = dict.fromkeys([*(row.cell for row in run.rows), *before])
    cells = [
        _evidence(cell, before.get(cell), indexed, tuple(one for one in results if one.cell == cell))
        for cell in names
        if chosen is None or chosen(cell)
    ]
    manifest = run.manifest
    return Check(
        id=labels.id,
        schema_version=CHECK_SCHEMA_VERSION,
        program_version=labels.program_version,
        mode="baseline",
        status="complete",
        a=SideInfo(label=labels.baseline, commit=_commit(baseline)),
        b=SideInfo(label=labels.run, commit=manifest.environment.commit),
        matrix_path=labels.matrix_path or manifest.matrix_path,
        dataset=manifest.dataset.name,
        recipe=manifest.matrix.recipe,
        margins=margins,
        cells=tuple(cells),
        started_at=labels.at,
        ended_at=labels.at,
        notes=tuple(_notes(run, baseline)),
    )


def _commit(baseline: Baseline) -> str | None:
    """The commit that all cells come from; None where there are several, or it is not known."""
    commits = {source.commit for source in baseline.sources}
    return commits.pop() if len(commits) == 1 else None


def _notes(run: Run, baseline: Baseline) -> Iterator[str]:
    for source in baseline.sources:
        yield f"The baseline is of {source_words(source)}"
    for name in ("filter", "shard"):
        if value := getattr(run.manifest.options, name):
            yield f"The run was made with --{name} {value}: cells that it left out are missing here."
    yield (
        "A ratio is held against a ratio, this cell's to its reference variant: a slow-down of both alike is not seen, "
        "and what became slower may be a faster reference."
    )


def _evidence(
    cell: Cell, before: BaselineCell | None, indexed: Indexed, results: tuple[FloorResult, ...]
) -> CellEvidence:
    row = indexed.rows.get(cell.id)
    if row is None:
        return CellEvidence(cell=cell, sides="only A")
    faults = tuple(_faults(before, row))
    if before is None or faults:
        return CellEvidence(cell=cell, sides="both" if before else "only B", faults=faults, floors=results)
    if found := tuple(_differences(before, indexed)):
        return CellEvidence(cell=cell, differences=found, floors=results)
    return CellEvidence(
        cell=cell,
        seeds=_seed_pairs(before, indexed),
        ratios=_ratios(before, indexed),
        floors=results,
        figures=tuple(_figures(before, row)),
    )


def _faults(before: BaselineCell | None, row: Row) -> Iterator[SideFault]:
    if before is not None and before.status == "skipped":
        yield SideFault(side="A", outcome=Skip(reason=before.reason))
    if row.status == "skipped":
        yield SideFault(side="B", outcome=Skip(reason=row.reason))
    elif row.status != "ok":
        yield SideFault(side="B", outcome=Failure(kind=row.status, reason=row.reason))


def _differences(before: BaselineCell, indexed: Indexed) -> Iterator[str]:
    """Why the cell's figures may not be compared, what moves speed most first."""
    measured = indexed.measured[before.cell.id]
    key = key_of(indexed.run.manifest, before.cell, _first(measured))
    found = differences(before.key, key) if before.key else ()
    for one in found:
        there, here = _settings_that_differ(before, indexed) if one.field == "cell_sha256" else (one.a, one.b)
        yield f"{one.name}: {there} in the baseline, {here} here (moves {one.affects})"
    seeds = {figures.seed for figures in before.seeds}
    if not found and not seeds & measured.keys():
        yield f"seeds: {_listed(seeds)} in the baseline, {_listed(measured)} here: none in common (moves accuracy)"


def _first(measured: Mapping[int, tuple[str, Measurement]]) -> Measurement:
    return next(measurement for _, measurement in measured.values())


def _settings_that_differ(before: BaselineCell, indexed: Indexed) -> tuple[str, str]:
    there, here = before.settings or {}, telling_settings(indexed.run.manifest.matrix, before.cell)
    names = [name for name in {**there, **here} if there.get(name, ABSENT) != here.get(name, ABSENT)]
    if not names:  # what a default means has changed between two versions of the program
        return "other defaults", "those of this version"
    one, other = (", ".join(f"{name} {side.get(name, ABSENT)}" for name in names) for side in (there, here))
    return one, other


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _seed_pairs(before: BaselineCell, indexed: Indexed) -> tuple[SeedPair, ...]:
    measured = indexed.measured[before.cell.id]
    return tuple(
        SeedPair(seed=one.seed, a=one.training, b=training_of(measured[one.seed][1]))
        for one in before.seeds
        if one.seed in measured
    )


def _ratios(before: BaselineCell, indexed: Indexed) -> RatioEvidence | None:
    """None: the cell is itself the reference variant, and its own time is not judged."""
    matrix = indexed.run.manifest.matrix
    if before.ratios is None and reference_variant(matrix) == before.cell.variant:
        return None
    reference = reference_of(matrix, before.cell)
    there = before.ratios.sessions if before.ratios else ()
    here = session_ratios(before.cell, reference, indexed) if reference else ()
    why_none = _why_no_ratio(before, reference, indexed, bool(here))
    return RatioEvidence(
        reference=reference.id if reference else before.ratios.reference if before.ratios else "",
        a=() if why_none else there,
        b=() if why_none else here,
        why_none=why_none,
    )


def _why_no_ratio(before: BaselineCell, reference: Cell | None, indexed: Indexed, timed: bool) -> str:
    """Why a ratio is missing on one side, or the two are not of one kind; empty: they can be compared."""
    if reference is None:
        if reference_variant(indexed.run.manifest.matrix) is not None:
            return "it is itself the reference variant here, and in the baseline it is not: update the baseline"
        return "this run has no reference variant to hold it against: add one with eager's settings to its matrix"
    if before.ratios is None:
        return "the baseline holds it against no reference variant: update it"
    if not before.ratios.sessions:
        return f"the baseline has no ratio to {before.ratios.reference}: never timed together, or in too few rounds"
    row = indexed.rows.get(reference.id)
    if row is None or row.status != "ok":
        state = "not in this run" if row is None else f"{row.status} here: {row.reason}"
        return f"its reference {reference.id} is {state}"
    if not timed:
        return f"it was never timed together with {reference.id} here (--solo, loader processes, or too few rounds)"
    if before.ratios.reference_sha256 != reference_sha256(reference, indexed):
        return f"the settings of its reference {reference.id} are others than in the baseline"
    return ""


def _figures(before: BaselineCell, row: Row) -> Iterator[Advisory]:
    """What is shown and decides nothing: machines drift by 20 %."""
    there = shown(before)
    pairs = (
        ("step", "ms", there.step_ms_p50, row["step_ms_p50"]),
        ("training throughput", "samples/s", there.train_samples_per_s, row["train_samples_per_s"]),
        ("compile time", "s", there.compile_s, row["compile_s"]),
        ("time to first step", "s", there.time_to_first_step_s, row["time_to_first_step_s"]),
        ("evaluation throughput", "samples/s", there.eval_samples_per_s, row["eval_samples_per_s"]),
        ("host memory", "MiB", there.host_peak_mib, row["host_peak_mib"]),
        ("device memory", "MiB", there.device_peak_mib, row["device_peak_mib"]),
    )
    for name, unit, a, b in pairs:
        if a is not None and b is not None:
            yield Advisory(name=name, unit=unit, a=a, b=b)
