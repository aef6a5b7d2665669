"""The frame of every proof: its flags, its data, its JSON file, its table of bars and its exit code."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.bars import Bar, exit_code
from bench.live import Workshop
from mnist_bench import data
from mnist_bench.errors import BenchError
from mnist_bench.machine import environment
from mnist_bench.running.process import Interrupts

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "bench"
MODELS = ("mlp", "cnn", "lenet5")
PIPE_WIDTH = 160

# Measures with real workers, appends every sample to the list, returns the bars.
Proof = Callable[[Workshop, list[Any]], Sequence[Bar]]


def parser(description: str | None, models: Sequence[str]) -> argparse.ArgumentParser:
    """The flags that every proof has."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--models", nargs="+", choices=MODELS, default=list(models), help="default: %(default)s")
    flags.add_argument("--data-dir", help="folder of MNIST/raw; else MNIST_BENCH_DATA, else the synthetic digits")
    flags.add_argument("--json", type=Path, help="where the samples go (default: a new file in results/bench/)")
    return flags


def count(text: str) -> int:
    """An argument that counts: 1 or more."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def open_workshop(args: argparse.Namespace, interrupts: Interrupts) -> Workshop:
    """Finds the data; makes the folder of logs. Workers find this package wherever they are started."""
    folder = RESULTS / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    root = data.default_root(args.data_dir, os.environ)
    dataset = data.resolve("auto", data.Request(root=root, offline=True, notify=say, environ=os.environ))
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return Workshop(data=dataset, folder=folder, environ={**os.environ, "PYTHONPATH": path}, interrupts=interrupts)


def conduct(
    name: str,
    args: argparse.Namespace,
    prove: Proof,
    opened: Callable[[argparse.Namespace, Interrupts], Workshop] = open_workshop,
) -> int:
    """Runs a proof; writes its samples whatever happens; prints its bars.

    Returns:
        0: every bar holds; 1: one does not (said on stderr), or a worker failed; 2: no data; 130: interrupted.
    """
    document: dict[str, Any] = {
        "proof": name,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": {key: str(value) for key, value in vars(args).items()},
        "environment": dataclasses.asdict(environment.describe(os.environ, ROOT)),
        "bars": [],
        "samples": [],
    }
    try:
        with Interrupts() as interrupts:
            workshop = opened(args, interrupts)
            document["data"] = workshop.data.name
            bars = tuple(prove(workshop, document["samples"]))
    except BenchError as error:
        say(f"bench.{name}: {error}")
        return error.exit_code
    else:
        document["bars"] = bars
        print_rows("bars", [dataclasses.asdict(bar) for bar in bars])
        for bar in bars:
            if not bar.holds:
                say(f"MISSED  {bar.what}: {bar.measured}, not {bar.limit}")
        return exit_code(bars)
    finally:
        _write(args.json or RESULTS / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json", document)


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table on stdout, the columns those of the first row."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for key in rows[0] if rows else ():
        table.add_column(key, justify="left" if isinstance(rows[0][key], str | bool) else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False).print(table)


def machine(found: Mapping[str, float]) -> dict[str, str]:
    """The state of the machine, for a row: shares of the cores' time, and the load of the last minute."""
    shares = {name: f"{found[name]:.1%}" if name in found else "" for name in ("steal", "others")}
    return {**shares, "load": f"{found['load_1min']:.2f}"}


def say(text: str) -> None:
    """Progress and complaints: to stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    say(f"samples: {path}")


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case float():
            return f"{value:.4f}"
        case _:
            return str(value)
