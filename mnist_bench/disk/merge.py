"""One run from shards: their lines and files in a run folder of its own, which stands whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

from mnist_bench.cells import expand, groups
from mnist_bench.disk.files import open_regular, whole_lines, write_atomically
from mnist_bench.disk.folder import FOLDERS, SESSIONS, TRIALS, RunFolder
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.records import (
    Environment,
    Manifest,
    Measurement,
    RunOptions,
    Session,
    Source,
    Trial,
    group_id,
    trial_id,
)

K = TypeVar("K")
V = TypeVar("V")

MOST_MISSING = 10  # shards that are named
BETWEEN = " + "  # values that differ between machines, in the environment of a run merged across them


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A run that is to become part of another, read and found sound."""

    path: Path
    manifest: Manifest
    trials: tuple[Trial, ...]
    sessions: tuple[Session, ...]

    @property
    def id(self) -> str:
        return self.manifest.run_id

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        return cls(path=folder.path, manifest=folder.manifest(), trials=folder.trials(), sessions=folder.sessions())


def merge(
    output_dir: Path,
    references: Sequence[str],
    run_id: str,
    derive: Callable[[RunFolder], object],
    *,
    across_machines: bool,
) -> tuple[RunFolder, tuple[str, ...]]:
    """Makes one run of several in ``output_dir``; they stay as they are. Returns it, and what should be known of it.

    Args:
        references: ids, beginnings of ids, or paths of two runs or more.
        run_id: of the new run.
        derive: writes the tables of a run.
        across_machines: shards of different machines or software may be joined.

    Raises:
        UsageError: a run cannot be read, they are not shards of one run (a line for all that differs), or a trial is in
            two of them.
        BenchError: a shard was changed meanwhile.
    """
    shards = sorted(
        (Shard.read(RunFolder.open(output_dir, reference)) for reference in references),
        key=lambda shard: (shard.manifest.started_at, shard.id),
    )
    apart = tuple(_machine_problems(shards))
    forbidden = _shared_groups(shards) if apart and across_machines else apart
    if problems := dict.fromkeys((*_problems(shards), *forbidden)):
        raise UsageError("\n".join(problems))

    def fill(hidden: Path) -> None:
        for shard in shards:
            for name in FOLDERS:
                _copy_files(RunFolder(shard.path).own_folder(name), hidden / name)
        for name in (TRIALS, SESSIONS):
            # Byte for byte; no file where there are none.
            if lines := [line + b"\n" for shard in shards for _, line in whole_lines(shard.path / name)]:
                write_atomically(hidden / name, b"".join(lines))
        run = RunFolder(hidden)
        if run.trials() != tuple(trial for shard in shards for trial in shard.trials):
            raise BenchError("a shard was changed while it was merged: try again when nothing writes to it")
        derive(run)

    manifest = _manifest(shards, run_id, across_machines=bool(apart))
    return RunFolder.create(output_dir, manifest, fill=fill), tuple(_notes(shards))


def _copy_files(source: Path, target: Path) -> None:
    """The plain files of a folder (a link may lead anywhere), but none that a killed writer left behind.

    Raises:
        UsageError: two shards have a file of one name.
    """
    for file in sorted(source.iterdir()) if source.is_dir() else ():
        if file.name.startswith(".") or file.is_symlink() or not file.is_file():
            continue
        if (target / file.name).exists():
            raise UsageError(f"{file}: another shard has a file of this name: remove the one that is no trial's")
        with os.fdopen(open_regular(file, os.O_RDONLY), "rb") as old, (target / file.name).open("xb") as new:
            shutil.copyfileobj(old, new)


def _problems(shards: Sequence[Shard]) -> Iterator[str]:
    """Why they cannot become one run, wherever they were measured."""
    if len(shards) < 2:
        yield "merge: name two runs at least"
    seen: set[str] = set()
    for shard in shards:
        if shard.id in seen:
            yield f"{shard.id}: is named twice"
        seen.add(shard.id)
        if shard.manifest.check:
            yield f"{shard.id}: is a check, not a run"
        if shard.manifest.status != "complete":
            yield (
                f"{shard.id}: is {shard.manifest.status}, not complete: finish it first "
                f"(mnist-bench run --resume {shard.id})"
            )
    for shard, first, name, value, expected in _met_again(shards, _common):
        if value != expected:
            yield f"{shard.id}: its {name} is {value}, that of {first.id} is {expected}: no shards of one run"
    for shard, other, id_, trial, known in _met_again(shards, lambda shard: {one.id: one for one in shard.trials}):
        how = "the very same measurement" if trial == known else "measured twice"
        yield f"trial {id_}: is in {other.id} and in {shard.id} ({how}): leave one of the runs out"


def _met_again(
    shards: Sequence[Shard], facts: Callable[[Shard], Mapping[K, V]]
) -> Iterator[tuple[Shard, Shard, K, V, V]]:
    """Of each fact that several shards tell: (a later one, the first, what it is of, the later one's, the first's)."""
    known: dict[K, tuple[Shard, V]] = {}
    for shard in shards:
        for what, value in facts(shard).items():
            first, before = known.setdefault(what, (shard, value))
            if first.id != shard.id:
                yield shard, first, what, value, before


