"""A matrix file -> a Matrix, or every problem of the file at once, each with its line and column.

Three steps: YAML with places (``positions``), the shape of each value (pydantic, on the annotations of the records),
what the values say by themselves and together (the rules at the end). A rule looks at what is sound, so that one fault
does not hide the next.
"""

import dataclasses
import importlib.metadata
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec
from pydantic import TypeAdapter, ValidationError

from mnist_bench.catalogue import CAPTURING_MODES, CODE, DATASETS, ENTRY_POINT_GROUP, EXECUTIONS, MODELS, device_names
from mnist_bench.cells import AXES, expand, unshared, variants_of
from mnist_bench.config import positions
from mnist_bench.config.positions import at, described
from mnist_bench.disk.files import read_regular
from mnist_bench.errors import ConfigError, quoted, unknown
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    CELL_KEYS,
    MAX_CELLS,
    MAX_SEEDS,
    TRAIN_IMAGES,
    Cell,
    CompileOptions,
    Floor,
    GateRule,
    Matrix,
    ModelEntry,
    Selector,
    Variant,
)

MAX_FILE_BYTES = 1 << 20
# What should stand where pydantic found no list, or no mapping; of one key or of any.
EXPECTED = {
    "tuple_type": "a list",
    "dataclass_type": "a mapping",
    "tuple_type:seeds": "a count of seeds from 1 to 1000, or a list of seeds",
    "tuple_type:gate": "a rule (a mapping), or a list of rules",
    "dataclass_type:models": "a model's name, or a mapping with the key 'model'",
    "dataclass_type:variants": "the name of a built-in variant, or a mapping with the key 'name'",
}
ITEMS = {"models": ModelEntry, "variants": Variant, "exclude": Selector, "expect": Floor, "gate": GateRule}
DISTINCT = {"seeds": "seed", "models": "model", "devices": "device", "batch_sizes": "batch size", "variants": "variant"}

MATRIX = TypeAdapter(Matrix)
S = TypeVar("S", bound=Selector)
_CODE = re.compile(CODE)
IS_CODE = "is code: add --allow-plugins to run code named in the matrix"
_NOT_COMPILED = dataclasses.asdict(CompileOptions())


class Fault(NamedTuple):
    """What is wrong with the value at a path, or with the key there."""

    path: positions.Path
    message: str
    of_key: bool = False


def load(path: Path, *, allow_plugins: bool, source: str = "") -> Matrix:
    """Reads a matrix file.

    Args:
        path: a regular file, at most 1 MiB of UTF-8.
        allow_plugins: whether models may name code. Nothing is imported here either way.
        source: what problems call it; empty: its path.

    Returns:
        The matrix with every default filled in.

    Raises:
        ConfigError: every problem of the file.
    """
    try:
        text = read_regular(path, MAX_FILE_BYTES, follow=True).decode("utf-8")
    except FileNotFoundError:
        reason = "no such file: name an existing matrix file, or have `mnist-bench init` write benchmarks.yaml"
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}): save the file as UTF-8"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        return parse(text, source=source or str(path), allow_plugins=allow_plugins)
    raise ConfigError([f"{source or path}:1:1: {reason}"])


def parse(text: str, *, source: str, allow_plugins: bool) -> Matrix:
    """Reads the text of a matrix file.

    Args:
        text: the whole file.
        source: what problems call it.
        allow_plugins: whether models may name code.

    Returns:
        The matrix with every default filled in.

    Raises:
        ConfigError: every problem, as ``source:line:column: path: message``.

    >>> parse("version: 1", source="m.yaml", allow_plugins=False)
    Traceback (most recent call last):
    mnist_bench.errors.ConfigError: m.yaml:1:1: missing key 'models'
    m.yaml:1:1: missing key 'devices'
    m.yaml:1:1: missing key 'batch_sizes'
    m.yaml:1:1: missing key 'variants'
    """
    found, matrix = positions.Reader(text), None
    if found.values and isinstance(found.values, dict):
        values = {key: value for key, value in found.values.items() if not key.startswith("x-")}
        if "version" not in values:
            found.blame((), "missing key 'version'")
        matrix, faults = examined(values, allow_plugins, found.spoilt)
        for path, message, of_key in faults:
            found.blame(path, message, of_key=of_key)
    elif found.values:
        found.blame((), f"should be a mapping of keys, got {described(found.values)}")
    elif not found.problems:
        found.problems.append(((1, 1), "is empty: mnist-bench schema tells what a matrix file holds"))
    if matrix is None or found.problems:
        ordered = sorted(found.problems, key=lambda problem: problem[0])
        problems = [f"{source}:{line}:{column}: {words}" for (line, column), words in ordered]
        raise ConfigError(list(dict.fromkeys(problems)))
    return matrix


