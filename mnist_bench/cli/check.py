"""``mnist-bench check``: has this change made a cell slower or less accurate?"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.cli import check_output, options
from mnist_bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from mnist_bench.checks.folder import CheckFolder
    from mnist_bench.checks.plan import Plan, Request
    from mnist_bench.records import Matrix

DEFAULT_MATRIX = Path("benchmarks.yaml")
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
        help=f"the matrix file (default: {DEFAULT_MATRIX}); with --baseline a run (default: latest)",
    )
    parser.add_argument(
        "--against", metavar="GIT_REF", help="the commit, branch or tag to compare the working tree with"
    )
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="the file to compare a run with")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="judge a stored check.json again")
    parser.add_argument("--resume", metavar="CHECK", help="go on with a check: its id, its path, or latest")
    parser.add_argument(
        "--budget", metavar="TIME", help=f"wall time over all sittings, as in 90s, 20m, 1h (default: {DEFAULT_BUDGET})"
    )
    options.add(parser, "data_dir", "output_dir", "filter", "seeds", "timeout", "allow_plugins")
    parser.add_argument("--offline", action="store_true", help="download nothing")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for another run on this machine to end")
    check_output.configure(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors on stderr")
    parser.add_argument("--no-progress", action="store_true", help="one line per pair instead of a moving display")


def execute(args: argparse.Namespace) -> int:
    modes: dict[str, Callable[[argparse.Namespace], int]] = {
        "against": _against,
        "baseline": _baseline,
        "replay": _replay,
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


def _replay(args: argparse.Namespace) -> int:
    from mnist_bench.cli import check_replay

    return check_replay.execute(args)


def _baseline(args: argparse.Namespace) -> int:
    from mnist_bench.cli import check_baseline

    return check_baseline.execute(args)


def _against(args: argparse.Namespace) -> int:
    from mnist_bench.checks import plan, sitting
    from mnist_bench.cli.check_progress import watch
    from mnist_bench.cli.console import make_console
    from mnist_bench.gate.judge import exit_code, judge
    from mnist_bench.machine.lock import alone

    check_output.preflight(args, os.environ)
    errors = make_console(args, stderr=True)
    planned = _resumed(args) if args.resume else plan.plan(_request(args))
    with alone(wait=not args.no_wait, tell=errors.print), watch(errors, args) as emit:
        folder, check = sitting.execute(planned, emit)
    verdicts = judge(check)
    check_output.print_check(check, verdicts, args)
    check_output.write_outputs(check, verdicts, args, os.environ, folder.result)
    _say_where(folder, check.status, args, errors)
    return exit_code(check, verdicts)


def _request(args: argparse.Namespace) -> Request:
    from mnist_bench.checks import budget
    from mnist_bench.checks.plan import Request
    from mnist_bench.data import default_root

    def override(matrix: Matrix) -> Matrix:
        return options.overrides(matrix, args)

    return Request(
        here=Path.cwd(),
        environ=dict(os.environ),
        matrix=Path(args.target or DEFAULT_MATRIX),
        against=args.against or "",
        output_dir=args.output_dir,
        data_root=default_root(args.data_dir, os.environ),
        outputs=tuple(path for path in (args.junit, args.comment) if path is not None),
        override=override,
        filter=args.filter,
        offline=args.offline,
        allow_plugins=args.allow_plugins,
        timeout_s=args.timeout,
        budget_s=budget.parse(args.budget or DEFAULT_BUDGET),
    )


def _resumed(args: argparse.Namespace) -> Plan:
    """The plan of a check that goes on; ``--budget`` may give it more time.

    Raises:
        UsageError: something is asked for that the check has decided already.
    """
    from dataclasses import replace

    from mnist_bench.checks import plan
    from mnist_bench.checks.folder import CheckFolder

    for flag in OWN:
        if getattr(args, flag) is not None:
            raise UsageError(f"--{flag}: a resumed check goes on with its own: leave --{flag} out, or start anew")
    if args.target is not None:
        raise UsageError("MATRIX: a resumed check goes on with its own: leave it out, or start anew")
    folder = CheckFolder.open(args.output_dir, args.resume)
    head = folder.head()
    if head.options["allow_plugins"] and not args.allow_plugins:
        raise UsageError(f"--resume {args.resume}: this check executes plug-ins: say --allow-plugins again")
    request = _request(args)
    if not args.budget:
        request = replace(request, budget_s=head.budget_s)
    if args.data_dir is None and head.dataset.name == "mnist" and Path(head.dataset.root).is_dir():
        request = replace(request, data_root=Path(head.dataset.root))
    return plan.plan_again(folder, request)


def _say_where(folder: CheckFolder, status: str, args: argparse.Namespace, errors: Console) -> None:
    from mnist_bench.cli.run import shortest

    errors.print(f"check: {shortest(folder.path)}/{folder.result.name}", soft_wrap=True)
    if status == "interrupted":
        where = "" if args.output_dir == Path("results") else f" -o {shlex.quote(str(args.output_dir))}"
        plugins = " --allow-plugins" if args.allow_plugins else ""
        command = f"mnist-bench check --resume {folder.path.name}{where}{plugins}"
        errors.print(f"interrupted; go on with: {command}", soft_wrap=True)
