"""YAML text -> a tree of plain values that know where they stand. Nothing is constructed, nothing is executed.

The text is read event by event, so that a bomb, a tag or a tower of brackets is refused before it is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from mnist_bench.yaml_scalars import Scalar, ambiguity, described, quoted, read_yaml11, read_yaml12

MAX_DEPTH = 20
MAX_NODES = 100_000  # after the aliases are expanded

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file, its path from the top, its position and that of the key that names it (from 1)."""

    path: Path
    position: tuple[int, int]
    value: Scalar | tuple[Node, ...] | dict[str, Node]
    key_position: tuple[int, int] | None = None

    def child(self, part: str | int) -> Node | None:
        if isinstance(self.value, dict):
            return self.value.get(part) if isinstance(part, str) else None
        if isinstance(self.value, tuple):
            return self.value[part] if isinstance(part, int) and part < len(self.value) else None
        return None

    def plain(self) -> object:
        """The value as dicts, lists and scalars."""
        match self.value:
            case dict() as entries:
                return {key: node.plain() for key, node in entries.items()}
            case tuple() as items:
                return [node.plain() for node in items]
            case scalar:
                return scalar

    def walk(self) -> Iterator[Node]:
        yield self
        if isinstance(self.value, dict | tuple):
            for node in self.value.values() if isinstance(self.value, dict) else self.value:
                yield from node.walk()

    def without(self, paths: Collection[Path]) -> Node:
        """The tree less the nodes at ``paths``; those that stay keep their paths."""
        match self.value:
            case dict() as entries:
                return replace(self, value={k: n.without(paths) for k, n in entries.items() if n.path not in paths})
            case tuple() as items:
                return replace(self, value=tuple(n.without(paths) for n in items if n.path not in paths))
            case _:
                return self

    def moved(self, path: Path) -> Node:
        """The same values under another path (an alias); positions stay those of the anchor, where the mend is."""
        match self.value:
            case dict() as entries:
                return replace(self, path=path, value={k: n.moved((*path, k)) for k, n in entries.items()})
            case tuple() as items:
                return replace(self, path=path, value=tuple(n.moved((*path, i)) for i, n in enumerate(items)))
            case _:
                return replace(self, path=path)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where. ``spoils``: the value at ``path`` says nothing any more; look no further into it."""

    position: tuple[int, int]
    path: Path
    message: str
    spoils: bool = False

    def render(self, source: str) -> str:
        where = f"{source}:{self.position[0]}:{self.position[1]}: "
        return where + (f"{path_text(self.path)}: " if self.path else "") + self.message


class _FatalError(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def path_text(path: Path) -> str:
    """``("models", 1, "lr")`` as ``models[1].lr``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w.-]{1,64}", part, re.ASCII) else quoted(part))
    return text


def read(text: str) -> tuple[Node | None, tuple[Problem, ...]]:
    """Reads one document.

    Args:
        text: the whole file.

    Returns:
        The tree, None where the file is empty or cannot be read on; and every problem found.
    """
    reader = _Reader(text)
    try:
        return reader.document(), tuple(reader.problems)
    except _FatalError as error:
        return None, (*reader.problems, error.problem)