def checked(matrix: Matrix | Mapping[str, Any], *, source: str, allow_plugins: bool) -> Matrix:
    """A matrix that comes from elsewhere than a file of people's (a manifest, a program): it obeys the same rules.

    Args:
        matrix: of any values, short forms included.
        source: what problems call it.
        allow_plugins: whether models may name code.

    Returns:
        The matrix with every default filled in.

    Raises:
        ConfigError: every problem, as ``source: path: message``.
    """
    found, faults = examined(json.loads(msgspec.json.encode(matrix, enc_hook=_written)), allow_plugins)
    if found is None or faults:
        raise ConfigError([f"{source}: {at(fault.path)}{fault.message}" for fault in faults])
    return found


def _written(value: Any) -> Any:
    """A value of a program's (an array, a range, ...) as people would write it; what else it may be is said of it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, range) else str(value)


def on_axes(matrix: Matrix, axes: Mapping[str, Sequence[object]], *, allow_plugins: bool) -> Matrix:
    """The matrix with other values on some of its axes; what then selects no cell any more is dropped.

    Args:
        axes: by key of the matrix, what people write there; a name that the matrix defines means its own.
        allow_plugins: whether models may name code.

    Raises:
        ConfigError: every problem of the values, as ``--models: message``.
    """
    bare = dataclasses.replace(matrix, exclude=(), include=(), expect=(), gate=(), reference=None)
    values = json.loads(msgspec.json.encode(bare))
    for axis, items in axes.items():
        own = {item["name"]: item for item in values[axis]} if axis in ITEMS else {}
        values[axis] = [own.get(item, item) for item in items]
    changed, faults = examined(values, allow_plugins)
    if changed is None or faults:
        flags = [str(path[0] if path else min(axes)).replace("_", "-") for path, _, _ in faults]
        raise ConfigError([f"--{flag}: {fault.message}" for flag, fault in zip(flags, faults, strict=True)])
    cells = expand(changed)
    new = {
        key: {getattr(cell, key) for cell in cells} for key, axis in zip(CELL_KEYS, AXES, strict=True) if axis in axes
    }
    changed = dataclasses.replace(changed, exclude=_selecting(matrix.exclude, cells))
    there = {_same_cell(cell) for cell in expand(changed)}
    wanted = [cell for cell in matrix.include if all(getattr(cell, key) in names for key, names in new.items())]
    changed = dataclasses.replace(changed, include=tuple(cell for cell in wanted if _same_cell(cell) not in there))
    if not (cells := expand(changed)):
        raise ConfigError([f"--{min(axes).replace('_', '-')}: the matrix excludes every cell that is left"])
    return dataclasses.replace(
        changed,
        expect=_selecting(matrix.expect, cells),
        gate=_selecting(matrix.gate, cells),
        reference=matrix.reference if matrix.reference in {one.name for one in variants_of(changed)} else None,
    )


def _selecting(selectors: Sequence[S], cells: Sequence[Cell]) -> tuple[S, ...]:
    """Those that match a cell."""
    return tuple(selector for selector in selectors if any(map(selector.matches, cells)))


def examined(
    values: dict[str, Any], allow_plugins: bool, spoilt: Collection[positions.Path] = ()
) -> tuple[Matrix | None, list[Fault]]:
    """The matrix of the values, None where it has none of the right shape; and all that is wrong in it.

    Args:
        values: as people write them.
        allow_plugins: whether models may name code.
        spoilt: where something is wrong already: what depends on it is not looked at.
    """
    long = _long(values)
    matrix, faults = _validated(long)
    wrong = {path[:2] for path in (*spoilt, *(fault.path for fault in faults))}
    items = [
        (key, number, item)
        for key in {**ITEMS, **DISTINCT}
        for number, item in enumerate(long[key] if isinstance(long.get(key), list) else ())
        if (key, number) not in wrong
    ]
    faults += _duplicates(items)
    for key, number, item in items:
        if key in ITEMS:
            for path, message, of_key in _of_item(msgspec.convert(item, ITEMS[key]), item, allow_plugins):
                faults.append(Fault((key, number, *path), message, of_key))
        elif key == "batch_sizes" and item > TRAIN_IMAGES and ":" not in str(long.get("dataset")):
            faults.append(
                Fault((key, number), f"should be less than or equal to {TRAIN_IMAGES}: so many are trained on")
            )
    if ("dataset",) not in wrong:
        faults += _of_dataset(long, allow_plugins)
    for rules, needed in ((_of_selections, AXES), (_of_cells, (*AXES, "exclude", "include"))):
        # A fault of the whole is one of the axes: they multiply to more cells than can be looked at.
        unsound = {str(path[0]) if path else AXES[0] for path in (*spoilt, *(fault.path for fault in faults))}
        sound, _ = _validated({key: value for key, value in long.items() if key not in unsound})
        if sound is not None and not unsound & {*needed}:
            faults += rules(sound)
    return matrix, faults


def _validated(values: dict[str, Any]) -> tuple[Matrix | None, list[Fault]]:
    """The matrix, or what pydantic finds."""
    try:
        return MATRIX.validate_json(json.dumps(values)), []
    except ValidationError as error:
        # A list is too short for pydantic where its items are wrong, too.
        found = [one for one in error.errors(include_url=False) if one["type"] != "too_short" or not one["input"]]
        return None, [Fault(one["loc"], _message(one), one["type"] == "unexpected_keyword_argument") for one in found]


def _long(plain: dict[str, Any]) -> dict[str, Any]:
    """The values with what people may write short written out: the name of a model or variant, a count of seeds."""
    long = dict(plain)
    if isinstance(models := plain.get("models"), list):
        long["models"] = [_long_model({"model": item} if isinstance(item, str) else item) for item in models]
    if isinstance(variants := plain.get("variants"), list):
        built_in = {name: dataclasses.asdict(variant) for name, variant in BUILTIN_VARIANTS.items()}
        long["variants"] = [built_in.get(item, item) if isinstance(item, str) else item for item in variants]
    if isinstance(rule := plain.get("gate"), dict):
        long["gate"] = [rule]
    count = plain.get("seeds")
    if type(count) is int and 1 <= count <= MAX_SEEDS:
        long["seeds"] = list(range(count))
    return long


def _long_model(item: Any) -> Any:
    """With a name that tables can hold: ``mine:build`` is ``mine.build``."""
    if not isinstance(item, dict):
        return item
    name = re.sub(r"[^A-Za-z0-9._-]", ".", str(item.get("model"))).lstrip("._-")[:64]
    return {"name": name or "unnamed", **item}


def _message(fault: Any) -> str:
    """One of pydantic's errors in words; its own where they say what a person must know."""
    value = fault["input"]
    keys = [part for part in fault["loc"] if isinstance(part, str)]
    match fault["type"], keys[-1]:
        case "missing", key:
            return f"missing key {quoted(key)}"
        case "unexpected_keyword_argument", key:
            return unknown("key", key, _known_keys(keys[:-1]))
        case "dataclass_type", "variants" if isinstance(value, str):
            return unknown("variant", value, BUILTIN_VARIANTS) + "; or define it: {name: ..., execution: ...}"
        case "string_pattern_mismatch", "dataset":
            return unknown("data set", value, DATASETS) + "; or write package.module:function"
        case "string_pattern_mismatch", "device" | "devices":
            return unknown("device", value, device_names())
        case "string_pattern_mismatch", _:
            return f"{quoted(value)} is no name: up to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        case "less_than_equal", "version":
            return f"this program reads version 1, not {described(value)}"
        case "too_short", _:
            return "is empty: list at least one"
        case "too_long", _:
            return f"holds {fault['ctx']['actual_length']} items, at most {fault['ctx']['max_length']} are allowed"
        case kind, key:
            expected = (
                EXPECTED.get(f"{kind}:{key}") or EXPECTED.get(kind) or fault["msg"].removeprefix("Input should be ")
            )
            return f"should be {expected}, got {described(value)}"


