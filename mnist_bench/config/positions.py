"""YAML text -> plain values, and where each of them stands. Nothing is constructed, nothing is executed.

PyYAML composes the nodes and knows their places; what they mean is read here, so that a tag, a bomb of aliases or a
tower of brackets is refused. A plain scalar must mean the same in YAML 1.1 (PyYAML's) and in YAML 1.2 (the core
schema): an editor checks the file by the one and we read it by the other, and ``on`` or ``010`` would quietly differ.
"""

import math
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import yaml

from mnist_bench.errors import quoted

MAX_DEPTH = 20
MAX_NODES = 100_000  # after the aliases are expanded
STRANGE_KEYS: dict[type, Any] = {yaml.SequenceNode: [], yaml.MappingNode: {}}  # not looked into
KINDS = {type(None): "nothing", dict: "a mapping", list: "a list", date: "a date", datetime: "a date"}

Scalar = str | int | float | bool | None
CORE_SCHEMA: dict[str, Callable[[str], Scalar]] = {
    "|~|null|Null|NULL": lambda text: None,
    "true|True|TRUE|false|False|FALSE": lambda text: text.lower() == "true",
    r"[-+]?[0-9]+": int,
    r"0o[0-7]+|0x[0-9a-fA-F]+": lambda text: int(text, 0),
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?": float,
    r"[-+]?\.(inf|Inf|INF)|\.nan|\.NaN|\.NAN": lambda text: float(text.replace(".", "")),
}
Path = tuple[str | int, ...]
Position = tuple[int, int]  # line and column, from 1


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
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {value!r}" if abs(value) < 1e15 else "a huge number"
        case str():
            return f"the text {quoted(value)}"
    return KINDS.get(type(value), "a sign of its own")  # << and =


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


class Reader:
    """Reads one document.

    Attributes:
        values: the whole as dicts, lists and scalars; None where the file is empty or cannot be read on.
        problems: all that is wrong, each with its place.
        spoilt: paths of values that say nothing any more.
    """

    def __init__(self, text: str) -> None:
        self.values: Any = None
        self.problems: list[tuple[Position, str]] = []
        self.spoilt: set[Path] = set()
        self._places: dict[Path, Position] = {}
        self._keys: dict[Path, Position] = {}  # of the keys that name the values
        self._nodes = 0
        self._read(text)

    def _read(self, text: str) -> None:
        """Fills in the values, or says where the text cannot be read on."""
        try:
            composer = _Composer(text)
            if (top := composer.get_single_node()) is not None:
                self.values = self._value(top, (), 0)
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            position = (before.count("\n") + 1, error.position - before.rfind("\n"))
            what = f"not valid YAML: the character {chr(error.character)!a} is not allowed; remove it"
            self.problems.append((position, what))
        except yaml.MarkedYAMLError as error:
            prefix = "" if isinstance(error, _Refused) else "not valid YAML: "
            what = prefix + " ".join(filter(None, (error.context, error.problem)))
            self.problems.append((_position(error.problem_mark or error.context_mark), what))
        except (ValueError, OverflowError) as error:  # "\UFFFFFFFF", and an endless number after %YAML
            self.problems.append((_position(composer.get_mark()), f"not valid YAML: {error}"))

    def blame(self, path: Path, message: str, *, of_key: bool = False) -> None:
        """Something is wrong at ``path``, or the nearest around it: a default, or a missing key, stands nowhere."""
        nearest: Path = ()
        for part in path:
            if (*nearest, part) in self._places:
                nearest = (*nearest, part)
        if not any(nearest[:length] in self.spoilt for length in range(1, len(nearest) + 1)):
            places = self._keys if of_key and nearest in self._keys else self._places
            self.problems.append((places.get(nearest, (1, 1)), at(nearest) + message))

    def _note(self, found: yaml.Node, path: Path, message: str, *, spoils: bool = False) -> None:
        self.problems.append((_position(found.start_mark), at(path) + message))
        if spoils and path:
            self.spoilt.add(path)

    def _value(self, found: yaml.Node, path: Path, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} values once aliases are expanded: write fewer"
            raise _Refused(None, None, message, found.start_mark)
        _check_depth(depth, found.start_mark)  # an alias may be of what it stands in
        self._places.setdefault(path, _position(found.start_mark))
        if found.tag:
            shown = quoted(found.tag.replace("tag:yaml.org,2002:", "!!"))
            self._note(found, path, f"tags are refused (nothing here makes objects): remove {shown}", spoils=True)
        if isinstance(found, yaml.SequenceNode):
            return [self._value(item, (*path, number), depth + 1) for number, item in enumerate(found.value)]
        if not isinstance(found, yaml.ScalarNode):
            return self._entries(found, path, depth)
        value = self._scalar(found, path)
        if value is None and path and not found.tag:
            item = isinstance(path[-1], int)
            message = "an empty item: remove it" if item else "has no value: give one, or remove the key"
            self._note(found, path, message, spoils=True)
        return value

    def _entries(self, found: yaml.Node, path: Path, depth: int) -> dict[str, Any]:
        """A mapping's own entries, and after them what ``<<`` adds: of a mapping, or of each of a list."""
        entries: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in found.value:
            if isinstance(key, yaml.ScalarNode) and (key.value, key.style) == ("<<", None):
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            else:
                self._entry(entries, key, value, path, depth + 1)
        for part in merged:
            more = self._value(part, path, depth + 1)
            if isinstance(more, dict):
                entries = more | entries
            else:
                self._note(part, path, "'<<' merges a mapping, or a list of them: name one, as in '<<: *anchor'")
        return entries

    def _entry(self, entries: dict[str, Any], key: yaml.Node, value: yaml.Node, path: Path, depth: int) -> None:
        problems = len(self.problems)
        name = self._value(key, (), depth) if isinstance(key, yaml.ScalarNode) else STRANGE_KEYS[type(key)]
        refused = len(self.problems) > problems
        place = (*path, name if isinstance(name, str) else "")
        content = self._value(value, place, depth)
        if refused:
            return
        if not isinstance(name, str):
            self._note(key, path, f"a key must be text, not {described(name)}: put it in quotes")
        elif name in entries:
            self._note(key, place, f"duplicate key {quoted(name)} (first on line {self._keys[place][0]}): remove one")
        else:
            entries[name] = content
            self._keys.setdefault(place, _position(key.start_mark))

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
            readings = f"YAML 1.1 reads {described(old)}, YAML 1.2 {described(new)}"
            mend = "write it in quotes if text is meant, else plainly (0.001, 1000, true, false)"
            message = f"{quoted(text)} is ambiguous: {readings}; {mend}"
        if message:
            self._note(found, path, message, spoils=True)
        return new


def read_yaml11(text: str) -> Any:
    """A plain scalar as YAML 1.1 reads it: as PyYAML, and ``y`` and ``n``, which the specification has too."""
    if text in ("y", "Y", "n", "N"):
        return text in ("y", "Y")
    tag = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    node = yaml.ScalarNode(tag, text)
    return node if tag.endswith((":merge", ":value")) else yaml.constructor.SafeConstructor().construct_object(node)


def read_yaml12(text: str) -> Scalar:
    """A plain scalar as the core schema of YAML 1.2.2 (section 10.3.2) reads it."""
    return next((make(text) for pattern, make in CORE_SCHEMA.items() if re.fullmatch(pattern, text)), text)


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
