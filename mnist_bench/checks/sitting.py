"""One sitting of ``check --against``: the reference's tree is made, both sides are proven, measured, and put away."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from mnist_bench import __version__, data
from mnist_bench.cells import parse_filter
from mnist_bench.checks.cells import union
from mnist_bench.checks.events import CheckObserver
from mnist_bench.checks.folder import CheckFolder, Head
from mnist_bench.checks.measure import Setting, measure
from mnist_bench.checks.plan import BYTES, Plan, own_matrix
from mnist_bench.checks.rules import Rules, rules_of
from mnist_bench.disk.folder import new_run_id
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.events import DataReady, Notice
from mnist_bench.gate import sides, trees
from mnist_bench.gate.records import CHECK_SCHEMA_VERSION, CellEvidence, Check, Margins, SideInfo
from mnist_bench.gate.records import Side as SideName
from mnist_bench.gate.sides import Side, environment_of, of_python
from mnist_bench.gate.trees import planted
from mnist_bench.interrupts import Interrupts
from mnist_bench.records import DataSet, Matrix
from mnist_bench.runner import label

WORKING_TREE = "working tree"
WORKTREES = "worktrees"  # in the program's cache folder
# What names the packages that a tree wants: both sides have those that are installed here.
REQUIREMENTS = (
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "requirements.txt",
    "constraints.txt",
    "environment.yml",
    "uv.lock",
    "poetry.lock",
)


def execute(
    planned: Plan,
    emit: CheckObserver,
    judges_of: Callable[[tuple[CellEvidence, ...], Margins], Rules] = rules_of,
) -> tuple[CheckFolder, Check]:
    """Measures until the check is decided, interrupted, or out of budget; what it then knows is on disk.

    Raises:
        BenchError: a side does not import, or the working tree was changed meanwhile.
        UsageError: a submodule or the data set is not to be had, or the matrix of the reference has problems.
        Interrupted: before there was anything to keep.
    """
    begin, request = time.monotonic(), planned.request
    if planned.outdated():
        raise UsageError("the working tree was changed while the check waited for its turn: start it again")
    name = planned.resumed.path.name if planned.resumed else new_run_id(datetime.now(UTC), random.SystemRandom())
    dataset = _data(planned, emit)
    with Interrupts() as interrupts, _sides(planned, name, dataset, emit) as (a, b, notes):
        incomparable, loaded = _ask_imports(a, b, interrupts)
        notes = (*notes, *_only_in_b(planned, a, loaded, emit))
        folder = planned.resumed or CheckFolder.create(
            request.output_dir, _head(planned, name, a, b, notes, incomparable)
        )
        setting = Setting(
            budget_s=request.budget_s,
            clock=time.monotonic,
            started_s=begin,
            interrupts=interrupts,
            emit=emit,
            allow_plugins=request.allow_plugins,
            timeout_s=request.timeout_s,
            unchanged=lambda: _refuse_changes(planned),
            judges_of=judges_of,
        )
        return folder, measure(folder, a, b, setting)


def _data(planned: Plan, emit: CheckObserver) -> DataSet:
    """One data set for both sides, verified."""
    request = planned.request

    def notify(text: str) -> None:
        warning = text.removeprefix("WARNING: ")
        emit(Notice(level="info" if warning == text else "warning", text=warning.strip()))

    before = planned.resumed.head().dataset if planned.resumed else None
    name = planned.matrix.dataset if before is None or before.name == "mislabelled" else before.name
    found = data.resolve(
        name,
        root=request.data_root,
        offline=request.offline,
        notify=notify,
        environ=request.environ,
    )
    if before is not None and before.sha256 != found.sha256:
        raise UsageError(f"--resume: the data set at {found.root} is another one than it was: start a new check")
    emit(DataReady(data=found))
    return found


@contextmanager
def _sides(
    planned: Plan, name: str, dataset: DataSet, emit: CheckObserver
) -> Iterator[tuple[Side, Side, tuple[str, ...]]]:
    """Both sides, the reference's tree on disk; and what the user must know of them."""
    request, path = planned.request, planned.matrix_path
    cache = data.cache_root(request.environ) / WORKTREES
    with planted(planned.git, planned.commit, cache, name) as (root, empty):
        before: Matrix | None = None
        if (root / path).is_file():
            before = own_matrix(root, path, f"{request.against}:{path}", request)
            before = replace(before, seeds=planned.matrix.seeds)
        notes = tuple(_notes(planned, before, root, empty))
        for note in notes:
            emit(Notice(level="warning", text=note))
        yield (
            _side("A", request.against, root, before, planned, dataset, cache / name),
            _side("B", WORKING_TREE, planned.git.folder, planned.matrix, planned, dataset, cache / name),
            notes,
        )


