"""The whole step as a CUDA graph: recorded once, then replayed, several steps at a time.

A replay repeats the device's work at the addresses of the recording, without Python: it knows neither a module's mode
nor that a tensor has moved, so ``capture`` comes again after either. What differs from replay to replay is a static
tensor of indices; by these the recorded work itself gathers images and labels. (``torch.cuda.graph``.)
"""

import random
from collections.abc import Iterator
from typing import Any

import torch

from mnist_bench.errors import TrialError
from mnist_bench.worker.devices import Device
from mnist_bench.worker.loop import Batch, Step
from mnist_bench.worker.pipelines import Pipeline, Resident
from mnist_bench.worker.process import Relocator

MOST_STEPS = 10  # of a replay
AHEAD = 3  # steps before a recording: what libraries and optimizer make at first must be there


class Graph(Pipeline):
    """A step and its pipeline; batches are pairs of the same indices, and ``step`` takes these.

    What does not fill a replay (the ragged tail) is executed outside the graph.

    Args:
        step: of whole batches; may not wait for the device.

    Attributes:
        steps: of a replay: the largest number that leaves no whole batch of an epoch over.
    """

    def __init__(self, step: Step, pipeline: Resident, device: Device, batch_size: int) -> None:
        self.train_images, self.test_images = pipeline.train_images, pipeline.test_images
        whole = self.train_images // batch_size
        self.steps = max(steps for steps in range(1, MOST_STEPS + 1) if whole % steps == 0)
        self._step, self._pipeline, self._batch_size, self.gather = step, pipeline, batch_size, pipeline.gather
        self._cuda, self._device = device.module, device.torch_device
        self._indices = torch.zeros(self.steps * batch_size, dtype=torch.int64, device=self._device)
        self._losses = torch.zeros(self.steps, device=self._device)
        self._graph: Any = None

    def train_batches(self, order: torch.Tensor) -> Iterator[Batch]:
        order, size = order.to(self._device), len(self._indices)
        whole = len(order) // size * size
        for indices in (*order[:whole].split(size), *order[whole:].split(self._batch_size)):
            if len(indices):  # nothing is split into one that is empty
                yield indices, indices

    def test_batches(self) -> Iterator[Batch]:
        return self._pipeline.test_batches()

    def relocate(self, relocator: Relocator, rng: random.Random) -> None:
        self._pipeline.relocate(relocator, rng)

    def step(self, indices: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """The losses of a replay's steps; of fewer indices, the loss of a step outside the graph."""
        if len(indices) < len(self._indices):
            return self._outside(indices)
        if self._graph is None:
            self.capture()
        self._indices.copy_(indices)
        self._graph.replay()
        return self._losses.clone()  # the next replay writes over them

    def capture(self) -> None:
        """Records the steps anew, after some outside the graph: weights and random state move on.

        Raises:
            TrialError: the step waits for the device.
        """
        self._graph = None  # its memory goes before the new one's is taken
        cuda = self._cuda
        with cuda.device(self._device):
            aside = cuda.Stream()
            aside.wait_stream(cuda.current_stream())
            with cuda.stream(aside):
                for _ in range(AHEAD):
                    self._outside(self._indices[: self._batch_size])
            cuda.current_stream().wait_stream(aside)
            graph = cuda.CUDAGraph()
            try:
                with cuda.graph(graph):
                    for number, indices in enumerate(self._indices.split(self._batch_size)):
                        self._losses[number].copy_(self._outside(indices))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                first = error.__context__ or error  # to end a recording that failed is an error too
                mend = "nothing in it may wait for the device (.item(), .cpu(), sizes that depend on values)"
                raise TrialError(f"the step cannot be captured ({first}): {mend}") from first
        self._graph = graph

    def _outside(self, indices: torch.Tensor) -> torch.Tensor:
        return self._step(*self.gather(indices))
