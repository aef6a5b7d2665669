"""What is run: the tutorial's three experiments with both of ``cnn``'s rates, and the standard recipe beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from mnist_bench.records import BUILTIN_VARIANTS, Limits, Matrix, ModelEntry, Timing
from mnist_bench.reproduction.published import EPOCHS

Pipeline = Literal["resident", "tutorial"]

MLP, CNN, LENET5 = (ModelEntry(name=name, model=name) for name in ("mlp", "cnn", "lenet5"))
# Erratum 4: the text's snippet passes 0.01 to Adam, the complete listing leaves it at 0.001.
CNN_SNIPPET = ModelEntry(name="cnn-lr0.01", model="cnn", lr=0.01)

# The same arithmetic in the same order; ``tutorial`` loops as the tutorial does, and is slower.
VARIANTS = {"resident": BUILTIN_VARIANTS["eager"], "tutorial": BUILTIN_VARIANTS["tutorial"]}


def tutorial_matrix(pipeline: Pipeline) -> Matrix:
    """The tutorial's experiments as published: three seeds of ten epochs, batch 100, on the CPU, without sessions."""
    return Matrix(
        name="reproduce",
        dataset="mnist",
        recipe="tutorial",
        epochs=EPOCHS,
        seeds=(0, 1, 2),
        models=(MLP, CNN, CNN_SNIPPET, LENET5),
        devices=("cpu",),
        batch_sizes=(100,),
        variants=(VARIANTS[pipeline],),
        timing=Timing(budget_seconds=0.0),
        limits=Limits(timeout_seconds=7200.0),
    )


def standard_matrix(tutorial: Matrix) -> Matrix:
    """The same for the models that erratum 2 concerns, with the errata mended: the first seed alone."""
    return replace(
        tutorial, name="reproduce-standard", recipe="standard", seeds=tutorial.seeds[:1], models=(CNN, LENET5)
    )
