"""A baseline or a check.json that somebody has edited is refused, and the field is named."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from baseline_kit import OTHER, make_baseline
from gate_kit import evidence, make_check
from msgspec.structs import replace

from mnist_bench.gate import baseline, outputs
from mnist_bench.gate.evidence import Margins, Pair
from mnist_bench.gate.judge import judge

CHECK = make_check(evidence(1.12))
FILES: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    "baseline": (
        baseline.encode(make_baseline(trouble={OTHER: ("skipped", "no compiler")})).decode(),
        baseline.decode,
    ),
    "check": (outputs.encode(CHECK, judge(CHECK)).decode(), outputs.decode),
}
VERSION, ACCURACY = r'"schema_version": 1', r'"accuracy": [0-9.]+'
BROKEN: tuple[tuple[str, str, str, str], ...] = (
    ("baseline", r'"format": "[^"]*"', '"format": "x"', "format"),
    ("baseline", VERSION, '"schema_version": 2', "schema_version: is 2, this mnist-bench reads 1"),
    ("baseline", ACCURACY, '"accuracy": 1e999', "trainings[0].accuracy"),
    ("baseline", r'"status": "skipped"', '"status": "oom"', "cells[0]"),
    ("baseline", r'"run_id": "[^"]*",\n *"key"', '"run_id": "x",\n"key"', "is not among the runs"),
    ("baseline", r'"seed": 1,', '"seed": 0,', "a seed stands there twice"),
    ("baseline", r'"variant": "eager"', '"variant": "compile"', "a cell stands there twice"),
    ("baseline", r'"trainings"', '"training"', "training"),
    ("check", ACCURACY, '"accuracy": NaN', "NaN is not a figure"),
    ("check", r'"steps": \[\s*10,', '"steps": [-1,', "check.cells[0].pairs[0]"),
    ("check", '"cell": {', '"margins": {"memory": 0}, "cell": {', "check.cells[0].margins.memory"),
    ("check", r'"kind": "regression"', '"kind": "bad"', "verdicts[0].kind"),
    ("check", "{", "", "Expected `object`"),
    ("check", "{", '{"x": ' + "[" * 100_000, "nested too deep"),
)


@pytest.mark.parametrize(("file", "old", "new", "words"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_refused_by_its_field(file, old, new, words):
    text, decode = FILES[file]
    broken = re.sub(old, lambda _: new, text, count=1)
    assert broken != text
    with pytest.raises(ValueError, match=re.escape(words)):
        decode(broken.encode())


def test_what_no_check_holds_is_refused():
    with pytest.raises(ValueError, match="stands there twice"):
        replace(CHECK, cells=CHECK.cells * 2)
    with pytest.raises(ValueError, match="margin"):
        Margins(margin=0.2, detect=0.1)
    with pytest.raises(ValueError, match="rounds"):
        Pair(rounds=())
