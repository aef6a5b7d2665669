"""A baseline, and what an update changes in it, as tables: for a terminal, as Markdown, CSV or JSON. Pure."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mnist_bench import figures
from mnist_bench.analysis.keys import differences
from mnist_bench.gate.baseline import MIB, Baseline, BaselineCell, Source
from mnist_bench.gate.baseline_speed import mean_ratio
from mnist_bench.records import Cell
from mnist_bench.sheets import Column, Sheet, grid
from mnist_bench.table import harmless, listed

Change = Literal["new", "removed", "changed", "same"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCell:
    """One cell of a baseline, its seeds together as in ``results.csv``. ``speedup`` is against ``reference``.

    Its 95 % interval is the gate's: what a session cannot show (processes differ) is in it.
    """

    model: str
    device: str
    batch_size: int
    variant: str
    status: str
    reason: str
    seeds: int
    test_accuracy: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    reference: str | None
    step_ms_p50: float | None
    train_samples_per_s: float | None
    eval_samples_per_s: float | None
    compile_s: float | None
    time_to_first_step_s: float | None
    host_peak_mib: float | None
    device_peak_mib: float | None
    run_id: str

    @property
    def cell(self) -> Cell:
        return Cell(model=self.model, device=self.device, batch_size=self.batch_size, variant=self.variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange:
    """One cell before and after an update; None: not there. ``differs``: what is measured otherwise, in words."""

    change: Change
    before: ShownCell | None
    after: ShownCell | None
    differs: str

    @property
    def cell(self) -> Cell:
        shown = self.after or self.before
        assert shown is not None
        return shown.cell


def shown(one: BaselineCell) -> ShownCell:
    """The figures of a cell that a person wants to see."""
    trainings = [seed.training for seed in one.seeds]
    low, middle, high = _speedup(one)
    return ShownCell(
        **asdict(one.cell),
        status=one.status,
        reason=one.reason,
        seeds=len(one.seeds),
        test_accuracy=one.accuracy,
        speedup=middle,
        speedup_low=low,
        speedup_high=high,
        reference=one.ratios.reference if one.ratios else None,
        step_ms_p50=one.step_ms_p50,
        train_samples_per_s=_rate([training.train_samples_per_s for training in trainings]),
        eval_samples_per_s=_rate([training.eval_samples_per_s for training in trainings]),
        compile_s=_median([training.compile_s for training in trainings]),
        time_to_first_step_s=_median([training.time_to_first_step_s for training in trainings]),
        host_peak_mib=_peak_mib([training.host_peak_bytes for training in trainings]),
        device_peak_mib=_peak_mib([training.device_peak_bytes for training in trainings]),
        run_id=one.run_id,
    )


def changes(old: Baseline | None, new: Baseline) -> tuple[CellChange, ...]:
    """Every cell of either, in order."""
    before = {one.cell: one for one in old.cells} if old else {}
    after = {one.cell: one for one in new.cells}
    return tuple(_change(before.get(cell), after.get(cell)) for cell in sorted({**before, **after}))


def baseline_sheet(baseline: Baseline, name: str) -> Sheet:
    """The whole baseline; ``name`` is its file's."""
    cells = [shown(one) for one in baseline.cells]
    columns: tuple[Column[ShownCell], ...] = (
        Column("cell", lambda one: one.cell.id, right=False),
        Column("status", lambda one: "" if one.status == "ok" else one.status, rank=1, right=False),
        Column("accuracy", lambda one: figures.accuracy(one.test_accuracy)),
        Column("vs ref.", lambda one: figures.ratio(one.speedup)),
        Column("95 %", lambda one: figures.bounds(one.speedup_low, one.speedup_high), rank=2),
        Column("seeds", lambda one: str(one.seeds or ""), rank=3),
        Column("step ms", lambda one: figures.significant(one.step_ms_p50), rank=4),
        Column("samples/s", lambda one: figures.significant(one.train_samples_per_s), rank=5),
        Column("compile s", lambda one: figures.significant(one.compile_s), rank=6),
        Column("host MiB", lambda one: figures.significant(one.host_peak_mib), rank=7),
        Column("device MiB", lambda one: figures.significant(one.device_peak_mib), rank=7),
    )
    references = sorted({one.reference for one in cells if one.reference})
    notes = list(_skipped(cells))
    if lacking := without_ratio(baseline):
        notes.append(f"no ratio (never timed together, or in too few rounds): {listed(lacking)}")
    if references:
        notes.append("vs ref.: seconds per step of the reference variant / of this cell: above 1 this cell is faster")
    return Sheet(
        title=f"Baseline {name}: {len(cells)} cells",
        facts=tuple(map(source_words, baseline.sources)),
        grids=(grid("Cells", columns, cells),),
        notes=tuple(notes),
    )


