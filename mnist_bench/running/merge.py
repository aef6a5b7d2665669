"""One run from shards: their lines and files in a run folder of its own, which stands whole or not at all."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from mnist_bench import cells
from mnist_bench.analysis import results
from mnist_bench.analysis.keys import together
from mnist_bench.analysis.summary import Run
from mnist_bench.disk.folder import FOLDERS, RunFolder, new_run_id
from mnist_bench.errors import UsageError
from mnist_bench.records import Manifest, Measurement, RunOptions, Session, Trial, group_id, trial_id

K = TypeVar("K")
V = TypeVar("V")

MOST_MISSING, MOST_SHARDS = 10, 1000  # shards that are named, and that are looked for


def merge(
    output_dir: Path, references: Sequence[str], *, across_machines: bool
) -> tuple[RunFolder, Run, tuple[str, ...]]:
    """Makes one run of several in ``output_dir``; they stay as they are. Returns it, and what should be known of it.

    Args:
        references: ids, beginnings of ids, or paths of two runs or more.
        across_machines: shards of different machines or software may be joined.

    Raises:
        UsageError: a run cannot be read, they are not shards of one run (a line for all that differs), or a trial is in
            two of them.
    """
    opened = [_opened(output_dir, reference) for reference in references]
    opened.sort(key=lambda pair: (pair[1].manifest.started_at, pair[1].manifest.run_id))
    shards = [run for _, run in opened]
    apart = tuple(_machine_problems(shards))
    forbidden = _shared_groups(shards) if apart and across_machines else apart
    if problems := dict.fromkeys((*_problems(shards), *forbidden)):
        raise UsageError("\n".join(problems))

    made: list[Run] = []

    def fill(hidden: Path) -> None:
        merged = RunFolder(hidden)
        for folder, run in opened:
            for trial in run.trials:
                for place in (RunFolder.log_path, RunFolder.samples_path):
                    source = place(folder, trial.id)
                    if source.is_file() and not source.is_symlink():  # which may lead anywhere
                        shutil.copyfile(source, place(merged, trial.id))
        trials = [trial for run in shards for trial in run.trials]
        sessions = [session for run in shards for session in run.sessions]
        merged.write_lines(Trial, trials)
        merged.write_lines(Session, sessions)
        made.append(Run(manifest=manifest, trials=trials, sessions=sessions, made_of=merged.sizes()))
        merged.write_tables(results.files(made[0]))

    manifest = _manifest([run.manifest for run in shards], new_run_id(), apart=bool(apart))
    return RunFolder.create(output_dir, manifest, fill), made[0], tuple(_notes(shards))


def _opened(output_dir: Path, reference: str) -> tuple[RunFolder, Run]:
    """A run that is to become part of another, read and found sound."""
    folder = RunFolder.open(output_dir, reference)
    for name in FOLDERS:
        folder.own_folder(name)
    return folder, Run.read(folder)


def _problems(shards: Sequence[Run]) -> Iterator[str]:
    """Why they cannot become one run, wherever they were measured."""
    if len(shards) < 2:
        yield "merge: name two runs at least"
    ids = [shard.manifest.run_id for shard in shards]
    yield from (f"{id_}: is named twice" for id_ in ids if ids.count(id_) > 1)
    for id_, shard in zip(ids, shards, strict=True):
        if shard.manifest.check:
            yield f"{id_}: is a check, not a run"
        if (status := shard.manifest.status) != "complete":
            yield f"{id_}: is {status}, not complete: finish it first (mnist-bench run --resume {id_})"
    for id_, first, name, value, expected in _met_again(shards, _common):
        if value != expected:
            yield f"{id_}: {name}: {value}, and {expected} in {first}: no shards of one run"
    for id_, first, name, trial, known in _met_again(shards, lambda shard: {one.id: one for one in shard.trials}):
        how = "the very same measurement" if trial == known else "measured twice"
        yield f"trial {name}: is in {first} and in {id_} ({how}): leave one of the runs out"


def _met_again(shards: Sequence[Run], facts: Callable[[Run], Mapping[K, V]]) -> Iterator[tuple[str, str, K, V, V]]:
    """Of each fact that several shards tell: (a later one, the first, what it is of, the later one's, the first's)."""
    known: dict[K, tuple[str, V]] = {}
    for shard in shards:
        for what, value in facts(shard).items():
            first, before = known.setdefault(what, (shard.manifest.run_id, value))
            if first != shard.manifest.run_id:
                yield shard.manifest.run_id, first, what, value, before


def _common(shard: Run) -> dict[str, str]:
    """What shards of one run have in common."""
    manifest = shard.manifest
    return {
        **cells.entries(manifest.matrix),
        **({"--filter": manifest.options.filter or "none"} if manifest.options.shard else {}),
        "data set": manifest.dataset.name,
        "checksum of the data set": manifest.dataset.sha256[:12],
        "program version": manifest.program_version,
    }


def _machine_problems(shards: Sequence[Run]) -> Iterator[str]:
    for id_, first, (what, _), value, expected in _met_again(shards, _machine):
        if value != expected:
            yield f"{id_}: its {what} is {value}, that of {first} is {expected} (--across-machines merges them)"


def _machine(shard: Run) -> dict[tuple[str, str], str]:
    """(what, device): what is known of the machine and software that a shard was measured with."""
    where = shard.manifest.environment
    torch = where.packages.get("torch", "unknown")
    found = {("CPU", ""): where.cpu, ("cores", ""): str(where.cores), ("torch", ""): torch}
    for trial in shard.trials:
        device = trial.cell.device
        if device == "cpu" or not isinstance(trial.outcome, Measurement):
            continue
        found.setdefault(("GPU", device), trial.outcome.device_name)
        # CPU builds, containers and other systems hide the driver: that it is not known is no difference.
        if device.startswith("cuda") and (driver := where.details.get("nvidia_driver")):
            found["NVIDIA driver", device] = driver
    return found


def _shared_groups(shards: Sequence[Run]) -> Iterator[str]:
    """A speed-up is a ratio within a group: across machines it would be one of machines."""
    groups_of = _met_again(shards, lambda shard: {group_id(one.cell, one.seed): None for one in shard.trials})
    for id_, first, group, *_ in groups_of:
        yield f"group {group}: is in {first} and in {id_}: its speed-ups would compare the machines"


def _notes(shards: Sequence[Run]) -> Iterator[str]:
    """What does not forbid to merge, but should be known."""
    known = {shard.manifest.options.shard or "1/1" for shard in shards}
    counts = {shard.partition("/")[2] for shard in known}
    if len(counts) == 1:
        planned = (f"{number}/{count}" for count in counts for number in range(1, min(int(count), MOST_SHARDS) + 1))
        if missing := [shard for shard in planned if shard not in known]:
            more = " and more" * (len(missing) > MOST_MISSING)
            yield f"shards that are not among these: {', '.join(missing[:MOST_MISSING])}{more}"
    if len({shard.manifest.environment.commit for shard in shards}) > 1:
        yield "the shards were started in different commits: the merged run names none, its shards name each"


def _manifest(shards: Sequence[Manifest], run_id: str, *, apart: bool) -> Manifest:
    """Of the merged run: trials in the order of the matrix, groups in the order they were measured."""
    first, chosen = shards[0], {trial for shard in shards for trial in shard.trials}
    own = asdict(first.options).items()
    shared = {name: value for name, value in own if all(getattr(one.options, name) == value for one in shards)}
    beside = {"across_machines": apart, "merged_from": tuple(shard.run_id for shard in shards)}
    planned = (trial_id(*pair) for _, pairs in cells.planned(first.matrix) for pair in pairs)
    return replace(
        first,
        run_id=run_id,
        options=RunOptions(**{**shared, **beside}),
        environment=together([shard.environment for shard in shards], apart=apart),
        order=tuple(dict.fromkeys(group for shard in shards for group in shard.order)),
        trials=tuple(trial for trial in planned if trial in chosen),
        ended_at=max(shard.ended_at or "" for shard in shards) or None,
        nodes={name: node for shard in shards for name, node in shard.nodes.items()},
    )