class _Reader:
    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._broken = _not_printable(text)
        self._loader = yaml.SafeLoader("" if self._broken else text)

    def document(self) -> Node | None:
        if self._broken:
            raise _FatalError(self._broken)
        self._next()  # the start of the stream
        if isinstance(self._next(), StreamEndEvent):
            return None
        root = self._node(self._next(), (), 0)
        self._next()  # the end of the document
        if isinstance(event := self._next(), DocumentStartEvent):
            self._fail(event, (), "a second document begins here: a matrix file holds one; remove the '---'")
        return root

    def _next(self) -> Event:
        try:
            event: Event | None = self._loader.get_event()  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark or self._loader.get_mark()
            what = " ".join(filter(None, (error.context, error.problem)))
            raise _FatalError(Problem((mark.line + 1, mark.column + 1), (), f"not valid YAML: {what}")) from error
        except (ValueError, OverflowError) as error:  # PyYAML: "\UFFFFFFFF" and an endless number after %YAML
            mark = self._loader.get_mark()
            raise _FatalError(Problem((mark.line + 1, mark.column + 1), (), f"not valid YAML: {error}")) from error
        assert event is not None  # the stream's end is asked for once
        return event

    def _fail(self, event: Event, path: Path, message: str) -> None:
        raise _FatalError(Problem(_position(event), path, message))

    def _note(self, event: Event, path: Path, message: str, *, spoils: bool = False) -> None:
        self.problems.append(Problem(_position(event), path, message, spoils))

    def _node(self, event: Event, path: Path, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._fail(event, path[:3], f"nested deeper than {MAX_DEPTH} levels: a matrix file needs 4")
        if isinstance(event, AliasEvent):
            return self._alias(event, path)
        before, self._nodes = self._nodes, self._nodes + 1
        self._check_count(event, path)
        if tag := getattr(event, "tag", None):
            shown = quoted(tag.replace("tag:yaml.org,2002:", "!!"))
            self._note(event, path, f"tags are refused (nothing here makes objects): remove {shown}", spoils=True)
        match event:
            case ScalarEvent():
                node = Node(path, _position(event), self._scalar(event, path))
            case SequenceStartEvent():
                node = Node(path, _position(event), self._items(path, depth))
            case _:
                node = Node(path, _position(event), self._entries(path, depth))
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = (node, self._nodes - before)
        return node

    def _check_count(self, event: Event, path: Path) -> None:
        if self._nodes > MAX_NODES:
            self._fail(event, path, f"more than {MAX_NODES:,} values once aliases are expanded: write fewer")

    def _alias(self, event: AliasEvent, path: Path) -> Node:
        anchor = event.anchor or ""
        if anchor not in self._anchors:
            self._fail(event, path, f"the alias '*{anchor}' names no anchor that ends before it")
        node, size = self._anchors[anchor]
        self._nodes += size
        self._check_count(event, path)
        return node.moved(path)

    def _items(self, path: Path, depth: int) -> tuple[Node, ...]:
        items: list[Node] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), depth + 1))
        return tuple(items)

    def _entries(self, path: Path, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            problems = len(self.problems)
            key = self._node(event, path, depth + 1).value
            self.problems[problems:] = [replace(p, spoils=False) for p in self.problems[problems:]]
            name = key if isinstance(key, str) else ""
            node = self._node(self._next(), (*path, name), depth + 1)
            if len(self.problems) > problems and self.problems[problems].position == _position(event):
                continue  # the key itself was refused
            if not isinstance(key, str):
                self._note(event, path, f"a key must be text, not {described(key)}: put it in quotes")
            elif name in entries:
                first = entries[name].key_position or (0, 0)
                self._note(event, (*path, name), f"duplicate key {quoted(name)} (first on line {first[0]}): remove one")
            else:
                entries[name] = replace(node, key_position=_position(event))
        return entries

    def _scalar(self, event: ScalarEvent, path: Path) -> Scalar:
        if event.style is not None:
            if re.search("[\ud800-\udfff]", event.value):
                self._note(
                    event, path, "half of a surrogate pair is not a character: write the character itself", spoils=True
                )
                return ""
            return str(event.value)
        try:
            old, new = read_yaml11(event.value), read_yaml12(event.value)
        except (ValueError, OverflowError):  # over 4,300 digits; over 174 parts of a 1:1:...:1.0 to the base 60
            self._note(
                event, path, f"{quoted(event.value)} is no number that can be read: write it plainly", spoils=True
            )
            return event.value
        if isinstance(new, float) and not math.isfinite(new):
            self._note(event, path, f"{quoted(event.value)} is not a finite number", spoils=True)
        elif type(old) is not type(new) or old != new:
            self._note(event, path, ambiguity(event.value, old, new), spoils=True)
        return new


def _not_printable(text: str) -> Problem | None:
    """A character that YAML does not allow; PyYAML would say where by its offset alone."""
    if not (bad := yaml.reader.Reader.NON_PRINTABLE.search(text)):
        return None
    before = text[: bad.start()]
    position = (before.count("\n") + 1, bad.start() - before.rfind("\n"))
    return Problem(position, (), f"not valid YAML: the character {bad.group()!a} is not allowed; remove it")


def _position(event: Event) -> tuple[int, int]:
    assert event.start_mark is not None  # only events made by hand have none
    return event.start_mark.line + 1, event.start_mark.column + 1
