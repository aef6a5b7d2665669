"""``mnist-bench plan``: what a run would do, in which order, what it would skip, and about how long it would take."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any

from mnist_bench.cells import AXES, NO_REFERENCE, expand, planned, reference_variant, variant_of
from mnist_bench.cli import options
from mnist_bench.cli.console import print_result, say
from mnist_bench.machine import environment, forecast
from mnist_bench.records import Cell, Matrix
from mnist_bench.table import Column, Document, Table, duration

Row = dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Neither torch nor any plug-in is loaded, and nothing is written."
    options.add(parser, "matrix", *AXES, "filter", "seeds", "epochs", "shard", "reference", "allow_plugins")
    options.add(parser, "timing_seconds", "format", "color")


def execute(args: argparse.Namespace) -> int:
    _, matrix = options.read_matrix(args)
    rows, reference = _rows(matrix, args), reference_variant(matrix)
    seconds = round(sum(row["seconds"] for row in rows if not row["skip"]), 1)
    reasons = list(dict.fromkeys(row["skip"] for row in rows if row["skip"]))
    about = {"name": matrix.name, "reference": reference, "seconds": seconds}
    notes = _notes(rows, reasons, args, about)
    if ":" in matrix.dataset:
        notes.append(f"The times are for MNIST's images: what {matrix.dataset} returns is known only when it is run.")
    document = Document(title=f"Plan of {matrix.name}", tables=(Table("", _columns(reasons), rows),), notes=notes)
    print_result(args, document, lambda: {**about, "cells": rows, "notes": notes})
    if args.format == "csv":
        say(*notes)
    return 0


def _rows(matrix: Matrix, args: argparse.Namespace) -> list[Row]:
    """A row for each cell that is wanted, in matrix order."""
    seeds: dict[Cell, list[int]] = {}
    for _, trials in planned(matrix, args.filter, args.shard):
        for cell, seed in trials:
            seeds.setdefault(cell, []).append(seed)
    host, cores = forecast.this_host(), environment.available_cores()

    def row(cell: Cell) -> Row:
        own, each_s = seeds[cell], forecast.trial_s(cell, matrix, matrix.epochs, cores)
        times = {"seeds": own, "seconds": round(len(own) * each_s + matrix.timing.budget_seconds, 1)}
        skip = forecast.skip_reason(cell, variant_of(matrix, cell.variant), host)
        return {"cell": cell.id, **asdict(cell), **times, "skip": skip}

    return [row(cell) for cell in expand(matrix) if cell in seeds]


def _columns(reasons: Sequence[str]) -> tuple[Column[Row], ...]:
    def about(row: Row) -> str:
        if row["skip"]:
            return f"skipped [{reasons.index(row['skip']) + 1}]"
        return duration(row["seconds"])

    def column(key: str, title: str | None, text: Callable[[Row], str] | None = None) -> Column[Row]:
        return Column(title, text, right=key in ("batch_size", "seeds", "seconds"), key=key, value=itemgetter(key))

    of_cell = {"cell": None, "model": "model", "device": "device", "batch_size": "batch", "variant": "variant"}
    return (
        *(column(key, title) for key, title in of_cell.items()),
        column("seeds", "seeds", lambda row: str(len(row["seeds"]))),
        column("seconds", "about", about),
        column("skip", None),
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
