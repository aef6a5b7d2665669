"""What the values of a matrix file must be together: known names, nothing twice, settings that agree, cells that exist.

Takes the values whose shape is right and the tree that knows where they stand; makes the Matrix where all is well.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import re
from collections.abc import Hashable, Iterable

from mnist_bench.cells import expand
from mnist_bench.matrix_file import (
    NAME_PATTERN,
    PartialMatrix,
    RawCell,
    RawCompile,
    RawFloor,
    RawMatrix,
    RawModel,
    RawSelector,
    RawVariant,
)
from mnist_bench.models import ENTRY_POINT_GROUP, MODELS
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Cell,
    CompileOptions,
    Floor,
    Limits,
    Matrix,
    ModelEntry,
    Selector,
    Timing,
    Variant,
)
from mnist_bench.yaml_positions import Node, Path, Problem
from mnist_bench.yaml_scalars import quoted

MAX_CELLS = 10_000
AXES = ("models", "devices", "batch_sizes", "variants")
SELECTOR_KEYS = ("model", "device", "batch_size", "variant")
_CODE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def resolve(raw: RawMatrix, root: Node, problems: list[Problem], allow_plugins: bool) -> Matrix | None:
    """The Matrix of a file; None where problems were found, now or before.

    Args:
        raw: values whose shape is right; of a faulty file those that are left.
        root: the tree that ``raw`` was made of.
        problems: grows by what is found.
        allow_plugins: whether models may name code.
    """
    return _Rules(root, problems, allow_plugins).matrix(raw)


def plugin_names() -> tuple[str, ...]:
    """The entry points that installed packages offer as models. Looked up by name; none is imported."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}))


