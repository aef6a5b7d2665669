"""``check --against``, from what a user asked to evidence on disk: refusals first, then two trees, proven, measured."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mnist_bench import config, data
from mnist_bench.analysis.summary import Run
from mnist_bench.cells import expand, parse_filter, select
from mnist_bench.disk.folder import MANIFEST, RunFolder, known_runs, new_run_id
from mnist_bench.errors import DataError, UsageError
from mnist_bench.gate import requirements, sides, trees
from mnist_bench.gate.conduct import measure, sides_of
from mnist_bench.gate.evidence import Check, gather
from mnist_bench.gate.nodes import CheckAgent, ClusterBench, Trees
from mnist_bench.gate.sides import Bench, CheckObserver, Side
from mnist_bench.records import DataSet, Matrix, Packages, Sides, Tree
from mnist_bench.records import Side as SideName
from mnist_bench.running.cluster import Fleets
from mnist_bench.running.process import Interrupts, LocalWorker
from mnist_bench.running.runner import Options, RunPlan, described, find_data, new_manifest
from mnist_bench.table import listed

CHECKS = "checks"  # in the output folder; it holds no manifest.json, so it is no run
WORKTREES = "worktrees"  # in the program's cache folder
WORKING_TREE = "working tree"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
MOST_S = 7 * 24 * 3600.0
UNREAD = ("setup.py", "setup.cfg", "environment.yml")  # may require packages, in ways that are not looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for.

    Args:
        here: the current folder.
        against: a word that git understands; empty: the commit of the check that goes on.
        options: as of a run; the matrix of a check that goes on is its own.
        override: what flags change in the matrix (``--seeds``, ``--timeout``).
        budget_s: 0: as the check that goes on has it.
        outputs: the files that are written in the end.
        environment: which packages the sides run with, should they require other ones; None: that is refused.
    """

    here: Path
    environ: Mapping[str, str]
    against: str
    options: Options
    override: Callable[[Matrix], Matrix]
    budget_s: float = 1200.0
    outputs: tuple[Path, ...] = ()
    environment: Packages | None = None

    @property
    def left_out(self) -> tuple[Path, ...]:
        """What is no change of what is checked, wherever in the working tree it lies: what the program itself writes
        (``check > verdict.txt`` too), and the environment of the Python that runs both sides."""
        latest = self.options.output_dir / CHECKS / "latest"  # where the output folder is the tree itself
        own = self.options.output_dir, latest, data.raw_folder(self.options.data_root).parent
        return (*own, data.cache_root(self.environ), Path(sys.prefix), *self.outputs, *_redirected())


def _redirected() -> Iterator[Path]:
    """The files that stdout and stderr go to, where the system tells; of a pipe or terminal, names of no such file."""
    for descriptor in (1, 2):
        with suppress(OSError):
            yield Path(f"/proc/self/fd/{descriptor}").readlink()


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


def _again(request: Request, folder: RunFolder, before: Sides) -> Request:
    """The request of a check that goes on, as its folder has it."""
    root = trees.find(request.here, request.here, request.environ)[0].folder
    return replace(
        request,
        here=root / before.here,  # the path of workers hangs on where the user stood
        against=before.a.label,
        budget_s=request.budget_s or before.budget_s,
        environment=before.environment,
        options=replace(request.options, matrix_path=str(root / folder.manifest().matrix_path)),
    )


