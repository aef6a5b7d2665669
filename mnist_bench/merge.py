"""One run from shards: their lines and files copied into a run folder of its own, which stands whole or not at all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mnist_bench.analysis.results import files
from mnist_bench.analysis.summary import Run
from mnist_bench.disk.files import whole_lines, write_atomically
from mnist_bench.disk.folder import RunFolder, new_run_id
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.shards import Shard, in_order, joined, notes

LINES = ("trials.jsonl", "sessions.jsonl")
FOLDERS = ("samples", "logs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The run that was made, and what should be known about it."""

    folder: RunFolder
    notes: tuple[str, ...]


def merge(
    output_dir: Path, references: Sequence[str], *, across_machines: bool, now: datetime, rng: random.Random
) -> Merged:
    """Makes one run of several in ``output_dir``; they stay as they are.

    Args:
        references: ids, beginnings of ids, or paths of two runs or more.
        across_machines: shards of different machines may be joined.
        now, rng: of the new run's id.

    Raises:
        UsageError: a run cannot be read, they are not shards of one run, or a trial is in two of them.
        BenchError: a shard was changed meanwhile.
    """
    sources = [RunFolder.open(output_dir, reference) for reference in references]
    shards = in_order(Shard(manifest=source.manifest(), trials=source.trials()) for source in sources)
    manifest = joined(shards, new_run_id(now, rng), across_machines=across_machines)
    path_of = {source.manifest().run_id: source.path for source in sources}
    paths = [path_of[shard.id] for shard in shards]

    def fill(hidden: Path) -> None:
        for name in FOLDERS:
            for path in paths:
                _copy_files(path / name, hidden / name)
        for name in LINES:
            _join_lines([path / name for path in paths], hidden / name)
        run = RunFolder(hidden)
        trials = run.trials()
        if trials != tuple(trial for shard in shards for trial in shard.trials):
            raise BenchError("a shard was changed while it was merged: try again when nothing writes to it")
        run.write_tables(files(Run.read(run)))

    return Merged(folder=RunFolder.create(output_dir, manifest, fill=fill), notes=notes(shards))


def _join_lines(parts: Sequence[Path], whole: Path) -> None:
    """The whole lines of the parts, byte for byte; no file where there are none."""
    if lines := [line + b"\n" for part in parts for _, line in whole_lines(part)]:
        write_atomically(whole, b"".join(lines))


def _copy_files(source: Path, target: Path) -> None:
    """The plain files of a folder (a link may lead anywhere), but none that a killed writer left behind.

    Raises:
        UsageError: two shards have a file of one name.
    """
    if not source.is_dir():
        return
    for file in sorted(source.iterdir()):
        if file.name.startswith(".") or file.is_symlink() or not file.is_file():
            continue
        if (target / file.name).exists():
            raise UsageError(f"{file}: another shard has a file of this name: remove the one that is no trial's")
        shutil.copy2(file, target / file.name)
