"""``mnist-bench data``: fetch, verify, show or synthesize the data set."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench.catalogue import DATASETS, FETCHED
from mnist_bench.cli import options
from mnist_bench.cli.console import print_json, say, writing
from mnist_bench.errors import DataError
from mnist_bench.table import Table

if TYPE_CHECKING:
    from mnist_bench.data.mnist import FileState


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the four verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    fetch = _verb(verbs, "fetch", "download a set, or unpack its .gz files; replace corrupt files")
    _add_dataset(fetch, FETCHED)

    verify = _verb(verbs, "verify", "check every file against its checksum; exit code 2 unless all are whole")
    _add_dataset(verify, DATASETS[1:])

    show = _verb(verbs, "show", "show the first 16 training images, as letters")
    _add_dataset(show, DATASETS)
    options.add(show, "offline")

    synthesize = _verb(verbs, "synthesize", "draw the synthetic digit set as four IDX files")
    seed = options.whole("--seed", 0, 2**32 - 1)
    synthesize.add_argument("--seed", type=seed, default=0, help="another seed, other digits (default: %(default)s)")
    for verb in (fetch, verify, synthesize):
        verb.add_argument("--json", action="store_true", help="print the files and checksums as JSON")


def execute(args: argparse.Namespace) -> int:
    """Runs the verb that was asked for and returns the exit code."""
    from mnist_bench.data import default_root

    verbs = {"fetch": _fetch, "verify": _verify, "show": _show, "synthesize": _synthesize}
    return verbs[args.verb](args, default_root(args.data_dir, os.environ))


def _verb(verbs: Any, name: str, help_line: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_line, description=help_line, allow_abbrev=False)
    options.add(parser, "data_dir")
    return parser


def _add_dataset(parser: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    parser.add_argument("--dataset", choices=choices, default=choices[0], help="which set (default: %(default)s)")


def _fetch(args: argparse.Namespace, root: Path) -> int:
    from mnist_bench.data import PATIENT, Request, fetch, mnist

    root = fetch(Request(root=root, environ=os.environ, notify=say, repair=True, name=args.dataset), PATIENT)
    _print(mnist.inspect(root, args.dataset), args, root=root)
    return 0


def _verify(args: argparse.Namespace, root: Path) -> int:
    from mnist_bench.catalogue import SETS
    from mnist_bench.data import mnist, synthetic

    # A --data-dir that is named holds the synthetic set of `data synthesize --data-dir`.
    if args.dataset == "synthetic" and args.data_dir is None:
        root = synthetic.cached_root(synthetic.SEED, os.environ)
    states = mnist.inspect(root, args.dataset)
    whole = mnist.combined(states) is not None
    if not whole and args.dataset == "mnist" and mnist.is_drawn(root):
        raise DataError(f"{root}: not MNIST, but whole synthetic digits: `--dataset synthetic` checks them")
    if any(state.found and state.expected is None for state in states):
        sums = states[0].path.parent.parent / mnist.SUMS_FILE
        raise DataError(f"{sums}: missing or incomplete: nothing to check the set against")
    _print(states, args, root=root)
    if not whole:
        say(f"{root}: not whole; {SETS[args.dataset].mend.format(name=args.dataset, root=root)}")
    return 0 if whole else DataError.exit_code


def _show(args: argparse.Namespace, root: Path) -> int:
    from mnist_bench.data import Request, draw, mnist, resolve

    data = resolve(args.dataset, Request(root=root, offline=args.offline, notify=say, environ=os.environ))
    raw = mnist.raw_folder(Path(data.root), data.name)
    images = mnist.read_idx(raw / mnist.TRAIN_IMAGES_FILE, mnist.SIDE, mnist.SIDE)[: draw.DIGITS]
    labels = mnist.read_idx(raw / mnist.TRAIN_LABELS_FILE)[: draw.DIGITS]
    sys.stdout.write(draw.text(images, labels, columns=shutil.get_terminal_size().columns))
    return 0


def _synthesize(args: argparse.Namespace, root: Path) -> int:
    from mnist_bench.data import mnist, synthetic

    if args.data_dir is None:
        root = synthetic.ensure(args.seed, notify=say, environ=os.environ)
    else:
        say(f"drawing {sum(synthetic.SIZES):,} digits into {args.data_dir}")
        with writing("--data-dir", root):
            synthetic.write_set(root, seed=args.seed, sizes=synthetic.SIZES)
    _print(mnist.inspect(root, "synthetic"), args, root=root, seed=args.seed)
    return 0


def _print(states: "Sequence[FileState]", args: argparse.Namespace, *, root: Path, **head: object) -> None:
    from mnist_bench.data import mnist

    files = [
        {
            "name": state.path.name,
            "bytes": state.size,
            "sha256": state.found,
            "expected": "the same" if state.status == "ok" and not args.json else state.expected,
            "status": state.status,
        }
        for state in states
    ]
    if args.json:
        print_json({"root": str(root), **head, "sha256": mnist.combined(states), "files": files})
    else:
        print(*Table.of(f"{states[0].path.parent}:", files).terminal(sys.maxsize), sep="\n")
