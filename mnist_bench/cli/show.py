"""``mnist-bench show``: the table of a finished run again."""

import argparse

from mnist_bench.cli import options
from mnist_bench.cli.console import make_console, print_result, say
from mnist_bench.cli.run import tell


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Prints what `run` printed at its end. Exit code 5: nothing was measured."
    options.add(parser, "run", "output_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    run = options.load(args, args.run)
    if run.manifest.options.race:
        from mnist_bench.analysis import race

        print_result(args, race.document(run), lambda: race.to_json(run), lambda: race.table(run).csv())
    else:
        tell(run, args, make_console(args, stderr=True))
    if run.manifest.status != "complete":
        say(f"the run is {run.manifest.status}: {len(run.trials)} of {len(run.manifest.trials)} trials are finished")
    return 0 if any(trial.status == "ok" for trial in run.trials) else options.NOTHING
