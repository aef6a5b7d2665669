"""``mnist-bench plan``: what a run or its shards would do, what would be skipped, and about how long it takes."""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any

from mnist_bench.cells import AXES, NO_REFERENCE, GroupTrials, expand, planned, reference_variant, variant_of
from mnist_bench.cli import options
from mnist_bench.cli.console import print_result, say
from mnist_bench.machine import environment, forecast
from mnist_bench.machine.shards import shard, split
from mnist_bench.records import Cell, Matrix
from mnist_bench.table import Column, Document, Table, duration

Row = dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Neither torch nor any plug-in is loaded, and nothing is written."
    options.add(parser, "matrix", *AXES, "filter", "seeds", "epochs", "part", "reference", "allow_plugins")
    options.add(parser, "timing_seconds", "format", "color")


def execute(args: argparse.Namespace) -> int:
    _, matrix = options.read_matrix(args)
    groups = shard(matrix, planned(matrix, args.filter), args.shard)
    rows, reference = _rows(matrix, groups), reference_variant(matrix)
    seconds = round(sum(row["seconds"] for row in rows if not row["skip"]), 1)
    reasons = list(dict.fromkeys(row["skip"] for row in rows if row["skip"]))
    about = {"name": matrix.name, "reference": reference, "seconds": seconds}
    notes = _notes(rows, reasons, args, about)
    shown, columns = {"cells": rows}, _columns(reasons)
    if args.shards:
        shown, columns = {"shards": _shards(matrix, groups, rows, args.shards)}, SHARD_COLUMNS
        notes[-1:] = _shard_notes(shown["shards"], len(groups), args.shards)
    if ":" in matrix.dataset:
        notes.append(f"The times are for MNIST's images: what {matrix.dataset} returns is known only when it is run.")
    (table,) = shown.values()
    document = Document(title=f"Plan of {matrix.name}", tables=(Table("", columns, table),), notes=notes)
    print_result(args, document, lambda: {**about, **shown, "notes": notes})
    if args.format == "csv":
        say(*notes)
    return 0


def _rows(matrix: Matrix, groups: Sequence[GroupTrials]) -> list[Row]:
    """A row for each cell of the groups, in matrix order."""
    seeds: dict[Cell, list[int]] = {}
    for _, trials in groups:
        for cell, seed in trials:
            seeds.setdefault(cell, []).append(seed)
    host, cores = forecast.this_host(), environment.available_cores()

    def row(cell: Cell) -> Row:
        own, timing_s = seeds[cell], matrix.timing.budget_seconds / len(matrix.seeds)
        each_s = forecast.trial_s(cell, matrix, matrix.epochs, cores) + timing_s
        times = {"seeds": own, "seconds": round(len(own) * each_s, 1)}
        skip = forecast.skip_reason(cell, variant_of(matrix, cell.variant), host)
        return {"cell": cell.id, **asdict(cell), **times, "skip": skip}

    return [row(cell) for cell in expand(matrix) if cell in seeds]


def _shards(matrix: Matrix, groups: Sequence[GroupTrials], rows: Sequence[Row], count: int) -> list[Row]:
    """A row for each shard that has a group; what this machine skips takes no time, as in the rows of the cells."""
    each_s = {row["cell"]: 0.0 if row["skip"] else row["seconds"] / len(row["seeds"]) for row in rows}

    def row(number: int, own: Sequence[GroupTrials]) -> Row:
        times = [each_s[cell.id] for _, trials in own for cell, _ in trials]
        counts = {"groups": len(own), "trials": len(times)}
        return {"shard": f"{number}/{count}", **counts, "seconds": round(math.fsum(times), 1)}

    return [row(number, own) for number, own in enumerate(split(matrix, groups, count), 1)]


def _column(key: str, title: str | None, text: Callable[[Row], str] | None = None) -> Column[Row]:
    right = key in ("batch_size", "seeds", "groups", "trials", "seconds")
    return Column(title, text, right=right, key=key, value=itemgetter(key))


def _columns(reasons: Sequence[str]) -> tuple[Column[Row], ...]:
    def about(row: Row) -> str:
        if row["skip"]:
            return f"skipped [{reasons.index(row['skip']) + 1}]"
        return duration(row["seconds"])

    of_cell = {"cell": None, "model": "model", "device": "device", "batch_size": "batch", "variant": "variant"}
    return (
        *(_column(key, title) for key, title in of_cell.items()),
        _column("seeds", "seeds", lambda row: str(len(row["seeds"]))),
        _column("seconds", "about", about),
        _column("skip", None),
    )


SHARD_COLUMNS = (
    *(_column(key, key) for key in ("shard", "groups", "trials")),
    _column("seconds", "about", lambda row: duration(row["seconds"])),
)


def _notes(rows: Sequence[Row], reasons: Sequence[str], args: argparse.Namespace, about: Row) -> list[str]:
    if not rows:
        return [f"No group falls to the shard {args.shard}: there are fewer groups than shards."]
    counts = {reason: sum(row["skip"] == reason for row in rows) for reason in reasons}
    trials = sum(len(row["seeds"]) for row in rows)
    return [
        *(f"[{n}] {why} ({count} cell{'s' * (count > 1)})." for n, (why, count) in enumerate(counts.items(), 1)),
        "What only torch can tell (whether a device works, whether a model compiles) is not known before the run.",
        NO_REFERENCE if about["reference"] is None else f"Variants are held against {about['reference']}.",
        f"{len(rows)} cells, {trials} trials, about {duration(about['seconds'])}: expect up to twice or half of it.",
        "A run takes the groups in a random order, seed by seed.",
    ]


def _shard_notes(shards: Sequence[Row], groups: int, count: int) -> Iterator[str]:
    if len(shards) < count:
        yield f"There are no more than {groups} groups: a shard after {len(shards)}/{count} is refused, being empty."
    longest = max(shards, key=itemgetter("seconds"))
    words = f"{longest['shard']}, about {duration(longest['seconds'])}: where each shard has a machine like this one"
    yield f"The run takes as long as its longest shard, {words}."
    yield "Which group is in which shard is the same on every machine, whatever devices and cores it has."
