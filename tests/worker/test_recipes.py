"""The recipes' constants: what is published depends on each one."""

from __future__ import annotations

import pytest

from mnist_bench.recipes import Training, training_of
from mnist_bench.records import ModelEntry


def builtin(name: str) -> ModelEntry:
    return ModelEntry(name=name, model=name)


@pytest.mark.parametrize(
    ("model", "optimizer", "lr"), [("mlp", "sgd", 0.01), ("cnn", "adam", 0.001), ("lenet5", "adam", 0.001)]
)
def test_standard(model: str, optimizer: str, lr: float) -> None:
    assert training_of(builtin(model), "standard") == Training(
        optimizer=optimizer, lr=lr, mean=0.1307, std=0.3081, scored_on_training_images=False
    )


@pytest.mark.parametrize(
    ("model", "optimizer", "lr", "std"),
    [("mlp", "sgd", 0.01, 1.0), ("cnn", "adam", 0.001, 128.0), ("lenet5", "adam", 0.001, 128.0)],
)
def test_tutorial_keeps_its_errata(model: str, optimizer: str, lr: float, std: float) -> None:
    assert training_of(builtin(model), "tutorial") == Training(
        optimizer=optimizer, lr=lr, mean=0.0, std=std, scored_on_training_images=True
    )


def test_a_plugin_is_trained_with_adam() -> None:
    training = training_of(ModelEntry(name="mine.build", model="mine:build"), "standard")
    assert (training.optimizer, training.lr) == ("adam", 0.001)


@pytest.mark.parametrize("recipe", ["standard", "tutorial"])
def test_the_entry_has_the_last_word(recipe: str) -> None:
    entry = ModelEntry(name="mlp", model="mlp", optimizer="adamw", lr=0.5)
    training = training_of(entry, recipe)  # type: ignore[arg-type]
    assert (training.optimizer, training.lr) == ("adamw", 0.5)
    only_rate = training_of(ModelEntry(name="cnn", model="cnn", lr=0.01), recipe)  # type: ignore[arg-type]
    assert (only_rate.optimizer, only_rate.lr) == ("adam", 0.01)  # the tutorial's erratum 4, run as a model of its own
