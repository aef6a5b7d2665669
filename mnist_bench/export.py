"""A run in the formats of other tools: one pure function a format, from the run and the rows that are wanted to bytes.

Sources of the formats: https://bencher.dev/docs/reference/bencher-metric-format,
https://github.com/benchmark-action/github-action-benchmark (``customSmallerIsBetter``, ``customBiggerIsBetter``),
https://pytest-benchmark.readthedocs.io; ``docs/exports.md`` tells how their readers take them.
"""

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Literal

from mnist_bench import figures
from mnist_bench.analysis import frames, results
from mnist_bench.analysis.summary import Run, missed_floors
from mnist_bench.errors import UsageError
from mnist_bench.figures import FOLLOWED, Figure, Row
from mnist_bench.table import exact, grouped, plain

LONGEST_NAME = 1000  # characters; Bencher refuses names over 1024
PYTEST_BENCHMARK = "5.3.1"  # the pytest-benchmark whose fields these are
PACKAGE = "mnist_bench"

Export = Callable[[Run, Sequence[Row]], bytes]


@dataclass(frozen=True, slots=True)
class Exporter:
    """A format.

    Args:
        files: what it consists of: the name that a file has by default, and what makes its bytes of the rows that it
            holds.
        all_rows: whether rows without a figure stand in it too, with their status; else they are left out.
        timed: whether a row must have a finished timing session, beyond a measured figure.
        binary: whether a terminal cannot show it.
    """

    files: Mapping[str, Export]
    all_rows: bool = False
    timed: bool = False
    binary: bool = False

    @property
    def needs(self) -> str:
        """What a row must have to stand in it."""
        return "a finished timing session" if self.timed else "a measured figure"

    def known(self, run: Run, rows: Sequence[Row]) -> list[Row]:
        """The rows that have it."""
        return [row for row in rows if row.seeds and (not self.timed or run.log_step_s(row.cell))]


def named(rows: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """A name for each row, its cell's id: printable, on one line, not too long, no two alike.

    The matrix lets in only names that stay as they are; a results folder from elsewhere may hold others.
    """
    found: set[str] = set()
    for row in rows:
        name = short = plain(row.cell.id)[:LONGEST_NAME]
        again = count(2)
        while name in found:
            name = f"{short} #{next(again)}"
        found.add(name)
        yield name, row


def known(row: Row) -> dict[str, Any]:
    """The columns of a row that are known, by name; texts are printable and on one line."""
    (record,) = figures.table_of([row]).records()
    values = {name: plain(value) if isinstance(value, str) else value for name, value in record.items()}
    return {name: value for name, value in values.items() if value not in (None, "")}


def to_csv(run: Run, rows: Sequence[Row]) -> bytes:
    """``results.csv`` of these rows."""
    return figures.table_of(rows).csv().encode()


def to_parquet(run: Run, rows: Sequence[Row]) -> bytes:
    """The columns of ``results.csv`` with their types, even where nothing was measured; ``attrs`` name the run."""
    frame = frames.of_table(figures.table_of(rows))
    frame.attrs = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in facts(run).items()}
    with needing("pyarrow", of="parquet"):
        return frame.to_parquet(index=False)


