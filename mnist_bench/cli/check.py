"""``mnist-bench check``: has this change made a cell slower or less accurate?"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench.cli import baseline as baselines
from mnist_bench.cli import options
from mnist_bench.cli.console import add_to_summary, print_result, say, try_out, write
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.records import RunOptions

if TYPE_CHECKING:
    from mnist_bench.gate.evidence import Check
    from mnist_bench.gate.judge import Verdict
    from mnist_bench.gate.plan import Plan, Request

DEFAULT_BUDGET = "20m"
LEAST_SUMMARY = 64_000  # bytes; a page has its head whatever there is to say
MOST_BYTES = 1 << 28  # of a check.json
MOST_DISAGREEMENTS = 20  # that are named


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "--against: the working tree (B) against a commit (A), measured by process pairs that share a token; writes "
        "results/checks/<check-id>/. --baseline: a run against a committed file. Ctrl-C keeps what is measured. Exit "
        "codes: 0 no regression, 3 regression, 4 inconclusive, 5 nothing comparable."
    )
    target = f"the matrix file (default: {options.DEFAULT_MATRIX}); with --baseline a run (default: latest)"
    parser.add_argument("target", nargs="?", metavar="MATRIX|RUN", help=target)
    modes = parser.add_mutually_exclusive_group()
    against = "the commit, branch or tag to compare the working tree with"
    modes.add_argument("--against", metavar="GIT_REF", help=against)
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    held = f"the file to compare a run with (default: {baselines.DEFAULT})"
    modes.add_argument("--baseline", nargs="?", const=baselines.DEFAULT, help=held, **file)
    modes.add_argument("--replay", help="judge a stored check.json again", **file)
    parser.add_argument("--resume", metavar="CHECK", help="go on with a check: its id, its path, or latest")
    budget = f"wall time over all sittings, as in 90s, 20m, 1h (default: {DEFAULT_BUDGET})"
    parser.add_argument("--budget", metavar="TIME", help=budget)
    packages = "where the sides require other packages: shared: those installed here; per-side: each side's own"
    parser.add_argument("--environment", choices=("shared", "per-side"), help=packages)
    options.add(parser, "data_dir", "output_dir", "filter", "seeds", "timeout", "allow_plugins", "offline", "no_wait")
    options.add(parser, "executor", "ray_address")
    parser.add_argument("--junit", help="write JUnit XML there: a test case per cell", **file)
    parser.add_argument("--comment", help="write Markdown there, for a comment on a pull request", **file)
    options.add(parser, "format", "color", "quiet", "no_progress")


def execute(args: argparse.Namespace) -> int:
    alone = _baseline if args.baseline is not None else _replay if args.replay is not None else None
    if args.resume is not None and alone:
        raise UsageError("--resume: a resumed check goes on with its own reference: leave --baseline or --replay out")
    if args.resume is None and args.against is None and not alone:
        raise UsageError("what shall be checked against? --against GIT_REF, --baseline FILE or --replay FILE")
    _try_files(args)
    return (alone or _against)(args)


def _try_files(args: argparse.Namespace) -> None:
    """Whether the files that were asked for can be written; makes their folders, before anything is measured."""
    given = {flag: path for flag, path in (("--junit", args.junit), ("--comment", args.comment)) if path is not None}
    for flag, path in given.items():
        try_out(flag, path)
    if len({path.resolve() for path in given.values()}) < len(given):
        raise UsageError(f"{' and '.join(given)} name the same file: name two")


# ── what is checked ──────────────────────────────────────────────────────────────────────────────────────────────────


def _against(args: argparse.Namespace) -> int:
    from mnist_bench.cli.console import make_console
    from mnist_bench.cli.progress import CheckProgress, Screen
    from mnist_bench.cli.run import machines, shortest
    from mnist_bench.gate import plan
    from mnist_bench.gate.judge import judge

    errors = make_console(args, stderr=True)
    planned = _resumed(args) if args.resume else plan.Plan(_request(args))
    with ExitStack() as held:
        fleets = machines(args, errors, held)
        folder, check = planned.execute(CheckProgress(held.enter_context(Screen(errors, args))), fleets)
    code = tell(check, judge(check), args, folder.check_path)
    errors.print(f"check: {shortest(folder.path)}/{folder.check_path.name}", soft_wrap=True)
    if check.status == "interrupted":
        errors.print(f"interrupted; go on with: {options.resuming(args, folder.run_id)}", soft_wrap=True)
    return code


def _request(args: argparse.Namespace) -> "Request":
    from mnist_bench.gate.plan import Request, parse_budget

    own = RunOptions(filter=args.filter, allow_plugins=args.allow_plugins)
    return Request(
        here=Path.cwd(),
        environ=dict(os.environ),
        against=args.against or "",
        options=options.executed(args, args.target or str(options.DEFAULT_MATRIX), own),
        override=lambda matrix: options.overrides(matrix, args),
        budget_s=0.0 if args.resume and not args.budget else parse_budget(args.budget or DEFAULT_BUDGET),
        outputs=tuple(path for path in (args.junit, args.comment) if path is not None),
        environment=args.environment,
    )


def _resumed(args: argparse.Namespace) -> "Plan":
    """The plan of a check that goes on; ``--budget`` may give it more time.

    Raises:
        UsageError: something is asked for that the check has decided already.
    """
    from mnist_bench.cli.run import refuse_elsewhere
    from mnist_bench.gate import plan

    own = "a resumed check goes on with its own"
    options.refuse(args, ("against", "filter", "seeds", "data_dir", "environment"), own)
    if args.target is not None:
        raise UsageError(f"MATRIX: {own}: leave MATRIX out, or start anew")
    folder = plan.find_check(args.output_dir, args.resume)
    refuse_elsewhere(folder, args)
    return plan.Plan(_request(args), folder)


def _baseline(args: argparse.Namespace) -> int:
    """A finished run against a committed file; nothing is trained.

    Raises:
        UsageError: the run or the file cannot be used, or the run is not finished.
    """
    from msgspec.structs import replace

    from mnist_bench.analysis.summary import Run
    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.gate.baseline import cells_of, held_against, refuse_unfinished
    from mnist_bench.gate.judge import judge

    measuring = ("budget", "seeds", "timeout", "environment", "ray_address")
    options.refuse(args, measuring, "--baseline measures nothing")
    folder = RunFolder.open(args.output_dir, args.target or "latest")
    run = Run.read(folder)
    try_out("check.json:", folder.check_path)
    baseline = baselines.load(args.baseline)
    chosen = options.wanted(args, [*cells_of(run), *(one.cell for one in baseline.cells)]).__contains__
    refuse_unfinished(run, chosen)
    found = held_against(run, baseline, str(args.baseline), chosen)
    check = replace(found, matrix_path=_from_root(found.matrix_path))
    code = tell(check, judge(check), args, folder.check_path)
    say(f"check: {folder.check_path}")
    return code


def _from_root(matrix: str) -> str:
    """A matrix file from the root of its repository, as annotations name files, where there is one here."""
    from mnist_bench.gate import trees

    try:
        return str(trees.find(Path(matrix), Path.cwd(), os.environ)[1]) if Path(matrix).is_file() else matrix
    except UsageError:  # no git, no repository, or outside of it: an annotation can do without
        return matrix


def _replay(args: argparse.Namespace) -> int:
    """The check's own exit code where every verdict follows from its evidence; else 1.

    Raises:
        UsageError: the file cannot be read, or is no check of this version.
    """
    from mnist_bench import __version__
    from mnist_bench.gate.judge import judge
    from mnist_bench.gate.outputs import decode, disagreements

    check, stored = baselines.decoded(args.replay, MOST_BYTES, decode, "name a check.json as a check wrote it")
    verdicts = judge(check)
    if found := disagreements(stored, verdicts):
        written = check.program_version
        why = f"mnist-bench {written} wrote the file, this is {__version__}: replay it with that version"
        more = [f"  and {len(found) - MOST_DISAGREEMENTS} more"] if len(found) > MOST_DISAGREEMENTS else []
        say(f"{args.replay}: judged again, {len(found)} cell{'s' * (len(found) > 1)} came out otherwise:")
        say(*(f"  {one}" for one in found[:MOST_DISAGREEMENTS]), *more)
        say(why if written != __version__ else "the file was edited, or the judge is not deterministic")
        return 1
    code = tell(check, verdicts, args)
    say(f"replayed: every verdict follows from the samples of {args.replay}")
    return code


# ── what it prints and writes ────────────────────────────────────────────────────────────────────────────────────────


def tell(check: "Check", verdicts: "Sequence[Verdict]", args: argparse.Namespace, result: Path | None = None) -> int:
    """Prints the verdicts and writes all that was asked for; the exit code.

    The table comes first, since annotations follow it: on stdout, or on stderr where stdout is a document (the runner
    reads both). A file that cannot be written does not keep the others from it.

    Args:
        result: where check.json goes; None: it is there already.

    Raises:
        BenchError: some could not be written, although they could when it was tried; all are named.
    """
    from mnist_bench.gate import outputs
    from mnist_bench.gate.judge import exit_code

    json, csv = (lambda: outputs.to_json(check, verdicts)), outputs.rows(check, verdicts).csv
    print_result(args, outputs.document(check, verdicts), json, csv)
    failed = []
    for flag, path, make in (
        ("check.json:", result, outputs.encode),
        ("--junit", args.junit, outputs.to_junit),
        ("--comment", args.comment, outputs.comment),
    ):
        try:
            if path is not None:
                write(flag, path, make(check, verdicts), follow=path is not result)
        except UsageError as error:
            failed.append(str(error))
    add_to_summary(lambda room: outputs.page(check, verdicts, max(room, LEAST_SUMMARY)).encode())
    if os.environ.get("GITHUB_ACTIONS") == "true":
        sys.stdout.flush()
        for line in outputs.commands(check, verdicts):
            print(line, file=sys.stdout if args.format == "table" else sys.stderr)
    if failed:
        raise BenchError("\n".join(failed))
    return exit_code(check, verdicts)
