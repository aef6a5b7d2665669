"""Writes docs/gpu.md: what this program measures on a GPU. ``python scripts/gpu.py``, which is ``make gpu``.

The tests that need one, the default matrix on it and on the CPU, a race of all variants, the gate on identical code and
on code that was slowed down, a profile of each model: the program's own commands, and their tables. Takes hours.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mnist_bench import config
from mnist_bench.records import BUILTIN_VARIANTS, Matrix
from mnist_bench.table import Table

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("tests", "run", "race", "selftest", "profile")
PROGRAM = "import sys; from mnist_bench.cli import main; sys.exit(main(sys.argv[1:]))"
SLOWED = 0.12  # of a step's time: what selftest adds here, in place of its own three sizes
SLOWING = f"from mnist_bench.labs import faults, selftest; faults.AIMS = selftest.AIMS = ({SLOWED},); {PROGRAM}"


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--matrix", default="benchmarks.yaml")
    parser.add_argument("--variants", default=",".join(BUILTIN_VARIANTS), help="of the race")
    parser.add_argument("--budget", default="5m", help="of each race, and of each check")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "gpu.md")
    parser.add_argument("-o", "--output-dir", default="results")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Gives 2 where there is no such device, 1 where a command of the page failed."""
    args = options(argv)
    machine = json.loads(call(PROGRAM, ["doctor", "--json"]).stdout)
    devices = [one for one in machine["torch"].get("devices", ()) if one["name"].partition(":")[0] == args.device]
    reason = devices[0]["missing"] if devices else machine["torch"].get("detail", "torch knows no such device")
    if reason:
        print(f"make gpu: {args.device} cannot be used here: {reason}", file=sys.stderr)
        return 2
    parts, failed = [preface(args.device, devices[0]["description"], machine)], False
    for title, code, words in steps(args, config.load(ROOT / args.matrix, allow_plugins=False)):
        print(f"make gpu: {title}", file=sys.stderr, flush=True)
        done = call(code, words)
        failed |= done.returncode != 0
        parts.append(section(title, code, words, done))
        args.output.write_text("\n".join(parts), encoding="utf-8")  # what is known stands there, whatever comes
    return int(failed)


def call(code: str, words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Runs some Python, or (none) the module that the words name; what it says of its progress goes to the screen."""
    command = [sys.executable, *(["-c", code] if code else ["-m"]), *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)


def steps(args: argparse.Namespace, matrix: Matrix) -> Iterator[tuple[str, str, list[str]]]:
    """Each: its title, what executes it, its words."""
    told, first = ["--format", "md"], f"b{matrix.batch_sizes[0]}/{matrix.variants[0].name}"
    kept = ["-o", args.output_dir, "--no-progress", *told]
    cells = f"device={args.device},batch_size={matrix.batch_sizes[0]},variant={matrix.variants[0].name}"
    both = ",".join(dict.fromkeys(["cpu", args.device]))
    race = ["race", args.matrix, "--devices", args.device, "--variants", args.variants, "--class", "B"]
    gate = ["selftest", args.matrix, "--filter", cells, "--checks", "1", "--budget", args.budget, *told]
    every = {
        "tests": [("The tests that need a GPU", "", ["pytest", "-q", "-m", "cuda", "tests"])],
        "run": [("The default matrix", PROGRAM, ["run", args.matrix, "--devices", both, *kept])],
        "race": [("A race of all variants", PROGRAM, [*race, "--budget", args.budget, *kept])],
        "selftest": [(f"The gate: identical code, and {SLOWED:.0%} slower", SLOWING, gate)],
        "profile": [
            (
                f"What bounds {model.name}",
                PROGRAM,
                ["profile", cell, args.matrix, "--devices", args.device, "-o", args.output_dir, *told],
            )
            for model in matrix.models
            for cell in [f"{model.name}/{args.device}/{first}"]
        ],
    }
    for name in args.steps.split(","):
        yield from every[name]


def preface(name: str, description: str, machine: dict[str, dict[str, object]]) -> str:
    environment, torch = machine["environment"], machine["torch"]
    driver = dict(environment["details"]).get("nvidia_driver", "")  # type: ignore[call-overload]
    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "device": f"{name}: {description}", "driver": driver}
    facts |= {"torch": torch["version"], "CUDA": torch["cuda"], "commit": environment["commit"]}
    facts |= {key: environment[key] for key in ("cpu", "cores", "platform", "python")}
    table = Table.of("", [{"what": key, "here": value} for key, value in facts.items() if value])
    return f"# Measured on {name}\n\nWritten by `make gpu`.\n\n{table.markdown()}\n"


def section(title: str, code: str, words: Sequence[str], done: "subprocess.CompletedProcess[str]") -> str:
    """What a command printed, under headings of its own."""
    shown = re.sub(r"^(#+) ", r"##\1 ", done.stdout.strip(), flags=re.MULTILINE) if code else done.stdout.strip()
    shown = shown if code else f"```text\n{shown}\n```"
    failed = f"\n\nIt ended with exit code {done.returncode}." if done.returncode else ""
    name = "mnist-bench" if code else "python -m"
    return f"## {title}\n\n`{name} {' '.join(words)}`\n\n{shown}{failed}\n"


if __name__ == "__main__":
    raise SystemExit(main())
