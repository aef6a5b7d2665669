"""What the values of a matrix must be together: known names, nothing twice, settings that agree, cells that exist.

A broken rule is the place of the values that it is about, the key there that is to blame (None: the whole of it), and
what is wrong.
"""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence

from mnist_bench.catalogue import ENTRY_POINT_GROUP, EXECUTIONS, MODELS
from mnist_bench.cells import AXES, CELL_KEYS, expand, variants_of
from mnist_bench.config.positions import Path, at
from mnist_bench.errors import quoted, unknown
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    MAX_CELLS,
    Cell,
    CompileOptions,
    Matrix,
    ModelEntry,
    Selector,
    Variant,
)

Broken = tuple[Path, str | None, str]
# Whether people wrote what stands at a place, be it the value of the default.
Written = Callable[[Path], bool]

_CODE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def plugin_names() -> tuple[str, ...]:
    """The entry points that installed packages offer as models. Looked up by name; none is imported."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}))


def broken_rules(
    matrix: Matrix, *, unsound: Collection[str], allow_plugins: bool, written: Written = lambda path: False
) -> list[Broken]:
    """Every rule that a matrix breaks.

    Args:
        matrix: its values are of the right types, within their bounds.
        unsound: its keys in which something is wrong already: what depends on them is not looked at.
        allow_plugins: whether models may name code.
        written: of a file.
    """
    found = [*_of_items(matrix, allow_plugins, written)]
    for rules, needed in ((_of_selections, AXES), (_of_cells, (*AXES, "exclude", "include"))):
        # A rule of the whole is one of the axes: they multiply to more cells than can be looked at.
        if not {*unsound, *(str(path[0]) if path else AXES[0] for path, _, _ in found)} & {*needed}:
            found += rules(matrix)
    return found


def _of_items(matrix: Matrix, allow_plugins: bool, written: Written) -> Iterator[Broken]:
    plugins = plugin_names() if any(entry.model not in MODELS for entry in matrix.models) else ()
    for number, entry in enumerate(matrix.models):
        yield from _of_model(entry, ("models", number), plugins, allow_plugins)
    for number, variant in enumerate(matrix.variants):
        yield from _of_variant(variant, ("variants", number), written)
    yield from _distinct("seeds", "seed", matrix.seeds)
    yield from _distinct("models", "model", [entry.name for entry in matrix.models])
    yield from _distinct("devices", "device", matrix.devices, _same_device)
    yield from _distinct("batch_sizes", "batch size", matrix.batch_sizes)
    yield from _distinct("variants", "variant", [variant.name for variant in matrix.variants])
    for number, selector in enumerate(matrix.exclude):
        if selector == Selector():
            keys = ", ".join(CELL_KEYS)
            yield ("exclude", number), None, f"would exclude every cell: give at least one of {keys}"
    for number, floor in enumerate(matrix.expect):
        if floor.min_accuracy is None and floor.min_train_samples_per_s is None:
            yield ("expect", number), None, "expects nothing: give min_accuracy, min_train_samples_per_s or both"
    for number, rule in enumerate(matrix.gate):
        if rule.detect <= rule.margin:
            yield ("gate", number), None, f"detect ({rule.detect:g}) should be above margin ({rule.margin:g})"


def _of_model(entry: ModelEntry, path: Path, plugins: tuple[str, ...], allow_plugins: bool) -> Iterator[Broken]:
    if entry.model not in MODELS and entry.model not in plugins and not _CODE.fullmatch(entry.model):
        form = "; or write package.module:function" if ":" in entry.model else ""
        known = (*MODELS, *(plugins if allow_plugins else ()))
        yield (*path, "model"), None, unknown("model", entry.model, known) + form
    elif entry.model not in MODELS and not allow_plugins:
        message = f"{quoted(entry.model)} is code: add --allow-plugins to run code named in the matrix"
        yield (*path, "model"), None, message
    if entry.name in MODELS and entry.model != entry.name:
        yield (*path, "name"), None, f"{quoted(entry.name)} is the name of a built-in model: choose another"


def _of_variant(variant: Variant, path: Path, written: Written) -> Iterator[Broken]:
    if BUILTIN_VARIANTS.get(variant.name, variant) != variant:
        yield (*path, "name"), None, f"{quoted(variant.name)} is the name of a built-in variant: choose another"
    if not EXECUTIONS[variant.execution].compiles and (
        variant.compile != CompileOptions() or written((*path, "compile"))
    ):
        yield path, "compile", f"has no effect with execution: {variant.execution}: add execution: compile"
    if variant.workers and variant.pipeline == "resident":
        mend = "set pipeline: tensors or torchvision, or remove workers"
        yield path, "workers", f"the resident pipeline has no loader to give workers to: {mend}"


def _distinct(
    axis: str, kind: str, values: Iterable[Hashable], same: Callable[[str], Hashable] | None = None
) -> Iterator[Broken]:
    first: dict[Hashable, tuple[int, Hashable]] = {}
    for number, value in enumerate(values):
        before, other = first.setdefault(same(str(value)) if same else value, (number, value))
        if before != number:
            shown = quoted(value) if isinstance(value, str) else value
            alias = "" if other == value else " ('cuda' is 'cuda:0')"
            mend = "remove one, or give it another name" if axis in ("models", "variants") else "remove one"
            first_at = at((axis, before)).removesuffix(": ")
            yield (axis, number), None, f"duplicate {kind} {shown}{alias} (the first is {first_at}): {mend}"


def _of_selections(matrix: Matrix) -> Iterator[Broken]:
    """Of the axes together, and of what ``exclude``, ``include`` and ``reference`` take from them."""
    product = math.prod(len(getattr(matrix, axis)) for axis in AXES)
    if product + len(matrix.include) > MAX_CELLS:
        total = f"{product:,} cells and {len(matrix.include):,} included"
        yield (), None, f"the axes multiply to {total}: more than {MAX_CELLS:,}; split the matrix"
        return
    models = [entry.name for entry in matrix.models]
    variants = [variant.name for variant in matrix.variants]
    axes = dict(zip(CELL_KEYS, (models, matrix.devices, matrix.batch_sizes, variants), strict=True))
    for number, selector in enumerate(matrix.exclude):  # of a full product, where every combination exists
        yield from _unmatched(selector, axes, ("exclude", number), "so it excludes nothing")
    for number, cell in enumerate(matrix.include):
        for key, names in (("model", [*models, *MODELS]), ("variant", [*variants, *BUILTIN_VARIANTS])):
            if getattr(cell, key) not in names:
                yield ("include", number, key), None, unknown(key, getattr(cell, key), dict.fromkeys(names))


def _of_cells(matrix: Matrix) -> Iterator[Broken]:
    cells = expand(matrix)
    product = len(cells) - len(matrix.include)
    seen = {_same_cell(cell) for cell in cells[:product]}
    for number, cell in enumerate(matrix.include):
        if _same_cell(cell) in seen:
            message = f"duplicate cell {cell.id}: the matrix has it already; remove it here"
            yield ("include", number), None, message
        seen.add(_same_cell(cell))
    if not cells:
        yield (), "exclude", "leaves no cell: exclude less"
        return
    known = {key: list(dict.fromkeys(getattr(cell, key) for cell in cells)) for key in CELL_KEYS}
    selectors: Sequence[tuple[str, int, Selector]] = [
        *(("expect", number, floor) for number, floor in enumerate(matrix.expect)),
        *(("gate", number, rule) for number, rule in enumerate(matrix.gate)),
    ]
    for key, number, selector in selectors:
        broken = [*_unmatched(selector, known, (key, number), "so it would never be checked")]
        yield from broken
        if not broken and not any(selector.matches(cell) for cell in cells):
            message = "matches no cell (it may be excluded), so it would never be checked: remove it"
            yield (key, number), None, message
    names = [variant.name for variant in variants_of(matrix)]
    if matrix.reference is not None and matrix.reference not in names:
        yield ("reference",), None, unknown("variant", matrix.reference, names)


def _unmatched(
    selector: Selector, known: Mapping[str, Collection[object]], path: Path, effect: str
) -> Iterator[Broken]:
    """The values of a selector that no cell has."""
    for key in CELL_KEYS:
        value = getattr(selector, key)
        if value is not None and value not in known[key]:
            shown = quoted(value) if isinstance(value, str) else value
            names = ", ".join(map(str, known[key]))
            yield (*path, key), None, f"no cell has the {key} {shown} (known: {names}), {effect}"


def _same_device(device: str) -> str:
    """``cuda`` is the first of the visible GPUs: a matrix that names it both ways would measure it twice."""
    return "cuda:0" if device == "cuda" else device


def _same_cell(cell: Cell) -> tuple[str, str, int, str]:
    return cell.model, _same_device(cell.device), cell.batch_size, cell.variant
