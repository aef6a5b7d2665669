"""YAML text -> a tree of plain values that know where they stand. Nothing is constructed, nothing is executed.

PyYAML composes the nodes and knows their places; what they mean is read here, so that a tag, a bomb of aliases or a
tower of brackets is refused. A plain scalar must mean the same in YAML 1.1 (PyYAML's) and in YAML 1.2 (the core
schema): an editor checks the file by the one and we read it by the other, and ``on`` or ``010`` would quietly differ.
"""

from __future__ import annotations

import datetime
import math
import re
from collections import ChainMap
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from mnist_bench.errors import quoted

MAX_DEPTH = 20
MAX_NODES = 100_000  # after the aliases are expanded

Scalar = str | int | float | bool | None
Path = tuple[str | int, ...]
Position = tuple[int, int]  # line and column, from 1


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file, its path from the top, its position and that of the key that names it."""

    path: Path
    position: Position
    value: Scalar | tuple[Node, ...] | dict[str, Node]
    key_position: Position | None = None

    def nearest(self, path: Path) -> Node:
        """The node at ``path`` from here, or the nearest around it: a default stands nowhere."""
        node = self
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                node = node.value[str(part)]
            elif isinstance(node.value, tuple) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
        return node

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        match self.value:
            case dict() as entries:
                return {key: node.plain() for key, node in entries.items()}
            case tuple() as items:
                return [node.plain() for node in items]
            case scalar:
                return scalar

    def without(self, paths: Collection[Path]) -> Node:
        """The tree less the nodes at ``paths``; those that stay keep their paths."""
        match self.value:
            case dict() as entries:
                return replace(self, value={k: n.without(paths) for k, n in entries.items() if n.path not in paths})
            case tuple() as items:
                return replace(self, value=tuple(n.without(paths) for n in items if n.path not in paths))
            case _:
                return self


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where. ``spoils``: the value at ``path`` says nothing any more; look no further into it."""

    position: Position
    path: Path
    message: str
    spoils: bool = False

    def render(self, source: str) -> str:
        return f"{source}:{self.position[0]}:{self.position[1]}: {at(self.path)}{self.message}"


def at(path: Path) -> str:
    """``("models", 1, "lr")`` as ``models[1].lr: ``, before a message; nothing for the top."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w.-]{1,64}", part, re.ASCII) else quoted(part))
    return f"{text}: " if path else ""


def described(value: object) -> str:
    """A value in words for a message: ``the text 'x'``, ``the number 3``, ``a list``."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {value!r}" if abs(value) < 1e15 else "a huge number"
        case str():
            return f"the text {quoted(value)}"
        case datetime.date():
            return "a date"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return "a sign of its own"  # << and =


def read(text: str) -> tuple[Node | None, list[Problem]]:
    """Reads one document.

    Args:
        text: the whole file.

    Returns:
        The tree, None where the file is empty or cannot be read on; and every problem found.
    """
    reader = _Reader()
    try:
        top = _Composer(text).get_single_node()
        return None if top is None else reader.node(top, (), 0), reader.problems
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        position = (before.count("\n") + 1, error.position - before.rfind("\n"))
        what = f"not valid YAML: the character {chr(error.character)!a} is not allowed; remove it"
    except yaml.MarkedYAMLError as error:
        position = _position(error.problem_mark or error.context_mark)
        prefix = "" if isinstance(error, _Refused) else "not valid YAML: "
        what = prefix + " ".join(filter(None, (error.context, error.problem)))
    return None, [*reader.problems, Problem(position, (), what)]


class _Refused(yaml.MarkedYAMLError):
    """The rest of the file is not read."""


def _check_depth(depth: int, mark: Any) -> None:
    if depth > MAX_DEPTH:
        raise _Refused(None, None, f"nested deeper than {MAX_DEPTH} levels: a matrix file needs 4", mark)


