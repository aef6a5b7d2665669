"""The command line: a literal table of commands, one file each; only the one that is asked for is imported."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from mnist_bench import __version__
from mnist_bench.cli.console import PREFIX, say, settle_streams
from mnist_bench.errors import BenchError

# name: (module, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("mnist_bench.cli.run", "train, time and evaluate every cell of a matrix; write results/"),
    "race": ("mnist_bench.cli.race", "find the fastest variant of each model and device, in less time than a run"),
    "init": ("mnist_bench.cli.init", "write the commented benchmarks.yaml, to be edited"),
    "plan": ("mnist_bench.cli.plan", "print the cells in order, what will be skipped and why, and how long it takes"),
    "reproduce": ("mnist_bench.cli.reproduce", "the tutorial's three experiments, measured beside published"),
    "show": ("mnist_bench.cli.show", "print the table of a finished run again"),
    "compare": ("mnist_bench.cli.compare", "compare the cells of a run, or two runs cell by cell"),
    "profile": ("mnist_bench.cli.profile", "say what bounds a step of one cell, and what to try; write a trace of it"),
    "check": ("mnist_bench.cli.check", "has this change made a cell slower or less accurate?"),
    "selftest": ("mnist_bench.cli.selftest", "measure the gate on this machine: false alarms, and faults found"),
    "history": ("mnist_bench.cli.history", "show a cell's figures over runs and commits"),
    "merge": ("mnist_bench.cli.merge", "make one run from shards"),
    "join": ("mnist_bench.cli.join", "take part in the trials of a run on another machine"),
    "export": ("mnist_bench.cli.export", "write a run in the format of another tool"),
    "data": ("mnist_bench.cli.data", "fetch, verify, show or synthesize the data set"),
    "report": ("mnist_bench.cli.report", "write a run as one HTML page with plots, and the plots as images"),
    "baseline": ("mnist_bench.cli.baseline", "write a run as the file that later runs are checked against"),
    "doctor": ("mnist_bench.cli.doctor", "look for every known pitfall of this machine, each with its mend"),
    "list": ("mnist_bench.cli.list", "list the models, devices or variants that a matrix can name, or all runs"),
    "completion": ("mnist_bench.cli.completion", "print what makes bash, zsh or fish complete the command line"),
    "schema": ("mnist_bench.cli.schema", "print the JSON Schema of the matrix file"),
}


def build_parser(*commands: str | None) -> argparse.ArgumentParser:
    """The parser of the whole program, with the flags of ``commands`` alone (the others are not imported)."""
    parser = argparse.ArgumentParser(
        prog="mnist-bench",
        description="Benchmark MNIST models over devices, batch sizes and execution variants.",
        epilog="mnist-bench COMMAND --help tells more of each command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mnist-bench {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, help_line) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_line, description=help_line, allow_abbrev=False)
        if name in commands:
            importlib.import_module(module).configure(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code (docs: exit codes). Errors of the user's are one line on stderr.

    Args:
        argv: None: those of this process, whose streams are settled then, and which is ended by a signal as by Ctrl-C.
    """
    if argv is None:
        settle_streams()
        for each in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(each) is not signal.SIG_IGN:  # nohup
                signal.signal(each, signal.default_int_handler)
    # No list(): once the command of that name is imported, the name is its module (an attribute of this package).
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    command = next((word for word in arguments if word in COMMANDS), None)
    try:
        if not os.environ.get("HOME") and os.path.expanduser("~") in ("~", "/"):  # noqa: PTH111 - it raises nothing
            from mnist_bench.machine.environment import give_home

            give_home(os.environ)
        try:
            args = build_parser(command).parse_args(arguments or ["--help"], argparse.Namespace(argv=arguments))
        finally:
            sys.stdout.flush()  # --help, which a full disk does not take
        code: int = importlib.import_module(COMMANDS[args.command][0]).execute(args)
        sys.stdout.flush()
        return code
    except BenchError as error:
        say(*str(error).splitlines(), prefix="" if hasattr(error, "problems") else PREFIX)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except OSError as error:  # a full disk, a folder that has gone: no fault of the program
        say(str(error))
        return 1
