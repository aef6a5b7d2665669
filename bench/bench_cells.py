"""One training step and one evaluation batch of each cell of ``benchmarks.yaml``, eager alone. ``make bench``.

Measured in this one process, without token and without fresh memory: a coarse look at the kernels over time. Figures
that are to be compared come from ``run`` and ``check``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_bench import config, models
from mnist_bench import matrix as matrices
from mnist_bench.devices import open_device
from mnist_bench.execution import build as build_program
from mnist_bench.execution.program import build_optimizer
from mnist_bench.recipes import training_of
from mnist_bench.records import BUILTIN_VARIANTS, EVALUATION_BATCH_SIZE, Cell

MATRIX = config.load(Path(__file__).resolve().parents[1] / "benchmarks.yaml", allow_plugins=False)
EAGER = BUILTIN_VARIANTS["eager"]
CELLS = [cell for cell in matrices.expand(MATRIX) if matrices.variant_of(MATRIX, cell.variant) == EAGER]
# The evaluation batch is 1,000 whatever the cell's batch size: one cell of each model and device.
SCORED = list({(cell.model, cell.device): cell for cell in CELLS}.values())


class Bench:
    """A model on its device, with a random batch of the cell's size and one for evaluation."""

    def __init__(self, cell: Cell) -> None:
        self.device = open_device(cell.device)
        if missing := self.device.missing():
            pytest.skip(missing)
        entry, where = matrices.model_of(MATRIX, cell.model), self.device.torch_device
        training = training_of(entry, MATRIX.recipe)
        torch.manual_seed(0)
        self.model = models.build(entry).to(where)
        optimizer = build_optimizer(self.model, training.optimizer, training.lr, fused=EAGER.fused_optimizer)
        self.program = build_program(self.model, optimizer, EAGER, where)
        self.images = torch.randn(cell.batch_size, 1, 28, 28, device=where)
        self.labels = torch.randint(10, (cell.batch_size,), device=where)
        self.scored = torch.randn(EVALUATION_BATCH_SIZE, 1, 28, 28, device=where)

    def step(self) -> None:
        self.program.step(self.images, self.labels)
        self.device.synchronize()

    def score(self) -> None:
        with torch.inference_mode():
            self.program.forward(self.scored)
        self.device.synchronize()


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_step(benchmark: Any, cell: Cell) -> None:
    bench = Bench(cell)
    bench.model.train()
    benchmark.pedantic(bench.step, rounds=20, warmup_rounds=3)


@pytest.mark.parametrize("cell", SCORED, ids=lambda cell: f"{cell.model}/{cell.device}")
def test_evaluation_batch(benchmark: Any, cell: Cell) -> None:
    bench = Bench(cell)
    bench.model.eval()
    benchmark.pedantic(bench.score, rounds=20, warmup_rounds=3)
