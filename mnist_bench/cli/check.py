"""``mnist-bench check``: has this change made a cell slower or less accurate?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import baseline, check_output, options
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from mnist_bench.disk.folder import RunFolder
    from mnist_bench.gate.plan import Plan, Request

DEFAULT_BUDGET = "20m"
OWN = ("filter", "seeds")  # what a resumed check has decided already


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "--against: the working tree (B) against a commit (A), both measured now, by process pairs that share a token; "
        "writes results/checks/<check-id>/. --baseline: a run against a committed file. --replay: the verdicts of a "
        "check.json once more. Ctrl-C keeps what is measured: --resume latest goes on. Exit codes: 0 no regression, 3 "
        "regression, 4 inconclusive, 5 nothing comparable."
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="MATRIX|RUN",
        help=f"the matrix file (default: {options.DEFAULT_MATRIX}); with --baseline a run (default: latest)",
    )
    parser.add_argument(
        "--against", metavar="GIT_REF", help="the commit, branch or tag to compare the working tree with"
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        nargs="?",
        const=baseline.DEFAULT,
        metavar="FILE",
        help=f"the file to compare a run with (default: {baseline.DEFAULT})",
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="judge a stored check.json again")
    parser.add_argument("--resume", metavar="CHECK", help="go on with a check: its id, its path, or latest")
    parser.add_argument(
        "--budget", metavar="TIME", help=f"wall time over all sittings, as in 90s, 20m, 1h (default: {DEFAULT_BUDGET})"
    )
    options.add(parser, "data_dir", "output_dir", "filter", "seeds", "timeout", "allow_plugins", "offline", "no_wait")
    check_output.configure(parser)
    options.add(parser, "quiet", "no_progress")


def execute(args: argparse.Namespace) -> int:
    modes: dict[str, Callable[[argparse.Namespace], int]] = {
        "against": _against,
        "baseline": check_output.against_baseline,
        "replay": check_output.replay,
    }
    given = [f"--{name}" for name in modes if getattr(args, name) is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: one of them at a time")
    if args.resume is not None:
        if given not in ([], ["--against"]):
            raise UsageError(f"--resume and {given[0]}: a resumed check goes on with its own reference")
        return _against(args)
    if not given:
        raise UsageError("what shall be checked against? --against GIT_REF, --baseline FILE or --replay FILE")
    return modes[given[0].removeprefix("--")](args)


def _against(args: argparse.Namespace) -> int:
    from mnist_bench.cli.console import make_console
    from mnist_bench.cli.progress import CheckProgress, Screen
    from mnist_bench.gate import plan
    from mnist_bench.gate.judge import judge
    from mnist_bench.machine.noise import alone

    check_output.preflight(args)
    errors = make_console(args, stderr=True)
    planned = _resumed(args) if args.resume else plan.plan(_request(args))
    with alone(wait=not args.no_wait, tell=errors.print), Screen(errors, args) as screen:
        folder, check = plan.execute(planned, CheckProgress(screen))
    code = check_output.tell(check, judge(check), args, folder.check_path)
    _say_where(folder, check.status, args, errors)
    return code


def _request(args: argparse.Namespace) -> Request:
    from dataclasses import replace

    from mnist_bench.gate.plan import Request, parse_budget
    from mnist_bench.records import RunOptions

    asked = options.executed(args, args.target or str(options.DEFAULT_MATRIX), plugin_path="")
    return Request(
        here=Path.cwd(),
        environ=dict(os.environ),
        against=args.against or "",
        options=replace(asked, run=RunOptions(filter=args.filter, allow_plugins=args.allow_plugins)),
        override=lambda matrix: options.overrides(matrix, args),
        budget_s=parse_budget(args.budget or DEFAULT_BUDGET),
        outputs=tuple(path for path in (args.junit, args.comment) if path is not None),
    )


def _resumed(args: argparse.Namespace) -> Plan:
    """The plan of a check that goes on; ``--budget`` may give it more time.

    Raises:
        UsageError: something is asked for that the check has decided already.
    """
    from dataclasses import replace

    from mnist_bench.gate import plan

    given = [f"--{name}" for name in OWN if getattr(args, name) is not None] + ["MATRIX"] * (args.target is not None)
    if given:
        raise UsageError(f"{given[0]}: a resumed check goes on with its own: leave {given[0]} out, or start anew")
    folder = plan.find_check(args.output_dir, args.resume)
    request, dataset = _request(args), folder.manifest().dataset
    if not args.budget:
        request = replace(request, budget_s=plan.sides_of(folder).budget_s)
    if args.data_dir is None and dataset.name == "mnist" and Path(dataset.root).is_dir():
        request = replace(request, options=replace(request.options, data_root=Path(dataset.root)))
    return plan.plan_again(folder, request)


def _say_where(folder: RunFolder, status: str, args: argparse.Namespace, errors: Console) -> None:
    from mnist_bench.cli.run import shortest

    errors.print(f"check: {shortest(folder.path)}/{folder.check_path.name}", soft_wrap=True)
    if status == "interrupted":
        errors.print(f"interrupted; go on with: {options.resuming(args, folder.run_id)}", soft_wrap=True)
