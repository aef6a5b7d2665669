"""Flags that several commands share, and what they change in a matrix. Part of every --help: standard library only."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench.errors import UsageError
from mnist_bench.records import MAX_EPOCHS, MAX_SEEDS, YEAR_SECONDS

if TYPE_CHECKING:
    from mnist_bench.analysis.summary import Run
    from mnist_bench.cells import Filter
    from mnist_bench.records import Cell, Matrix
    from mnist_bench.runner import Options

FORMATS = ("table", "csv", "json", "md")


class _Joined(argparse.Action):
    """A flag that may be given again: the values are joined by commas."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def add_matrix(parser: argparse.ArgumentParser) -> None:
    """``args.matrix``: a Path, ``benchmarks.yaml`` unless given."""
    parser.add_argument(
        "matrix",
        nargs="?",
        type=Path,
        default=Path("benchmarks.yaml"),
        metavar="MATRIX",
        help="the matrix file (default: benchmarks.yaml)",
    )


def add_output_dir(parser: argparse.ArgumentParser) -> None:
    """``args.output_dir``: a Path."""
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where runs are kept (default: results)",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """``args.data_dir``: a Path or None; ``mnist_bench.data`` resolves None."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where data sets are kept (default: MNIST_BENCH_DATA, else the user's cache folder)",
    )


def add_filter(parser: argparse.ArgumentParser) -> None:
    """``args.filter``: text or None; ``chosen`` reads it."""
    parser.add_argument(
        "--filter",
        action=_Joined,
        metavar="KEY=VALUE,...",
        help="only these cells, as in model=lenet5,device=cpu; keys: model, device, batch_size, variant; "
        "a key given twice means either value",
    )


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """``args.seeds``: text or None; ``overrides`` reads it."""
    parser.add_argument(
        "--seeds",
        metavar="N|LIST",
        help="how many seeds (3 means 0, 1, 2), or a list with commas (0,3,7; one seed: 7,)",
    )


def add_epochs(parser: argparse.ArgumentParser, most: int = MAX_EPOCHS) -> None:
    """``args.epochs``: text or None; ``overrides`` reads it."""
    parser.add_argument("--epochs", metavar="N", help=f"epochs of training, 1 to {most}")


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """``args.timeout``: text or None; ``overrides`` reads it."""
    parser.add_argument("--timeout", metavar="SECONDS", help="seconds that a trial may work, before it is ended")


def add_shard(parser: argparse.ArgumentParser) -> None:
    """``args.shard``: text or None; ``cells.parse_shard`` reads it."""
    parser.add_argument("--shard", metavar="K/N", help="only the K-th of N parts of the groups, as in 2/4")


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """``args.allow_plugins``: bool."""
    parser.add_argument("--allow-plugins", action="store_true", help="run code that the matrix names as models")


def add_color(parser: argparse.ArgumentParser) -> None:
    """``args.color``: ``auto``, ``always`` or ``never``; ``console.make_console`` reads it."""
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour (default: auto: on a terminal; NO_COLOR and FORCE_COLOR are honoured)",
    )


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """``args.quiet``: bool, ``args.verbose``: count, ``args.no_progress``: bool, ``args.color``."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors on stderr")
    loudness.add_argument("-v", "--verbose", action="count", default=0, help="more on stderr")
    parser.add_argument("--no-progress", action="store_true", help="one line per trial instead of a moving display")
    add_color(parser)


def add_format(parser: argparse.ArgumentParser) -> None:
    """``args.format``: one of ``FORMATS``; ``--json`` is another name of ``--format json``."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--format", choices=FORMATS, default="table", help="how to print (default: table)")
    formats.add_argument("--json", dest="format", action="store_const", const="json", help="same as --format json")


