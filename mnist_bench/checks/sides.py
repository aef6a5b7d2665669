"""The two sides of a check: a tree each, with its own matrix, and workers that find their own tree's code first."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath

from mnist_bench import config
from mnist_bench.cells import model_of, variant_of
from mnist_bench.errors import ConfigError
from mnist_bench.gate.records import Side as SideName
from mnist_bench.machine import environment
from mnist_bench.records import Cell, DataSet, Matrix, TrialSpec

PACKAGE = "mnist_bench"
ENTRY_POINT_GROUP = "mnist_bench.models"
MARK = "@"  # between a variant and its side; no name in a matrix holds one


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Where the code of one side is, and how its workers are started.

    Args:
        label: what the user calls it.
        root: of its tree; workers start there.
        matrix_path: in the tree.
        matrix: its own copy, as resolved; None: its tree has none.
        environ: of its workers.
        data: verified; the same for both sides of a check.
    """

    name: SideName
    label: str
    root: Path
    matrix_path: Path
    matrix: Matrix | None
    environ: Mapping[str, str]
    data: DataSet

    @property
    def has_package(self) -> bool:
        return (self.root / PACKAGE / "__init__.py").is_file()


def load_matrix(root: Path, matrix: PurePosixPath, shown: str, *, allow_plugins: bool) -> Matrix:
    """A side's own copy of the matrix file, which problems call ``shown``.

    Raises:
        ConfigError: every problem of it.
    """
    path = root / matrix
    try:
        return config.load(path, allow_plugins=allow_plugins)
    except ConfigError as error:
        own = [problem.replace(str(path), shown, 1) for problem in error.problems]
        raise ConfigError(own) from error


def environment_of(
    environ: Mapping[str, str], *, root: Path, repository: Path, here: Path, search: Sequence[str]
) -> dict[str, str]:
    """The environment of a tree's workers: what pointed into the user's working tree points into their own.

    ``PYTHONPATH`` begins with the tree's root: to start there is not enough where ``PYTHONSAFEPATH`` is set. Then comes
    the current folder's counterpart: of a run, workers start in it. Its other entries, and those that editable installs
    have added to the path, are moved into the tree where they lie in the repository. Those of the Python installation
    stay (a virtual environment may lie in the repository).

    Args:
        environ: the parent's.
        root: of the tree.
        repository: the root of the user's working tree.
        here: the current folder, which relative entries are meant from.
        search: the parent's ``sys.path``.
    """
    named = [_absolute(entry, here) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    added = [path for entry in search if entry and (path := _absolute(entry, here)) != here]
    installed = [path for path in added if _inside(path, repository) is not None]
    standing = [here] if here.is_relative_to(repository) else []
    places = [root, *(_moved(entry, repository, root) for entry in [*standing, *named, *installed])]
    if not (root / PACKAGE).is_dir():
        places += _uninstalled_package()
    return {**environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(map(str, places)))}


def _absolute(entry: str, here: Path) -> Path:
    return Path(os.path.normpath(here / entry))


def _moved(entry: Path, repository: Path, root: Path) -> Path:
    found = _inside(entry, repository)
    return entry if found is None else root / found


def _inside(entry: Path, repository: Path) -> Path | None:
    """An entry from the repository's root, if it lies there as it is named or as its links lead; None: it does not."""
    for known in (entry, entry.resolve()):
        if known.is_relative_to(repository) and not of_python(known, repository):
            return known.relative_to(repository)
    return None


def of_python(path: Path, repository: Path) -> bool:
    """Whether a place in the repository is part of the Python that runs us, not of what is being checked."""
    prefix = Path(sys.prefix).resolve()
    return prefix.is_relative_to(repository) and prefix != repository and path.resolve().is_relative_to(prefix)


def _uninstalled_package() -> list[Path]:
    """This package's place where it is on nobody's path but ours (it was started from its own checkout)."""
    place = Path(__file__).resolve().parents[2]
    found_anyway = {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()}
    return [] if str(place) in found_anyway else [place]


def spec_of(side: Side, cell: Cell, seed: int, *, allow_plugins: bool, deterministic: bool = False) -> TrialSpec:
    """A trial of one side. Its variant's name carries the side, so that both may be members of one session."""
    if side.matrix is None:
        raise ValueError(f"side {side.name} has no matrix")
    variant = variant_of(side.matrix, cell.variant)
    return TrialSpec(
        cell=replace(cell, variant=f"{cell.variant}{MARK}{side.name}"),
        seed=seed,
        model=model_of(side.matrix, cell.model),
        variant=replace(
            variant,
            threads=variant.threads or environment.available_cores(),
            deterministic=deterministic or variant.deterministic,
        ),
        deterministic_if_possible=deterministic and not variant.deterministic,
        recipe=side.matrix.recipe,
        epochs=side.matrix.epochs,
        data=side.data,
        memory_bytes=int(side.matrix.limits.memory_gib * (1 << 30)),
        plugin_path=str(side.matrix_path.parent),
        allow_plugins=allow_plugins,
    )


def side_of(spec: TrialSpec) -> SideName:
    """The side that a trial of ``spec_of`` belongs to."""
    return "A" if spec.cell.variant.endswith(f"{MARK}A") else "B"


def plugin_modules(matrix: Matrix | None) -> tuple[str, ...]:
    """The modules that the models of a matrix come from, those of entry points too."""
    targets = [] if matrix is None else [entry.model for entry in matrix.models if not entry.builtin]
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)} if targets else {}
    found = (target if ":" in target else installed.get(target, "") for target in targets)
    return tuple(dict.fromkeys(module for module in (each.partition(":")[0] for each in found) if module))
