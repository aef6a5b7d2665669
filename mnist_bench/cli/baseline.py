"""``mnist-bench baseline``: a run as the file that ``check --baseline`` holds later runs against."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mnist_bench.cli import options
from mnist_bench.cli.console import print_result, say, write
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from mnist_bench.gate.baseline import Baseline

DEFAULT = Path("baseline.json")
MOST_BYTES = 128 << 20  # 10,000 cells with 20 seeds each are 90 MB

_T = TypeVar("_T")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The file is made to be committed and reviewed: docs/baselines.md."
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    words = "write what a run measured as the baseline, and print what that changes"
    update = verbs.add_parser("update", help=words, description=words, allow_abbrev=False)
    update.epilog = "With --filter only these cells are replaced; the others of the file stay as they are."
    update.add_argument("--reason", required=True, metavar="TEXT", help="why: one line for those who review the change")
    file = f"the baseline file (default: {DEFAULT})"
    update.add_argument("--output", type=Path, default=DEFAULT, metavar="FILE", help=file)
    options.add(update, "run", "filter", "output_dir", "format", "color")


def load(path: Path) -> "Baseline":
    """A baseline file.

    Raises:
        UsageError: there is none, or it is none, or a broken one: which file, where in it, and what to do.
    """
    from mnist_bench.gate.baseline import decode

    if not path.exists():
        command = f'mnist-bench baseline update latest --reason "..." --output {path}'
        raise UsageError(f"{path}: there is no such baseline; this writes one: {command}")
    mend = "restore it from the repository, or delete it and write it anew with `mnist-bench baseline update`"
    return decoded(path, MOST_BYTES, decode, mend)


def decoded(path: Path, limit: int, decode: Callable[[bytes], _T], mend: str) -> _T:
    """A file of the gate, that the user named.

    Raises:
        UsageError: it cannot be read, or is broken; the message ends with ``mend``.
    """
    from mnist_bench.disk.files import read_regular
    from mnist_bench.table import plain

    name = plain(str(path))
    try:
        return decode(read_regular(path, limit, follow=True))
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}; {mend}") from error
    except ValueError as error:
        raise UsageError(f"{name}: {plain(str(error))}; {mend}") from error


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.gate.baseline import baseline_of, cells_of, changed, encode, without_ratio
    from mnist_bench.table import listed

    run = options.load(args, args.run)
    old = load(args.output) if args.output.exists() else None
    known = [*cells_of(run), *(one.cell for one in (old.cells if old else ()))]
    chosen = options.wanted(args, known).__contains__ if args.filter else None
    new = baseline_of(run, args.reason, chosen, old)
    write("--output", args.output, encode(new))
    print_result(args, changed(old, new, args.output.name))
    say(f"wrote {args.output}")
    if lacking := without_ratio(new):
        say(f"no speed can be judged of {listed(lacking)}: never timed with the reference, or in too few rounds")
    if any(one.a and 0 < len(one.a.ratios) < 3 for one in new.cells):
        say("fewer than 3 seeds: most checks of speed against this baseline will be inconclusive (docs/baselines.md)")
    return 0