def _known_keys(keys: list[str]) -> list[str]:
    """The keys of the mapping at a place."""
    record: Any = Matrix
    for key in keys:
        hint = get_type_hints(record)[key]
        record = next(iter(get_args(hint)), hint)  # of ``tuple[Record, ...]``
    return [field.name for field in dataclasses.fields(record)]


def plugin_names() -> tuple[str, ...]:
    """The entry points that installed packages offer as models. Looked up by name; none is imported."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}))


def _of_item(record: Any, item: Mapping[str, Any], allow_plugins: bool) -> Iterator[Fault]:
    """What is wrong with one item of a list, of sound values; paths begin at the item."""
    match record:
        case ModelEntry():
            yield from _of_model(record, allow_plugins)
        case Variant():
            yield from _of_variant(record, item)
        case Floor():
            if record.min_accuracy is None and record.min_train_samples_per_s is None:
                yield Fault((), "expects nothing: give min_accuracy, min_train_samples_per_s or both")
        case GateRule():
            if record.detect <= record.margin:
                yield Fault((), f"detect ({record.detect:g}) should be above margin ({record.margin:g})")
        case Selector() if record == Selector():
            yield Fault((), f"would exclude every cell: give at least one of {', '.join(CELL_KEYS)}")


def _of_model(entry: ModelEntry, allow_plugins: bool) -> Iterator[Fault]:
    if entry.model not in MODELS:
        plugins = plugin_names()
        if entry.model not in plugins and not _CODE.fullmatch(entry.model):
            form = "; or write package.module:function" if ":" in entry.model else ""
            known = (*MODELS, *(plugins if allow_plugins else ()))
            yield Fault(("model",), unknown("model", entry.model, known) + form)
        elif not allow_plugins:
            yield Fault(("model",), f"{quoted(entry.model)} {IS_CODE}")
    if entry.name in MODELS and entry.model != entry.name:
        yield Fault(("name",), f"{quoted(entry.name)} is the name of a built-in model: choose another")


def _of_variant(variant: Variant, item: Mapping[str, Any]) -> Iterator[Fault]:
    if BUILTIN_VARIANTS.get(variant.name, variant) != variant:
        yield Fault(("name",), f"{quoted(variant.name)} is the name of a built-in variant: choose another")
    execution = EXECUTIONS[variant.execution]
    if not execution.compiles and item.get("compile", _NOT_COMPILED) != _NOT_COMPILED:
        wanted = "compile_cuda_graph" if execution.captured else "compile"
        message = f"has no effect with execution: {variant.execution}: add execution: {wanted}"
        yield Fault(("compile",), message, of_key=True)
    elif execution.compiles:
        yield from _of_compile(variant)
    if execution.captured and variant.pipeline != "resident":
        yield Fault(("pipeline",), "a captured step gathers from the resident images: remove pipeline")
    if execution.captured and variant.precision == "fp16" and not variant.fused_optimizer:
        message = "the gradient scaler reads a value in each step, which no captured step can: remove fused_optimizer"
        yield Fault(("fused_optimizer",), message)
    if variant.workers and variant.pipeline == "resident":
        mend = "set pipeline: tensors or torchvision, or remove workers"
        message = f"the resident pipeline has no loader to give workers to: {mend}"
        yield Fault(("workers",), message, of_key=True)
    if variant.processes % variant.nodes:
        words = f"{variant.nodes} machines cannot have as many each of processes: {variant.processes}: change one"
        yield Fault(("nodes",), words)
    if variant.processes > 1:
        yield from _of_processes(variant)


def _of_processes(variant: Variant) -> Iterator[Fault]:
    beside = {"execution": variant.execution != "eager", "precision": variant.precision == "bf16-weights"}
    for name in (name for name, unfit in beside.items() if unfit):
        words = f"{name}: {getattr(variant, name)}"
        yield Fault(("processes",), f"more than 1 does not go with {words}: remove one of the two")


def _of_compile(variant: Variant) -> Iterator[Fault]:
    own = variant.compile
    for name, value in own.options.items():
        if not isinstance(value, bool | int | float | str):
            yield Fault(("compile", "options", name), f"should be a single value, got {described(value)}")
    if own.backend != "inductor" and (own.options or own.cache != "cold"):
        message = "has neither options nor a cache that is kept: only inductor has; remove these keys, or backend"
        yield Fault(("compile", "backend"), message)
    if own.mode in CAPTURING_MODES and EXECUTIONS[variant.execution].captured:
        message = f"captures graphs of its own, which no other can hold: set mode: {CAPTURING_MODES[own.mode]}"
        yield Fault(("compile", "mode"), message)
    if own.scope == "step" and variant.precision in ("fp16", "bf16-weights"):
        message = f"the update of precision: {variant.precision} is more than the optimizer's: set scope: model"
        yield Fault(("compile", "scope"), message)


def _duplicates(items: Iterable[tuple[str, int, Any]]) -> Iterator[Fault]:
    first: dict[tuple[str, object], tuple[int, object]] = {}
    for key, number, item in items:
        if key not in DISTINCT:
            continue
        value = item["name"] if isinstance(item, dict) else item
        before, other = first.setdefault((key, _same_device(value)), (number, value))
        if before != number:
            alias = "" if other == value else " ('cuda' is 'cuda:0')"
            mend = "remove one, or give it another name" if key in ITEMS else "remove one"
            words = f"duplicate {DISTINCT[key]} {quoted(value)}{alias} (the first is {key}[{before}]): {mend}"
            yield Fault((key, number), words)


def _of_dataset(values: Mapping[str, Any], allow_plugins: bool) -> Iterator[Fault]:
    name = values.get("dataset", "auto")
    if ":" in name and not allow_plugins:
        yield Fault(("dataset",), f"{quoted(name)} {IS_CODE}")
    if values.get("recipe") == "tutorial" and name not in ("auto", "mnist", "synthetic"):
        words = f"tutorial reproduces figures of MNIST, and {quoted(name)} has none"
        yield Fault(("recipe",), f"{words}: set recipe: standard, or dataset: mnist")


def _of_selections(matrix: Matrix) -> Iterator[Fault]:
    """Of the axes together, and of what ``exclude`` and ``include`` take from them."""
    product = math.prod(len(getattr(matrix, axis)) for axis in AXES)
    if product + len(matrix.include) > MAX_CELLS:
        total = f"{product:,} cells and {len(matrix.include):,} included"
        yield Fault((), f"the axes multiply to {total}: more than {MAX_CELLS:,}; split the matrix")
        return
    full = dataclasses.replace(matrix, exclude=(), include=())
    yield from _unmatched("exclude", matrix.exclude, expand(full), "so it excludes nothing")
    models = [*(entry.name for entry in matrix.models), *MODELS]
    variants = [*(variant.name for variant in matrix.variants), *BUILTIN_VARIANTS]
    for number, cell in enumerate(matrix.include):
        for key, names in (("model", models), ("variant", variants)):
            if getattr(cell, key) not in names:
                yield Fault(("include", number, key), unknown(key, getattr(cell, key), dict.fromkeys(names)))


def _of_cells(matrix: Matrix) -> Iterator[Fault]:
    """Of the cells that are left: those that are there twice, and what no cell answers to."""
    cells = expand(matrix)
    seen = {_same_cell(cell) for cell in cells[: len(cells) - len(matrix.include)]}
    for number, cell in enumerate(matrix.include):
        if _same_cell(cell) in seen:
            yield Fault(("include", number), f"duplicate cell {cell.id}: the matrix has it already; remove it here")
        seen.add(_same_cell(cell))
    if not cells:
        yield Fault(("exclude",), "leaves no cell: exclude less", of_key=True)
        return
    images = 0 if ":" in matrix.dataset else TRAIN_IMAGES  # of code it is said once it was called
    axis = [variant.name for variant in matrix.variants]
    for name, message in dict.fromkeys(unshared(matrix, images)):
        yield Fault(("variants", axis.index(name), "processes"), message)
    yield from _unmatched("expect", matrix.expect, cells, "so it would never be checked")
    yield from _unmatched("gate", matrix.gate, cells, "so it would never be checked")
    names = [variant.name for variant in variants_of(matrix)]
    if matrix.reference is not None and matrix.reference not in names:
        yield Fault(("reference",), unknown("variant", matrix.reference, names))


def _unmatched(key: str, selectors: Sequence[Selector], cells: Sequence[Cell], effect: str) -> Iterator[Fault]:
    """The values of selectors that no cell has, and selectors whose values no cell has together."""
    known = {name: dict.fromkeys(getattr(cell, name) for cell in cells) for name in CELL_KEYS}
    for number, selector in enumerate(selectors):
        given = {name: getattr(selector, name) for name in CELL_KEYS if getattr(selector, name) is not None}
        strange = {name: value for name, value in given.items() if value not in known[name]}
        for name, value in strange.items():
            names = ", ".join(map(str, known[name]))
            message = f"no cell has the {name} {quoted(value)} (known: {names}), {effect}"
            yield Fault((key, number, name), message)
        if not strange and not any(selector.matches(cell) for cell in cells):
            yield Fault((key, number), f"matches no cell (it may be excluded), {effect}: remove it")


def _same_device(name: object) -> object:
    """``cuda`` is the first of the visible GPUs: a matrix that names it both ways would measure it twice."""
    return "cuda:0" if name == "cuda" else name


def _same_cell(cell: Cell) -> Cell:
    return dataclasses.replace(cell, device=str(_same_device(cell.device)))
