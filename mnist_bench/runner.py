"""A run: specs -> groups -> results -> store. Everything finished is on disk before the next begins."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from mnist_bench import __version__, data
from mnist_bench import cells as matrices
from mnist_bench.analysis.results import files
from mnist_bench.analysis.summary import Run
from mnist_bench.cells import reference_variant
from mnist_bench.disk.folder import MANIFEST, SCHEMA_VERSION, RunFolder, new_run_id
from mnist_bench.errors import Interrupted, UsageError
from mnist_bench.events import (
    DataReady,
    GroupStarted,
    Notice,
    Observer,
    RunFinished,
    RunStarted,
    SessionFinished,
    TrialFinished,
)
from mnist_bench.executors.local import LocalWorker
from mnist_bench.group import Finding, Settings, run_group
from mnist_bench.interrupts import Interrupts
from mnist_bench.machine import environment
from mnist_bench.records import Group, Manifest, Matrix, RunOptions, Session, Trial, TrialSpec, trial_id

# Of ``Options``, what a resumed run takes over.
RECORDED = ("plugin_path", "filter", "shard", "allow_plugins", "solo", "strict_devices", "score_both", "companion")
WORKER_BYTES = 1536 << 20  # of host memory, about, for a live trial with its data, torch and a compiler's leavings


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is asked for beyond its matrix. ``plugin_path``: the matrix file's folder."""

    matrix_path: str
    plugin_path: str
    output_dir: Path
    data_root: Path
    filter: str | None = None
    shard: str | None = None
    allow_plugins: bool = False
    solo: bool = False
    strict_devices: bool = False
    fail_fast: bool = False
    offline: bool = False
    timeout_s: float | None = None
    progress: bool = False  # a bar on stderr while the data set is downloaded
    score_both: bool = False  # the final weights of every trial on both image sets
    companion: str | None = None  # the id of the run beside this one, of the same command (``reproduce``)

    def recorded(self) -> RunOptions:
        """Those that a resumed run takes over, for the manifest."""
        return RunOptions(**{name: getattr(self, name) for name in RECORDED})


def start(matrix: Matrix, options: Options, emit: Observer, environ: Mapping[str, str]) -> RunFolder:
    """Makes the folder of a new run: data set found, environment described, order drawn.

    Raises:
        UsageError: nothing to run, or no place to write to.
        DataError, DownloadError: no usable data set.
    """
    planned = plan(matrix, options)
    dataset = data.resolve(
        matrix.dataset,
        root=options.data_root,
        offline=options.offline,
        notify=lambda text: emit(_notice(text)),
        environ=environ,
        progress=options.progress,
    )
    now = datetime.now(UTC)
    run_id = new_run_id(now, random.SystemRandom())
    order = matrices.order(planned, random.Random(run_id))
    manifest = Manifest(
        run_id=run_id,
        schema_version=SCHEMA_VERSION,
        program_version=__version__,
        status="running",
        matrix=matrix,
        matrix_sha256=matrices.fingerprint(matrix),
        matrix_path=options.matrix_path,
        options=options.recorded(),
        environment=environment.describe(environ),
        dataset=dataset,
        order=tuple(group for group, _ in order),
        trials=tuple(trial_id(cell, seed) for _, trials in planned for cell, seed in trials),
        started_at=label(now),
    )
    return RunFolder.create(options.output_dir, manifest)


def _notice(text: str) -> Notice:
    """A line of the data set's: a warning where it says so itself."""
    warning = text.removeprefix("WARNING: ")
    return Notice(level="info" if warning == text else "warning", text=warning.strip())


def plan(matrix: Matrix, options: Options) -> tuple[matrices.GroupTrials, ...]:
    """The groups of a run in matrix order, after ``--filter`` and ``--shard``."""
    groups = matrices.planned(matrix, options.filter, options.shard)
    if not groups:
        raise UsageError("nothing to run: this shard of the matrix is empty")
    return groups


def resumed(folder: RunFolder, options: Options) -> Options:
    """The options of a run that goes on: the run's own where they decide what is measured.

    Raises:
        UsageError: it was merged: its shards go on, each where it was measured.
        ConfigError: its matrix breaks a rule of a matrix file, or names code that this command line does not allow.
    """
    from mnist_bench import config

    manifest = folder.manifest()
    source = f"{folder.path / MANIFEST}: matrix"
    config.checked(manifest.matrix, source=source, allow_plugins=options.allow_plugins)
    if sources := manifest.options.merged_from:
        raise UsageError(
            f"--resume {folder.run_id}: a merged run is complete as its shards were; to measure more, run another "
            f"shard and merge it with these: {', '.join(sources)}"
        )
    return replace(
        options,
        **{name: getattr(manifest.options, name) for name in RECORDED},
        matrix_path=manifest.matrix_path,
    )


def execute(folder: RunFolder, options: Options, emit: Observer, environ: Mapping[str, str]) -> Manifest:
    """Executes what is not yet finished in ``folder``; returns the manifest as it then stands.

    Interrupted or stopped, the tables hold what is finished, and the status says so.
    """
    with folder.lock(), Interrupts() as interrupts:
        manifest = folder.update_manifest(status="running", ended_at=None)
        data.verify(manifest.dataset)
        emit(DataReady(data=manifest.dataset))
        status = "complete"
        try:
            if _execute_groups(folder, manifest, options, emit, environ, interrupts):
                status = "stopped"
        except Interrupted:
            status = "interrupted"
        manifest = folder.update_manifest(status=status, ended_at=label(datetime.now(UTC)))
        _write_tables(folder)
        emit(RunFinished(manifest=manifest, path=str(folder.path)))
        return manifest


