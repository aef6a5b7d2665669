"""One sitting of a check: from a matrix and a reference to evidence on disk, and from a folder on to its end."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from mnist_bench import __version__, data, environment, matrix
from mnist_bench.checks import imports, repository
from mnist_bench.checks.budget import Budget
from mnist_bench.checks.cells import union
from mnist_bench.checks.conduct import Conductor
from mnist_bench.checks.costs import Costs, guesses
from mnist_bench.checks.events import CheckObserver, CheckStarted
from mnist_bench.checks.folder import CheckFolder, Head
from mnist_bench.checks.repository import Repository, State
from mnist_bench.checks.rules import Rules, rules_of
from mnist_bench.checks.sides import Side, environment_of, load_matrix
from mnist_bench.checks.workbench import Workbench
from mnist_bench.checks.worktree import planted
from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.events import DataReady, Notice
from mnist_bench.gate.records import CHECK_SCHEMA_VERSION, CellEvidence, Check, Margins, SideInfo
from mnist_bench.interrupts import Interrupts
from mnist_bench.records import DataSet, Matrix
from mnist_bench.runner import label
from mnist_bench.store import new_run_id

WORKING_TREE = "working tree"
BYTES = "surrogateescape"  # names of files need not be UTF-8
WORKTREES = "worktrees"  # in the program's cache folder
JudgesOf = Callable[[tuple[CellEvidence, ...], Margins], Rules]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for.

    Args:
        here: the current folder.
        against: a word that git understands.
        override: what flags change in a matrix (``--seeds``, ``--timeout``), on both sides.
    """

    here: Path
    environ: Mapping[str, str]
    matrix: Path
    against: str
    output_dir: Path
    data_root: Path
    override: Callable[[Matrix], Matrix]
    filter: str | None = None
    offline: bool = False
    allow_plugins: bool = False
    timeout_s: float | None = None
    budget_s: float = 1200.0
    margins: Margins = field(default_factory=Margins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request held against the disk: nothing is made yet. ``state`` is that of the working tree."""

    request: Request
    repository: Repository
    commit: str
    matrix: Matrix
    state: State
    resumed: CheckFolder | None = None


def plan(request: Request) -> Plan:
    """Refuses bad input before anything is made.

    Raises:
        UsageError: no git, no repository, an unknown reference, a matrix outside.
        ConfigError: every problem of the working tree's matrix.
    """
    found = repository.find(request.matrix, request.here, request.environ)
    own = _matrix_of(found.root, found, str(request.matrix), request)
    if request.filter:
        matrix.parse_filter(request.filter)
    return Plan(
        request=request,
        repository=found,
        commit=repository.commit_of(found.git, request.against),
        matrix=own,
        state=repository.state(found.git, request.output_dir),
    )


def plan_again(folder: CheckFolder, request: Request) -> Plan:
    """A check that goes on: what is compared must be what it was.

    Raises:
        UsageError: the working tree, or what the reference names, has changed since.
    """
    head = folder.head()
    asked = replace(request, matrix=Path(head.matrix_path), filter=head.options["filter"], margins=head.margins)
    found = repository.find(Path(head.matrix_path), _root(request), request.environ)
    commit = repository.commit_of(found.git, request.against or str(head.a.commit))
    if commit != head.a.commit:
        raise UsageError(
            f"--resume {head.id}: {request.against} is {commit[:12]} now, the check was begun against "
            f"{str(head.a.commit)[:12]}: leave --against out, or start a new check"
        )
    untracked = tuple(unquote(path, errors=BYTES) for path in head.untracked)
    state = repository.state(found.git, request.output_dir, untracked)
    if (state.commit, state.sha256) != (head.b.commit, head.content_sha256):
        raise UsageError(
            f"--resume {head.id}: the working tree is not what it was (HEAD, or a changed file): pairs of two "
            "versions are no sample of one; start a new check"
        )
    own = replace(_matrix_of(found.root, found, head.matrix_path, asked), seeds=head.seeds)
    return Plan(
        request=replace(asked, against=head.a.label, budget_s=request.budget_s),
        repository=found,
        commit=commit,
        matrix=own,
        state=state,
        resumed=folder,
    )


def _root(request: Request) -> Path:
    """The root of the repository that the user stands in: paths in a head are relative to it."""
    return repository.find(request.here, request.here, request.environ).root


def _matrix_of(root: Path, found: Repository, shown: str, request: Request) -> Matrix:
    return request.override(load_matrix(root, found.matrix, shown, allow_plugins=request.allow_plugins))


def execute(planned: Plan, emit: CheckObserver, judges_of: JudgesOf = rules_of) -> tuple[CheckFolder, Check]:
    """Measures until the check is decided, interrupted, or out of budget; what it then knows is on disk.

    Raises:
        BenchError: a side does not import, or the working tree was changed meanwhile.
        UsageError: a submodule or the data set is not to be had, or the matrix of the reference has problems.
        Interrupted: before there was anything to keep.
    """
    clock = time.monotonic
    begin = clock()
    request = planned.request
    name = planned.resumed.path.name if planned.resumed else new_run_id(datetime.now(UTC), random.SystemRandom())
    dataset = _data(planned, emit)
    with Interrupts() as interrupts, _sides(planned, name, emit) as (a, b, notes):
        incomparable = _ask_imports(a, b, interrupts)
        folder = planned.resumed or _create(planned, name, a, b, dataset, notes, incomparable)
        if folder.head().dataset.sha256 != dataset.sha256:
            raise UsageError(f"--resume {name}: the data set is another one than it was ({dataset.name})")
        with folder.lock():
            budget = Budget(total_s=request.budget_s, before_s=folder.spent_s(), clock=clock, started_s=begin)
            folder.update(status="running", ended_at=None, budget_s=request.budget_s)
            conductor = _conductor(planned, folder, a, b, dataset, budget, interrupts, emit, judges_of)
            emit(_started(folder, planned, conductor.rules))
            status = "interrupted"
            try:
                conductor.run()
                status = "complete"
            except Interrupted:
                pass
            finally:
                folder.update(status=status, ended_at=label(datetime.now(UTC)), spent_s=budget.spent_s())
            return folder, folder.check()


@contextmanager
def _sides(planned: Plan, name: str, emit: CheckObserver) -> Iterator[tuple[Side, Side, tuple[str, ...]]]:
    """Both sides, the reference's tree on disk; and what the user must know of them."""
    request, found = planned.request, planned.repository
    cache = data.cache_root(request.environ) / WORKTREES
    with planted(found.git, planned.commit, cache, name) as tree:
        notes = []
        before: Matrix | None = None
        if (tree.root / found.matrix).is_file():
            before = replace(_matrix_of(tree.root, found, f"{request.against}:{found.matrix}", request), seeds=planned.matrix.seeds)
        else:
            notes.append(f"{request.against} has no {found.matrix}: every cell is new, and nothing can be compared")
        if before is not None and before.dataset != planned.matrix.dataset:
            notes.append(f"dataset is {before.dataset} in A, {planned.matrix.dataset} in B: both are given B's")
        if tree.empty_submodules:
            listed = ", ".join(tree.empty_submodules)
            notes.append(f"submodules that are not checked out here are empty on both sides: {listed}")
        for note in notes:
            emit(Notice(level="warning", text=note))
        sides = (
            _side("A", request.against, tree.root, before, planned),
            _side("B", WORKING_TREE, found.root, planned.matrix, planned),
        )
        yield *sides, tuple(notes)


def _side(name: str, words: str, root: Path, own: Matrix | None, planned: Plan) -> Side:
    request, found = planned.request, planned.repository
    return Side(
        name="A" if name == "A" else "B",
        label=f"{name} ({words})",
        root=root,
        matrix_path=root / found.matrix,
        matrix=own,
        environ=environment_of(request.environ, root=root, repository=found.root, here=request.here, search=sys.path),
    )


def _data(planned: Plan, emit: CheckObserver) -> DataSet:
    """One data set for both sides, verified."""
    request = planned.request

    def notify(text: str) -> None:
        warning = text.removeprefix("WARNING: ")
        emit(Notice(level="info" if warning == text else "warning", text=warning.strip()))

    kind = planned.resumed.head().dataset.name if planned.resumed else planned.matrix.dataset
    found = data.resolve(kind, root=request.data_root, offline=request.offline, notify=notify, environ=request.environ)
    emit(DataReady(data=found))
    return found


def _ask_imports(a: Side, b: Side, interrupts: Interrupts) -> str | None:
    """Proves that each side's workers can start, with its own code; why their workers cannot be paired, if so."""
    if a.matrix is None:  # no worker of it will start
        return None
    before, after = imports.ask(a, interrupts), imports.ask(b, interrupts)
    imports.refuse_the_others_code(a, b, before)
    imports.refuse_the_others_code(b, a, after)
    return imports.protocol_difference(before, after)


def _create(
    planned: Plan,
    name: str,
    a: Side,
    b: Side,
    dataset: DataSet,
    notes: tuple[str, ...],
    incomparable: str | None,
) -> CheckFolder:
    request = planned.request
    cells = union(a.matrix, planned.matrix, matrix.parse_filter(request.filter) if request.filter else None)
    if incomparable is not None:
        cells = tuple(
            replace(one, differences=(incomparable, *one.differences)) if one.sides == "both" else one for one in cells
        )
    head = Head(
        id=name,
        schema_version=CHECK_SCHEMA_VERSION,
        program_version=__version__,
        status="running",
        a=SideInfo(label=request.against, commit=planned.commit),
        b=SideInfo(label=WORKING_TREE, commit=planned.state.commit, changed=repository.named(planned.state.changed)),
        content_sha256=planned.state.sha256,
        untracked=tuple(quote(path, errors=BYTES) for path in planned.state.untracked),
        matrix_path=str(planned.repository.matrix),
        dataset=dataset,
        recipe=planned.matrix.recipe,
        margins=request.margins,
        cells=cells,
        seeds=planned.matrix.seeds,
        options={"filter": request.filter, "allow_plugins": request.allow_plugins},
        budget_s=request.budget_s,
        started_at=label(datetime.now(UTC)),
        notes=notes,
    )
    return CheckFolder.create(request.output_dir, head)


def _conductor(
    planned: Plan,
    folder: CheckFolder,
    a: Side,
    b: Side,
    dataset: DataSet,
    budget: Budget,
    interrupts: Interrupts,
    emit: CheckObserver,
    judges_of: JudgesOf,
) -> Conductor:
    request, ledger = planned.request, folder.ledger()
    cells = [one.cell for one in ledger.cells() if one.sides != "only A"]
    return Conductor(
        ledger=ledger,
        bench=Workbench(
            sides={"A": a, "B": b},
            data=dataset,
            name=folder.path.name,
            logs=folder.logs.resolve(),
            interrupts=interrupts,
            emit=emit,
            allow_plugins=request.allow_plugins,
            timeout_s=request.timeout_s,
            unchanged=lambda: _refuse_changes(planned),
        ),
        rules=judges_of(folder.head().cells, folder.head().margins),
        costs=Costs(guesses(planned.matrix, cells, environment.available_cores()), ledger.durations),
        budget=budget,
        seeds=planned.matrix.seeds,
        rng=random.Random(f"{folder.path.name}/{len(folder.lines())}"),
        emit=emit,
    )


def _refuse_changes(planned: Plan) -> None:
    """Raises BenchError where the working tree is no longer what the check was begun with."""
    now = repository.state(planned.repository.git, planned.request.output_dir, planned.state.untracked)
    if (now.commit, now.sha256) != (planned.state.commit, planned.state.sha256):
        raise BenchError(
            "the working tree was changed while it was measured: what was measured last is not kept, since nobody "
            "knows of which version it is; start a new check"
        )


def _started(folder: CheckFolder, planned: Plan, rules: Rules) -> CheckStarted:
    head = folder.head()
    return CheckStarted(
        check_id=head.id, path=str(folder.path), a=head.a, b=head.b, cells=folder.ledger().cells(), looks=rules.looks
    )
