"""Flags that several commands share, and what they change in a matrix. Part of every --help: nothing heavy here."""

import argparse
import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench.cells import AXES, select, variants_of
from mnist_bench.cli.console import say
from mnist_bench.disk.files import try_folder
from mnist_bench.disk.folder import RunFolder, no_place
from mnist_bench.errors import UsageError, unknown
from mnist_bench.records import MAX_EPOCHS, MAX_SEEDS, YEAR_SECONDS, Cell, Matrix, RunOptions

if TYPE_CHECKING:
    from mnist_bench.analysis.summary import Run
    from mnist_bench.running.runner import Options

FORMATS = ("table", "csv", "json", "md")
DEFAULT_MATRIX = Path("benchmarks.yaml")
SHIPPED = Path(__file__).parents[1] / DEFAULT_MATRIX
RESULTS = Path("results")
NOTHING = 5  # the exit code where nothing was measured, or nothing is comparable


class _Joined(argparse.Action):
    """A flag that may be given again: the values are joined by commas."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def whole(flag: str, low: int, high: int) -> Callable[[str], int]:
    """What reads the whole number of a flag, and refuses any that is not from ``low`` to ``high``."""

    def read(text: str) -> int:
        digits = text.strip()
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 12 and low <= int(digits) <= high):
            raise UsageError(f"{flag}: {text[:40]!r} is not a whole number from {low} to {high}")
        return int(digits)

    return read


def rendezvous(text: str) -> str:
    """An address and a port, as they are written."""
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*:[1-9][0-9]{0,4}", text) or int(text.rpartition(":")[2]) > 65535:
        raise UsageError(f"rendezvous: {text[:40]!r} is not HOST:PORT (as in 192.0.2.7:29400)")
    return text


def parse_seeds(text: str) -> tuple[int, ...]:
    """A count of seeds, or a list of them with commas; each once.

    >>> parse_seeds("3"), parse_seeds("0,3,7"), parse_seeds("7,")
    ((0, 1, 2), (0, 3, 7), (7,))
    """
    if "," not in text:
        return tuple(range(whole("--seeds", 1, MAX_SEEDS)(text)))
    seeds = tuple(map(whole("--seeds", 0, 2**32 - 1), text.removesuffix(",").split(",")))
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds: {text!r} names a seed twice: remove one")
    if len(seeds) > MAX_SEEDS:
        raise UsageError(f"--seeds: {len(seeds)} seeds are more than {MAX_SEEDS}")
    return seeds


def _listed(text: str) -> list[object]:
    """The items of a list with commas; digits are a number.

    >>> _listed("100,mine:build")
    [100, 'mine:build']
    """
    items = [item.strip() for item in text.split(",")]
    return [int(item) if item.isascii() and item.isdigit() else item for item in items]


# By the name that ``add`` takes: what --help says; and of what is not a plain switch, its settings.
_ON = {"action": "store_true"}
_HELP = {
    "matrix": f"the matrix file (default: {DEFAULT_MATRIX}, else the one that ships with the program)",
    "run": "a run: its id, its path, or latest (default: latest)",
    "output_dir": "where runs are kept (default: results)",
    "data_dir": "where data sets are kept (default: MNIST_BENCH_DATA, else the user's cache folder)",
    "filter": "only these cells, as in model=lenet5,device=cpu; keys: model, device, batch_size, variant; "
    "a key given twice means either value",
    "models": "models instead of the matrix's: built-in ones, its own, or package.module:function",
    "devices": "devices instead of the matrix's",
    "batch_sizes": "batch sizes instead of the matrix's",
    "variants": "variants instead of the matrix's: built-in ones or its own",
    "seeds": "how many seeds (3 means 0, 1, 2), or a list with commas (0,3,7; one seed: 7,)",
    "epochs": f"epochs of training, 1 to {MAX_EPOCHS}",
    "timing_seconds": "seconds of timing a cell, over its seeds (timing.budget_seconds)",
    "reference": "the variant that the others are held against (default: the matrix's, else the first as eager is)",
    "timeout": "seconds that a trial may work",
    "shard": "only the K-th of N parts of the groups, of about the same time each, as in 2/4",
    "shards": "how N shards would share the groups out, and how long each would take",
    "executor": "what measures: this machine, or the nodes of a Ray cluster (default: local)",
    "ray_address": "the cluster's head (default: RAY_ADDRESS, else what `ray start` has begun on this machine)",
    "allow_plugins": "run code that the matrix or a flag names",
    "offline": "download nothing",
    "no_wait": "do not wait for another run on this machine to end",
    "quiet": "only warnings and errors on stderr",
    "verbose": "more on stderr",
    "no_progress": "lines instead of a moving display",
    "color": "colour (default: auto: on a terminal; NO_COLOR and FORCE_COLOR are honoured)",
    "format": "how to print (default: table)",
    "json": "same as --format json",
}
_FLAGS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "matrix": (("matrix",), {"nargs": "?", "type": Path, "metavar": "MATRIX"}),
    "run": (("run",), {"nargs": "?", "default": "latest", "metavar": "RUN"}),
    "output_dir": (("-o", "--output-dir"), {"type": Path, "default": RESULTS, "metavar": "DIR"}),
    "data_dir": (("--data-dir",), {"type": Path, "metavar": "DIR"}),
    "filter": (("--filter",), {"action": _Joined, "metavar": "KEY=VALUE,..."}),
    **{axis: ((f"--{axis.replace('_', '-')}",), {"type": _listed, "metavar": "A,B,..."}) for axis in AXES},
    "seeds": (("--seeds",), {"type": parse_seeds, "metavar": "N|LIST"}),
    "epochs": (("--epochs",), {"type": whole("--epochs", 1, MAX_EPOCHS), "metavar": "N"}),
    "timing_seconds": (("--timing-seconds",), {"type": whole("--timing-seconds", 1, YEAR_SECONDS), "metavar": "S"}),
    "reference": (("--reference",), {"metavar": "VARIANT"}),
    "timeout": (("--timeout",), {"type": whole("--timeout", 1, YEAR_SECONDS), "metavar": "SECONDS"}),
    "shard": (("--shard",), {"metavar": "K/N"}),
    "shards": (("--shards",), {"type": whole("--shards", 1, 10**9 - 1), "metavar": "N"}),
    "executor": (("--executor",), {"choices": ("local", "ray"), "default": "local"}),
    "ray_address": (("--ray-address",), {"metavar": "HOST:PORT"}),
    "quiet": (("-q", "--quiet"), _ON),
    "verbose": (("-v", "--verbose"), {"action": "count", "default": 0}),
    "color": (("--color",), {"choices": ("auto", "always", "never"), "default": "auto"}),
    "format": (("--format",), {"choices": FORMATS, "default": "table"}),
    "json": (("--json",), {"dest": "format", "action": "store_const", "const": "json"}),
}
# Of which one can be given.
_PAIRS = {"loudness": ("quiet", "verbose"), "format": ("format", "json"), "part": ("shard", "shards")}


def add(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds flags by their names in ``_HELP`` and ``_PAIRS``; ``args`` has each under its long name."""
    for name in names:
        flags = _PAIRS.get(name, (name,))
        place: Any = parser.add_mutually_exclusive_group() if name in _PAIRS else parser
        for flag in flags:
            words, settings = _FLAGS.get(flag, (("--" + flag.replace("_", "-"),), _ON))
            place.add_argument(*words, help=_HELP[flag], **settings)