def _execute_groups(
    folder: RunFolder,
    manifest: Manifest,
    options: Options,
    emit: Observer,
    environ: Mapping[str, str],
    interrupts: Interrupts,
) -> bool:
    """Returns whether ``--fail-fast`` has ended the run."""
    groups = _groups(folder, manifest, options)
    done = {trial.id for trial in folder.trials()}
    emit(RunStarted(manifest=manifest, path=str(folder.path), total=len(manifest.trials), done=len(done)))
    settings = _settings(folder, manifest, options, emit, environ, interrupts)
    for number, group in enumerate(groups, start=1):
        left = replace(group, specs=tuple(spec for spec in group.specs if spec.id not in done))
        if not left.specs:
            continue
        emit(GroupStarted(group=left, number=number, groups=len(groups)))
        timed = frozenset(member for session in folder.sessions() for member in session.members)
        for trial in _finish_group(folder, manifest, left, timed=timed, settings=settings):
            done.add(trial.id)
            emit(TrialFinished(trial=trial, done=len(done), total=len(manifest.trials)))
            if options.fail_fast and trial.status not in ("ok", "skipped"):
                return True
        _write_tables(folder)
        if interrupts.requested:
            raise Interrupted("interrupted")
    return False


def _groups(folder: RunFolder, manifest: Manifest, options: Options) -> tuple[Group, ...]:
    """The groups of the run in the recorded order, with everything a worker must know."""
    planned = dict(plan(manifest.matrix, options))
    cores = environment.available_cores()

    def spec_of(cell: Any, seed: int) -> TrialSpec:
        variant = matrices.variant_of(manifest.matrix, cell.variant)
        return TrialSpec(
            id=trial_id(cell, seed),
            cell=cell,
            seed=seed,
            model=matrices.model_of(manifest.matrix, cell.model),
            variant=variant if variant.threads else replace(variant, threads=cores),
            recipe=manifest.matrix.recipe,
            epochs=manifest.matrix.epochs,
            data=manifest.dataset,
            memory_bytes=int(manifest.matrix.limits.memory_gib * (1 << 30)),
            plugin_path=options.plugin_path,
            allow_plugins=options.allow_plugins,
            score_both=options.score_both,
            samples_path=str(folder.samples_path(trial_id(cell, seed)).resolve()),
        )

    return tuple(Group(id=name, specs=tuple(spec_of(*pair) for pair in planned[name])) for name in manifest.order)


def _settings(
    folder: RunFolder,
    manifest: Manifest,
    options: Options,
    emit: Observer,
    environ: Mapping[str, str],
    interrupts: Interrupts,
) -> Settings:
    matrix = manifest.matrix
    timeout_s = options.timeout_s or matrix.limits.timeout_seconds

    def launch(spec: TrialSpec) -> LocalWorker:
        return LocalWorker(spec, folder.log_path(spec.id), environ, timeout_s, interrupts)

    return Settings(
        precision=matrix.timing.precision,
        budget_s=matrix.timing.budget_seconds / len(matrix.seeds),
        together=not options.solo and _fits(manifest, options, emit),
        strict_devices=options.strict_devices,
        cores=os.cpu_count() or 1,
        reference=reference_variant(matrix),
        launch=launch,
        emit=emit,
    )


def _fits(manifest: Manifest, options: Options, emit: Observer) -> bool:
    """Whether the trials of the largest group can be alive together in this machine's memory."""
    largest = max(len(trials) for _, trials in plan(manifest.matrix, options))
    needed = largest * WORKER_BYTES
    available = min(psutil.virtual_memory().available, manifest.environment.memory_bytes)
    if needed <= available:
        return True
    emit(
        Notice(
            level="warning",
            text=f"{largest} live trials need about {needed / 2**30:.0f} GiB, {available / 2**30:.0f} GiB are free: "
            "they are timed one by one, and their speed-ups are marked unpaired",
        )
    )
    return False


def _finish_group(
    folder: RunFolder, manifest: Manifest, group: Group, *, timed: frozenset[str], settings: Settings
) -> Iterator[Trial]:
    """Executes a group and stores each result the moment it stands."""
    rng = random.Random(f"{manifest.run_id}/{group.id}")
    started_at = label(datetime.now(UTC))
    # Started in random order: the side that is started first has come out slower (docs/log.md).
    group = replace(group, specs=tuple(rng.sample(group.specs, len(group.specs))))
    for result in run_group(group, timed=timed, settings=settings, rng=rng):
        match result:
            case Session():
                settings.emit(SessionFinished(session=folder.append(result)))
            case Finding(spec=spec, outcome=outcome):
                trial = Trial(
                    id=spec.id,
                    cell=spec.cell,
                    seed=spec.seed,
                    recipe=spec.recipe,
                    dataset=spec.data.name,
                    dataset_sha256=spec.data.sha256,
                    outcome=outcome,
                    started_at=started_at,
                    ended_at=label(datetime.now(UTC)),
                )
                yield folder.append(trial)


def _write_tables(folder: RunFolder) -> None:
    folder.write_tables(files(Run.read(folder)))


def label(moment: datetime) -> str:
    """Wall time only labels: ISO 8601, UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


__all__ = ["Options", "execute", "label", "plan", "resumed", "start"]
