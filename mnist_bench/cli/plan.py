"""``mnist-bench plan``: what a run would do, in which order, what it would skip, and about how long it would take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mnist_bench.cli import options
from mnist_bench.table import Column, Document, Table, duration

if TYPE_CHECKING:
    from mnist_bench.records import Cell, Matrix

UNKNOWN = "What only torch can tell (whether a device works, whether a model compiles) is not known before the run."

Row = dict[str, Any]
KEYS = ("cell", "model", "device", "batch_size", "variant", "seeds", "seconds", "seconds_from", "skip")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Neither torch nor any plug-in is loaded, and nothing is written."
    options.add(parser, "matrix", "filter", "seeds", "epochs", "shard", "reference", "allow_plugins")
    options.add(parser, "output_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench import config
    from mnist_bench.cells import reference_variant
    from mnist_bench.cli.console import print_document, print_json

    matrix = options.overrides(config.load(args.matrix, allow_plugins=args.allow_plugins), args)
    rows = _rows(matrix, args)
    reasons = list(dict.fromkeys(row["skip"] for row in rows if row["skip"]))
    table = Table("", _columns(reasons), rows)
    notes = [*_skipped(rows, reasons), *_notes(rows, args, reference_variant(matrix))]
    match args.format:
        case "json":
            about = {"name": matrix.name, "reference": reference_variant(matrix), "seconds": _total(rows)}
            print_json({**about, "cells": table.records(), "notes": notes})
        case "csv":
            sys.stdout.write(table.csv())
            print("\n".join(notes), file=sys.stderr)
        case _:
            print_document(Document(title=f"Plan of {matrix.name}", tables=(table,), notes=notes), args)
    return 0


def _rows(matrix: Matrix, args: argparse.Namespace) -> list[Row]:
    """A row for each cell that is wanted, in matrix order."""
    from mnist_bench.cells import expand, planned, variant_of
    from mnist_bench.machine.environment import available_cores
    from mnist_bench.machine.forecast import earlier_trials, estimate, skip_reason, this_host

    seeds: dict[Cell, list[int]] = {cell: [] for cell in expand(matrix)}
    for _, trials in planned(matrix, args.filter, args.shard):
        for cell, seed in trials:
            seeds[cell].append(seed)
    host, past = this_host(), earlier_trials(args.output_dir, matrix.recipe)
    rows = []
    for cell, own in ((cell, own) for cell, own in seeds.items() if own):
        guess = estimate(cell, matrix, len(own), cores=available_cores(), past=past.get(cell, ()))
        row = {
            "cell": cell.id,
            **asdict(cell),
            "seeds": own,
            "seconds": round(guess.seconds, 1),
            "seconds_from": guess.source,
            "skip": skip_reason(cell, variant_of(matrix, cell.variant), host),
        }
        rows.append(row)
    return rows


def _columns(reasons: Sequence[str]) -> tuple[Column[Row], ...]:
    def about(row: Row) -> str:
        if row["skip"]:
            return f"skipped [{reasons.index(row['skip']) + 1}]"
        return duration(row["seconds"]) + (" *" if row["seconds_from"] == "earlier runs" else "")

    def column(key: str, title: str | None, text: Callable[[Row], str] | None = None) -> Column[Row]:
        right = key in ("batch_size", "seeds", "seconds")
        return Column(title, text, right=right, key=key, value=lambda row: row[key])

    titles = {"cell": None, "batch_size": "batch", "seconds": "about", "seconds_from": None, "skip": None}
    texts = {"seeds": lambda row: str(len(row["seeds"])), "seconds": about}
    return tuple(column(key, titles.get(key, key), texts.get(key)) for key in KEYS)


def _total(rows: Sequence[Row]) -> float:
    total: float = sum(row["seconds"] for row in rows if not row["skip"])
    return round(total, 1)


def _skipped(rows: Sequence[Row], reasons: Sequence[str]) -> list[str]:
    counts = [sum(row["skip"] == reason for row in rows) for reason in reasons]
    return [
        f"[{number}] {reason} ({count} cell{'' if count == 1 else 's'})."
        for number, (reason, count) in enumerate(zip(reasons, counts, strict=True), start=1)
    ]


def _notes(rows: Sequence[Row], args: argparse.Namespace, reference: str | None) -> list[str]:
    if not rows:
        return [f"No group falls to the shard {args.shard}: there are fewer groups than shards."]
    none = "No variant has the settings of eager, so none is held against another: name one with --reference."
    trials = sum(len(row["seeds"]) for row in rows)
    measured = any(row["seconds_from"] == "earlier runs" for row in rows)
    basis = f"* from the trials in {args.output_dir}; the others from" if measured else "from"
    return [
        UNKNOWN,
        none if reference is None else f"Variants are held against {reference}.",
        f"{len(rows)} cells, {trials} trials, about {duration(_total(rows))}. "
        f"A rough estimate, {basis} a coarse model of the work: expect up to twice or half of it.",
        "A run takes the groups in a random order, seed by seed.",
    ]
