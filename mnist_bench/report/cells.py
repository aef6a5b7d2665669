"""The table of all cells: what each line shows and what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnist_bench import figures
from mnist_bench.records import STATUSES
from mnist_bench.report.material import worst_first
from mnist_bench.rows import Row

Sortable = str | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the table.

    ``detail`` is a second, smaller line (an interval); ``key`` what it is sorted by; ``help`` what its header means.
    """

    header: str
    show: Callable[[Row], str]
    key: Callable[[Row], Sortable]
    help: str
    detail: Callable[[Row], str] = lambda row: ""
    numeric: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why cells are not ok: all those of one status and one reason."""

    status: str
    text: str
    cells: int
    names: str  # of the first of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A cell: its texts by column. ``keys`` are None where there is nothing to sort by.

    ``figures`` are pairs (text, detail); there are none for a cell without any: its reason stands in their place.
    """

    status: str
    seeds: int
    names: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    keys: tuple[Sortable, ...]
    reason: str
    marks: str
    doubts: str
    best: bool


NAMES = (
    Column(
        header="status",
        show=lambda row: row.status,
        key=lambda row: 0 if row.status not in ("ok", "skipped") else 1 if row.status == "skipped" else 2,
        help="failed cells first, then skipped ones",
        numeric=False,
    ),
    Column(header="model", show=lambda row: row.model, key=lambda row: row.model, help="the model", numeric=False),
    Column(header="device", show=lambda row: row.device, key=lambda row: row.device, help="the device", numeric=False),
    Column(
        header="batch", show=lambda row: f"{row.batch_size:,}", key=lambda row: row.batch_size, help="images in a step"
    ),
    Column(
        header="variant", show=lambda row: row.variant, key=lambda row: row.variant, help="how it is run", numeric=False
    ),
)
FIGURES = (
    Column(
        header="accuracy",
        show=lambda row: figures.accuracy(row.test_accuracy, None),
        detail=lambda row: "" if row.test_accuracy_std is None else f"± {row.test_accuracy_std:.4f}",
        key=lambda row: row.test_accuracy,
        help="the fraction of the test images after the last epoch: mean and standard deviation over seeds",
    ),
    Column(
        header="samples/s",
        show=lambda row: figures.significant(row.train_samples_per_s),
        detail=lambda row: figures.rate_bounds(row.train_samples_per_s_low, row.train_samples_per_s_high),
        key=lambda row: row.train_samples_per_s,
        help="training throughput over all epochs and seeds; 95 % interval from 3 seeds on",
    ),
    Column(
        header="step ms",
        show=lambda row: figures.significant(row.step_ms_p50),
        detail=lambda row: figures.joined("p95", figures.significant(row.step_ms_p95)) if row.step_ms_p95 else "",
        key=lambda row: row.step_ms_p50,
        help="one training step in the timing session: median, and 95th percentile",
    ),
    Column(
        header="epoch s",
        show=lambda row: figures.significant(row.epoch_s),
        key=lambda row: row.epoch_s,
        help="seconds of training per epoch",
    ),
    Column(
        header="compile s",
        show=lambda row: figures.significant(row.compile_s),
        key=lambda row: row.compile_s,
        help="seconds of cold compilation",
    ),
    Column(
        header="vs eager",
        show=lambda row: figures.ratio(row.speedup_vs_eager),
        detail=lambda row: figures.bounds(row.speedup_vs_eager_low, row.speedup_vs_eager_high),
        key=lambda row: row.speedup_vs_eager,
        help="how many times faster a step is than eager's, timed together; 95 % interval",
    ),
    Column(
        header="vs cpu",
        show=lambda row: figures.ratio(row.speedup_vs_cpu),
        detail=lambda row: figures.bounds(row.speedup_vs_cpu_low, row.speedup_vs_cpu_high),
        key=lambda row: row.speedup_vs_cpu,
        help="how many times faster a step is than on the CPU, timed together; 95 % interval",
    ),
    Column(
        header="peak MiB",
        show=lambda row: figures.significant(row.host_peak_mib if row.device_peak_mib is None else row.device_peak_mib),
        key=lambda row: row.host_peak_mib if row.device_peak_mib is None else row.device_peak_mib,
        help="peak memory: the device's where it has its own, else the host's",
    ),
)
OPTIONAL = ("compile s", "vs eager", "vs cpu")


def figure_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns of figures; optional ones only where a cell has something for them."""
    return tuple(
        column
        for column in FIGURES
        if column.header not in OPTIONAL or any(column.key(row) is not None for row in rows)
    )


def lines(rows: Sequence[Row]) -> tuple[Line, ...]:
    """Every cell, failed ones first, then skipped ones; its figures are those of ``figure_columns``."""
    best, columns = figures.fastest(rows), figure_columns(rows)
    return tuple(_line(row, columns, row.cell.id in best) for row in worst_first(rows))


def reasons(rows: Sequence[Row]) -> tuple[Reason, ...]:
    """Every reason once, the failed cells' first."""
    together: dict[tuple[str, str], list[str]] = {}
    for row in worst_first(rows):
        if row.status != "ok":
            together.setdefault((row.status, figures.plain(row.reason)), []).append(figures.plain(row.cell.id))
    return tuple(
        Reason(status=status, text=text, cells=len(ids), names=figures.listed(ids))
        for (status, text), ids in together.items()
    )


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many cells have each status, the worst first; statuses that none has are left out."""
    found = {status: sum(row.status == status for row in rows) for status in reversed(STATUSES)}
    return {status: count for status, count in found.items() if count}


def _line(row: Row, columns: Sequence[Column], best: bool) -> Line:
    return Line(
        status=row.status,
        seeds=row.seeds,
        names=tuple(figures.plain(column.show(row)) for column in NAMES),
        figures=tuple((column.show(row), column.detail(row)) for column in columns) if row.seeds else (),
        keys=tuple(column.key(row) for column in (*NAMES, *columns)),
        reason=figures.plain(row.reason),
        marks=figures.marks(row),
        doubts=figures.plain(row.doubts or ""),
        best=best,
    )
