"""Matrix files that must be refused: (id, text, prefix of the first problem, words of its message).

They stand in ``bad_matrices.csv``, each on ``GOOD`` with one line changed (1 to 5), with more at its end (6), or alone
(0), so that each shows one fault.
"""

import csv
from pathlib import Path

SOURCE = "benchmarks.yaml"
GOOD = """\
version: 1
models: [mlp, cnn]
devices: [cpu, cuda]
batch_sizes: [100, 1000]
variants: [eager, compile]
"""


def changed(number: int, line: str) -> str:
    """``GOOD`` with another line in the place of its line ``number`` (from 1)."""
    lines = GOOD.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


def added(line: str) -> str:
    """``GOOD`` with more at its end, on line 6."""
    return GOOD + line + "\n"


def _text(row: dict[str, str]) -> str:
    match int(row["line"]):
        case 0:
            return row["text"]
        case 6:
            return added(row["text"])
        case number:
            return changed(number, row["text"])


def _sizes(count: int) -> str:
    return changed(4, f"batch_sizes: [{', '.join(map(str, range(1, count + 1)))}]")


with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = [(row["name"], _text(row), row["position"], row["phrase"]) for row in csv.DictReader(_file)]
_ROWS += [  # what a table cannot hold
    ("control-character", added("name: a\x01b"), "6:8", "the character '\\x01' is not allowed"),
    ("nul", "version: 1\x00\n", "1:11", "is not allowed"),
    ("very-deep", "[" * 100_000, "1:22", "nested deeper than 20"),
    ("endless-number", added("epochs: " + "9" * 5000), "6:9", "no number"),
    ("endless-base-60", added("name: " + "1:" * 200 + "1.0"), "6:7", "no number"),
    ("epochs-huge", added("epochs: " + "9" * 400), "6:9", "should be less than or equal to 50, got a huge number"),
    ("too-many-cells", _sizes(2501), "1:1", "20,008 cells"),
    ("vast-axes", _sizes(10_000), "1:1", "80,000 cells"),
]
CASES = [(name, text, f"{SOURCE}:{position}: ", phrase) for name, text, position, phrase in _ROWS]
