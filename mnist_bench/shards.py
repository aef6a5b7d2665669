"""Whether runs are shards of one, and the manifest of the run that they make together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from mnist_bench.analysis.keys import Key, differences, key_of
from mnist_bench.cells import expand, groups
from mnist_bench.errors import UsageError
from mnist_bench.records import Environment, Manifest, Measurement, RunOptions, Source, Trial, group_id, trial_id
from mnist_bench.table import listed

BETWEEN = " + "  # values that differ between machines, in the environment of a run merged across them


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A run that is to become part of another, and its finished trials."""

    manifest: Manifest
    trials: tuple[Trial, ...]

    @property
    def id(self) -> str:
        return self.manifest.run_id


def joined(shards: Sequence[Shard], run_id: str, *, across_machines: bool) -> Manifest:
    """The manifest of the merged run: trials in the order of the matrix, groups in the order they were measured.

    Args:
        shards: two or more, in any order.
        run_id: of the merged run.
        across_machines: shards of different machines or software may be joined.

    Raises:
        UsageError: they are not shards of one run; a line for everything that differs.
    """
    shards = in_order(shards)
    problems = list(_problems(shards, across_machines))
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    first, manifests = shards[0].manifest, [shard.manifest for shard in shards]
    machines_differ = any(True for _ in _machine_problems(shards))
    return replace(
        first,
        run_id=run_id,
        options=_options(manifests, across_machines=machines_differ),
        environment=_environment([manifest.environment for manifest in manifests], one_machine=not machines_differ),
        order=tuple(dict.fromkeys(group for manifest in manifests for group in manifest.order)),
        trials=_trials(first, {trial for manifest in manifests for trial in manifest.trials}),
        started_at=min(manifest.started_at for manifest in manifests),
        ended_at=max(manifest.ended_at or "" for manifest in manifests) or None,
    )


def in_order(shards: Iterable[Shard]) -> tuple[Shard, ...]:
    """By their start, whichever way they were named."""
    return tuple(sorted(shards, key=lambda shard: (shard.manifest.started_at, shard.id)))


def notes(shards: Sequence[Shard]) -> tuple[str, ...]:
    """What does not forbid to merge, but should be known."""
    found = []
    parts = [(shard.manifest.options.shard or "").partition("/") for shard in shards]
    counts = {count for _, _, count in parts}
    if len(counts) == 1 and (count := counts.pop()).isdigit() and int(count) <= 10_000:
        missing = [f"{k}/{count}" for k in range(1, int(count) + 1) if str(k) not in {part[0] for part in parts}]
        if missing:
            found.append(f"shards that are not among these: {listed(missing)}")
    commits = {shard.manifest.environment.commit for shard in shards}
    if len(commits) > 1:
        found.append("the shards were started in different commits: the merged run names none, its sources name each")
    return tuple(found)


def _problems(shards: Sequence[Shard], across_machines: bool) -> Iterator[str]:
    yield from _unfit(shards)
    first = shards[0]
    for other in shards[1:]:
        for name, one, another in _pairs(first.manifest, other.manifest):
            if one != another:
                yield f"{other.id}: its {name} is {another}, that of {first.id} is {one}: no shards of one run"
    yield from _shared_trials(shards)
    if not across_machines:
        yield from _machine_problems(shards)
    elif any(True for _ in _machine_problems(shards)):
        yield from _shared_groups(shards)


def _unfit(shards: Sequence[Shard]) -> Iterator[str]:
    if len(shards) < 2:
        yield "merge: name two runs at least"
    seen: set[str] = set()
    for shard in shards:
        if shard.id in seen:
            yield f"{shard.id}: is named twice"
        seen.add(shard.id)
        if shard.manifest.status != "complete":
            yield (
                f"{shard.id}: is {shard.manifest.status}, not complete: finish it first "
                f"(mnist-bench run --resume {shard.id})"
            )


def _pairs(one: Manifest, other: Manifest) -> list[tuple[str, object, object]]:
    """What shards of one run have in common."""
    return [
        ("matrix", one.matrix_sha256[:12], other.matrix_sha256[:12]),
        ("recipe", one.matrix.recipe, other.matrix.recipe),
        ("data set", _data(one), _data(other)),
        ("schema version", one.schema_version, other.schema_version),
        ("program version", one.program_version, other.program_version),
    ]


