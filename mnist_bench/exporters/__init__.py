"""The formats of other tools: each exporter makes bytes of a run's records, another room writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mnist_bench.exporters import bmf, csv_file, github_action, junit, parquet, pytest_benchmark
from mnist_bench.exporters.cells import measured
from mnist_bench.records import Manifest, Session, Trial
from mnist_bench.rows import Row

Export = Callable[[Manifest, Sequence[Row], Sequence[Trial], Sequence[Session]], bytes]
Holds = Callable[[Sequence[Row], Sequence[Trial], Sequence[Session]], Sequence[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A format.

    Args:
        files: what it consists of: the name that a file has by default, and the pure function that makes its bytes.
        holds: the rows of which it has a figure.
        needs: what a row must have for that, in words.
        all_rows: whether rows without a figure stand in it too, with their status; else they are left out.
        binary: whether a terminal cannot show it.
    """

    files: Mapping[str, Export]
    holds: Holds = measured
    needs: str = "a measured figure"
    all_rows: bool = False
    binary: bool = False


EXPORTERS: dict[str, Exporter] = {
    "pytest-benchmark": Exporter(
        files={"benchmark.json": pytest_benchmark.export},
        holds=pytest_benchmark.timed,
        needs="a finished timing session",
    ),
    "bmf": Exporter(files={"bmf.json": bmf.export}),
    "github-action-benchmark": Exporter(
        files={
            "smaller-is-better.json": github_action.export_smaller,
            "bigger-is-better.json": github_action.export_bigger,
        }
    ),
    "junit": Exporter(files={"junit.xml": junit.export}, all_rows=True),
    "csv": Exporter(files={"results.csv": csv_file.export}, all_rows=True),
    "parquet": Exporter(files={"results.parquet": parquet.export}, all_rows=True, binary=True),
}