@contextmanager
def needing(package: str, *, of: str) -> Iterator[None]:
    """Raises UsageError where what is imported inside, or imports, for a format is not installed."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"--format {of} needs {package}, which is not installed here: pip install {package}"
        ) from error


def facts(run: Run) -> dict[str, str]:
    """What a run is, and where it was measured, in words."""
    manifest, environment = run.manifest, run.manifest.environment
    about = {"dataset": manifest.dataset.name, "cpu": environment.cpu, "python": environment.python}
    found = results.facts(manifest) | about | {"commit": environment.commit}
    return {name: "" if value is None else str(value) for name, value in found.items()}


def _followed(row: Row) -> Iterator[tuple[Figure, float, float | None, float | None]]:
    """The figures that continuous benchmarking follows, and their bounds: an interval, or the deviation over seeds."""
    for figure in FOLLOWED:
        value = row[figure.key]
        if value is None:
            continue
        low, high = (row[key] for key in figure.keys[1:]) if figure.bounded else (None, None)
        if figure.key == "test_accuracy" and row["test_accuracy_std"] is not None:
            low, high = value - row["test_accuracy_std"], value + row["test_accuracy_std"]
        yield figure, value, low, high


def to_bmf(run: Run, rows: Sequence[Row]) -> bytes:
    """Bencher Metric Format: cell -> measure -> value and, where known, its bounds."""

    def metric(figure: Figure, *values: float | None) -> dict[str, float]:
        scale = 1e6 if figure.slug == "latency" else 1.0  # Bencher's own measure, in nanoseconds
        named = zip(("value", "lower_value", "upper_value"), values, strict=True)
        return {name: value * scale for name, value in named if value is not None}

    return _json(
        {
            name: {figure.slug: metric(figure, *values) for figure, *values in _followed(row)}
            for name, row in named(rows)
        }
    )


def to_github_action(better: Literal["higher", "lower"]) -> Export:
    """github-action-benchmark: an array of entries, one per cell and figure of which ``better`` is better.

    One file can hold only figures of which smaller, or bigger, is better.
    """

    def entry(run: Run, row: Row, name: str, figure: Figure, value: float, *bounds: float | None) -> dict[str, Any]:
        made = {"name": f"{name} · {figure.title}", "unit": figure.unit, "value": value, "extra": _extra(run, row)}
        halves = [abs(bound - value) for bound in bounds if bound is not None]
        # The action takes a range apart as ± and a decimal number; of an interval cut off at 0 the other half is whole.
        return made | ({"range": f"± {max(halves):.9f}"} if halves else {})

    def export(run: Run, rows: Sequence[Row]) -> bytes:
        found = ((name, row, one) for name, row in named(rows) for one in _followed(row))
        return _json([entry(run, row, name, *one) for name, row, one in found if one[0].better == better])

    return export


def _extra(run: Run, row: Row) -> str:
    """What the chart shows under the pointer: what one must know before believing a point."""
    where = f"{row['device_name'] or row.cell.device}, {row['dataset']}, recipe {row['recipe']}"
    doubt = "" if row.status == "ok" else f"{row.status}: {row.reason}"
    lines = [f"run {run.manifest.run_id}, {row.seeds} seeds", where, doubt, *figures.footnotes([figures.signs(row)])]
    return "\n".join(plain(line) for line in lines if line)


def to_junit(run: Run, rows: Sequence[Row]) -> bytes:
    """A suite per model, a test case per cell; its time is what its trials took, less their timing sessions.

    A cell that was measured has passed; a missed floor of ``expect`` is a failure, a cell that could not be measured an
    error, one that the machine lacks something for is skipped.
    """
    from mnist_bench import junit  # it brings lxml, which --help need not wait for

    missed = grouped(missed_floors(run.manifest.matrix, rows), lambda one: one[0])
    packages = {f"package.{name}": version for name, version in run.manifest.environment.packages.items()}
    cases = (
        junit.Case(
            cell=row.cell,
            seconds=sum(measurement.total_s for _, measurement in run.ok.get(row.cell, {}).values()),
            result=_verdict(row, [how for _, how in missed.get(row.cell, ())]),
            figures=[(key, str(exact(value))) for key, value in known(row).items()],
        )
        for row in rows
    )
    return junit.document(PACKAGE, run.manifest.started_at, facts(run) | packages, cases)


def _verdict(row: Row, missed: Sequence[str]) -> Any:
    """The worst that is to be said, since a test case has one result at most; None: passed."""
    import junitparser

    match row.status:
        case "ok" if missed:
            return junitparser.Failure(plain("; ".join(missed)), "expect")
        case "ok":
            return None
        case "skipped":
            return junitparser.Skipped(plain(row.reason), row.status)
        case _:
            return junitparser.Error(plain(row.reason), row.status)


def to_pytest_benchmark(run: Run, rows: Sequence[Row]) -> bytes:
    """pytest-benchmark's JSON: for ``pytest-benchmark compare``, and for every tool that reads it.

    A cell is a benchmark of the group ``model/batch size``; a round is a member's block in a round of its timing
    session; what is counted is seconds per training step. The rounds of all seeds that are ok stand together, so what
    ``compare`` divides is unpaired: ratios to trust are the speed-ups, in ``extra_info``.
    """
    environment = run.manifest.environment
    return _json(
        {
            "machine_info": asdict(environment),
            # "unversioned" is its word for no commit
            "commit_info": {"id": environment.commit or "unversioned", "dirty": environment.dirty, "project": PACKAGE},
            "benchmarks": [_benchmark(run, row, name) for name, row in named(rows)],
            "datetime": run.manifest.started_at,
            "version": PYTEST_BENCHMARK,
        }
    )


def _benchmark(run: Run, row: Row, name: str) -> dict[str, Any]:
    cell = row.cell
    rounds = [
        (one.steps[timed.columns[trial_id]], one.seconds[timed.columns[trial_id]])
        for trial_id, _ in run.ok[cell].values()
        for timed in run.index.get(trial_id, ())
        for one in timed.session.rounds
    ]
    params = {"model": plain(cell.model), "device": plain(cell.device), "batch_size": cell.batch_size}
    return {
        "group": plain(f"{cell.model}/b{cell.batch_size}"),
        "name": name,
        "fullname": f"{PACKAGE}::{name}",
        "params": {**params, "variant": plain(cell.variant)},
        "param": name,
        "extra_info": {"run_id": run.manifest.run_id, "run_status": run.manifest.status, **known(row)},
        "options": {"max_time": run.manifest.matrix.timing.budget_seconds, "warmup": True},
        "stats": {
            **statistics_of([seconds / steps for steps, seconds in rounds if steps]),
            # One number for all rounds: seeds may differ in the length of their blocks.
            "iterations": statistics.median_low([steps for steps, _ in rounds if steps]),
        },
    }


def statistics_of(seconds: Sequence[float]) -> dict[str, Any]:
    """What pytest-benchmark shows of the seconds of each round, per iteration (one at least).

    By its own definitions, but for the quartiles: they are those of Python's ``statistics`` (inclusive).
    """
    mean, deviation, low, high = statistics.mean(seconds), 0.0, seconds[0], seconds[0]
    if len(seconds) > 1:
        deviation = statistics.stdev(seconds)
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    fence = 1.5 * (high - low)
    far = sum(not mean - deviation <= one <= mean + deviation for one in seconds)
    outside = sum(not low - fence <= one <= high + fence for one in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": statistics.median(seconds),
        "iqr": high - low,
        "outliers": f"{far};{outside}",
        "ops": 1 / mean if mean > 0 else 0,
        "data": list(seconds),
    }


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


EXPORTERS: dict[str, Exporter] = {
    "pytest-benchmark": Exporter({"benchmark.json": to_pytest_benchmark}, timed=True),
    "bmf": Exporter({"bmf.json": to_bmf}),
    "github-action-benchmark": Exporter(
        {"smaller-is-better.json": to_github_action("lower"), "bigger-is-better.json": to_github_action("higher")}
    ),
    "junit": Exporter({"junit.xml": to_junit}, all_rows=True),
    "csv": Exporter({"results.csv": to_csv}, all_rows=True),
    "parquet": Exporter({"results.parquet": to_parquet}, all_rows=True, binary=True),
}
