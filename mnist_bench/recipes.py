"""How a model is trained and scored: ``standard``, and ``tutorial`` with the tutorial's errata kept."""

from __future__ import annotations

from dataclasses import dataclass

from mnist_bench.records import ModelEntry, Recipe

MNIST_MEAN = 0.1307  # of the 60,000 training images' pixels, scaled to [0, 1]
MNIST_STD = 0.3081
DEFAULT_OPTIMIZER = ("adam", 0.001)  # of a plug-in that does not say otherwise

# The tutorial's own: the MLP with SGD, the others with Adam's default rate (its erratum 4: the text says 0.01 for cnn).
OPTIMIZERS: dict[str, tuple[str, float]] = {"mlp": ("sgd", 0.01), "cnn": ("adam", 0.001), "lenet5": ("adam", 0.001)}
# Erratum 2: Normalize((0,), (128,)) after ToTensor has scaled to [0, 1]; the MLP takes pixel / 255.
TUTORIAL_STD: dict[str, float] = {"mlp": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One model under one recipe. Inputs are ``(pixel / 255 - mean) / std``."""

    optimizer: str
    lr: float
    mean: float
    std: float
    scored_on_training_images: bool


def training_of(entry: ModelEntry, recipe: Recipe) -> Training:
    """The optimizer, rate, normalisation and scored images of ``entry`` under ``recipe``; the entry's own words win."""
    optimizer, lr = OPTIMIZERS.get(entry.model, DEFAULT_OPTIMIZER)
    tutorial = recipe == "tutorial"
    return Training(
        optimizer=entry.optimizer or optimizer,
        lr=lr if entry.lr is None else entry.lr,
        mean=0.0 if tutorial else MNIST_MEAN,
        std=TUTORIAL_STD.get(entry.model, 128.0) if tutorial else MNIST_STD,
        scored_on_training_images=tutorial,  # erratum 1
    )