class Plan:
    """A check that can be carried out, new or going on; what it compares does not change meanwhile.

    Args:
        resumed: the folder of a check that goes on: with its own matrix, reference and data set.

    Raises:
        UsageError: no git, no repository, an unknown reference, a matrix outside, a submodule; of a check that goes
            on, a working tree that has changed since.
        ConfigError: every problem of the working tree's matrix, or of the manifest's.
    """

    def __init__(self, request: Request, resumed: RunFolder | None = None) -> None:
        before = sides_of(resumed) if resumed else None
        if resumed and before:
            request = _again(request, resumed, before)
        self._resumed, self._before, self._request = resumed, before, request
        self._git, self._path = trees.find(Path(request.options.matrix_path), request.here, request.environ)
        self._matrix = request.override(self._own_matrix())
        if asked := request.options.run.filter:
            parse_filter(asked)  # refused before a tree is laid out
        self._commit = trees.commit_of(self._git, str(before.a.commit) if before else request.against)
        self._folders = tuple(dict.fromkeys([PurePosixPath(), self._path.parent]))
        self._empty = [trees.printable(path) for path in trees.submodules(self._git, self._commit)]
        self._state = trees.state(self._git, request.left_out, before.untracked if before else None)
        if before and (self._state.commit, self._state.sha256) != (before.b.commit, before.content_sha256):
            raise UsageError("--resume: the working tree is not what it was (HEAD, or a file): start a new check")

    def _own_matrix(self) -> Matrix:
        """The working tree's; of a check that goes on, the manifest's, and A's is held against the same rules."""
        options = self._request.options
        if self._resumed is None or self._before is None:
            place, allowed = self._git.folder / self._path, options.run.allow_plugins
            return config.load(place, source=options.matrix_path, allow_plugins=allowed)
        kept, place = self._resumed.manifest(), self._resumed.path / MANIFEST
        for name, matrix in (("matrix", kept.matrix), ("check.matrix", self._before.matrix)):
            if matrix:
                config.checked(matrix, source=f"{place}: {name}", allow_plugins=options.run.allow_plugins)
        gather(Run.read(self._resumed))  # a stranger's lines are refused here
        return kept.matrix

    def outdated(self) -> bool:
        """Whether the working tree is no longer what it was; a new file that git does not know is no change."""
        now = trees.state(self._git, self._request.left_out, self._state.untracked)
        return (now.commit, now.sha256) != (self._state.commit, self._state.sha256)

    def execute(self, observer: CheckObserver, fleets: Fleets | None = None) -> tuple[RunFolder, Check]:
        """Measures until the check is decided, interrupted, or out of budget; what it then knows is on disk.

        Args:
            fleets: what makes a fleet of the cluster that measures, as ``running.fleet.connect`` gives it; None: this
                machine measures.

        Raises:
            BenchError: a side does not import, or the working tree was changed meanwhile.
            UsageError: the data set is not to be had, the matrix of the reference has problems, or the sides require
                other packages and nobody has said what then.
            Interrupted: before there was anything to keep.
        """
        request = self._request
        if self.outdated():
            raise UsageError("the working tree was changed while the check waited for its turn: start it again")
        if fleets and request.environment == "per-side":
            raise UsageError("--executor ray: nodes have no environments of each side: use --environment shared")
        name = self._resumed.run_id if self._resumed else new_run_id()
        before = self._resumed and self._resumed.manifest().dataset
        dataset = before or find_data(self._matrix, request.options, observer, request.environ)
        data.verify(dataset)
        cache = data.cache_root(request.environ) / WORKTREES
        with Interrupts() as interrupts, trees.planted(self._git, self._commit, cache, name) as root:
            caches, matrix = cache / name / "caches", self._matrix_of(root)
            a = self._side("A", request.against, root, matrix, caches, dataset)
            b = self._side("B", WORKING_TREE, self._git.folder, self._matrix, caches, dataset)
            a, b, packages = self._with_packages(a, b, cache / name / "environments", interrupts, observer)
            begin = time.monotonic()  # to fetch packages is none of the budget's
            incomparable, loaded = sides.prove(a, b, interrupts) if matrix else ("", [])  # no worker of A will start
            if dataset.is_code and not before:
                a, b, apart = self._with_described_set(a, b, interrupts)
                incomparable = incomparable or apart
            notes = (*self._notes(a, loaded, sent=fleets is not None), *packages)
            for note in notes:
                observer.notice(note, warning=True)
            folder = self._resumed or self._make(name, a, b, notes=notes, incomparable=incomparable)
            observer.notice(f"check {name}: {_outline(sides_of(folder))}")
            allowed = request.options.run.allow_plugins
            with ExitStack() as held:
                own: dict[str, Any] = {"folder": folder, "a": a, "b": b, "clock": time.monotonic}
                own |= {"interrupts": interrupts, "observer": observer, "allow_plugins": allowed}
                if fleets:
                    files = trees.packed(self._git.at(root)), trees.packed(self._git, request.left_out)
                    sent = Trees(a, b, files, self._git.folder, request.here, allowed)
                    plan = RunPlan(folder=folder, manifest=folder.manifest(), groups=(), options=request.options)
                    bench: Bench = ClusterBench(**own, fleet=held.enter_context(fleets(plan, CheckAgent, sent)))
                else:
                    bench = Bench(**own)
                return folder, measure(bench, request.budget_s, begin, self.outdated)

    def _matrix_of(self, root: Path) -> Matrix | None:
        """The reference's own copy, with the seeds and the limits of the working tree's; None: it has none."""
        own = self._before.matrix if self._before else None
        if self._before is None and (root / self._path).is_file():
            source, allowed = f"{self._request.against}:{self._path}", self._request.options.run.allow_plugins
            own = config.load(root / self._path, source=source, allow_plugins=allowed)
        return own and replace(own, seeds=self._matrix.seeds, limits=self._matrix.limits)

    def _side(
        self, name: SideName, words: str, root: Path, matrix: Matrix | None, caches: Path, dataset: DataSet
    ) -> Side:
        request, repository = self._request, self._git.folder
        places = {"root": root, "repository": repository, "here": request.here, "caches": caches / name}
        return Side(
            name=name,
            label=f"{name} ({words})",
            root=root,
            matrix_path=root / self._path,
            matrix=matrix,
            environ=sides.environment_of(request.environ, search=sys.path, **places),
            data=dataset,
        )

    def _with_packages(
        self, a: Side, b: Side, place: Path, interrupts: Interrupts, observer: CheckObserver
    ) -> tuple[Side, Side, tuple[str, ...]]:
        """The sides with the packages that they run with, and what is to be said where they require other ones.

        Raises:
            UsageError: they do, and nobody has said which packages they run with.
        """
        texts = (trees.texts(self._git.at(each.root), self._folders, requirements.FILES) for each in (a, b))
        if a.matrix is None or not (apart := requirements.differences(*texts)):
            return a, b, ()
        if self._request.environment is None:
            raise UsageError(
                f"{apart}: --environment per-side measures each side with its own packages, --environment shared the "
                "code alone, with those that are installed here"
            )
        if self._request.environment == "shared":
            return a, b, (f"{apart}; both run with those that are installed here: the code alone is compared",)
        observer.notice("making an environment of what each side requires ...")
        environ, folders = self._request.environ, self._folders
        a, b = (requirements.with_own(one, folders, place / one.name, environ, interrupts) for one in (a, b))
        return a, b, (f"{apart}; each has an environment of its own: {requirements.installed(a.own, b.own)}",)

    def _with_described_set(self, a: Side, b: Side, interrupts: Interrupts) -> tuple[Side, Side, str]:
        """Both sides with what the function that is B's data set returns in B; and, if so, why it does not in A.

        Raises:
            DataError: B's fails.
            UsageError: B's cells are not made for it.
        """
        matrix, options = self._matrix, self._request.options.run

        def own(side: Side) -> DataSet:
            here = replace(options, plugin_path=str(side.matrix_path.parent))
            where = side.environ, matrix.limits.timeout_seconds, interrupts, side.root, side.python
            return described(matrix, here, lambda spec, log: LocalWorker(spec, log, *where))

        found, apart = own(b), ""
        if a.matrix:
            try:
                apart = f"data set: {matrix.dataset} returns another in A than in B" * (own(a) != found)
            except (DataError, UsageError) as error:
                apart = f"data set: {matrix.dataset} fails in A: {error}"
        return replace(a, data=found), replace(b, data=found), apart

    def _notes(self, a: Side, loaded: Sequence[Path], *, sent: bool) -> Iterator[str]:
        """What the user must know of the sides.

        Args:
            loaded: what B imports.
            sent: to nodes, without what git ignores.

        Raises:
            UsageError: it imports what is not sent.
        """
        git, own, named = self._git, self._matrix.dataset, self._request.against
        if trees.ambiguous(git, named):
            yield f"--against {named}: a branch and a tag have this name; A is the tag, refs/heads/{named} the branch"
        if a.matrix is None:
            yield f"{named} has no {self._path}: every cell is new, and nothing can be compared"
        elif a.matrix.dataset != own:
            yield f"dataset is {a.matrix.dataset} in A, {own} in B: both are given B's"
        if self._empty:
            yield f"submodules that are not checked out here are empty on both sides: {', '.join(self._empty)}"
        places = [str(folder / name) for folder in self._folders for name in UNREAD]
        if differing := [one for one in places if trees.content(git.at(a.root), one) != trees.content(git, one)]:
            yield f"{', '.join(differing)}: other in A than in B; if it requires packages, that is not looked at"
        ignored = trees.ignored_modules(git, [place for place in loaded if not sides.of_python(place, git.folder)])
        if only := [trees.printable(str(path)) for path in ignored if not (a.root / path).exists()]:
            if sent and not {(git.folder / path).resolve() for path in ignored}.isdisjoint(map(Path.resolve, loaded)):
                raise UsageError(
                    f"--executor ray: {listed(only, 5)}: git ignores it, so no node has it: keep it in git"
                )
            yield f"{listed(only, 5)}: git ignores it, so only B can import it: keep it in git if the cells need it"

    def _make(self, name: str, a: Side, b: Side, **more: Any) -> RunFolder:
        """The folder of a new check; ``more``: of its sides."""
        request, state = self._request, self._state
        cells = dict.fromkeys((*expand(self._matrix), *(expand(a.matrix) if a.matrix else ())))
        check = Sides(
            a=Tree(label=request.against, commit=self._commit),
            b=Tree(label=WORKING_TREE, commit=state.commit, changed=state.changed),
            matrix=a.matrix,
            cells=select(tuple(cells), request.options.run.filter or None),
            budget_s=request.budget_s,
            content_sha256=state.sha256,
            untracked=state.untracked,
            environment=request.environment,
            here=str(request.here.resolve().relative_to(self._git.folder)),
            **more,
        )
        manifest = new_manifest(name, self._matrix, b.data, b.environ, request.options.run, str(self._path))
        return RunFolder.create(request.options.output_dir / CHECKS, replace(manifest, check=check))


def _outline(check: Sides) -> str:
    """What is compared with what."""
    a, b, head = check.a, check.b, (check.b.commit or "no commit")[:12]
    changed = f"; B differs from its commit in {listed(b.changed, 5)}" if b.changed else ""
    return f"A is {a.label} ({str(a.commit)[:12]}), B is the working tree ({head}){changed}"
