"""How extra work reaches a model: the matrix names a plug-in, the environment says how much. Pure.

The plug-in is ``mnist_bench.selftest.injected``: to the harness a model like any other. Both sides of a check have
the same matrix; only the rows of work differ, so nothing but the time of a forward pass does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mnist_bench.cells import model_of
from mnist_bench.errors import UsageError
from mnist_bench.models import SELFTEST, training_of
from mnist_bench.records import Cell, Matrix, ModelEntry, Selector

VARIABLE = "MNIST_BENCH_SELFTEST"
SIDE_MARK = "@"  # what follows it in a variant's name tells members of one session apart


def instrumented(matrix: Matrix, cells: Sequence[Cell]) -> Matrix:
    """The matrix with the plug-in in the place of every model of ``cells``, trained as the model itself is.

    Raises:
        UsageError: under the recipe ``tutorial`` inputs are scaled by a built-in model's name, which a plug-in has not.
    """
    if matrix.recipe != "standard":
        raise UsageError(f"recipe: {matrix.recipe}: selftest measures the recipe standard only; give it such a matrix")
    wanted = {cell.model for cell in cells}
    axis = [_entry(matrix, entry) if entry.name in wanted else entry for entry in matrix.models]
    beside = sorted(wanted - {entry.name for entry in matrix.models})  # built-ins that only ``include`` names
    return replace(
        matrix,
        models=(*axis, *(_entry(matrix, model_of(matrix, name)) for name in beside)),
        exclude=(*matrix.exclude, *(Selector(model=name) for name in beside)),
    )


def _entry(matrix: Matrix, entry: ModelEntry) -> ModelEntry:
    training = training_of(entry, matrix.recipe)
    return replace(entry, model=SELFTEST, optimizer=training.optimizer, lr=training.lr)


def loads(matrix: Matrix, rows: Mapping[Cell, int]) -> dict[str, str]:
    """The environment that tells the plug-in what to build.

    Args:
        matrix: before ``instrumented``: it knows the models' own targets.
        rows: of extra work, for every cell that is measured; 0: the model as it is.
    """
    plan = {cell.id: [model_of(matrix, cell.model).model, count] for cell, count in rows.items()}
    return {VARIABLE: json.dumps(plan, separators=(",", ":"))}


def load_of(text: str, cell_id: str) -> tuple[str, int]:
    """The target and the rows of one cell, from the value of the variable.

    >>> load_of('{"mlp/cpu/b100/eager": ["mlp", 12]}', "mlp/cpu/b100/eager@B")
    ('mlp', 12)
    """
    target, rows = json.loads(text)[cell_id.partition(SIDE_MARK)[0]]
    return str(target), int(rows)
