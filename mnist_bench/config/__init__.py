"""A matrix file -> a Matrix, or every problem of the file at once, each with its line and column.

Three steps: positioned YAML (``positions``), the shape of each value (pydantic, on the annotations of the records),
what the values say together (``rules``). What one step refuses is cut out of the tree, so that the next still sees the
rest.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from mnist_bench.catalogue import MODELS, PIPELINES, device_names
from mnist_bench.config import positions
from mnist_bench.config.positions import Node, Problem, at, described
from mnist_bench.config.rules import broken_rules
from mnist_bench.disk.files import read_regular
from mnist_bench.errors import ConfigError, quoted, unknown
from mnist_bench.records import BUILTIN_VARIANTS, MAX_SEEDS, Matrix

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
# Stands for a list of which nothing is left, so that its mistakes do not hide the next.
PLACEHOLDERS = {"models": ["mlp"], "devices": ["cpu"], "batch_sizes": [1], "variants": ["eager"], "seeds": 1}

_MATRIX = TypeAdapter(Matrix)


def load(path: Path, *, allow_plugins: bool) -> Matrix:
    """Reads a matrix file.

    Args:
        path: a regular file, at most 1 MiB of UTF-8.
        allow_plugins: whether models may name code. Nothing is imported here either way.

    Returns:
        The matrix with every default filled in.

    Raises:
        ConfigError: every problem of the file.
    """
    try:
        text = read_regular(path, MAX_FILE_BYTES, follow=True).decode("utf-8")
    except FileNotFoundError:
        reason = "no such file: name an existing matrix file, or copy benchmarks.yaml from the repository"
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}): save the file as UTF-8"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        return parse(text, source=str(path), allow_plugins=allow_plugins)
    raise ConfigError([f"{path}:1:1: {reason}"])


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
    root, problems = positions.read(text)
    matrix = None
    if root is not None and root.value and not isinstance(root.value, dict):
        problems.append(Problem(root.position, (), f"should be a mapping of keys, got {described(root.value)}"))
    elif root is not None and root.value:
        matrix = _from_tree(root, problems, allow_plugins)
    elif not problems:
        problems.append(Problem((1, 1), (), "is empty: mnist-bench schema tells what a matrix file holds"))
    if matrix is None or problems:
        problems.sort(key=lambda problem: problem.position)
        raise ConfigError(list(dict.fromkeys(problem.render(source) for problem in problems)))
    return matrix


def checked(matrix: Matrix, *, source: str, allow_plugins: bool) -> Matrix:
    """A matrix that comes from elsewhere than a file of people's (a manifest): it obeys the same rules.

    Args:
        matrix: of any values.
        source: what problems call it.
        allow_plugins: whether models may name code.

    Returns:
        The same matrix.

    Raises:
        ConfigError: every problem, as ``source: path: message``.
    """
    sound, faults = _validated(msgspec.to_builtins(matrix))
    problems = [(fault["loc"], _message(fault)) for fault in faults]
    if sound is not None:
        broken = broken_rules(sound, unsound=set(), allow_plugins=allow_plugins)
        problems = [(path if key is None else (*path, key), message) for path, key, message in broken]
    if problems:
        raise ConfigError([f"{source}: {at(path)}{message}" for path, message in problems])
    return matrix


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a matrix file, for editors and the ``schema`` command."""
    found = _MATRIX.json_schema(schema_generator=_Schema)
    properties = found["properties"]
    of_models, of_variants, gate = (properties[key]["items"] for key in ("models", "variants", "gate"))
    properties["models"]["items"] = {"anyOf": [{"type": "string", "examples": [*MODELS]}, of_models]}
    properties["variants"]["items"] = {"anyOf": [{"enum": [*BUILTIN_VARIANTS]}, of_variants]}
    for key, short in (("seeds", {"type": "integer", "minimum": 1, "maximum": MAX_SEEDS}), ("gate", gate)):
        about = {word: properties[key][word] for word in ("description", "default")}
        properties[key] = about | {"anyOf": [short, {k: v for k, v in properties[key].items() if k not in about}]}
    found["$defs"]["ModelEntry"]["required"] = ["model"]
    meanings = "; ".join(f"{name}: {entry.meaning}" for name, entry in PIPELINES.items())
    found["$defs"]["Variant"]["properties"]["pipeline"]["description"] += f" {meanings}."
    found["required"] = ["version", *found["required"]]
    found["patternProperties"] = {"^x-": True}
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": "mnist-bench matrix"}


class _Schema(GenerateJsonSchema):
    """Without the null that a record may hold (in a file an empty value is refused), with what docstrings say."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"]) if schema["default"] is None else super().default_schema(schema)

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        found = super().dataclass_schema(schema)
        about, _, fields = found["description"].partition("\n\nArgs:\n")
        found["description"] = " ".join(about.split())
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", fields, re.MULTILINE):
            found["properties"][name]["description"] = " ".join(text.split())
        return found


def _from_tree(root: Node, problems: list[Problem], allow_plugins: bool) -> Matrix | None:
    """The matrix of the tree; of a faulty one what is left when every fault is cut out. ``problems`` grows."""
    assert isinstance(root.value, dict)
    root = dataclasses.replace(root, value={k: node for k, node in root.value.items() if not k.startswith("x-")})
    if "version" not in root.plain():
        problems.append(Problem(root.position, (), "missing key 'version'"))
    cut = {problem.path for problem in problems if problem.spoils}
    matrix, faults = _validated(root.plain())
    shapes = [_shape_problem(root, fault) for fault in faults]
    problems += [one for one in shapes if not any(one.path[:length] in cut for length in range(len(one.path) + 1))]
    cut = {problem.path for problem in problems if problem.spoils}
    left = root.without(cut)
    plain = left.plain()
    empty = {key: value for key, value in PLACEHOLDERS.items() if plain.get(key, key == "seeds") in ([], False)}
    if cut or empty or matrix is None:
        matrix, faults = _validated({**plain, **empty})
    if matrix is not None:
        unsound = {*empty, *(str(problem.path[0]) for problem in problems if problem.path)}
        for path, key, message in broken_rules(
            matrix,
            unsound=unsound,
            allow_plugins=allow_plugins,
            written=lambda path: left.nearest(path).path[-1:] == path[-1:],
        ):
            whole = left.nearest(path)
            node = whole if key is None else left.nearest((*path, key))
            if not whole.path or not any(place[: len(whole.path)] == whole.path for place in cut):
                position = node.position if key is None else node.key_position or node.position
                problems.append(Problem(position, node.path, message))
    return matrix


def _validated(plain: dict[str, Any]) -> tuple[Matrix | None, list[Any]]:
    """The matrix, or pydantic's errors."""
    try:
        return _MATRIX.validate_json(json.dumps(_long(plain))), []
    except ValidationError as error:
        # A list is too short for pydantic where its items are wrong, too.
        return None, [one for one in error.errors(include_url=False) if one["type"] != "too_short" or not one["input"]]


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


def _shape_problem(root: Node, fault: Any) -> Problem:
    """One of pydantic's errors, put where it is mended: at the value, an unknown key, or the mapping that lacks one."""
    node = root.nearest(fault["loc"])
    unknown_key = fault["type"] == "unexpected_keyword_argument"
    position = node.key_position or node.position if unknown_key else node.position
    return Problem(position, node.path, _message(fault), spoils=bool(node.path))


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
