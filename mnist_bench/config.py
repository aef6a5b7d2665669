"""A matrix file -> a Matrix, or every problem of the file at once, each with its line and column.

Three steps: positioned YAML (``yaml_positions``), the shape of each value (``matrix_file``), what the values say
together (``config_rules``). What one step refuses is cut out of the tree, so that the next still sees the rest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mnist_bench import yaml_positions
from mnist_bench.config_rules import resolve
from mnist_bench.errors import ConfigError
from mnist_bench.matrix_file import (
    DETAILED,
    PLAIN,
    PartialMatrix,
    RawCell,
    RawCompile,
    RawFloor,
    RawLimits,
    RawMatrix,
    RawModel,
    RawSelector,
    RawTiming,
    RawVariant,
    schema,
)
from mnist_bench.records import Matrix
from mnist_bench.yaml_positions import Node, Problem
from mnist_bench.yaml_positions import Path as NodePath
from mnist_bench.yaml_scalars import described, quoted

__all__ = ["load", "parse", "schema"]

MAX_FILE_BYTES = 1 << 20

# Settings that are spoken of but not there: what to do instead.
LATER = {
    ("execution", "cuda_graph"): "this version cannot capture CUDA graphs; use execution: compile with "
    "compile: {mode: reduce-overhead}",
    ("precision", "fp16"): "this version cannot train in fp16 (it needs loss scaling); use bf16",
}
REASONS = {
    "epochs": " (the figures of every epoch travel in one line of 4 KB)",
    "version": " (this program reads version 1)",
    "processes": " (this version runs a trial in one process: remove the key or set it to 1)",
    "batch_sizes": " (there are 60,000 training images)",
    "batch_size": " (there are 60,000 training images)",
}
SHAPES = {
    "string_pattern_mismatch:device": "unknown device {text} (known: cpu, cuda, cuda:N, mps, xpu)",
    "string_pattern_mismatch:backend": "{text} is no backend's name: a letter, then letters, digits, '.', '_' or '-'",
    "string_pattern_mismatch": "{text} is no name: up to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit",
    "int_type": "expected a whole number, got {got}",
    "float_type": "expected a number, got {got}",
    "bool_type": "expected true or false, got {got}",
    "string_type": "expected text, got {got} (put it in quotes if text is meant)",
    "list_type": "expected a list, got {got}",
    "model_type": "expected a mapping, got {got}",
    "finite_number": "expected a finite number, got {got}",
    "greater_than_equal": "expected at least {ge}, got {got}",
    "less_than_equal": "expected at most {le}, got {got}",
    "greater_than": "expected more than {gt}, got {got}",
    "less_than": "expected less than {lt}, got {got}",
    "literal_error": "expected {expected}, got {got}",
    "too_short": "is empty: list at least one",
    "too_long": "holds {actual_length} items, at most {max_length} are allowed",
}
KEYS: dict[tuple[str, ...], Iterable[str]] = {
    (): RawMatrix.model_fields,
    ("models",): RawModel.model_fields,
    ("variants",): RawVariant.model_fields,
    ("variants", "compile"): RawCompile.model_fields,
    ("exclude",): RawSelector.model_fields,
    ("include",): RawCell.model_fields,
    ("timing",): RawTiming.model_fields,
    ("limits",): RawLimits.model_fields,
    ("expect",): RawFloor.model_fields,
}


def load(path: Path, *, allow_plugins: bool) -> Matrix:
    """Reads a matrix file.

    Args:
        path: the file, at most 1 MiB of UTF-8.
        allow_plugins: whether models may name code. Nothing is imported here either way.

    Returns:
        The matrix with every default filled in.

    Raises:
        ConfigError: every problem of the file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        reason = "no such file: name an existing matrix file, or copy benchmarks.yaml from the repository"
        raise ConfigError([f"{path}:1:1: {reason}"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}:1:1: is a directory: name the matrix file in it"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([f"{path}:1:1: cannot be read: {reason}"]) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}:1:1: larger than 1 MiB: is it a matrix file?"])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start} is 0x{content[error.start]:02x}): save the file as UTF-8"
        raise ConfigError([f"{path}:1:1: {reason}"]) from None
    return parse(text, source=str(path), allow_plugins=allow_plugins)


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
    root, found = yaml_positions.read(text)
    problems = list(found)
    if root is not None and root.value is not None and not isinstance(root.value, dict):
        problems.append(Problem(root.position, (), f"expected a mapping of keys, got {described(root.value)}"))
    elif root is not None and isinstance(root.value, dict) and root.value:
        matrix = _from_tree(root, problems, allow_plugins)
        if matrix is not None and not problems:
            return matrix
    elif not problems:
        problems.append(Problem((1, 1), (), "is empty: mnist-bench schema tells what a matrix file holds"))
    problems.sort(key=lambda problem: problem.position)
    raise ConfigError(list(dict.fromkeys(problem.render(source) for problem in problems)))