def _common(shard: Shard) -> dict[str, str]:
    """What shards of one run have in common."""
    manifest = shard.manifest
    return {
        "matrix": manifest.matrix_sha256[:12],
        "recipe": manifest.matrix.recipe,
        "data set": f"{manifest.dataset.name} {manifest.dataset.sha256[:12]}",
        "schema version": str(manifest.schema_version),
        "program version": manifest.program_version,
    }


def _machine_problems(shards: Sequence[Shard]) -> Iterator[str]:
    for shard, first, (what, _), value, expected in _met_again(shards, _machine):
        if value != expected:
            yield (
                f"{shard.id}: its {what} is {value}, that of {first.id} is {expected}: measured elsewhere "
                "(--across-machines merges them all the same)"
            )


def _machine(shard: Shard) -> dict[tuple[str, str], str]:
    """(what, device): what is known of the machine and software that a shard was measured with."""
    where = shard.manifest.environment
    found = {("CPU", ""): where.cpu, ("cores", ""): str(where.cores)}
    found["torch", ""] = where.packages.get("torch", "unknown")
    for trial in shard.trials:
        device = trial.cell.device
        if device == "cpu" or not isinstance(trial.outcome, Measurement):
            continue
        found.setdefault(("GPU", device), trial.outcome.device_name)
        # CPU builds, containers and other systems hide the driver: that it is not known is no difference.
        if device.startswith("cuda") and (driver := where.details.get("nvidia_driver")):
            found["NVIDIA driver", device] = driver
    return found


def _shared_groups(shards: Sequence[Shard]) -> Iterator[str]:
    """A speed-up is a ratio within a group: across machines it would be one of machines."""
    groups_of = _met_again(shards, lambda shard: {group_id(one.cell, one.seed): None for one in shard.trials})
    for shard, first, group, *_ in groups_of:
        yield (
            f"group {group}: is in {first.id} and in {shard.id}, of different machines: its speed-ups "
            "would compare the machines"
        )


def _notes(shards: Sequence[Shard]) -> Iterator[str]:
    """What does not forbid to merge, but should be known."""
    known = {shard.manifest.options.shard or "1/1" for shard in shards}
    counts = {shard.partition("/")[2] for shard in known}
    if len(counts) == 1:
        planned = (f"{number}/{count}" for count in counts for number in range(1, int(count) + 1))
        missing = list(islice((shard for shard in planned if shard not in known), MOST_MISSING + 1))
        if missing:
            more = " and more" * (len(missing) > MOST_MISSING)
            yield f"shards that are not among these: {', '.join(missing[:MOST_MISSING])}{more}"
    if len({shard.manifest.environment.commit for shard in shards}) > 1:
        yield "the shards were started in different commits: the merged run names none, its sources name each"


def _manifest(shards: Sequence[Shard], run_id: str, *, across_machines: bool) -> Manifest:
    """Of the merged run: trials in the order of the matrix, groups in the order they were measured."""
    manifests = [shard.manifest for shard in shards]
    first, chosen = manifests[0], {trial for manifest in manifests for trial in manifest.trials}
    planned = (pair for _, pairs in groups(expand(first.matrix), first.matrix.seeds) for pair in pairs)
    return replace(
        first,
        run_id=run_id,
        options=_options(manifests, across_machines=across_machines),
        environment=_environment([one.environment for one in manifests], across_machines=across_machines),
        order=tuple(dict.fromkeys(group for manifest in manifests for group in manifest.order)),
        trials=tuple(trial for pair in planned if (trial := trial_id(*pair)) in chosen),
        started_at=first.started_at,
        ended_at=max(manifest.ended_at or "" for manifest in manifests) or None,
    )


def _options(manifests: Sequence[Manifest], *, across_machines: bool) -> RunOptions:
    """Those that all shards share, and where the merged run comes from, with all that it does not say itself."""
    first, *others = (manifest.options for manifest in manifests)
    names = [field.name for field in fields(RunOptions)]
    shared = {n: getattr(first, n) for n in names if all(getattr(one, n) == getattr(first, n) for one in others)}
    sources = tuple(
        Source(
            run_id=manifest.run_id,
            shard=manifest.options.shard,
            filter=manifest.options.filter,
            started_at=manifest.started_at,
            ended_at=manifest.ended_at,
            environment=manifest.environment,
        )
        for manifest in manifests
    )
    return RunOptions(**{**shared, "across_machines": across_machines, "sources": sources})


def _environment(environments: Sequence[Environment], *, across_machines: bool) -> Environment:
    """What all have in common; where machines differ it names each, and is comparable with none of them."""
    first, *others = environments
    packages = dict.fromkeys(name for one in environments for name in one.packages)
    return Environment(
        python=_together(one.python for one in environments),
        platform=_together(one.platform for one in environments),
        cpu=_together(f"{one.cpu} ({one.cores} cores)" if across_machines else one.cpu for one in environments),
        cores=max(one.cores for one in environments),
        memory_bytes=min(one.memory_bytes for one in environments),
        packages={name: _together(one.packages.get(name, "none") for one in environments) for name in packages},
        commit=first.commit if all(one.commit == first.commit for one in others) else None,
        dirty=any(one.dirty for one in environments),
        details={k: v for k, v in first.details.items() if all(one.details.get(k) == v for one in others)},
    )


def _together(values: Iterable[str]) -> str:
    return BETWEEN.join(dict.fromkeys(values))