def _data(manifest: Manifest) -> str:
    return f"{manifest.dataset.name} {manifest.dataset.sha256[:12]}"


def _shared_trials(shards: Sequence[Shard]) -> Iterator[str]:
    owner: dict[str, tuple[Shard, Trial]] = {}
    for shard in shards:
        for trial in shard.trials:
            if trial.id in owner and owner[trial.id][0].id != shard.id:
                other, known = owner[trial.id]
                how = "the very same measurement" if trial == known else "measured twice"
                yield f"trial {trial.id}: is in {other.id} and in {shard.id} ({how}): leave one of the runs out"
            owner.setdefault(trial.id, (shard, trial))


def _machine_problems(shards: Sequence[Shard]) -> Iterator[str]:
    """Of each shard against the first that has the same device."""
    known: dict[str, tuple[str, Key]] = {}
    for shard in shards:
        for device, key in _machine_keys(shard).items():
            name, expected = known.setdefault(device, (shard.id, key))
            for difference in differences(expected, key):
                if difference.affects == "accuracy":  # of the matrix or the data set, which are held against each other
                    continue
                yield (
                    f"{shard.id}: its {difference.name} is {difference.b}, that of {name} is {difference.a}: measured "
                    "elsewhere (--across-machines merges them all the same)"
                )


def _machine_keys(shard: Shard) -> dict[str, Key]:
    """What machine and software a shard was measured on: the processor, and each device that it has figures of."""
    found: dict[str, Key] = {}
    for trial in shard.trials:
        if isinstance(trial.outcome, Measurement) and trial.cell.device not in found:
            key = key_of(shard.manifest, trial.cell, trial.outcome)
            found[trial.cell.device] = replace(key, settings={}, threads=None)  # of the cell, not of the machine
    environment = shard.manifest.environment
    found["cpu"] = Key(
        gpu=None,
        cpu=environment.cpu,
        settings={},
        threads=None,
        cores=environment.cores,
        torch=environment.packages.get("torch"),
        driver=None,
        recipe=shard.manifest.matrix.recipe,
        epochs=shard.manifest.matrix.epochs,
        dataset=f"{shard.manifest.dataset.name} ({shard.manifest.dataset.sha256[:12]})",
    )
    return found


def _shared_groups(shards: Sequence[Shard]) -> Iterator[str]:
    """A speed-up is a ratio within a group: across machines it would be one of machines."""
    owner: dict[str, str] = {}
    for shard in shards:
        for group in dict.fromkeys(group_id(trial.cell, trial.seed) for trial in shard.trials):
            if owner.setdefault(group, shard.id) != shard.id:
                yield (
                    f"group {group}: is in {owner[group]} and in {shard.id}, of different machines: its speed-ups "
                    "would compare the machines"
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


def _environment(environments: Sequence[Environment], *, one_machine: bool) -> Environment:
    """The first's where it is one machine (the sources keep each); else one that is comparable with none of them."""
    first = environments[0]
    commits = {environment.commit for environment in environments}
    common = replace(
        first,
        commit=first.commit if len(commits) == 1 else None,
        dirty=any(environment.dirty for environment in environments),
    )
    if one_machine:
        return common
    packages = dict.fromkeys(name for environment in environments for name in environment.packages)
    return replace(
        common,
        python=_together(e.python for e in environments),
        platform=_together(e.platform for e in environments),
        cpu=_together(f"{e.cpu} ({e.cores} cores)" for e in environments),
        cores=max(e.cores for e in environments),
        memory_bytes=min(e.memory_bytes for e in environments),
        packages={name: _together(e.packages.get(name, "none") for e in environments) for name in packages},
        details={},
    )


def _together(values: Iterable[str]) -> str:
    return BETWEEN.join(dict.fromkeys(values))


def _trials(manifest: Manifest, chosen: set[str]) -> tuple[str, ...]:
    """In the order in which one run would have them: that of the matrix, seed by seed."""
    planned = groups(expand(manifest.matrix), manifest.matrix.seeds)
    ordered = [trial_id(cell, seed) for _, trials in planned for cell, seed in trials]
    return (*(trial for trial in ordered if trial in chosen), *sorted(chosen.difference(ordered)))
