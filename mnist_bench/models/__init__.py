"""The built-in models: facts without torch; and how a model is trained and scored under each recipe.

To add one: ``models/NAME.py`` with ``build()``, from float32 (N, 1, 28, 28) to logits (N, 10), and its entry here.
"""

from __future__ import annotations

from dataclasses import dataclass

from mnist_bench.records import ModelEntry, Optimizer, Recipe

MNIST_MEAN = 0.1307  # of the 60,000 training images' pixels, scaled to [0, 1]
MNIST_STD = 0.3081
ENTRY_POINT_GROUP = "mnist_bench.models"
SELFTEST = "mnist_bench.selftest.injected:build"  # the program's own model beside these, which no matrix names


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """``train_flops`` and ``eval_flops`` are per sample (forward and backward; forward).

    ``tutorial_std``: of the tutorial's Normalize, which comes after ToTensor has scaled to [0, 1] (its erratum 2);
    ``tutorial_vectors``: the tutorial trains it on a list of (vector, label) pairs, without a transform.
    """

    title: str
    parameters: int
    train_flops: float
    eval_flops: float
    optimizer: Optimizer
    lr: float
    tutorial_std: float = 128.0
    tutorial_vectors: bool = False


# Optimizers and rates are the tutorial's own; Adam's is the default one (its erratum 4: the text says 0.01 for cnn).
MODELS = {
    "cnn": BuiltIn(
        title="one convolution, pooled with stride 1, dropout, one hidden layer",
        parameters=934_798,
        train_flops=6.390e6,
        eval_flops=2.261e6,
        optimizer="adam",
        lr=0.001,
    ),
    "lenet5": BuiltIn(
        title="LeNet-5 as the tutorial has it: tanh and average pooling",
        parameters=61_706,
        train_flops=2.264e6,
        eval_flops=0.833e6,
        optimizer="adam",
        lr=0.001,
    ),
    "mlp": BuiltIn(
        title="one hidden layer of 784",
        parameters=623_290,
        train_flops=2.506e6,
        eval_flops=1.245e6,
        optimizer="sgd",
        lr=0.01,
        tutorial_std=1.0,
        tutorial_vectors=True,
    ),
}

# What is taken of a plug-in that does not say otherwise; its work for that of the heaviest built-in model.
PLUG_IN = BuiltIn(
    title="",
    parameters=0,
    train_flops=max(model.train_flops for model in MODELS.values()),
    eval_flops=max(model.eval_flops for model in MODELS.values()),
    optimizer="adam",
    lr=0.001,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One model under one recipe. Inputs are ``(pixel / 255 - mean) / std``."""

    optimizer: Optimizer
    lr: float
    mean: float
    std: float
    scored_on_training_images: bool


def training_of(entry: ModelEntry, recipe: Recipe) -> Training:
    """The optimizer, rate, normalisation and scored images of ``entry`` under ``recipe``; the entry's own words win."""
    model, tutorial = MODELS.get(entry.model, PLUG_IN), recipe == "tutorial"
    return Training(
        optimizer=entry.optimizer or model.optimizer,
        lr=model.lr if entry.lr is None else entry.lr,
        mean=0.0 if tutorial else MNIST_MEAN,
        std=model.tutorial_std if tutorial else MNIST_STD,
        scored_on_training_images=tutorial,  # erratum 1
    )
