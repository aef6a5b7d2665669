"""``mnist-bench baseline``: a run as the file that ``check --baseline`` holds later runs against; and what is in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import options
from mnist_bench.cli.writing import write
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from mnist_bench.analysis.summary import Run
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.gate.baseline import Baseline
    from mnist_bench.records import Cell
    from mnist_bench.sheets import Sheet

DEFAULT = Path("baseline.json")
MOST_BYTES = 64 << 20  # 10,000 cells with 20 seeds each are 30 MB


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The file is made to be committed and reviewed: docs/baselines.md."
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    update = verbs.add_parser(
        "update",
        help="write what a run measured as the baseline, and print what that changes",
        description="Write what a run measured as the baseline, and print what that changes.",
        epilog="With --filter only these cells are replaced; the others of the file stay as they are.",
        allow_abbrev=False,
    )
    update.add_argument("--reason", required=True, metavar="TEXT", help="why: one line for those who review the change")
    update.add_argument(
        "--output", type=Path, default=DEFAULT, metavar="FILE", help="the baseline file (default: baseline.json)"
    )
    options.add(update, "run", "filter", "output_dir")
    show = verbs.add_parser(
        "show", help="print a baseline", description="Print a baseline: its cells and where they come from.",
        allow_abbrev=False,
    )  # fmt: skip
    show.add_argument(
        "file", nargs="?", type=Path, default=DEFAULT, metavar="FILE", help="the baseline file (default: baseline.json)"
    )
    for verb in (update, show):
        options.add(verb, "format", "color")


def execute(args: argparse.Namespace) -> int:
    return {"update": _update, "show": _show}[args.verb](args)


def load(path: Path) -> Baseline:
    """A baseline file.

    Raises:
        UsageError: there is none, or it is none, or a broken one: which file, where in it, and what to do.
    """
    from mnist_bench.gate import baseline_codec
    from mnist_bench.table import plain

    name = plain(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(
            f"{name}: there is no such baseline; this writes one: "
            f'mnist-bench baseline update latest --reason "..." --output {name}'
        ) from error
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{name}: is larger than {MOST_BYTES >> 20} MiB: no baseline is")
    try:
        return baseline_codec.decode(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{name}: {plain(str(error))}; restore it from the repository, or delete it and write it anew with "
            "`mnist-bench baseline update`"
        ) from error


def load_run(args: argparse.Namespace, reference: str) -> tuple[RunFolder, Run]:
    """A run by ``latest``, its id or its path."""
    from mnist_bench.analysis.summary import Run
    from mnist_bench.disk.folder import RunFolder

    folder = RunFolder.open(args.output_dir, reference)
    return folder, Run.read(folder)


def chosen(args: argparse.Namespace, cells: Iterable[Cell]) -> Callable[[Cell], bool] | None:
    """The cells that ``--filter`` wants; a value that none of these has is refused. None: all."""
    from mnist_bench.cells import select

    wanted = options.chosen(args)
    if wanted is None:
        return None
    return frozenset(select(list(dict.fromkeys(cells)), wanted)).__contains__


def _update(args: argparse.Namespace) -> int:
    from mnist_bench.gate.baseline import baseline_of, updated
    from mnist_bench.gate.baseline_codec import encode
    from mnist_bench.gate.baseline_tables import change_records, changes, changes_sheet

    _, run = load_run(args, args.run)
    old = load(args.output) if args.output.exists() else None
    wanted = chosen(args, [*cells_of(run), *(one.cell for one in (old.cells if old else ()))])
    new = updated(old, baseline_of(run, args.reason, wanted), wanted)
    found = changes(old, new)
    write("--output", args.output, encode(new))
    _print(args, lambda: changes_sheet(found, args.output.name), change_records(found))
    _say(f"wrote {args.output}")
    _warn(new)
    return 0


def _warn(baseline: Baseline) -> None:
    """Of what a check against it cannot do."""
    from mnist_bench.gate.baseline_tables import without_ratio
    from mnist_bench.table import listed

    if lacking := without_ratio(baseline):
        _say(f"no speed can be judged of {listed(lacking)}: never timed with the reference, or in too few rounds")
    if any(one.ratios and 0 < len(one.ratios.sessions) < 3 for one in baseline.cells):
        _say("fewer than 3 seeds: most checks of speed against this baseline will be inconclusive (docs/baselines.md)")


def cells_of(run: Run) -> list[Cell]:
    """All that a run set out to measure."""
    from mnist_bench.cells import trials_of

    planned = set(run.manifest.trials)
    return [
        *(row.cell for row in run.rows),
        *(c for one, (c, _) in trials_of(run.manifest.matrix).items() if one in planned),
    ]


def _show(args: argparse.Namespace) -> int:
    from mnist_bench.gate.baseline_tables import baseline_records, baseline_sheet, to_json

    baseline = load(args.file)
    if args.format == "json":
        sys.stdout.write(to_json(baseline))
    else:
        _print(args, lambda: baseline_sheet(baseline, args.file.name), baseline_records(baseline))
    return 0


def _print(args: argparse.Namespace, sheet: Callable[[], Sheet], records: list[dict[str, object]]) -> None:
    from rich.text import Text

    from mnist_bench import sheets
    from mnist_bench.cli.console import make_console, print_json
    from mnist_bench.gate.baseline_tables import to_csv

    match args.format:
        case "csv":
            sys.stdout.write(to_csv(records))
        case "json":
            print_json(records)
        case "md":
            sys.stdout.write(sheets.to_markdown(sheet()))
        case _:
            console = make_console(args, stderr=False)
            console.print(Text("\n").join(sheets.to_terminal(sheet(), console.width)), soft_wrap=True)


def _say(text: str) -> None:
    from mnist_bench.table import plain

    print(f"mnist-bench: {plain(text)}", file=sys.stderr)
