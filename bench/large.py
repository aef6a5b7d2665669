"""A run of many trials, by the runner itself with an executor that makes results up, and what is then done with it.

    python -m bench.large [--trials 100000] [--seeds 125] [--keep FOLDER]

Bars: a trial costs the runner less than 10 ms, the last 1,000 within 20 % of the first; a run takes at most 600 MiB,
``compare`` at most 15 s, ``report`` at most 60 s. Every run and every command is a process of its own.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console

from bench.conftest import ROOT  # which is the way to run_factory, too
from bench.report import print_rows
from mnist_bench import data
from mnist_bench.cli.progress import RunProgress, Screen
from mnist_bench.disk.folder import SAMPLES, SESSION
from mnist_bench.records import BUILTIN_VARIANTS, Matrix, RunOptions
from mnist_bench.running import runner
from mnist_bench.running.runner import Lines, Work

from run_factory import figures, matrix_of  # isort: skip # found by the way of conftest

SHARDS, STEPS = 10, 400  # of each trial's file of samples
EDGE = 1000  # trials at either end of a run that are held against each other
LIBRARY = "import mnist_bench as mb; r = mb.load({0!r}); r.table(); r.epochs(); r.sessions()"
TABLES = (
    "from mnist_bench.running import runner; runner.write_tables(runner.RunFolder(__import__('pathlib').Path({0!r})))"
)


def matrix(trials: int, seeds: int) -> Matrix:
    """2 models x 2 devices x batch sizes x 8 variants x seeds."""
    sizes = tuple(range(40, 40 * (trials // (32 * seeds)) + 1, 40))
    return matrix_of(
        *("mlp", "lenet5"), batch_sizes=sizes, variants=tuple(BUILTIN_VARIANTS.values())[:8], seeds=tuple(range(seeds))
    )


class Fake:
    """The ``Executor``: results, logs, samples. ``stamps``: of each trial, seconds that the runner has taken so far."""

    def __init__(self, salt: str) -> None:
        rows, file = np.zeros(STEPS, dtype=SAMPLES), io.BytesIO()
        rows["phase"], rows["done_ns"] = SESSION, np.random.default_rng(0).lognormal(np.log(1e6), 0.06, STEPS)
        np.save(file, rows)
        self._samples, self._salt = file.getvalue(), salt
        self.stamps, self.bytes = [0.0], [0]

    def __call__(self, work: Work) -> Lines:
        folder, tell, own_s, begin_s = work.plan.folder, work.observer, 0.0, perf_counter()
        for group in work.left:
            made_s = perf_counter()
            pairs = tuple((spec.cell, spec.seed) for spec in group.specs)
            trials, sessions = figures([(group.id, pairs)], 2, salt=f"{self._salt}/{group.id}")
            own_s += perf_counter() - made_s
            for spec in group.specs:
                tell.stage("preparing", spec.id)
            tell.stage("timing", group.specs[0].id)
            yield from sessions
            for trial in trials:
                tell.stage("training", trial.id)
                made_s = perf_counter()
                folder.log_path(trial.id).write_bytes(b"a line that a worker printed\n" * 8)
                folder.samples_path(trial.id).write_bytes(self._samples)
                own_s += perf_counter() - made_s
                yield trial
                self.stamps.append(perf_counter() - begin_s - own_s)
                if len(self.stamps) % EDGE == 0:
                    self.bytes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())


def make(args: argparse.Namespace) -> dict[str, Any]:
    """One run, in this process."""
    options = runner.Options(
        run=RunOptions(shard=args.shard),
        matrix_path="made up",
        output_dir=args.keep,
        data_root=data.default_root(None, os.environ),
        offline=True,
    )
    flags, fake = argparse.Namespace(quiet=False, no_progress=False, verbose=0), Fake(args.shard or "whole")
    terminal = args.console == "terminal"
    near, far = os.openpty() if terminal else (-1, os.open(os.devnull, os.O_WRONLY))
    reader = subprocess.Popen(["cat"], stdin=near, stdout=subprocess.DEVNULL) if terminal else None
    begin_s = perf_counter()
    with os.fdopen(far, "w") as file, Screen(Console(file=file, width=120), flags) as screen:
        progress = RunProgress(screen)
        chosen = matrix(args.trials, args.seeds)
        plan = runner.start(chosen, runner.draft(chosen, options.run), options, progress, os.environ)
        planned_s = perf_counter() - begin_s
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = runner.execute(plan, progress, {}, executor=fake)
    if reader:
        reader.kill()
    edge = min(EDGE, len(found.trials) // 3)
    each = [1e3 * (b - a) for a, b in zip(fake.stamps, fake.stamps[1:], strict=False)]
    first, last = (statistics.fmean(part) for part in (each[:edge], each[-edge:]))
    return {
        "folder": str(plan.folder.path),
        "trials": len(found.trials),
        "wall s": perf_counter() - begin_s,
        "plan s": planned_s,
        "plan MiB": before >> 10,
        "first ms": first,
        "last ms": last,
        "median ms": statistics.median(each),
        "mean ms": statistics.fmean(each),
        "MiB": [one >> 20 for one in fake.bytes[1 :: max(1, len(fake.bytes) // 8)]],
        "bytes a trial": sum(plan.folder.sizes().values()) / len(found.trials),
    }


def timed(*command: str) -> tuple[dict[str, Any], str]:
    """Wall time and peak memory of a command, and what it printed."""
    with tempfile.TemporaryFile("w+") as out:
        begin_s = perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=out, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        seconds, process.returncode = perf_counter() - begin_s, os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {"seconds": f"{seconds:.1f}", "peak MiB": used.ru_maxrss >> 10, "printed kB": len(text) // 1000}, text


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--trials", type=int, default=100_000)
    flags.add_argument("--seeds", type=int, default=125)
    flags.add_argument("--keep", type=Path, help="a folder for the runs, which stay there")
    flags.add_argument("--shard", help=argparse.SUPPRESS)
    flags.add_argument("--console", choices=("pipe", "terminal"), help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.console:
        print(json.dumps(make(args)))
        return 0
    with tempfile.TemporaryDirectory() as spare:
        results = args.keep or Path(spare)

        def run(console: str, folder: Path, *more: str) -> dict[str, Any]:
            size = ("--trials", str(args.trials), "--seeds", str(args.seeds))
            cost, text = timed("-m", "bench.large", "--keep", str(folder), "--console", console, *size, *more)
            made: dict[str, Any] = json.loads(text)
            return made | {"peak MiB": cost["peak MiB"]}

        one = run("pipe", results)
        consoles = ["terminal", *["pipe"] * (SHARDS - 1)]
        shards = [run(one, results / "shards", "--shard", f"{k}/{SHARDS}") for k, one in enumerate(consoles, 1)]
        print_rows("runs", [one, *shards])
        whole, out, rows = one["folder"], ("-o", str(results)), list[dict[str, Any]]()
        commands = {
            "tables": ("-c", TABLES.format(whole)),
            "merge": ("-m", "mnist_bench", "merge", *(shard["folder"] for shard in shards), *out),
            "show": ("-m", "mnist_bench", "show", whole, *out),
            "compare": ("-m", "mnist_bench", "compare", whole, "latest", *out),
            "compare --by variant": ("-m", "mnist_bench", "compare", whole, "--by", "variant", *out),
            "report": ("-m", "mnist_bench", "report", whole, *out),
            "history": ("-m", "mnist_bench", "history", *out),
            "library": ("-c", LIBRARY.format(whole)),
        }
        for name, command in commands.items():
            rows.append({"command": name} | timed(*command)[0])
        print_rows("commands", rows)
        print(f"report.html: {(Path(whole) / 'report.html').stat().st_size / 1e6:.1f} MB")
    held = {row["command"]: float(row["seconds"]) for row in rows}
    bars = [
        ("ms a trial, the last by the first", one["last ms"] / one["first ms"], 1.2),
        ("ms a trial, the last", one["last ms"], 10.0),
        ("peak MiB of the run", one["peak MiB"], 600.0),
        ("s of compare", held["compare"], 15.0),
        ("s of report", held["report"], 60.0),
    ]
    found = [{"what": what, "measured": value, "at most": most, "holds": value <= most} for what, value, most in bars]
    print_rows("bars", found)
    return int(not all(bar["holds"] for bar in found))


if __name__ == "__main__":
    raise SystemExit(main())
