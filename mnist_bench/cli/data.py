"""``mnist-bench data``: fetch, verify, show or synthesize the data set."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench.cli import options
from mnist_bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from mnist_bench.data.verify import FileState


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the four verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    fetch = _verb(verbs, "fetch", "download MNIST, or unpack its .gz files; replace corrupt files")
    options.add_data_dir(fetch)
    fetch.add_argument("--json", action="store_true", help="print what was done as JSON")
    fetch.add_argument("--no-progress", action="store_true", help="draw no progress bar")

    verify = _verb(verbs, "verify", "check every file against its checksum, anew; exit code 2 unless all are whole")
    options.add_data_dir(verify)
    verify.add_argument(
        "--dataset", choices=["mnist", "synthetic"], default="mnist", help="which set (default: %(default)s)"
    )
    verify.add_argument("--json", action="store_true", help="print the table as JSON")

    show = _verb(verbs, "show", "show the first 16 training digits, in the terminal or as a PNG")
    options.add_data_dir(show)
    show.add_argument(
        "--dataset", choices=["auto", "mnist", "synthetic"], default="auto", help="which set (default: %(default)s)"
    )
    show.add_argument("--output", metavar="FILE", help="write a PNG here, instead of text to the terminal")
    show.add_argument("--text", action="store_true", help="print to the terminal, also where --output is given")
    options.add_color(show)
    show.add_argument("--offline", action="store_true", help="download nothing")

    synthesize = _verb(verbs, "synthesize", "draw the synthetic digit set as four IDX files")
    synthesize.add_argument("--seed", type=_seed, default=0, help="another seed, other digits (default: %(default)s)")
    synthesize.add_argument("-o", "--output-dir", metavar="DIR", help="put MNIST/raw/ here (default: the cache folder)")
    synthesize.add_argument("--json", action="store_true", help="print the files and checksums as JSON")


def execute(args: argparse.Namespace) -> int:
    """Runs the verb that was asked for and returns the exit code."""
    verbs = {"fetch": _fetch, "verify": _verify, "show": _show, "synthesize": _synthesize}
    return verbs[args.verb](args)


def _verb(verbs: Any, name: str, help_line: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_line, description=help_line, allow_abbrev=False)
    return parser


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: a whole number from 0 on")
    return int(text)


def _fetch(args: argparse.Namespace) -> int:
    from mnist_bench.cli.console import animates
    from mnist_bench.data.fetch import fetch
    from mnist_bench.data.paths import default_root, raw_folder

    root = default_root(args.data_dir, os.environ)
    progress = animates(args, sys.stderr)
    files = fetch(root, environ=os.environ, progress=progress, notify=_notify)
    if args.json:
        _print_json({"root": str(root), "files": [{"name": each.name, "action": each.action} for each in files]})
        return 0
    print(f"{raw_folder(root)}:")
    _print_table([["file", "action"], *[[each.name, each.action] for each in files]])
    return 0


def _verify(args: argparse.Namespace) -> int:
    from mnist_bench.data import synthetic
    from mnist_bench.data.paths import cache_root, default_root
    from mnist_bench.data.verify import SUMS_FILE, combined, expectations, fetch_hint, inspect

    # A --data-dir that is named holds the synthetic set of `data synthesize --output-dir`.
    if args.dataset == "synthetic" and args.data_dir is None:
        root = cache_root(os.environ) / synthetic.folder_name(synthetic.SEED)
    else:
        root = default_root(args.data_dir, os.environ)
    states = inspect(root, expectations(args.dataset, root), None)
    if any(state.found and state.expected.checksum is None for state in states):
        raise DataError(f"{root / 'MNIST' / SUMS_FILE}: missing or incomplete: nothing to check the set against")
    whole = all(state.status == "ok" for state in states)
    if args.json:
        sha256 = combined(states) if whole else None
        _print_json({"root": str(root), "sha256": sha256, "files": [_as_json(state) for state in states]})
    else:
        _print_states(states)
    if not whole:
        hint = fetch_hint(root) if args.dataset == "mnist" else "`mnist-bench data synthesize` draws the set"
        print(f"mnist-bench: {root}: not whole; {hint}", file=sys.stderr)
    return 0 if whole else DataError.exit_code


def _print_states(states: Sequence[FileState]) -> None:
    print(f"{states[0].path.parent}:")
    _print_table([["file", "bytes", "checksum", "expected", "status"], *map(_as_row, states)])


def _as_json(state: FileState) -> dict[str, object]:
    return {
        "path": str(state.path),
        "status": state.status,
        "bytes": state.found.size if state.found else None,
        "algorithm": state.expected.algorithm,
        "checksum": state.checksum,
        "expected": state.expected.checksum,
    }


def _as_row(state: FileState) -> list[str]:
    algorithm = state.expected.algorithm
    return [
        state.path.name,
        f"{state.found.size:,}" if state.found else "-",
        f"{algorithm}:{state.checksum}" if state.checksum else "-",
        "the same" if state.status == "ok" else f"{algorithm}:{state.expected.checksum or 'unknown'}",
        state.status,
    ]


def _show(args: argparse.Namespace) -> int:
    from mnist_bench.data import default_root, raw_folder, read_images, read_labels, resolve
    from mnist_bench.data.draw import DIGITS, png, text
    from mnist_bench.data.mnist import TRAIN_IMAGES_FILE, TRAIN_LABELS_FILE
    from mnist_bench.files import write_atomically

    output = Path(args.output) if args.output else None
    if output is not None and output.suffix.lower() != ".png":
        raise UsageError(f"--output {output}: only PNG is drawn; end the name in .png")
    root = default_root(args.data_dir, os.environ)
    data = resolve(args.dataset, root=root, offline=args.offline, notify=_notify, environ=os.environ)
    raw = raw_folder(Path(data.root))
    images, labels = read_images(raw / TRAIN_IMAGES_FILE)[:DIGITS], read_labels(raw / TRAIN_LABELS_FILE)[:DIGITS]
    if output is not None:
        try:
            write_atomically(output, png(images, labels))
        except OSError as error:
            raise UsageError(
                f"--output {output}: {error.strerror or error}; name a file that can be written"
            ) from error
        print(f"wrote {output}: the first {DIGITS} training digits of {data.name}", file=sys.stderr)
    if output is None or args.text:
        columns = shutil.get_terminal_size().columns
        sys.stdout.write(text(images, labels, columns=columns, colour=_colour(args.color)))
    return 0


def _synthesize(args: argparse.Namespace) -> int:
    from mnist_bench.data import synthetic
    from mnist_bench.data.paths import cache_root
    from mnist_bench.data.verify import combined, expectations, inspect

    if args.output_dir is not None:
        root = Path(args.output_dir)
        _notify(f"drawing {sum(synthetic.SIZES):,} digits into {root}")
        try:
            synthetic.write_set(root, seed=args.seed, sizes=synthetic.SIZES)
        except OSError as error:
            raise UsageError(f"--output-dir {root}: {error.strerror or error}; name another folder") from error
    else:
        root = cache_root(os.environ) / synthetic.folder_name(args.seed)
        synthetic.ensure(root, seed=args.seed, sizes=synthetic.SIZES, notify=_notify, environ=os.environ)
    states = inspect(root, expectations("synthetic", root), os.environ)
    if args.json:
        files = [_as_json(state) for state in states]
        _print_json({"root": str(root), "seed": args.seed, "sha256": combined(states), "files": files})
    else:
        _print_states(states)
    return 0


def _notify(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _colour(choice: str) -> bool:
    """Whether half-blocks in colour can be printed: https://no-color.org, then FORCE_COLOR, then the terminal."""
    if choice != "auto":
        return choice == "always"
    if "▀".encode(sys.stdout.encoding or "ascii", "replace") == b"?" or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
