"""What a check's lines say: which cells are on which side, what was measured of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from record_factory import make_cell, make_epochs, make_manifest, make_matrix, make_measurement, make_trial

from mnist_bench.cells import expand
from mnist_bench.errors import UsageError
from mnist_bench.gate.evidence import Margins, gather
from mnist_bench.records import (
    Cell,
    Floor,
    GateRule,
    Manifest,
    Matrix,
    Round,
    Session,
    Sides,
    Tree,
    Trial,
    Variant,
)

CELL = make_cell()


def checked(a: Matrix | None, b: Matrix, **changes: Any) -> Manifest:
    cells = dict.fromkeys((*expand(b), *(expand(a) if a else ())))
    sides = Sides(
        a=Tree(label="main", commit="a" * 40),
        b=Tree(label="working tree", commit=None, changed=("model.py",)),
        matrix=a,
        cells=tuple(cells),
        budget_s=60.0,
        **changes,
    )
    return replace(make_manifest(), matrix=b, check=sides)


def trained(side: str, seed: int = 0, accuracy: float = 0.97, **changes: Any) -> Trial:
    found = make_measurement(epochs=make_epochs(accuracy=(0.9, accuracy)), **changes)
    return replace(make_trial(CELL, seed, found), id=f"{CELL.id}/s{seed}@{side}", side=side)


def paired(*seconds: tuple[float, float], noisy: tuple[str, ...] = (), cell: Cell = CELL) -> Session:
    return Session(
        group=cell.id,
        members=(f"{cell.id}/p1@A", f"{cell.id}/p1@B"),
        paired=True,
        rounds=tuple(Round(order=(0, 1), steps=(10, 10), seconds=both) for both in seconds),
        steps={},
        stopped="budget",
        noisy=noisy,
    )


def test_pairs_seeds_and_figures_of_a_cell() -> None:
    matrix = make_matrix()
    trials = [trained("A", 1), trained("B", 1, 0.96, compile_s=3.0), trained("B", 0), trained("A", 0)]
    sessions = [paired((1.0, 1.1), (1.0, 1.2), (1.0, 1.3)), paired((1.0, 2.0), noisy=("load",))]
    check = gather(checked(matrix, matrix), trials, sessions)
    one = next(one for one in check.cells if one.cell == CELL)
    assert [math.exp(pair.log_ratio) for pair in one.pairs] == pytest.approx([1.2, 2.0])
    assert [pair.noisy for pair in one.pairs] == [(), ("load",)]
    assert [(pair.a.seed, pair.a.accuracy, pair.b.accuracy) for pair in one.seeds] == [(1, 0.97, 0.96), (0, 0.97, 0.97)]
    assert one.b is not None
    assert one.b.figures["compile_s"] == 3.0
    assert one.samples_per_s == pytest.approx(CELL.batch_size * 40 / 5.6)
    assert one.comparable
    assert (check.a.label, check.b.changed, check.mode, check.budget_s) == ("main", ("model.py",), "against", 60.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 7}, "epochs: 2 in A, 7 in B"),
        ({"recipe": "tutorial"}, "recipe: standard in A, tutorial in B"),
        ({"variants": (Variant(name="eager", threads=1),)}, "threads: all cores in A, 1 in B"),
        ({"variants": (Variant(name="eager", channels_last=True),)}, "channels_last: False in A, True in B"),
    ],
)
def test_what_a_name_stands_for_on_each_side_must_be_the_same(changes: dict[str, Any], words: str) -> None:
    a = make_matrix(variants=(Variant(name="eager"),))
    (one, *_) = gather(checked(a, replace(a, **changes)), (), ()).cells
    assert words in one.differences
    assert not one.comparable


def test_loader_processes_cannot_be_paired_nor_protocols_that_differ() -> None:
    matrix = make_matrix(variants=(Variant(name="eager", pipeline="torchvision", workers=2),))
    assert "loader processes" in gather(checked(matrix, matrix), (), ()).cells[0].differences[0]
    check = gather(checked(matrix, matrix, incomparable="protocol 3 and 4"), (), ())
    assert check.cells[0].differences == ("protocol 3 and 4",)


def test_a_line_that_is_none_of_a_check_is_refused() -> None:
    matrix = make_matrix()
    for trials, sessions in (([], [paired((1.0, -1.0))]), ([trained("A"), trained("A")], [])):
        with pytest.raises(UsageError, match="a broken line"):
            gather(checked(matrix, matrix), trials, sessions)


def test_margins_and_floors_come_from_b_and_a_change_is_kept() -> None:
    rule = GateRule(model="mlp", margin=0.05, detect=0.2)
    floors = (Floor(min_accuracy=0.9), Floor(model="mlp", min_accuracy=0.95))
    a = make_matrix(seeds=(0, 1))
    b = replace(a, gate=(rule, GateRule(margin=0.5, detect=0.9)), expect=floors)
    one = next(one for one in gather(checked(a, b), [trained("B", 1)], ()).cells if one.cell == CELL)
    assert (one.margins, one.margins_before) == (Margins(margin=0.05, detect=0.2), Margins())
    assert (one.min_accuracy, one.floor_seeds, one.seeds_awaited) == (0.95, (0, 1), (0,))
    assert gather(checked(b, b), (), ()).cells[0].margins_before is None