class _Composer(yaml.SafeLoader):
    """PyYAML's, with the tags that are written and no others, and a limit of depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        _check_depth(self.depth, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and not isinstance(event, yaml.AliasEvent):
            node.tag = event.tag
        return node

    def get_single_node(self) -> yaml.Node | None:
        try:
            return super().get_single_node()
        except (ValueError, OverflowError) as error:  # "\UFFFFFFFF", and an endless number after %YAML
            raise yaml.MarkedYAMLError(None, None, str(error), self.get_mark()) from error


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._nodes = 0

    def node(self, found: yaml.Node, path: Path, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} values once aliases are expanded: write fewer"
            raise _Refused(None, None, message, found.start_mark)
        _check_depth(depth, found.start_mark)  # an alias may be of what it stands in
        if found.tag:
            shown = quoted(found.tag.replace("tag:yaml.org,2002:", "!!"))
            self._note(found, path, f"tags are refused (nothing here makes objects): remove {shown}", spoils=True)
        value: Scalar | tuple[Node, ...] | dict[str, Node]
        match found:
            case yaml.ScalarNode():
                value = self._scalar(found, path)
            case yaml.SequenceNode():
                value = tuple(self.node(item, (*path, number), depth + 1) for number, item in enumerate(found.value))
            case _:
                value = self._entries(found, path, depth)
        if value is None and path and not found.tag:
            item = isinstance(path[-1], int)
            message = "an empty item: remove it" if item else "has no value: give one, or remove the key"
            self._note(found, path, message, spoils=True)
        return Node(path, _position(found.start_mark), value)

    def _note(self, found: yaml.Node, path: Path, message: str, *, spoils: bool = False) -> None:
        self.problems.append(Problem(_position(found.start_mark), path, message, spoils))

    def _entries(self, found: yaml.Node, path: Path, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        merged: list[dict[str, Node]] = []
        for key, value in found.value:
            if isinstance(key, yaml.ScalarNode) and (key.value, key.style) == ("<<", None):
                merged += self._merged(value, path, depth)
                continue
            problems = len(self.problems)
            name = self.node(key, (), depth + 1).value
            refused = len(self.problems) > problems
            self.problems[problems:] = [replace(p, spoils=False) for p in self.problems[problems:]]
            node = self.node(value, (*path, name if isinstance(name, str) else ""), depth + 1)
            if refused:
                continue
            if not isinstance(name, str):
                self._note(key, path, f"a key must be text, not {described(name)}: put it in quotes")
            elif name in entries:
                first = entries[name].key_position or (0, 0)
                self._note(key, (*path, name), f"duplicate key {quoted(name)} (first on line {first[0]}): remove one")
            else:
                entries[name] = replace(node, key_position=_position(key.start_mark))
        return {**ChainMap(entries, *merged)}

    def _merged(self, value: yaml.Node, path: Path, depth: int) -> Iterator[dict[str, Node]]:
        """What ``<<`` adds to a mapping: the entries of the mapping, or of each of a list, that it has not itself."""
        for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            entries = self.node(part, path, depth + 1).value
            if isinstance(entries, dict):
                yield entries
            else:
                self._note(part, path, "'<<' merges a mapping, or a list of them: name one, as in '<<: *anchor'")

    def _scalar(self, found: yaml.ScalarNode, path: Path) -> Scalar:
        text, message = str(found.value), ""
        if found.style is not None:
            if re.search("[\ud800-\udfff]", text):
                self._note(found, path, "half of a surrogate pair is not a character: write the character", spoils=True)
            return text.encode(errors="replace").decode()
        try:
            old, new = read_yaml11(text), read_yaml12(text)
        except (ValueError, OverflowError):  # no such date; over 4,300 digits; over 174 parts to the base 60
            old = new = text
            message = f"{quoted(text)} is no number or date that can be read: write it plainly, or in quotes"
        if isinstance(new, float) and not math.isfinite(new):
            message = f"{quoted(text)} is not a finite number"
        elif type(old) is not type(new) or old != new:
            message = (
                f"{quoted(text)} is ambiguous: YAML 1.1 reads {described(old)}, YAML 1.2 {described(new)}; "
                "write it in quotes if text is meant, else plainly (0.001, 1000, true, false)"
            )
        if message:
            self._note(found, path, message, spoils=True)
        return new


def read_yaml11(text: str) -> Any:
    """A plain scalar as YAML 1.1 reads it: as PyYAML, and ``y`` and ``n``, which the specification has too."""
    if text in ("y", "Y", "n", "N"):
        return text in ("y", "Y")
    tag = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    node = yaml.ScalarNode(tag, text)
    if tag.endswith((":merge", ":value")):
        return node
    return yaml.constructor.SafeConstructor().construct_object(node)


def read_yaml12(text: str) -> Scalar:
    """A plain scalar as the core schema of YAML 1.2.2 (section 10.3.2) reads it."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"0o[0-7]+", text) or re.fullmatch(r"0x[0-9a-fA-F]+", text):
        return int(text, 0)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)", text) or text in (".nan", ".NaN", ".NAN"):
        return float(text.replace(".", ""))
    return text


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
