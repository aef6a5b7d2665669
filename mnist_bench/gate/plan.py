"""``check --against``, from what a user asked to evidence on disk: refusals first, then two trees, proven, measured."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mnist_bench import config, data
from mnist_bench.cells import expand, parse_filter, select
from mnist_bench.disk.folder import MANIFEST, RunFolder, known_runs, new_run_id
from mnist_bench.errors import BenchError, ConfigError, UsageError
from mnist_bench.gate import sides, trees
from mnist_bench.gate.bench import CheckObserver, Setting
from mnist_bench.gate.conduct import measure
from mnist_bench.gate.evidence import Check
from mnist_bench.gate.sides import Side
from mnist_bench.gate.trees import Git, State
from mnist_bench.records import DataSet, Matrix, Sides, Tree
from mnist_bench.records import Side as SideName
from mnist_bench.run.process import Interrupts
from mnist_bench.run.runner import Options, new_manifest, tell

CHECKS = "checks"  # in the output folder; it holds no manifest.json, so it is no run
WORKTREES = "worktrees"  # in the program's cache folder
WORKING_TREE = "working tree"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
MOST_S = 7 * 24 * 3600.0
# What names the packages that a tree wants: both sides have those that are installed here.
REQUIREMENTS = (
    *("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "constraints.txt"),
    *("environment.yml", "uv.lock", "poetry.lock"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for.

    Args:
        here: the current folder.
        against: a word that git understands; empty: the commit of the check that goes on.
        options: as of a run; the matrix of a check that goes on is its own.
        override: what flags change in a matrix (``--seeds``, ``--timeout``), on both sides.
        outputs: the files that are written in the end.
    """

    here: Path
    environ: Mapping[str, str]
    against: str
    options: Options
    override: Callable[[Matrix], Matrix]
    budget_s: float = 1200.0
    outputs: tuple[Path, ...] = ()

    @property
    def checks(self) -> Path:
        """Where checks are kept."""
        return self.options.output_dir / CHECKS

    @property
    def left_out(self) -> tuple[Path, ...]:
        """What is no change of what is checked, wherever in the working tree it lies: what the program itself writes,
        and the environment of the Python that runs both sides."""
        latest = self.checks / "latest"  # where the output folder is the tree itself
        own = self.options.output_dir, latest, data.raw_folder(self.options.data_root).parent
        return (*own, data.cache_root(self.environ), Path(sys.prefix), *self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request that can be carried out. ``matrix`` is the working tree's, ``path`` where it is in each tree; ``state``
    what differs in the working tree; ``ambiguous`` a warning of the reference's name."""

    request: Request
    git: Git
    path: PurePosixPath
    commit: str
    ambiguous: str
    matrix: Matrix
    state: State
    resumed: RunFolder | None = None

    def outdated(self) -> bool:
        """Whether the working tree is no longer what it was; a new file that git does not know is no change."""
        now = trees.state(self.git, self.request.left_out, self.state.untracked)
        return (now.commit, now.sha256) != (self.state.commit, self.state.sha256)


def plan(request: Request) -> Plan:
    """A new check.

    Raises:
        UsageError: no git, no repository, an unknown reference, a matrix outside.
        ConfigError: every problem of the working tree's matrix.
    """
    shown = request.options.matrix_path
    git, path = trees.find(Path(shown), request.here, request.environ)
    matrix = _own_matrix(git.folder, path, shown, request)
    if request.options.run.filter:
        parse_filter(request.options.run.filter)  # refused before a tree is laid out
    commit, ambiguous = trees.commit_of(git, request.against)
    state = trees.state(git, request.left_out)
    return Plan(request=request, git=git, path=path, commit=commit, ambiguous=ambiguous, matrix=matrix, state=state)


def plan_again(folder: RunFolder, request: Request) -> Plan:
    """A check that goes on: what is compared must be what it was.

    Raises:
        UsageError: the working tree, or what the reference names, has changed since.
        ConfigError: a matrix of the manifest is none, or names code that may not be executed.
    """
    manifest, before = folder.manifest(), sides_of(folder)
    root = trees.find(request.here, request.here, request.environ)[0].folder
    git, path = trees.find(Path(manifest.matrix_path), root, request.environ)
    commit, ambiguous = trees.commit_of(git, request.against or str(before.a.commit))
    if commit != before.a.commit:
        raise UsageError(
            f"--resume {folder.run_id}: {request.against} is {commit[:12]} now, the check was begun against "
            f"{str(before.a.commit)[:12]}: leave --against out, or start a new check"
        )
    state = trees.state(git, request.left_out, before.untracked)
    if (state.commit, state.sha256) != (before.b.commit, before.content_sha256):
        raise UsageError(
            f"--resume {folder.run_id}: the working tree is not what it was (HEAD, or a changed file): pairs of two "
            "versions are no sample of one; start a new check"
        )
    # The path of workers hangs on where the user stood.
    asked = replace(request, here=git.folder / before.here, against=before.a.label)
    return Plan(
        request=asked,
        git=git,
        path=path,
        commit=commit,
        ambiguous=ambiguous,
        matrix=_kept_matrix(folder, manifest.matrix, asked),
        state=state,
        resumed=folder,
    )


def find_check(output_dir: Path, reference: str) -> RunFolder:
    """The folder of a check, by ``latest``, its id, a unique beginning of its id, or a path.

    Raises:
        UsageError: there is none, or several, or it is a run.
    """
    if reference == "latest" and not known_runs(output_dir / CHECKS):
        raise UsageError(f"no check in {output_dir / CHECKS} yet: `mnist-bench check --against GIT_REF` makes one")
    folder = RunFolder.open(output_dir / CHECKS, reference)
    sides_of(folder)
    return folder


def sides_of(folder: RunFolder) -> Sides:
    """What makes a run's folder that of a check.

    Raises:
        UsageError: it is none.
    """
    found = folder.manifest().check
    if found is None:
        raise UsageError(f"{folder.path}: is a run, no check: `mnist-bench run --resume` goes on with it")
    return found


def parse_budget(text: str) -> float:
    """Seconds of ``--budget``.

    >>> parse_budget("90s"), parse_budget("20m"), parse_budget("1.5h")
    (90.0, 1200.0, 5400.0)
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text.strip(), re.ASCII)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= MOST_S:
        raise UsageError(f"--budget: {text[:40]!r} is no time up to a week: say 90s, 20m or 1h")
    return seconds


# ── one sitting ──────────────────────────────────────────────────────────────────────────────────────────────────────


def execute(planned: Plan, observer: CheckObserver) -> tuple[RunFolder, Check]:
    """Measures until the check is decided, interrupted, or out of budget; what it then knows is on disk.

    Raises:
        BenchError: a side does not import, or the working tree was changed meanwhile.
        UsageError: a submodule or the data set is not to be had, or the matrix of the reference has problems.
        Interrupted: before there was anything to keep.
    """
    begin, request = time.monotonic(), planned.request
    if planned.outdated():
        raise UsageError("the working tree was changed while the check waited for its turn: start it again")
    name = planned.resumed.run_id if planned.resumed else new_run_id()
    dataset = _data(planned, observer)
    with Interrupts() as interrupts, _sides(planned, name, dataset) as (a, b, notes):
        incomparable, loaded = _prove(a, b, interrupts)
        notes = (*notes, *_only_in_b(planned, a, loaded))
        for note in notes:
            observer.notice(note, warning=True)
        folder = planned.resumed or _make(planned, name, a, b, notes, incomparable)
        observer.notice(_outline(folder))
        setting = Setting(
            a=a,
            b=b,
            budget_s=request.budget_s,
            clock=time.monotonic,
            started_s=begin,
            interrupts=interrupts,
            observer=observer,
            allow_plugins=request.options.run.allow_plugins,
            unchanged=lambda: _refuse_changes(planned),
        )
        return folder, measure(folder, setting)


def _own_matrix(root: Path, path: PurePosixPath, shown: str, request: Request) -> Matrix:
    """The copy of the matrix in one tree, with what flags change in it; problems call it ``shown``.

    Raises:
        ConfigError: every problem of it.
    """
    try:
        return request.override(config.load(root / path, allow_plugins=request.options.run.allow_plugins))
    except ConfigError as error:
        raise ConfigError([problem.replace(str(root / path), shown, 1) for problem in error.problems]) from error


def _kept_matrix(folder: RunFolder, matrix: Matrix, request: Request) -> Matrix:
    """A matrix of a check that goes on, as it was, but for what flags change in it now."""
    source = f"{folder.path / MANIFEST}: matrix"
    return request.override(config.checked(matrix, source=source, allow_plugins=request.options.run.allow_plugins))


def _data(planned: Plan, observer: CheckObserver) -> DataSet:
    """One data set for both sides, verified."""
    request = planned.request
    before = planned.resumed.manifest().dataset if planned.resumed else None
    wanted = data.Request(
        root=request.options.data_root,
        offline=request.options.offline,
        notify=lambda text: tell(observer, text),
        environ=request.environ,
    )
    known = None if before is None or before.name == "mislabelled" else before.name
    found = data.resolve(known or planned.matrix.dataset, wanted)
    if before is not None and before.sha256 != found.sha256:
        raise UsageError(f"--resume: the data set at {found.root} is another one than it was: start a new check")
    return found


@contextmanager
def _sides(planned: Plan, name: str, dataset: DataSet) -> Iterator[tuple[Side, Side, tuple[str, ...]]]:
    """Both sides, the reference's tree on disk; and what the user must know of them."""
    request, path, cache = planned.request, planned.path, data.cache_root(planned.request.environ) / WORKTREES
    with trees.planted(planned.git, planned.commit, cache, name) as (root, empty):
        before = _matrix_of_reference(planned, root)

        def side(name_of: SideName, words: str, tree: Path, matrix: Matrix | None) -> Side:
            environ = sides.environment_of(
                request.environ,
                root=tree,
                repository=planned.git.folder,
                here=request.here,
                search=sys.path,
                caches=cache / name / "caches" / name_of,
            )
            return Side(
                name=name_of,
                label=f"{name_of} ({words})",
                root=tree,
                matrix_path=tree / path,
                matrix=matrix,
                environ=environ,
                data=dataset,
            )

        a = side("A", request.against, root, before)
        b = side("B", WORKING_TREE, planned.git.folder, planned.matrix)
        yield a, b, tuple(_notes(planned, a, empty))


def _matrix_of_reference(planned: Plan, root: Path) -> Matrix | None:
    """Its own copy, with the seeds of the working tree's; None: it has none."""
    request, path = planned.request, planned.path
    if planned.resumed:
        kept = sides_of(planned.resumed).matrix
        return kept and _kept_matrix(planned.resumed, kept, request)
    if not (root / path).is_file():
        return None
    own = _own_matrix(root, path, f"{request.against}:{path}", request)
    return replace(own, seeds=planned.matrix.seeds)


def _notes(planned: Plan, a: Side, empty: tuple[str, ...]) -> Iterator[str]:
    against, own, path = planned.request.against, planned.matrix.dataset, planned.path
    if planned.ambiguous:
        yield planned.ambiguous
    if a.matrix is None:
        yield f"{against} has no {path}: every cell is new, and nothing can be compared"
    elif a.matrix.dataset != own:
        yield f"dataset is {a.matrix.dataset} in A, {own} in B: both are given B's"
    if empty:
        yield f"submodules that are not checked out here are empty on both sides: {', '.join(empty)}"
    places = (folder / name for folder in dict.fromkeys([PurePosixPath(), path.parent]) for name in REQUIREMENTS)
    if differing := [str(place) for place in places if not _same(a.root / place, planned.git.folder / place)]:
        yield (
            f"{', '.join(differing)}: other in A than in B; both ran with the packages that are installed here, so "
            "that a change of them is not seen"
        )


def _same(one: Path, other: Path) -> bool:
    """Whether two files have the same content, or both are none."""
    contents = [path.read_bytes() if path.is_file() else None for path in (one, other)]
    return contents[0] == contents[1]


def _prove(a: Side, b: Side, interrupts: Interrupts) -> tuple[str, list[Path]]:
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


def _only_in_b(planned: Plan, a: Side, loaded: Sequence[Path]) -> Iterator[str]:
    """A warning of what git ignores and only the working tree can import (a built extension)."""
    own = [place for place in loaded if not sides.of_python(place, planned.git.folder)]
    ignored = trees.ignored_modules(planned.git, own)
    if only := tuple(trees.printable(str(path)) for path in ignored if not (a.root / path).exists()):
        yield (
            f"{', '.join(trees.named(only, 5))}: git ignores it, so that A has no copy and only B can import it: keep "
            "it in git if the cells need it"
        )


def _make(planned: Plan, name: str, a: Side, b: Side, notes: tuple[str, ...], incomparable: str) -> RunFolder:
    """The folder of a new check."""
    request, state, matrix = planned.request, planned.state, planned.matrix
    cells = dict.fromkeys((*expand(matrix), *(expand(a.matrix) if a.matrix else ())))
    check = Sides(
        a=Tree(label=request.against, commit=planned.commit),
        b=Tree(label=WORKING_TREE, commit=state.commit, changed=trees.named(state.changed)),
        matrix=a.matrix,
        cells=select(tuple(cells), request.options.run.filter or None),
        incomparable=incomparable,
        budget_s=request.budget_s,
        content_sha256=state.sha256,
        untracked=state.untracked,
        notes=notes,
        here=str(request.here.resolve().relative_to(planned.git.folder)),
    )
    manifest = new_manifest(name, matrix, b.data, b.environ, request.options.run, str(planned.path))
    return RunFolder.create(request.checks, replace(manifest, check=check))


def _outline(folder: RunFolder) -> str:
    """What is compared with what."""
    a, b = sides_of(folder).a, sides_of(folder).b
    changed = f"; B differs from its commit in {', '.join(trees.named(b.changed, 5))}" if b.changed else ""
    head = (b.commit or "no commit")[:12]
    return f"check {folder.run_id}: A is {a.label} ({str(a.commit)[:12]}), B is the working tree ({head}){changed}"


def _refuse_changes(planned: Plan) -> None:
    """Raises BenchError where the working tree is no longer what the check was begun with."""
    if planned.outdated():
        raise BenchError(
            "the working tree was changed while it was measured: what was measured last is not kept, since nobody "
            "knows of which version it is; start a new check"
        )
