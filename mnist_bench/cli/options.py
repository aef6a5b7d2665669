"""Flags that several commands share, and what they change in a matrix. Part of every --help: nothing heavy here."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench.errors import UsageError, unknown
from mnist_bench.records import MAX_EPOCHS, MAX_SEEDS, YEAR_SECONDS

if TYPE_CHECKING:
    from mnist_bench.analysis.summary import Run
    from mnist_bench.cells import Filter
    from mnist_bench.records import Cell, Matrix
    from mnist_bench.run.runner import Options

FORMATS = ("table", "csv", "json", "md")
DEFAULT_MATRIX = Path("benchmarks.yaml")
RESULTS = Path("results")


class _Joined(argparse.Action):
    """A flag that may be given again: the values are joined by commas."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def parse_seeds(text: str) -> tuple[int, ...]:
    """A count of seeds, or a list of them with commas.

    Args:
        text: ``3``, ``0,3,7`` or ``7,``.

    Returns:
        The seeds, each once.

    >>> parse_seeds("3"), parse_seeds("0,3,7"), parse_seeds("7,")
    ((0, 1, 2), (0, 3, 7), (7,))
    """
    if "," not in text:
        return tuple(range(whole("--seeds", text, 1, MAX_SEEDS)))
    seeds = tuple(whole("--seeds", part, 0, 2**32 - 1) for part in text.removesuffix(",").split(","))
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds: {text!r} names a seed twice: remove one")
    if len(seeds) > MAX_SEEDS:
        raise UsageError(f"--seeds: {len(seeds)} seeds are more than {MAX_SEEDS}")
    return seeds


def _epochs(text: str) -> int:
    return whole("--epochs", text, 1, MAX_EPOCHS)


def whole(flag: str, text: str, low: int, high: int) -> int:
    """The number that a flag was given, or UsageError."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12 and low <= int(digits) <= high):
        raise UsageError(f"{flag}: {text[:40]!r} is not a whole number from {low} to {high}")
    return int(digits)


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= YEAR_SECONDS:  # false of NaN too
        raise UsageError(f"--timeout: {text[:40]!r} is not a number of seconds above 0 (at most a year)")
    return seconds


def _flag(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return names, settings


_HELP_OF_COLOR = "colour (default: auto: on a terminal; NO_COLOR and FORCE_COLOR are honoured)"
_HELP_OF_DATA = "where data sets are kept (default: MNIST_BENCH_DATA, else the user's cache folder)"
_HELP_OF_FILTER = (
    "only these cells, as in model=lenet5,device=cpu; keys: model, device, batch_size, variant; "
    "a key given twice means either value"
)
_HELP_OF_MATRIX = "the matrix file (default: benchmarks.yaml)"
_HELP_OF_REFERENCE = "the variant that the others are held against (default: the matrix's, else the first as eager is)"
_HELP_OF_RUN = "a run: its id, its path, or latest (default: latest)"
_HELP_OF_SEEDS = "how many seeds (3 means 0, 1, 2), or a list with commas (0,3,7; one seed: 7,)"

# By the name that ``add`` takes; flags of one name exclude each other.
FLAGS = {
    "matrix": [
        _flag("matrix", nargs="?", type=Path, default=DEFAULT_MATRIX, metavar="MATRIX", help=_HELP_OF_MATRIX),
    ],
    "run": [_flag("run", nargs="?", default="latest", metavar="RUN", help=_HELP_OF_RUN)],
    "output_dir": [
        _flag(
            "-o",
            "--output-dir",
            type=Path,
            default=RESULTS,
            metavar="DIR",
            help="where runs are kept (default: results)",
        ),
    ],
    "data_dir": [_flag("--data-dir", type=Path, metavar="DIR", help=_HELP_OF_DATA)],
    "filter": [_flag("--filter", action=_Joined, metavar="KEY=VALUE,...", help=_HELP_OF_FILTER)],
    "seeds": [_flag("--seeds", type=parse_seeds, metavar="N|LIST", help=_HELP_OF_SEEDS)],
    "epochs": [_flag("--epochs", type=_epochs, metavar="N", help=f"epochs of training, 1 to {MAX_EPOCHS}")],
    "reference": [_flag("--reference", metavar="VARIANT", help=_HELP_OF_REFERENCE)],
    "timeout": [_flag("--timeout", type=_timeout, metavar="SECONDS", help="seconds that a trial may work")],
    "shard": [_flag("--shard", metavar="K/N", help="only the K-th of N parts of the groups, as in 2/4")],
    "allow_plugins": [_flag("--allow-plugins", action="store_true", help="run code that the matrix names as models")],
    "offline": [_flag("--offline", action="store_true", help="download nothing")],
    "no_wait": [_flag("--no-wait", action="store_true", help="do not wait for another run on this machine to end")],
    "quiet": [_flag("-q", "--quiet", action="store_true", help="only warnings and errors on stderr")],
    "loudness": [
        _flag("-q", "--quiet", action="store_true", help="only warnings and errors on stderr"),
        _flag("-v", "--verbose", action="count", default=0, help="more on stderr"),
    ],
    "no_progress": [_flag("--no-progress", action="store_true", help="lines instead of a moving display")],
    "color": [_flag("--color", choices=("auto", "always", "never"), default="auto", help=_HELP_OF_COLOR)],
    "format": [
        _flag("--format", choices=FORMATS, default="table", help="how to print (default: table)"),
        _flag("--json", dest="format", action="store_const", const="json", help="same as --format json"),
    ],
}


def add(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds flags of ``FLAGS``; ``args`` has each under its long name."""
    for name in names:
        place: Any = parser.add_mutually_exclusive_group() if len(FLAGS[name]) > 1 else parser
        for flags, settings in FLAGS[name]:
            place.add_argument(*flags, **settings)