def changes_sheet(found: Sequence[CellChange], name: str) -> Sheet:
    """What an update changes, old -> new; cells that stay as they are are counted alone."""
    counts = {word: sum(one.change == word for one in found) for word in ("new", "changed", "removed", "same")}
    told = [one for one in found if one.change != "same"]
    columns: tuple[Column[CellChange], ...] = (
        Column("cell", lambda one: one.cell.id, right=False),
        Column("change", lambda one: one.change, right=False),
        Column("status", _both(lambda one: "" if one.status == "ok" else one.status), rank=1, right=False),
        Column("accuracy", _both(lambda one: figures.accuracy(one.test_accuracy)), rank=1, right=False),
        Column("vs ref.", _both(lambda one: figures.ratio(one.speedup)), rank=1, right=False),
        Column("step ms", _both(lambda one: figures.significant(one.step_ms_p50)), rank=2, right=False),
        Column("samples/s", _both(lambda one: figures.significant(one.train_samples_per_s)), rank=3, right=False),
    )
    return Sheet(
        title=f"Baseline {name}: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count),
        grids=(grid("Old → new", columns, told),) if told else (),
        notes=tuple(f"{one.cell.id}: {one.differs}" for one in told if one.differs),
    )


def without_ratio(baseline: Baseline) -> list[str]:
    """The ids of the cells whose speed no check can judge, though they have a reference variant."""
    return [one.cell.id for one in baseline.cells if one.ratios is not None and not one.ratios.sessions]


def baseline_records(baseline: Baseline) -> list[dict[str, Any]]:
    """The cells as flat records of one set of keys."""
    return [asdict(shown(one)) for one in baseline.cells]


def change_records(found: Sequence[CellChange]) -> list[dict[str, Any]]:
    """The changes as flat records of one set of keys."""
    names = ("status", "test_accuracy", "speedup", "step_ms_p50", "train_samples_per_s")
    return [
        {
            **asdict(one.cell),
            "change": one.change,
            **{f"{name}_before": getattr(one.before, name, None) for name in names},
            **{f"{name}_after": getattr(one.after, name, None) for name in names},
            "differs": one.differs,
        }
        for one in found
    ]


def to_csv(records: Sequence[dict[str, Any]]) -> str:
    """A header and one line per record; a figure that is not known is empty; texts are harmless in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(list(record) for record in records[:1])
    writer.writerows([_field(value) for value in record.values()] for record in records)
    return out.getvalue()


def to_json(baseline: Baseline) -> str:
    """The sources and the cells as one document."""
    document = {"runs": [asdict(source) for source in baseline.sources], "cells": baseline_records(baseline)}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _change(before: BaselineCell | None, after: BaselineCell | None) -> CellChange:
    word: Change = "new" if before is None else "removed" if after is None else "changed" if before != after else "same"
    return CellChange(
        change=word,
        before=shown(before) if before else None,
        after=shown(after) if after else None,
        differs="; ".join(_differs(before, after)) if before and after else "",
    )


def _differs(before: BaselineCell, after: BaselineCell) -> Iterator[str]:
    if before.status != after.status:
        yield f"{before.status} → {after.status}"
    if before.key and after.key:
        for one in differences(before.key, after.key):
            yield f"{one.name} {one.a} → {one.b}"
    seeds = tuple(", ".join(str(seed.seed) for seed in side.seeds) for side in (before, after))
    if seeds[0] != seeds[1]:
        yield f"seeds {seeds[0] or 'none'} → {seeds[1] or 'none'}"


def _both(show: Callable[[ShownCell], str]) -> Callable[[CellChange], str]:
    def text(one: CellChange) -> str:
        before, after = (show(side) if side else "" for side in (one.before, one.after))
        return after if one.before is None or before == after else f"{before or '-'} → {after or '-'}"

    return text


def source_words(source: Source) -> str:
    """When, of what, where and why, on one line."""
    commit = f"commit {source.commit[:12]}{' with changes' if source.dirty else ''}" if source.commit else "no commit"
    torch = f", torch {source.torch}" if source.torch else ""
    return (
        f"{source.date[:10]}, run {source.run_id}, {commit}; {source.machine}{torch}; {source.dataset}, "
        f"{source.recipe}: {source.reason}"
    )


def _skipped(cells: Sequence[ShownCell]) -> Iterator[str]:
    """Every reason once, with its cells."""
    by_reason: dict[str, list[str]] = {}
    for one in cells:
        if one.status == "skipped":
            by_reason.setdefault(one.reason, []).append(one.cell.id)
    yield from (f"skipped: {listed(ids)}: {reason}" for reason, ids in by_reason.items())


def _speedup(one: BaselineCell) -> tuple[float | None, float | None, float | None]:
    if one.ratios is None or not one.ratios.sessions:
        return None, None, None
    slower = mean_ratio(one.ratios.sessions).exp()
    low, high = (None if bound is None else 1 / bound for bound in (slower.high, slower.low))
    return low, 1 / slower.estimate, high


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _rate(rates: Sequence[float]) -> float | None:
    """All samples / all seconds, as in ``results.csv``: every seed has the same number of samples."""
    return statistics.harmonic_mean(rates) if rates else None


def _peak_mib(peaks: Sequence[int | None]) -> float | None:
    return max((peak / MIB for peak in peaks if peak is not None), default=None)


def _field(value: object) -> object:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.10g}"
        case str():
            return harmless(value)
        case _:
            return value
