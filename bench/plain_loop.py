"""A training loop as one would write it by hand: resident images, a fused optimizer, nothing else.

The reference of ``bench.overhead``. It shares with the harness what must be equal (model, optimizer, images of both
sets, normalisation, order) and none of its loops. It keeps no stamp of a step and no loss.
"""

import itertools
import random
from time import perf_counter

import torch
from torch import nn
from torch.nn import functional

from mnist_bench.worker.pipelines import epoch_order
from mnist_bench.worker.process import Relocator, state_tensors


class PlainLoop:
    """Trains ``model`` on images that stay in memory.

    Args:
        images: uint8 (N, 1, 28, 28).
        labels: int64 (N,).
        test_images: uint8 (M, 1, 28, 28), to be scored.
        mean, std: of the pixels scaled to [0, 1].
        seed: of the order.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: torch.Tensor,
        labels: torch.Tensor,
        test_images: torch.Tensor,
        *,
        mean: float,
        std: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.images, self.labels, self.test_images = images, labels, test_images
        self.shift, self.scale = 255.0 * mean, 1.0 / (255.0 * std)
        self.batch_size, self.seed = batch_size, seed
        self._epochs = itertools.count()
        self._order = torch.empty(0, dtype=torch.int64)
        self._state_relocator, self._input_relocator = Relocator(), Relocator()

    def train(self, steps: int) -> float:
        """Seconds of ``steps`` steps."""
        model, optimizer, images, labels = self.model, self.optimizer, self.images, self.labels
        shift, scale = self.shift, self.scale
        indices = self._next_indices(steps)
        begin = perf_counter()
        for batch in indices.split(self.batch_size):
            pixels = images.index_select(0, batch).to(torch.float32).sub_(shift).mul_(scale)
            loss = functional.cross_entropy(model(pixels), labels.index_select(0, batch))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return perf_counter() - begin

    def score(self, count: int) -> torch.Tensor:
        """Logits of the first ``count`` test images, in evaluation mode."""
        self.model.eval()
        with torch.inference_mode():
            logits = self.model(self.test_images[:count].to(torch.float32).sub_(self.shift).mul_(self.scale))
        self.model.train()
        return logits

    def relocate(self, rng: random.Random) -> None:
        """Fresh memory, as the harness has it before a block: where tensors lie must not favour either side."""
        self._state_relocator.move(state_tensors(self.model, self.optimizer), rng)
        self._input_relocator.move([self.images, self.labels], rng)

    def _next_indices(self, steps: int) -> torch.Tensor:
        """The next full batches of the harness's own order for warm-up and session (epochs -1, -2, ...)."""
        wanted = steps * self.batch_size
        while len(self._order) < wanted:
            order = epoch_order(self.seed, -1 - next(self._epochs), len(self.labels))
            whole = len(order) // self.batch_size * self.batch_size
            self._order = torch.cat([self._order, order[:whole]])
        indices, self._order = self._order[:wanted], self._order[wanted:]
        return indices