def _notes(planned: Plan, before: Matrix | None, tree: Path, empty: tuple[str, ...]) -> Iterator[str]:
    against, own = planned.request.against, planned.matrix.dataset
    path, root = planned.matrix_path, planned.git.folder
    if planned.ambiguous:
        yield planned.ambiguous
    if before is None:
        yield f"{against} has no {path}: every cell is new, and nothing can be compared"
    elif before.dataset != own:
        yield f"dataset is {before.dataset} in A, {own} in B: both are given B's"
    if empty:
        yield f"submodules that are not checked out here are empty on both sides: {', '.join(empty)}"
    if differing := [str(path) for path in _requirements(path) if not _same(tree / path, root / path)]:
        yield (
            f"{', '.join(differing)}: other in A than in B; both ran with the packages that are installed here, so "
            "that a change of them is not seen"
        )


def _requirements(matrix: PurePosixPath) -> Iterator[PurePosixPath]:
    """Where a tree may name the packages that it wants: in its root, and beside the matrix."""
    for folder in dict.fromkeys([PurePosixPath(), matrix.parent]):
        yield from (folder / name for name in REQUIREMENTS)


def _same(one: Path, other: Path) -> bool:
    """Whether two files have the same content, or both are none."""
    contents = [path.read_bytes() if path.is_file() else None for path in (one, other)]
    return contents[0] == contents[1]


def _side(
    name: SideName, words: str, root: Path, own: Matrix | None, planned: Plan, dataset: DataSet, folder: Path
) -> Side:
    request = planned.request
    environ = environment_of(
        request.environ,
        root=root,
        repository=planned.git.folder,
        here=request.here,
        search=sys.path,
        caches=folder / "caches" / name,
    )
    return Side(
        name=name,
        label=f"{name} ({words})",
        root=root,
        matrix_path=root / planned.matrix_path,
        matrix=own,
        environ=environ,
        data=dataset,
    )


def _ask_imports(a: Side, b: Side, interrupts: Interrupts) -> tuple[str, list[Path]]:
    """Proves that each side's workers can start, with its own code.

    Returns:
        Why their workers cannot be paired, if so; and the files that B loads.
    """
    if a.matrix is None:  # no worker of it will start
        return "", []
    before, after = sides.ask(a, interrupts), sides.ask(b, interrupts)
    sides.refuse_the_others_code(a, b, before)
    sides.refuse_the_others_code(b, a, after)
    return sides.protocol_difference(before, after), [Path(place) for place in after.places.values()]


def _only_in_b(planned: Plan, a: Side, loaded: Sequence[Path], emit: CheckObserver) -> Iterator[str]:
    """A warning of what git ignores and only the working tree can import (a built extension)."""
    ignored = trees.ignored_modules(
        planned.git, [place for place in loaded if not of_python(place, planned.git.folder)]
    )
    if only := [str(path) for path in ignored if not (a.root / path).exists()]:
        words = (
            f"{', '.join(trees.named(tuple(only), 5))}: git ignores it, so that A has no copy and only B can import "
            "it: keep it in git if the cells need it"
        )
        emit(Notice(level="warning", text=words))
        yield words


def _head(planned: Plan, name: str, a: Side, b: Side, notes: tuple[str, ...], incomparable: str) -> Head:
    request, state = planned.request, planned.state
    cells = union(a.matrix, planned.matrix, parse_filter(request.filter) if request.filter else None)
    return Head(
        id=name,
        schema_version=CHECK_SCHEMA_VERSION,
        program_version=__version__,
        status="running",
        a=SideInfo(label=request.against, commit=planned.commit),
        b=SideInfo(label=WORKING_TREE, commit=state.commit, changed=trees.named(state.changed)),
        content_sha256=state.sha256,
        untracked=state.untracked,
        matrix_path=str(planned.matrix_path),
        dataset=b.data,
        recipe=planned.matrix.recipe,
        margins=request.margins,
        cells=cells if not incomparable else tuple(_differing(one, incomparable) for one in cells),
        seeds=planned.matrix.seeds,
        options={
            "filter": request.filter,
            "allow_plugins": request.allow_plugins,
            "timeout_s": request.timeout_s,
            "here": quote(str(request.here.resolve().relative_to(planned.git.folder)), errors=BYTES),
        },
        budget_s=request.budget_s,
        started_at=label(datetime.now(UTC)),
        notes=notes,
    )


def _differing(one: CellEvidence, words: str) -> CellEvidence:
    return replace(one, differences=(words, *one.differences)) if one.sides == "both" else one


def _refuse_changes(planned: Plan) -> None:
    """Raises BenchError where the working tree is no longer what the check was begun with."""
    if planned.outdated():
        raise BenchError(
            "the working tree was changed while it was measured: what was measured last is not kept, since nobody "
            "knows of which version it is; start a new check"
        )
