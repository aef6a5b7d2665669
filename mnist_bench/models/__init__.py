"""The built-in models: facts without torch; and how a model is trained and scored under each recipe.

To add one: ``models/NAME.py`` with ``build()``, from float32 (N, 1, 28, 28) to logits (N, 10), and its entry here.
"""

from dataclasses import dataclass

from mnist_bench.records import ModelEntry, Optimizer, Recipe

MNIST_MEAN = 0.1307  # of the 60,000 training images' pixels, scaled to [0, 1]
MNIST_STD = 0.3081
ENTRY_POINT_GROUP = "mnist_bench.models"
SELFTEST = "mnist_bench.worker.laden:build"  # the program's own model beside these, which no matrix names


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """``flops`` are of training on one sample and of scoring it.

    ``tutorial_std``: of the tutorial's Normalize, which comes after ToTensor has scaled to [0, 1] (its erratum 2);
    ``tutorial_vectors``: the tutorial trains it on a list of (vector, label) pairs, without a transform.
    """

    title: str = ""
    parameters: int | None = None
    flops: tuple[float, float]
    optimizer: Optimizer = "adam"
    lr: float = 0.001
    tutorial_std: float = 128.0
    tutorial_vectors: bool = False


# Optimizers and rates are the tutorial's own (its erratum 4: the text says 0.01 for cnn).
MODELS = {
    "cnn": BuiltIn(
        title="one convolution, pooled with stride 1, dropout, one hidden layer",
        parameters=934_798,
        flops=(6.390e6, 2.261e6),
    ),
    "lenet5": BuiltIn(
        title="LeNet-5 as the tutorial has it: tanh and average pooling",
        parameters=61_706,
        flops=(2.264e6, 0.833e6),
    ),
    "mlp": BuiltIn(
        title="one hidden layer of 784",
        parameters=623_290,
        flops=(2.506e6, 1.245e6),
        optimizer="sgd",
        lr=0.01,
        tutorial_std=1.0,
        tutorial_vectors=True,
    ),
}
PLUG_IN = BuiltIn(flops=max(model.flops for model in MODELS.values()))  # taken for as heavy as the heaviest of them


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
