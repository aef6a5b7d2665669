"""What a user asked of a check, held against the disk: everything that can be refused, before anything is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from mnist_bench import config
from mnist_bench.cells import parse_filter
from mnist_bench.checks.folder import CHECKS, LATEST, CheckFolder
from mnist_bench.data import cache_root, raw_folder
from mnist_bench.errors import ConfigError, UsageError
from mnist_bench.gate import trees
from mnist_bench.gate.records import Margins
from mnist_bench.gate.trees import Git, State
from mnist_bench.records import Matrix

BYTES = "surrogateescape"  # names of files need not be UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for.

    Args:
        here: the current folder.
        against: a word that git understands; empty: the commit of the check that goes on.
        override: what flags change in a matrix (``--seeds``, ``--timeout``), on both sides.
        outputs: the files that are written in the end.
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
    outputs: tuple[Path, ...] = ()

    @property
    def left_out(self) -> tuple[Path, ...]:
        """What is no change of what is checked, wherever in the working tree it lies: what the program itself writes,
        and the environment of the Python that runs both sides."""
        latest = self.output_dir / CHECKS / LATEST  # where the output folder is the tree itself
        images = raw_folder(self.data_root).parent
        return (self.output_dir, latest, images, cache_root(self.environ), Path(sys.prefix), *self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request that can be carried out. ``matrix`` is the working tree's, ``state`` what differs in it."""

    request: Request
    git: Git
    matrix_path: PurePosixPath
    commit: str
    ambiguous: str
    matrix: Matrix
    state: State
    resumed: CheckFolder | None = None

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
    git, path = trees.find(request.matrix, request.here, request.environ)
    own = own_matrix(git.folder, path, str(request.matrix), request)
    if request.filter:
        parse_filter(request.filter)
    commit, ambiguous = trees.commit_of(git, request.against)
    return Plan(
        request=request,
        git=git,
        matrix_path=path,
        commit=commit,
        ambiguous=ambiguous,
        matrix=own,
        state=trees.state(git, request.left_out),
    )


def plan_again(folder: CheckFolder, request: Request) -> Plan:
    """A check that goes on: what is compared must be what it was.

    Raises:
        UsageError: the working tree, or what the reference names, has changed since.
    """
    head = folder.head()
    root = trees.find(request.here, request.here, request.environ)[0].folder
    git, path = trees.find(Path(head.matrix_path), root, request.environ)
    commit, ambiguous = trees.commit_of(git, request.against or str(head.a.commit))
    if commit != head.a.commit:
        raise UsageError(
            f"--resume {head.id}: {request.against} is {commit[:12]} now, the check was begun against "
            f"{str(head.a.commit)[:12]}: leave --against out, or start a new check"
        )
    state = trees.state(git, request.left_out, head.untracked)
    if (state.commit, state.sha256) != (head.b.commit, head.content_sha256):
        raise UsageError(
            f"--resume {head.id}: the working tree is not what it was (HEAD, or a changed file): pairs of two "
            "versions are no sample of one; start a new check"
        )
    asked = replace(
        request,
        here=git.folder / unquote(head.options.get("here", ""), errors=BYTES),  # which the path of workers hangs on
        against=head.a.label,
        filter=head.options["filter"],
        timeout_s=request.timeout_s or head.options.get("timeout_s"),
        margins=head.margins,
    )
    own = own_matrix(git.folder, path, head.matrix_path, asked)
    return Plan(
        request=asked,
        git=git,
        matrix_path=path,
        commit=commit,
        ambiguous=ambiguous,
        matrix=replace(own, seeds=head.seeds),
        state=state,
        resumed=folder,
    )


def own_matrix(root: Path, path: PurePosixPath, shown: str, request: Request) -> Matrix:
    """The copy of the matrix in one tree, with what flags change in it; problems call it ``shown``.

    Raises:
        ConfigError: every problem of it.
    """
    try:
        return request.override(config.load(root / path, allow_plugins=request.allow_plugins))
    except ConfigError as error:
        raise ConfigError([problem.replace(str(root / path), shown, 1) for problem in error.problems]) from error
