"""The plug-in of ``selftest``: a cell's own model, with extra work in its forward pass. Lives in workers alone."""

from __future__ import annotations

import json
import os

import torch
from torch import nn

from mnist_bench.records import CELL_VARIABLE, ModelEntry
from mnist_bench.run.protocol import LOAD_DEPTH, LOAD_VARIABLE, LOAD_WIDTH
from mnist_bench.worker.building import build_model


class Laden(nn.Module):
    """A model that multiplies matrices beside its own work, and returns the same logits.

    The product of ``rows`` x LOAD_WIDTH and LOAD_WIDTH x LOAD_WIDTH is taken LOAD_DEPTH times over, and its sum, times
    a buffer that holds 0, is added to the logits. So the numbers stay (a logit of -0.0 becomes 0.0, which is equal),
    and so do the gradients: no parameter takes part. A compiler cannot leave the work out: the matrices are buffers,
    which a compiled graph takes as inputs, so that it knows neither that their values never change nor that the factor
    is 0; and it cannot merge the products, as each takes the one before. The square matrix permutes columns: its powers
    neither grow nor shrink, and no denormal slows them.
    """

    work: torch.Tensor
    permutation: torch.Tensor
    nothing: torch.Tensor

    def __init__(self, model: nn.Module, rows: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("work", torch.ones(rows, LOAD_WIDTH), persistent=False)
        self.register_buffer("permutation", torch.eye(LOAD_WIDTH).roll(1, 0), persistent=False)
        self.register_buffer("nothing", torch.zeros(()), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        product = self.work
        for _ in range(LOAD_DEPTH):
            product = product @ self.permutation
        logits: torch.Tensor = self.model(images)
        return logits + self.nothing * product.sum()


def build() -> nn.Module:
    """The model of the cell that this worker was started for; with no rows of work it is the bare model."""
    # A check's cells have their side behind an "@".
    name, rows = json.loads(os.environ[LOAD_VARIABLE])[os.environ[CELL_VARIABLE].partition("@")[0]]
    # Allowed: what the environment names is of the selftest's own making, which refused a matrix that may not.
    model = build_model(ModelEntry(name="selftest", model=name), allow_plugins=True)
    return Laden(model, rows) if rows else model