def _from_tree(root: Node, problems: list[Problem], allow_plugins: bool) -> Matrix | None:
    spoiled = _spoiled_paths(problems)
    for node in root.walk():
        if node.value is None and not _within(node.path, spoiled):
            message = "has no value: give one, or remove the key" if node.key_position else "an empty item: remove it"
            problems.append(Problem(node.position, node.path, message, spoils=True))
    raw = _validate(root, problems)
    if raw is None:
        return None
    return resolve(raw, root.without(_spoiled_paths(problems)), problems, allow_plugins)


def _spoiled_paths(problems: Iterable[Problem]) -> set[NodePath]:
    return {problem.path for problem in problems if problem.spoils}


def _within(path: NodePath, roots: set[NodePath]) -> bool:
    return any(path[:length] in roots for length in range(len(path) + 1))


def _validate(root: Node, problems: list[Problem]) -> RawMatrix | None:
    """The file's values; of a faulty file those that are left when every fault is cut out, None where nothing fits."""
    try:
        raw = RawMatrix.model_validate(root.plain())
    except ValidationError as error:
        spoiled = _spoiled_paths(problems)
        for fault in error.errors(include_url=False):
            problem = _shape_problem(root, fault)
            path = (*problem.path, fault["loc"][-1]) if fault["type"] == "missing" else problem.path
            if not _within(path, spoiled):
                problems.append(problem)
    else:
        if not problems:
            return raw
    try:
        return PartialMatrix.model_validate(root.without(_spoiled_paths(problems)).plain())
    except ValidationError:
        return None


def _shape_problem(root: Node, fault: Any) -> Problem:
    """One of pydantic's errors, put where it is mended: at the value, an unknown key, or the mapping that lacks one."""
    node = root
    for part in fault["loc"]:
        node = node.child(part) or node if part not in (PLAIN, DETAILED) else node
    position = node.key_position or node.position if fault["type"] == "extra_forbidden" else node.position
    return Problem(position, node.path, _shape_message(fault, node), spoils=bool(node.path))


def _shape_message(fault: Any, node: Node) -> str:
    names = [part for part in fault["loc"] if isinstance(part, str) and part not in (PLAIN, DETAILED)]
    last = names[-1] if names else ""
    match fault["type"]:
        case "missing":
            return f"missing key {quoted(last)}"
        case "extra_forbidden":
            return _unknown_key(last, KEYS.get(tuple(names[:-1]), ()))
        case "choice":
            return f"{fault['msg']}, got {described(node.value)}"
    if isinstance(node.value, str) and (last, node.value) in LATER:
        return LATER[last, node.value]
    key = {"devices": "device"}.get(last, last)
    shape = SHAPES.get(f"{fault['type']}:{key}") or SHAPES.get(fault["type"])
    if shape is None:
        return str(fault["msg"])
    reason = REASONS.get(last, "") if fault["type"].startswith(("greater", "less")) else ""
    bounds = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in fault.get("ctx", {}).items()}
    return shape.format(got=described(node.value), text=quoted(str(node.value)), **bounds) + reason


def _unknown_key(key: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    hint = f": did you mean {quoted(close[0])}?" if close else ""
    return f"unknown key {quoted(key)}{hint} (known: {', '.join(names)})"