class _Rules:
    def __init__(self, root: Node, problems: list[Problem], allow_plugins: bool) -> None:
        self._root = root
        self._problems = problems
        self._allow_plugins = allow_plugins
        # Places where something was cut out: what is missing there is not what the file says.
        self._cut = {p.path[:length] for p in problems if p.path for length in range(len(p.path) + 1)}

    def matrix(self, raw: RawMatrix) -> Matrix | None:
        matrix = Matrix(
            name=raw.name,
            dataset=raw.dataset,
            recipe=raw.recipe,
            epochs=raw.epochs,
            seeds=self._seeds(raw.seeds),
            models=tuple(self._model(item, ("models", i)) for i, item in enumerate(raw.models)),
            devices=tuple(raw.devices),
            batch_sizes=tuple(raw.batch_sizes),
            variants=tuple(self._variant(item, ("variants", i)) for i, item in enumerate(raw.variants)),
            exclude=tuple(self._exclude(item, ("exclude", i)) for i, item in enumerate(raw.exclude)),
            include=tuple(_cell(item) for item in raw.include),
            timing=Timing(**raw.timing.model_dump()),
            limits=Limits(**raw.limits.model_dump()),
            expect=tuple(self._floor(item, ("expect", i)) for i, item in enumerate(raw.expect)),
        )
        self._check_axes(matrix)
        if all(getattr(matrix, axis) for axis in AXES) and not self._found_under(*AXES):
            self._check_cells(matrix)
        return None if self._problems or isinstance(raw, PartialMatrix) else matrix

    def _found_under(self, *keys: str) -> bool:
        return any(problem.path[:1] == (key,) for problem in self._problems for key in keys)

    def _at(self, path: Path) -> Node:
        """The node at a place of the values, or the nearest around it (a default stands nowhere)."""
        node = self._root
        for part in path:
            node = node.child(part) or node
        return node

    def _is_cut(self, path: Path, *key: str) -> bool:
        return (*self._at(path).path, *key) in self._cut

    def _note(self, path: Path, message: str, *, key: bool = False) -> None:
        node = self._at(path)
        position = node.key_position or node.position if key else node.position
        self._problems.append(Problem(position, node.path, message))

    def _seeds(self, seeds: int | list[int]) -> tuple[int, ...]:
        if isinstance(seeds, int):
            return tuple(range(seeds))
        self._check_distinct(("seeds",), "seed", seeds)
        return tuple(seeds)

    def _check_axes(self, matrix: Matrix) -> None:
        self._check_distinct(("models",), "model", [entry.name for entry in matrix.models])
        self._check_distinct(("devices",), "device", [_same_device(device) for device in matrix.devices])
        self._check_distinct(("batch_sizes",), "batch size", matrix.batch_sizes)
        self._check_distinct(("variants",), "variant", [variant.name for variant in matrix.variants])

    def _check_distinct(self, path: Path, kind: str, values: Iterable[Hashable]) -> None:
        first: dict[Hashable, int] = {}
        for index, value in enumerate(values):
            if value in first:
                before, again = self._at((*path, first[value])), self._at((*path, index))
                shown = quoted(value) if isinstance(value, str) else value
                same = "" if kind != "device" or before.value == again.value else " ('cuda' is 'cuda:0')"
                mend = "give one of them another name" if isinstance(again.value, dict) else "remove one"
                where = f"first on line {before.position[0]}"
                self._note((*path, index), f"duplicate {kind} {shown}{same} ({where}): {mend}")
            else:
                first[value] = index

    def _model(self, item: str | RawModel, path: Path) -> ModelEntry:
        if isinstance(item, str):
            return ModelEntry(name=self._model_name(item, None, path, path), model=item)
        name = self._model_name(item.model, item.name, (*path, "model"), (*path, "name"))
        return ModelEntry(name=name, model=item.model, optimizer=item.optimizer, lr=item.lr)

    def _model_name(self, target: str, given: str | None, target_path: Path, name_path: Path) -> str:
        """The name of a model in cells, its target checked."""
        if target not in MODELS and not self._check_plugin(target, target_path):
            return given or target
        if given is not None and given != target and given in MODELS:
            self._note(name_path, f"{quoted(given)} is the name of a built-in model: choose another")
        name = given or target.replace(":", ".")
        if not re.fullmatch(NAME_PATTERN[1:-1], name):
            self._note(target_path, f"{quoted(name)} cannot be its name in tables: give it one with the key 'name'")
        return name

    @functools.cached_property
    def _plugins(self) -> tuple[str, ...]:
        return plugin_names()

    def _check_plugin(self, target: str, path: Path) -> bool:
        known = (*MODELS, *self._plugins) if self._allow_plugins else MODELS
        if target not in self._plugins and not _CODE.fullmatch(target):
            form = ", or write package.module:function" if ":" in target else ""
            self._note(path, f"unknown model {quoted(target)} (known: {', '.join(known)}){form}")
            return False
        if not self._allow_plugins:
            self._note(path, f"{quoted(target)} is code: add --allow-plugins to run code named in the matrix")
        return self._allow_plugins

    def _variant(self, item: str | RawVariant, path: Path) -> Variant:
        if isinstance(item, str):
            if item not in BUILTIN_VARIANTS:
                mend = f"(known: {', '.join(BUILTIN_VARIANTS)}; or define it: {{name: ..., execution: ...}})"
                self._note(path, f"unknown variant {quoted(item)} {mend}")
            return BUILTIN_VARIANTS.get(item) or Variant(name=item)
        if item.name in BUILTIN_VARIANTS:
            self._note((*path, "name"), f"{quoted(item.name)} is the name of a built-in variant: choose another")
        if not self._is_cut(path, "execution") and item.compile is not None and item.execution != "compile":
            self._note((*path, "compile"), "has no effect with execution: eager: add execution: compile", key=True)
        if not self._is_cut(path, "pipeline") and item.workers and item.pipeline == "resident":
            mend = "set pipeline: tensors or torchvision, or remove workers"
            self._note((*path, "workers"), f"the resident pipeline has no loader to give workers to: {mend}")
        settings = {**item.model_dump(exclude={"compile"}), "compile": _compile_options(item.compile)}
        return Variant(**settings)

    def _exclude(self, item: RawSelector, path: Path) -> Selector:
        selector = _selector(item)
        if not self._is_cut(path) and selector == Selector():
            self._note(path, f"would exclude every cell: give at least one of {', '.join(SELECTOR_KEYS)}")
        return selector

    def _floor(self, item: RawFloor, path: Path) -> Floor:
        if not self._is_cut(path) and item.min_accuracy is None and item.min_train_samples_per_s is None:
            self._note(path, "expects nothing: give min_accuracy, min_train_samples_per_s or both")
        return Floor(**item.model_dump())

    def _check_cells(self, matrix: Matrix) -> None:
        product = math.prod((len(matrix.models), len(matrix.devices), len(matrix.batch_sizes), len(matrix.variants)))
        if product + len(matrix.include) > MAX_CELLS:
            total = f"{product:,} cells and {len(matrix.include):,} included"
            self._note((), f"the axes multiply to {total}: more than {MAX_CELLS:,}; split the matrix")
            return
        axes = _axes(matrix)
        for i, selector in enumerate(matrix.exclude):
            self._check_exclude(selector, axes, ("exclude", i))
        for i, cell in enumerate(matrix.include):
            self._check_include(cell, axes, ("include", i))
        if self._found_under("exclude", "include"):
            return  # which cells are meant is not known
        cells = expand(matrix)
        self._check_unique(matrix, cells)
        if not cells:
            self._note(("exclude",), "leaves no cell: exclude less", key=True)
            return
        for i, floor in enumerate(matrix.expect):
            self._check_expect(floor, cells, ("expect", i))

    def _check_exclude(self, selector: Selector, axes: dict[str, list[str]], path: Path) -> None:
        # In a full product every combination of values that are on the axes exists.
        self._check_values(selector, axes, path, "so it excludes nothing")

    def _check_include(self, cell: Cell, axes: dict[str, list[str]], path: Path) -> None:
        known = {
            "model": list(dict.fromkeys([*axes["model"], *MODELS])),
            "variant": list(dict.fromkeys([*axes["variant"], *BUILTIN_VARIANTS])),
        }
        for key, names in known.items():
            if getattr(cell, key) not in names:
                name = quoted(getattr(cell, key))
                self._note((*path, key), f"unknown {key} {name} (known: {', '.join(names)})")

    def _check_unique(self, matrix: Matrix, cells: tuple[Cell, ...]) -> None:
        product = len(cells) - len(matrix.include)
        seen = {_same_cell(cell) for cell in cells[:product]}
        for i, cell in enumerate(cells[product:]):
            if _same_cell(cell) in seen:
                self._note(("include", i), f"duplicate cell {cell.id}: the matrix has it already; remove it here")
            seen.add(_same_cell(cell))

    def _check_expect(self, selector: Selector, cells: tuple[Cell, ...], path: Path) -> None:
        known = {key: list(dict.fromkeys(str(getattr(cell, key)) for cell in cells)) for key in SELECTOR_KEYS}
        if self._check_values(selector, known, path, "so it would never be checked") and not any(
            selector.matches(cell) for cell in cells
        ):
            self._note(path, "matches no cell (it may be excluded), so it would never be checked: remove it")

    def _check_values(self, selector: Selector, known: dict[str, list[str]], path: Path, effect: str) -> bool:
        """Whether every value of a selector is one that cells have."""
        sound = True
        for key in SELECTOR_KEYS:
            value = getattr(selector, key)
            if value is not None and str(value) not in known[key]:
                sound = False
                shown = quoted(value) if isinstance(value, str) else value
                names = ", ".join(known[key])
                self._note((*path, key), f"no cell has the {key} {shown} (known: {names}), {effect}")
        return sound


def _axes(matrix: Matrix) -> dict[str, list[str]]:
    return {
        "model": [entry.name for entry in matrix.models],
        "device": list(matrix.devices),
        "batch_size": [str(size) for size in matrix.batch_sizes],
        "variant": [variant.name for variant in matrix.variants],
    }


def _same_device(device: str) -> str:
    """``cuda`` is the first of the visible GPUs: a matrix that names it both ways would measure it twice."""
    return "cuda:0" if device == "cuda" else device


def _same_cell(cell: Cell) -> tuple[str, str, int, str]:
    return cell.model, _same_device(cell.device), cell.batch_size, cell.variant


def _selector(item: RawSelector) -> Selector:
    return Selector(model=item.model, device=item.device, batch_size=item.batch_size, variant=item.variant)


def _cell(item: RawCell) -> Cell:
    return Cell(model=item.model, device=item.device, batch_size=item.batch_size, variant=item.variant)


def _compile_options(item: RawCompile | None) -> CompileOptions:
    if item is None:
        return CompileOptions()
    return CompileOptions(**item.model_dump())
