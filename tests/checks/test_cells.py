"""Two matrices side by side."""

from __future__ import annotations

import pytest
from check_kit import MATRIX

from mnist_bench import config
from mnist_bench.cells import parse_filter
from mnist_bench.checks.cells import union
from mnist_bench.errors import UsageError
from mnist_bench.gate.records import CellEvidence
from mnist_bench.records import Matrix


def parse(text: str) -> Matrix:
    return config.parse(text, source="m.yaml", allow_plugins=True)


BASE = parse(MATRIX)


def cells(a: Matrix | None, b: Matrix, wanted: str | None = None) -> dict[str, CellEvidence]:
    return {one.cell.model: one for one in union(a, b, parse_filter(wanted) if wanted else None)}


def test_equal_matrices() -> None:
    found = cells(BASE, BASE)
    assert list(found) == ["mlp", "lenet5"]
    assert all((one.sides, one.differences, one.min_accuracy) == ("both", (), None) for one in found.values())


def test_a_removed_an_added_and_a_renamed_cell() -> None:
    found = cells(BASE, parse(MATRIX.replace("mlp, lenet5", "cnn, {model: lenet5, name: renamed}")))
    assert {model: one.sides for model, one in found.items()} == {
        "cnn": "only B",
        "renamed": "only B",
        "mlp": "only A",
        "lenet5": "only A",
    }


def test_without_a_matrix_in_the_reference_every_cell_is_new() -> None:
    assert {one.sides for one in cells(None, BASE).values()} == {"only B"}


def test_the_filter_chooses_among_the_cells_of_both() -> None:
    after = parse(MATRIX.replace("mlp, lenet5", "cnn"))
    assert list(cells(BASE, after, "model=mlp,model=cnn")) == ["cnn", "mlp"]
    with pytest.raises(UsageError, match="unknown model 'nope'"):
        cells(BASE, after, "model=nope")


CHANGES = {
    "epochs: 1": ("epochs: 2", "epochs: 1 in A, 2 in B"),
    "version: 1": ("version: 1\nrecipe: tutorial", "recipe: standard in A, tutorial in B"),
    "mlp,": ("{model: mlp, lr: 0.5},", "lr: 0.01 in A, 0.5 in B"),
}


@pytest.mark.parametrize("old", CHANGES)
def test_what_differs_is_said(old: str) -> None:
    new, words = CHANGES[old]
    found = cells(BASE, parse(MATRIX.replace(old, new)))["mlp"]
    assert found.differences == (words,)


def test_a_name_that_stands_for_another_model() -> None:
    def named(model: str) -> Matrix:
        return parse(MATRIX.replace("mlp, lenet5", f"{{model: {model}, name: mine}}"))

    assert cells(named("cnn"), named("lenet5"))["mine"].differences == ("model: cnn in A, lenet5 in B",)


def test_differences_of_a_variant() -> None:
    def own(settings: str) -> Matrix:
        return parse(MATRIX.replace("[eager]", f"[{{name: mine, {settings}}}]"))

    (threads, precision) = cells(own("precision: fp32"), own("precision: bf16, threads: 1"))["mlp"].differences[::-1]
    assert (precision, threads) == ("precision: fp32 in A, bf16 in B", "threads: all cores in A, 1 in B")
    loaders = own("pipeline: tensors, workers: 2")
    (words,) = cells(loaders, loaders)["mlp"].differences
    assert words.startswith("workers: 2: loader processes work on")


def test_the_highest_floor_that_applies_is_bs() -> None:
    floors = "expect: [{min_accuracy: 0.5}, {model: mlp, min_accuracy: 0.9}, {model: mlp, min_train_samples_per_s: 7}]"
    found = cells(BASE, parse(f"{MATRIX}{floors}\n"))
    assert (found["mlp"].min_accuracy, found["mlp"].min_train_samples_per_s) == (0.9, 7)
    assert (found["lenet5"].min_accuracy, found["lenet5"].min_train_samples_per_s) == (0.5, None)
    assert cells(parse(f"{MATRIX}{floors}\n"), BASE)["mlp"].min_accuracy is None
