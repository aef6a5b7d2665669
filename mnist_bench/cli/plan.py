"""``mnist-bench plan``: what a run would do, in which order, what it would skip, and about how long it would take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mnist_bench.cli import options

if TYPE_CHECKING:
    from mnist_bench.records import Cell, Matrix

UNKNOWN = "What only torch can tell (whether a device works, whether a model compiles) is not known before the run."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Neither torch nor any plug-in is loaded, and nothing is written."
    options.add_matrix(parser)
    options.add_filter(parser)
    options.add_seeds(parser)
    options.add_epochs(parser)
    options.add_shard(parser)
    options.add_plugins(parser)
    options.add_output_dir(parser)
    options.add_format(parser)
    options.add_color(parser)


def execute(args: argparse.Namespace) -> int:
    from mnist_bench import config
    from mnist_bench.cli.console import print_json, print_rows

    matrix = options.overrides(config.load(args.matrix, allow_plugins=args.allow_plugins), args)
    rows = _rows(matrix, _trials(matrix, args), args)
    notes = _notes(rows, args)
    match args.format:
        case "json":
            print_json({"name": matrix.name, "cells": rows, "seconds": _total(rows), "notes": notes})
        case "table":
            print_rows([_brief(row) for row in rows], args)
            print("\n".join(["", *notes]))
        case "md":
            print_rows(rows, args)
            print("\n" + "\n\n".join(notes))
        case _:
            print_rows(rows, args)
            print("\n".join(notes), file=sys.stderr)
    return 0


def _trials(matrix: Matrix, args: argparse.Namespace) -> dict[Cell, list[int]]:
    """The seeds of every cell that is wanted, cells in matrix order."""
    from mnist_bench.cells import expand, groups, parse_shard, select, shard

    cells = select(expand(matrix), options.chosen(args))
    gathered = groups(cells, matrix.seeds)
    if args.shard is not None:
        gathered = shard(gathered, *parse_shard(args.shard))
    seeds: dict[Cell, list[int]] = {cell: [] for cell in cells}
    for _, trials in gathered:
        for cell, seed in trials:
            seeds[cell].append(seed)
    return {cell: of_cell for cell, of_cell in seeds.items() if of_cell}


def _rows(matrix: Matrix, trials: dict[Cell, list[int]], args: argparse.Namespace) -> list[dict[str, Any]]:
    from mnist_bench.cells import variant_of
    from mnist_bench.machine.environment import available_cores
    from mnist_bench.machine.forecast import earlier_trials, estimate, skip_reason, this_host

    host, past = this_host(), earlier_trials(args.output_dir, matrix.recipe)
    rows = []
    for cell, seeds in trials.items():
        guess = estimate(cell, matrix, len(seeds), cores=available_cores(), past=past.get(cell, ()))
        row = {
            "cell": cell.id,
            "model": cell.model,
            "device": cell.device,
            "batch_size": cell.batch_size,
            "variant": cell.variant,
            "seeds": seeds,
            "seconds": round(guess.seconds, 1),
            "seconds_from": guess.source,
            "skip": skip_reason(cell, variant_of(matrix, cell.variant), host),
        }
        rows.append(row)
    return rows


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a person's screen: the reasons, which are long and the same for many cells, follow below the table."""
    keys = ("model", "device", "batch_size", "variant")
    about = None if row["skip"] else f"{duration(row['seconds'])}{'' if row['seconds_from'] == 'model' else ' *'}"
    skip = {"skip": "likely" if row["skip"] else ""}
    return {**{key: row[key] for key in keys}, "seeds": _brief_seeds(row["seeds"]), "about": about, **skip}


def _brief_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 6:
        return f"{seeds[0]}, {seeds[1]}, ... {seeds[-1]} ({len(seeds)})"
    return ", ".join(map(str, seeds))


def duration(seconds: float) -> str:
    """``8 s``, ``12 min`` or ``3.4 h``.

    >>> duration(8), duration(720), duration(12240)
    ('8 s', '12 min', '3.4 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _total(rows: Sequence[dict[str, Any]]) -> float:
    total: float = sum(row["seconds"] for row in rows if not row["skip"])
    return round(total, 1)


def _notes(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> list[str]:
    if not rows:
        return [f"No group falls to the shard {args.shard}: there are fewer groups than shards."]
    notes = []
    for reason in dict.fromkeys(row["skip"] for row in rows if row["skip"]):
        count = sum(row["skip"] == reason for row in rows)
        notes.append(f"{reason} ({count} cell{'' if count == 1 else 's'}).")
    notes.append(UNKNOWN)
    trials = sum(len(row["seeds"]) for row in rows)
    measured = any(row["seconds_from"] == "earlier runs" for row in rows)
    basis = f"* from the trials in {args.output_dir}; the others from" if measured else "from"
    notes.append(
        f"{len(rows)} cells, {trials} trials, about {duration(_total(rows))}. "
        f"A rough estimate, {basis} a coarse model of the work: expect up to twice or half of it."
    )
    notes.append("A run takes the groups in a random order, seed by seed.")
    return notes