def add_execution(parser: argparse.ArgumentParser, *, of: str) -> None:
    """What every command that executes trials takes: where, how much of it, whether to wait, and how to print.

    Args:
        of: what ``--resume`` goes on with, as in ``a run``.
    """
    add(parser, "data_dir", "output_dir", "seeds", "epochs", "timeout")
    parser.add_argument("--resume", metavar="RUN", help=f"go on with {of}: its id, its path, or latest")
    add(parser, "offline", "no_wait", "format", "loudness", "no_progress", "color")


def refuse(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises UsageError where one of these flags is given: it has nothing to say here."""
    for name in names:
        if getattr(args, name) not in (None, False):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: {why}: leave {flag} out{', or start anew' if args.resume else ''}")


def executed(args: argparse.Namespace, matrix_path: str, run: RunOptions) -> "Options":
    """What ``add_execution`` decides beyond the matrix, and what the manifest keeps.

    Raises:
        UsageError: no run can be made in the output folder: said before anything is waited for.
    """
    from mnist_bench.data import default_root
    from mnist_bench.running.runner import Options

    try:
        try_folder(args.output_dir)
    except OSError as error:
        raise no_place(args.output_dir, error) from error
    return Options(
        run=run,
        matrix_path=matrix_path,
        output_dir=args.output_dir,
        data_root=default_root(args.data_dir, os.environ),
        offline=args.offline,
        timeout_s=args.timeout,
        fail_fast=getattr(args, "fail_fast", False),
        rendezvous=getattr(args, "rendezvous", None) or "",
    )


def resuming(args: argparse.Namespace, run_id: str) -> str:
    """The command that goes on with what ``args.command`` has begun, under ``args.output_dir``."""
    plugins = " --allow-plugins" if getattr(args, "allow_plugins", False) else ""
    ray = "" if getattr(args, "executor", "local") == "local" else " --executor ray"
    if getattr(args, "ray_address", None):
        ray += f" --ray-address {shlex.quote(args.ray_address)}"
    meeting = f" --rendezvous {found}" if (found := getattr(args, "rendezvous", None)) else ""
    return f"mnist-bench {args.command} --resume {run_id}{_where(args)}{plugins}{ray}{meeting}"


def reporting(args: argparse.Namespace, run: str) -> str:
    """The command that shows more of a run."""
    return f"next: mnist-bench report {shlex.quote(run)}{_where(args)}"


def _where(args: argparse.Namespace) -> str:
    return "" if args.output_dir == RESULTS else f" -o {shlex.quote(str(args.output_dir))}"


def read_matrix(args: argparse.Namespace) -> tuple[Path, Matrix]:
    """The matrix file that was named, else ``benchmarks.yaml``, else the program's own, which is said; overridden.

    The path is where it would lie: the folder of a plug-in is the user's, never the program's.
    """
    from mnist_bench import config

    path = shipped = args.matrix or DEFAULT_MATRIX
    if args.matrix is None and not path.exists():
        say(f"there is no {DEFAULT_MATRIX} here: the matrix is the default that ships with the program")
        shipped = SHIPPED
    return path, overrides(config.load(shipped, allow_plugins=args.allow_plugins), args)


def overrides(matrix: Matrix, args: argparse.Namespace) -> Matrix:
    """The matrix with the axes, seeds, epochs, time and reference that flags name; ``args`` may lack any.

    Raises:
        ConfigError: a flag names what no axis can have.
        UsageError: no cell has the reference.
    """
    from mnist_bench import config

    if axes := {axis: items for axis in AXES if (items := getattr(args, axis, None))}:
        matrix = config.on_axes(matrix, axes, allow_plugins=args.allow_plugins)
    given = {key: value for key in ("seeds", "epochs", "reference") if (value := getattr(args, key, None)) is not None}
    names = [variant.name for variant in variants_of(matrix)]
    if given.get("reference", names[0]) not in names:
        raise UsageError(f"--reference: {unknown('variant', given['reference'], names)}")
    if (seconds := getattr(args, "timing_seconds", None)) is not None:
        given["timing"] = dataclasses.replace(matrix.timing, budget_seconds=seconds)
    if (seconds := getattr(args, "timeout", None)) is not None:
        given["limits"] = dataclasses.replace(matrix.limits, timeout_seconds=seconds)
    return dataclasses.replace(matrix, **given)


def wanted(args: argparse.Namespace, cells: Iterable[Cell]) -> frozenset[Cell]:
    """The cells that ``--filter`` wants; a value that none of these has is refused."""
    return frozenset(select(list(dict.fromkeys(cells)), args.filter))


def load(args: argparse.Namespace, reference: str) -> "Run":
    """A run by ``latest``, its id or its path."""
    from mnist_bench.analysis.summary import Run

    return Run.read(RunFolder.open(args.output_dir, reference))