def add_execution(parser: argparse.ArgumentParser, *, of: str, most_epochs: int = MAX_EPOCHS) -> None:
    """What every command that executes trials takes: where, how much of it, whether to wait, and how to print.

    ``args.resume``: text or None; ``args.offline``, ``args.no_wait``: bool; the others as above.

    Args:
        of: what ``--resume`` goes on with, as in ``a run``.
        most_epochs: that the command takes.
    """
    add_data_dir(parser)
    add_output_dir(parser)
    add_seeds(parser)
    add_epochs(parser, most_epochs)
    add_timeout(parser)
    parser.add_argument("--resume", metavar="RUN", help=f"go on with {of}: its id, its path, or latest")
    parser.add_argument("--offline", action="store_true", help="download nothing")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for another run on this machine to end")
    add_format(parser)
    add_verbosity(parser)


def executed(args: argparse.Namespace, matrix_path: str, plugin_path: str) -> Options:
    """What ``add_execution`` decides beyond the matrix.

    Raises:
        UsageError: ``--timeout`` is not a number of seconds.
    """
    from mnist_bench.data import default_root
    from mnist_bench.runner import Options

    return Options(
        matrix_path=matrix_path,
        plugin_path=plugin_path,
        output_dir=args.output_dir,
        data_root=default_root(args.data_dir, os.environ),
        offline=args.offline,
        timeout_s=timeout_s(args),
    )


def timeout_s(args: argparse.Namespace) -> float | None:
    """What ``--timeout`` says.

    Raises:
        UsageError: no number of seconds.
    """
    return None if args.timeout is None else _seconds("--timeout", args.timeout)


def chosen(args: argparse.Namespace) -> Filter | None:
    """The cells that ``--filter`` wants; None: all of them."""
    from mnist_bench.cells import parse_filter

    return None if args.filter is None else parse_filter(args.filter)


def overrides(matrix: Matrix, args: argparse.Namespace) -> Matrix:
    """The matrix with ``--seeds``, ``--epochs`` and ``--timeout`` in it, within the bounds of the file.

    Args:
        matrix: as the file resolves.
        args: may lack any of the three.

    Raises:
        UsageError: a value out of bounds, or not a number.
    """
    if (text := getattr(args, "seeds", None)) is not None:
        matrix = dataclasses.replace(matrix, seeds=parse_seeds(text))
    if (text := getattr(args, "epochs", None)) is not None:
        matrix = dataclasses.replace(matrix, epochs=_whole("--epochs", text, 1, MAX_EPOCHS))
    if (text := getattr(args, "timeout", None)) is not None:
        limits = dataclasses.replace(matrix.limits, timeout_seconds=_seconds("--timeout", text))
        matrix = dataclasses.replace(matrix, limits=limits)
    return matrix


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
        return tuple(range(_whole("--seeds", text, 1, MAX_SEEDS)))
    seeds = tuple(_whole("--seeds", part, 0, 2**32 - 1) for part in text.removesuffix(",").split(","))
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds: {text!r} names a seed twice: remove one")
    if len(seeds) > MAX_SEEDS:
        raise UsageError(f"--seeds: {len(seeds)} seeds are more than {MAX_SEEDS}")
    return seeds


def _whole(flag: str, text: str, low: int, high: int) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12 and low <= int(digits) <= high):
        raise UsageError(f"{flag}: {text[:40]!r} is not a whole number from {low} to {high}")
    return int(digits)


def _seconds(flag: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= YEAR_SECONDS:  # false of NaN too
        raise UsageError(f"{flag}: {text[:40]!r} is not a number of seconds above 0 (at most a year)")
    return seconds


def add_run(parser: argparse.ArgumentParser) -> None:
    """``args.run``: text; ``load`` reads it."""
    parser.add_argument("run", nargs="?", default="latest", metavar="RUN", help="a run: its id, its path, or latest")


def load(args: argparse.Namespace, reference: str) -> Run:
    """A run by ``latest``, its id or its path."""
    from mnist_bench.analysis.summary import Run
    from mnist_bench.disk.folder import RunFolder

    return Run.read(RunFolder.open(args.output_dir, reference))


def wanted(args: argparse.Namespace, cells: Iterable[Cell]) -> frozenset[Cell]:
    """The cells that ``--filter`` wants; a value that none of these has is refused."""
    from mnist_bench.cells import select

    return frozenset(select(list(dict.fromkeys(cells)), chosen(args)))
