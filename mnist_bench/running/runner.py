"""A run: a plan made once, its groups executed one by one; everything finished is on disk before the next begins."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Literal

import psutil

from mnist_bench import __version__, cells, config, data
from mnist_bench.analysis import results
from mnist_bench.analysis.summary import Run
from mnist_bench.catalogue import MODELS
from mnist_bench.disk.folder import MANIFEST, SCHEMA_VERSION, RunFolder, new_run_id
from mnist_bench.errors import BenchError, DataError, Interrupted, UsageError, WorkerError
from mnist_bench.machine import environment
from mnist_bench.machine.forecast import skip_reason, this_host
from mnist_bench.machine.shards import shard
from mnist_bench.records import MNIST, Cell, DataSet, Group, Manifest, Matrix, RunOptions, Trial, TrialSpec, trial_id
from mnist_bench.running.group import Line, Observer, Settings, now, run_group
from mnist_bench.running.process import Interrupts, LocalWorker
from mnist_bench.running.protocol import Describe, Described

WORKER_BYTES = 1536 << 20  # of host memory, about, for a live trial with its data, torch and a compiler's leavings
TABLES_S, TABLES_SHARE = 60.0, 0.02  # the tables are written after so long, and take at most such a share of the time
Launch = Callable[[TrialSpec], LocalWorker]
# What comes before the training of groups: of the plan, the groups, the ids of what is done (to be added to), settings.
Prelude = Callable[["RunPlan", Sequence[Group], set[str], Settings, Interrupts], list[Group]]
# What executes groups. It yields each result as soon as it stands; what it has started ends when it is closed.
Lines = Generator[Line, None, None]
Executor = Callable[["Work"], Lines]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is asked for beyond its matrix: ``run`` is what its manifest keeps."""

    run: RunOptions
    matrix_path: str
    output_dir: Path
    data_root: Path
    fail_fast: bool = False
    offline: bool = False
    timeout_s: float | None = None
    rendezvous: str = ""  # HOST:PORT, where other machines join trials


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """All that a run will execute. ``groups``: in their order, with everything that a worker must know."""

    folder: RunFolder
    manifest: Manifest
    groups: tuple[Group, ...]
    options: Options

    @property
    def specs(self) -> Iterator[TrialSpec]:
        return (spec for group in self.groups for spec in group.specs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an executor is given. ``done``: the ids of the trials that are finished, which its caller adds to."""

    plan: RunPlan
    left: Sequence[Group]
    done: set[str]
    observer: Observer
    interrupts: Interrupts


def draft(matrix: Matrix, options: RunOptions) -> tuple[cells.GroupTrials, ...]:
    """The groups of a run in matrix order, after ``--filter`` and ``--shard``.

    Raises:
        UsageError: nothing is left to run.
    """
    groups = shard(matrix, cells.planned(matrix, options.filter), options.shard)
    if not groups:
        raise UsageError("nothing to run: this shard of the matrix is empty")
    return groups


def start(
    matrix: Matrix,
    groups: Sequence[cells.GroupTrials],
    options: Options,
    observer: Observer,
    environ: Mapping[str, str],
) -> RunPlan:
    """Makes the folder of a new run: data set found, environment described, order drawn.

    Args:
        groups: of ``draft``.

    Raises:
        UsageError: no place to write to, or cells that cannot be trained on the data set.
        DataError, DownloadError: no usable data set.
    """
    dataset = known_data(matrix, options, observer, environ)
    run_id = new_run_id()
    order = cells.order(groups, random.Random(run_id))
    manifest = replace(
        new_manifest(run_id, matrix, dataset, environ, options.run, options.matrix_path),
        order=tuple(group for group, _ in order),
        trials=tuple(trial_id(*pair) for _, pairs in groups for pair in pairs),
    )
    return _plan(RunFolder.create(options.output_dir, manifest), manifest, order, options)


def new_manifest(
    run_id: str, matrix: Matrix, dataset: DataSet, environ: Mapping[str, str], options: RunOptions, matrix_path: str
) -> Manifest:
    """Of a run that begins now, with nothing in it that is to be measured yet."""
    return Manifest(
        run_id=run_id,
        schema_version=SCHEMA_VERSION,
        program_version=__version__,
        status="interrupted",  # until it is executed
        matrix=matrix,
        matrix_sha256=cells.fingerprint(matrix),
        matrix_path=matrix_path,
        options=options,
        environment=environment.describe(environ),
        dataset=dataset,
        order=(),
        trials=(),
        started_at=now(),
    )


def resume(folder: RunFolder, options: Options) -> RunPlan:
    """The plan of a run that goes on, with the run's own options where they decide what is measured.

    Raises:
        UsageError: it was merged: its shards go on, each where it was measured.
        ConfigError: its matrix is none, or names code that may not be executed.
    """
    manifest = folder.manifest()
    if sources := manifest.options.merged_from:
        more = f"run another shard and merge it with these: {', '.join(sources)}"
        raise UsageError(f"--resume {folder.run_id}: is merged, and complete as its shards were; {more}")
    allowed = options.run.allow_plugins  # of this command line, whatever the manifest says
    config.checked(manifest.matrix, source=f"{folder.path / MANIFEST}: matrix", allow_plugins=allowed)
    own = replace(options, run=replace(manifest.options, allow_plugins=allowed), matrix_path=manifest.matrix_path)
    planned = dict(cells.planned(manifest.matrix, own.run.filter))  # what its shard has, its order says
    return _plan(folder, manifest, [(name, planned[name]) for name in manifest.order], own)


def known_data(matrix: Matrix, options: Options, observer: Observer, environ: Mapping[str, str]) -> DataSet:
    """The data set of a matrix, verified; of one that is code, what it returns. Raises as ``start`` does."""
    dataset = find_data(matrix, options, observer, environ)
    if not dataset.is_code:
        return dataset
    with Interrupts() as interrupts:
        where = environ, options.timeout_s or matrix.limits.timeout_seconds, interrupts
        return described(matrix, options.run, lambda spec, log: LocalWorker(spec, log, *where))


def find_data(matrix: Matrix, options: Options, observer: Observer, environ: Mapping[str, str]) -> DataSet:
    """The data set of a matrix, verified; what there is to say of it is told, a warning where it says so itself.

    Of code it is the name alone: what it returns is ``described`` by a worker.

    Raises:
        DataError, DownloadError: no usable data set.
    """

    def tell(text: str) -> None:
        warning = text.removeprefix("WARNING: ")
        observer.notice(warning.strip(), warning=warning != text)

    if ":" in matrix.dataset:
        return replace(MNIST, name=matrix.dataset)
    request = data.Request(root=options.data_root, offline=options.offline, notify=tell, environ=environ)
    return data.resolve(matrix.dataset, request)


def described(matrix: Matrix, options: RunOptions, launch: Callable[[TrialSpec, Path], LocalWorker]) -> DataSet:
    """What the function returns that is a matrix's data set; a worker calls it. Where it fails, its log stays.

    Args:
        launch: starts a worker; its log goes to the path.

    Raises:
        DataError: it fails, or returns something else than a data set.
        UsageError: a model or a batch size of the matrix is not made for it.
        Interrupted: the user wants to stop.
    """
    log = Path(tempfile.mkdtemp(prefix="mnist-bench-data-set-")) / "log"
    unknown = replace(MNIST, name=matrix.dataset)
    worker = launch(trial_spec(matrix, unknown, options, cells.expand(matrix)[0], matrix.seeds[0]), log)
    try:
        reply = worker.call(Describe(spec=worker.spec))
    finally:
        worker.kill()
    if not isinstance(reply, Described):
        raise DataError(f"dataset: {getattr(reply, 'reason', reply)}; what it printed: {log}")
    shutil.rmtree(log.parent)
    if found := [*_misfits(matrix, reply.data)]:
        raise UsageError("\n".join(found))
    return reply.data


def _misfits(matrix: Matrix, data: DataSet) -> Iterator[str]:
    """What of a matrix cannot be trained on a set."""
    planned = cells.expand(matrix)
    built_in = dict.fromkeys(one.model for one in planned if cells.model_of(matrix, one.model).model in MODELS)
    if built_in and (data.shape, data.classes) != (MNIST.shape, MNIST.classes):
        wanted, have = (f"{' x '.join(map(str, one.shape))} and {one.classes} classes" for one in (MNIST, data))
        yield f"models: {', '.join(built_in)}: made for images of {wanted}; {data.name} has {have}: name your own"
    for size in dict.fromkeys(one.batch_size for one in planned if one.batch_size > data.sizes[0]):
        yield f"batch_sizes: {size} is more than the {data.sizes[0]:,} training images of {data.name}"
    for name, why in dict.fromkeys(cells.unshared(matrix, data.sizes[0])):
        yield f"variants: {name}: processes: {why}"


def _plan(folder: RunFolder, manifest: Manifest, order: Sequence[cells.GroupTrials], options: Options) -> RunPlan:
    matrix, place = manifest.matrix, RunFolder(folder.path.resolve())
    alike: dict[Cell, TrialSpec] = {}  # what the seeds of a cell have in common is there once

    def spec_of(cell: Cell, seed: int) -> TrialSpec:
        if cell not in alike:
            alike[cell] = trial_spec(matrix, manifest.dataset, options.run, cell, seed)
        name, first = trial_id(cell, seed), seed == matrix.seeds[0]
        return replace(alike[cell], id=name, seed=seed, samples_path=str(place.samples_path(name)), extras=first)

    def specs_of(pairs: Iterable[tuple[Cell, int]]) -> Iterator[TrialSpec]:
        host, _, port = options.rendezvous.rpartition(":")
        ports = count(int(port or 0))  # one for each trial that is live
        for spec in (spec_of(*pair) for pair in pairs):
            meets = host and spec.variant.nodes > 1
            yield replace(spec, rendezvous=f"{host}:{next(ports)}") if meets else spec

    groups = tuple(Group(id=name, specs=tuple(specs_of(pairs))) for name, pairs in order)
    return RunPlan(folder=folder, manifest=manifest, groups=groups, options=options)


def trial_spec(matrix: Matrix, dataset: DataSet, options: RunOptions, cell: Cell, seed: int) -> TrialSpec:
    """All that a worker must know of a trial, but for where its samples go."""
    variant = cells.variant_of(matrix, cell.variant)
    threads = variant.threads or max(1, environment.available_cores() * variant.nodes // variant.processes)
    return TrialSpec(
        id=trial_id(cell, seed),
        cell=cell,
        seed=seed,
        model=cells.model_of(matrix, cell.model),
        variant=replace(variant, threads=threads),
        recipe=matrix.recipe,
        epochs=matrix.epochs,
        data=dataset,
        memory_bytes=int(matrix.limits.memory_gib * (1 << 30)),
        plugin_path=options.plugin_path,
        allow_plugins=options.allow_plugins,
        score_both=options.score_both,
        join_seconds=matrix.limits.join_seconds,
    )


def execute(
    plan: RunPlan,
    observer: Observer,
    environ: Mapping[str, str],
    launch: Launch | None = None,
    prelude: Prelude = lambda plan, left, done, settings, interrupts: [*left],
    executor: Executor | None = None,
) -> Run:
    """Executes what is not yet finished; returns the run as it then stands.

    Interrupted or stopped, the tables hold what is finished, and the status says so.

    Args:
        launch: what starts a worker; None: a process on this machine.
        prelude: comes first, and says which groups are then executed.
        executor: what executes the groups; None: this machine does (``launch`` and ``prelude`` are for it).

    Raises:
        BenchError: the disk is full, or a worker could not be started; what was finished is kept.
    """
    folder, matrix = plan.folder, plan.manifest.matrix
    if len(matrix.variants) > 1 and cells.reference_variant(matrix) is None:
        observer.notice(cells.NO_REFERENCE, warning=True)
    with folder.lock(), Interrupts() as interrupts:
        done = {trial.id for trial in folder.trials()}
        left = [
            replace(group, specs=specs)
            for group in plan.groups
            if (specs := tuple(spec for spec in group.specs if spec.id not in done))
        ]
        observer.started(plan, done)
        if left:
            data.verify(plan.manifest.dataset)
        status: Literal["complete", "interrupted", "stopped"] = "stopped"
        try:
            interrupts.last_word = lambda: _close(folder, "interrupted")
            folder.update_manifest(status="running", ended_at=None)
            work = Work(plan=plan, left=left, done=done, observer=observer, interrupts=interrupts)
            with contextlib.closing((executor or partial(_here, environ, launch, prelude))(work)) as stream:
                status = "complete" if _to_the_end(work, stream) else "stopped"
        except Interrupted:
            status = "interrupted"
        except (WorkerError, OSError) as error:
            kept = f"{len(done)} of {len(plan.manifest.trials)} trials are kept: --resume {folder.run_id} goes on"
            raise BenchError(f"{error}; {kept}") from error
        finally:
            _close(folder, status)
        return write_tables(folder)


def _close(folder: RunFolder, status: str) -> None:
    with contextlib.suppress(OSError):  # of a full disk: what was raised before says so
        folder.update_manifest(status=status, ended_at=now())


def write_tables(folder: RunFolder) -> Run:
    """Derives the tables of a run from its lines."""
    run = Run.read(folder)
    folder.write_tables(results.files(run))
    return run


def _to_the_end(work: Work, stream: Lines) -> bool:
    """Keeps each result before the next is asked for, and adds to ``done``; a trial costs the same, however many.

    Returns:
        False: stopped at a failure, as ``--fail-fast`` asks.
    """
    plan, tables_due_s = work.plan, monotonic() + TABLES_S
    for result in stream:
        stored = plan.folder.append(result)
        if isinstance(stored, Trial):
            work.done.add(stored.id)
            work.observer.finished(stored)
            if plan.options.fail_fast and stored.status not in ("ok", "skipped"):
                return False
        if (begin_s := monotonic()) > tables_due_s:  # they are derived: a kill loses no more than them
            write_tables(plan.folder)
            tables_due_s = monotonic() + max(TABLES_S, (monotonic() - begin_s) / TABLES_SHARE)
    return True


def _here(environ: Mapping[str, str], launch: Launch | None, prelude: Prelude, work: Work) -> Lines:
    """The ``Executor`` that is this machine."""
    plan, interrupts = work.plan, work.interrupts
    launch = launch or partial(local_worker, plan, environ, interrupts)
    settings = settings_of(plan, work.left, work.observer, launch)
    left = prelude(plan, work.left, work.done, settings, interrupts)
    yield from one_by_one(plan, left, timed_in(plan.folder), settings, interrupts)


def timed_in(folder: RunFolder) -> frozenset[str]:
    """The ids of the trials that have a finished session."""
    return frozenset(member for session in folder.sessions() for member in session.members)


def one_by_one(
    plan: RunPlan, groups: Sequence[Group], timed: frozenset[str], settings: Settings, interrupts: Interrupts
) -> Lines:
    """Executes groups one after the other; yields each result as soon as it stands.

    Raises:
        Interrupted: between two groups, or by the executor of one.
    """
    for group in groups:
        if interrupts.requested:
            raise Interrupted("interrupted")
        rng = random.Random(f"{plan.manifest.run_id}/{group.id}")
        # Started in random order: the side that is started first has come out slower (docs/log.md).
        shuffled = replace(group, specs=tuple(rng.sample(group.specs, len(group.specs))))
        yield from run_group(shuffled, timed=timed, settings=settings, rng=rng)


def settings_of(plan: RunPlan, left: Sequence[Group], observer: Observer, launch: Launch) -> Settings:
    """How the groups of a run are executed, for all that are left on a machine."""
    matrix, options = plan.manifest.matrix, plan.options.run
    return Settings(
        precision=matrix.timing.precision,
        # What has raced is not timed again.
        budget_s=0.0 if options.race else matrix.timing.budget_seconds / len(matrix.seeds),
        together=not options.solo and fits(left, plan.manifest, observer),
        strict_devices=options.strict_devices,
        reference=cells.reference_variant(matrix),
        launch=launch,
        observer=observer,
    )


def local_worker(plan: RunPlan, environ: Mapping[str, str], interrupts: Interrupts, spec: TrialSpec) -> LocalWorker:
    """Starts a worker on this machine."""
    timeout_s = plan.options.timeout_s or plan.manifest.matrix.limits.timeout_seconds
    Path(spec.samples_path).unlink(missing_ok=True)  # a stranger's link there would lead elsewhere
    return LocalWorker(spec, plan.folder.log_path(spec.id), environ, timeout_s, interrupts)


def fits(groups: Sequence[Group], manifest: Manifest, observer: Observer) -> bool:
    """Whether the trials of the largest group that will live can do so together in this machine's memory."""
    host = this_host()
    lives = [
        sum(
            spec.variant.processes // spec.variant.nodes
            for spec in group.specs
            if spec.rendezvous or skip_reason(spec.cell, spec.variant, host) is None
        )
        for group in groups
    ]
    largest = max(lives, default=0)
    needed = largest * WORKER_BYTES
    available = min(psutil.virtual_memory().available, manifest.environment.memory_bytes)
    if needed <= available:
        return True
    memory = f"{needed / 2**30:.0f} GiB, {available / 2**30:.0f} GiB are free"
    observer.notice(f"{largest} live trials need about {memory}: they are timed one by one, unpaired", warning=True)
    return False
