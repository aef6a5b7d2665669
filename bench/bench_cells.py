"""One training step and one evaluation batch of each cell of a matrix file. ``make bench MATRIX=benchmarks.yaml``.

Measured in this one process, without token and without fresh memory: a coarse look at the kernels over time. Batches
are made beforehand, so that of a variant's input pipeline nothing is seen. Figures that are to be compared come from
``run``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_bench import cells as matrices
from mnist_bench import config
from mnist_bench.catalogue import EXECUTIONS, load, training_of
from mnist_bench.errors import TrialError, UsageError
from mnist_bench.records import EVALUATION_BATCH_SIZE, Cell, Matrix
from mnist_bench.worker import process
from mnist_bench.worker.devices import open_device
from mnist_bench.worker.executions import missing_compiler
from mnist_bench.worker.models import build_model, build_optimizer

# What torch warns of when it compiles is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


class Bench:
    """A cell's model on its device, with a random batch of the cell's size and one for evaluation."""

    def __init__(self, matrix: Matrix, cell: Cell) -> None:
        variant, entry = matrices.variant_of(matrix, cell.variant), matrices.model_of(matrix, cell.model)
        self.cell, self.device = cell, open_device(cell.device)
        if missing := self.device.missing():
            pytest.skip(missing)
        where = self.device.torch_device
        if missing := missing_compiler(variant, where):
            pytest.skip(missing)
        if EXECUTIONS[variant.execution].captured:
            pytest.skip("a captured step gathers its own batches: mnist-bench run times it")
        try:
            process.apply_numerics(variant, where)
        except TrialError as error:
            pytest.skip(str(error))
        training = training_of(entry, matrix.recipe)
        torch.manual_seed(0)
        self.model = build_model(entry).to(where)
        if variant.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(self.model, training.optimizer, training.lr, fused=variant.fused_optimizer)
        self.program = load(EXECUTIONS[variant.execution])(self.model, optimizer, variant, where)
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    path, allowed = metafunc.config.getoption("--matrix"), metafunc.config.getoption("--allow-plugins")
    try:
        matrix = config.load(path, allow_plugins=allowed)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    if allowed and (folder := str(Path(path).resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)
    cells = [(matrix, cell) for cell in matrices.expand(matrix)]
    metafunc.parametrize("bench", cells, indirect=True, ids=[cell.id for _, cell in cells])


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The cell, ready; afterwards this process is as it was, whatever the variant had set."""
    threads = torch.get_num_threads()
    try:
        yield Bench(*request.param)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        torch.use_deterministic_algorithms(False)
        torch._dynamo.reset()


def test_step(benchmark: Any, bench: Bench) -> None:
    """Its warm-up compiles, where the variant does."""
    benchmark.group = f"step {bench.cell.model}/b{bench.cell.batch_size}"
    bench.model.train()
    benchmark.pedantic(bench.step, rounds=20, warmup_rounds=3)


def test_evaluation_batch(benchmark: Any, bench: Bench) -> None:
    """1,000 images, whatever the cell's batch size."""
    benchmark.group = f"evaluation {bench.cell.model}/b{bench.cell.batch_size}"
    bench.model.eval()
    benchmark.pedantic(bench.score, rounds=20, warmup_rounds=3)