def add_execution(parser: argparse.ArgumentParser, *, of: str) -> None:
    """What every command that executes trials takes: where, how much of it, whether to wait, and how to print.

    Args:
        of: what ``--resume`` goes on with, as in ``a run``.
    """
    add(parser, "data_dir", "output_dir", "seeds", "epochs", "timeout")
    parser.add_argument("--resume", metavar="RUN", help=f"go on with {of}: its id, its path, or latest")
    add(parser, "offline", "no_wait", "format", "loudness", "no_progress", "color")


def executed(args: argparse.Namespace, matrix_path: str, plugin_path: str) -> Options:
    """What ``add_execution`` decides beyond the matrix."""
    from mnist_bench.data import default_root
    from mnist_bench.records import RunOptions
    from mnist_bench.run.runner import Options

    return Options(
        run=RunOptions(plugin_path=plugin_path),
        matrix_path=matrix_path,
        output_dir=args.output_dir,
        data_root=default_root(args.data_dir, os.environ),
        offline=args.offline,
        timeout_s=args.timeout,
    )


def overrides(matrix: Matrix, args: argparse.Namespace) -> Matrix:
    """The matrix with ``--seeds``, ``--epochs``, ``--timeout`` and ``--reference`` in it; ``args`` may lack any.

    Raises:
        UsageError: no cell has the reference.
    """
    from mnist_bench.cells import variants_of

    given = {key: value for key in ("seeds", "epochs", "reference") if (value := getattr(args, key, None)) is not None}
    names = [variant.name for variant in variants_of(matrix)]
    if given.get("reference", names[0]) not in names:
        raise UsageError(f"--reference: {unknown('variant', given['reference'], names)}")
    if (seconds := getattr(args, "timeout", None)) is not None:
        given["limits"] = dataclasses.replace(matrix.limits, timeout_seconds=seconds)
    return dataclasses.replace(matrix, **given)


def chosen(args: argparse.Namespace) -> Filter | None:
    """The cells that ``--filter`` wants; None: all of them."""
    from mnist_bench.cells import parse_filter

    return None if args.filter is None else parse_filter(args.filter)


def wanted(args: argparse.Namespace, cells: Iterable[Cell]) -> frozenset[Cell]:
    """The cells that ``--filter`` wants; a value that none of these has is refused."""
    from mnist_bench.cells import select

    return frozenset(select(list(dict.fromkeys(cells)), chosen(args)))


def load(args: argparse.Namespace, reference: str) -> Run:
    """A run by ``latest``, its id or its path."""
    from mnist_bench.analysis.summary import Run
    from mnist_bench.disk.folder import RunFolder

    return Run.read(RunFolder.open(args.output_dir, reference))
