"""A plain scalar of YAML by both versions of the language.

It must mean the same in YAML 1.1 (PyYAML's own resolver) and in YAML 1.2 (the core schema): an editor checks the file
by the one and we read it by the other, and ``on`` or ``010`` would quietly differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

Scalar = str | int | float | bool | None


def quoted(text: str) -> str:
    """The text on one line, in quotes, shortened to what a person reads."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def ambiguity(text: str, old: object, new: Scalar) -> str:
    """The message about a scalar that the two versions read as ``old`` and ``new``."""
    mend = "write the number plainly (0.001, 1000)" if isinstance(new, int | float) else "write true or false"
    if not isinstance(old, bool) and not isinstance(new, int | float):
        mend = "write it another way"
    return (
        f"{quoted(text)} is ambiguous: YAML 1.1 reads {described(old)}, YAML 1.2 {described(new)}; "
        f"put it in quotes if text is meant, else {mend}"
    )


@dataclass(frozen=True, slots=True)
class Foreign:
    """A type that YAML 1.1 has and YAML 1.2 has not: timestamp, merge, value."""

    type: str


_BOOL_11 = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False, "y": True, "n": False}


def read_yaml11(text: str) -> Scalar | Foreign:
    """A plain scalar as YAML 1.1 reads it: PyYAML's patterns, and ``y`` and ``n``, which the specification has too."""
    if text.lower() in _BOOL_11 and text in (text.lower(), text.upper(), text.capitalize()):
        return _BOOL_11[text.lower()]
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    candidates = [*resolvers.get(text[:1], ()), *resolvers.get(None, ())]
    kind = next((tag.rsplit(":", 1)[1] for tag, pattern in candidates if pattern.match(text)), "str")
    node = yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", text)
    constructor = yaml.constructor.SafeConstructor()
    match kind:
        case "str":
            return text
        case "null":
            return None
        case "int":
            return int(constructor.construct_yaml_int(node))
        case "float":
            return float(constructor.construct_yaml_float(node))
        case _:
            return Foreign(kind)


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
        case Foreign(type=kind):
            return {"timestamp": "a date", "merge": "a merge key"}.get(kind, f"a {kind}")
        case dict():
            return "a mapping"
        case _:
            return "a list"
