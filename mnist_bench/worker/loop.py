"""The only hot loops: steps, an epoch, an evaluation. Nothing here reads a device's value inside a loop."""

from __future__ import annotations

import hashlib
import math
import operator
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from mnist_bench.run.protocol import Evaluated
from mnist_bench.worker.clocks import NS, clock

Batch = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Forward = Callable[[torch.Tensor], torch.Tensor]
Wait = Callable[[], None]  # for the device
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedEpoch:
    """Clock readings of an epoch in ns: ``started``, then for each step ``loaded`` and ``done``, then ``ended``; and of
    each step the mean loss, on the device, and the number of images.

    On a device that works asynchronously the stamps inside are those of the launches; ``started`` and ``ended`` are
    synchronised.
    """

    started: int
    steps: array[int]  # loaded, done, loaded, done, ...
    ended: int
    losses: Sequence[torch.Tensor] = ()
    sizes: Sequence[int] = ()

    @property
    def images(self) -> int:
        return sum(self.sizes)

    def mean_loss(self) -> float:
        """Over the images, in double precision; not finite where a step's is not."""
        return math.fsum(map(operator.mul, torch.stack(list(self.losses)).tolist(), self.sizes)) / self.images

    def loader_ns(self) -> int:
        """Nanoseconds between the end of a step and the next batch's arrival, summed."""
        loaded, done = self.steps[0::2], self.steps[1::2]
        return sum(loaded) - self.started - sum(done[:-1]) if loaded else 0


def train_epoch(
    step: Step, batches: Iterable[Batch], step_count: int, synchronize: Wait, clock: Clock = clock
) -> TrainedEpoch:
    """Trains over ``batches``, of which there will be ``step_count`` (the stamps' room)."""
    stamps = array("q", bytes(16 * step_count))
    losses: list[torch.Tensor] = []  # to add them up would be an operation more in every step
    sizes: list[int] = []
    position = 0
    synchronize()
    started = clock()
    for images, labels in batches:
        stamps[position] = clock()
        losses.append(step(images, labels))
        stamps[position + 1] = clock()
        position += 2
        sizes.append(labels.shape[0])
    synchronize()
    return TrainedEpoch(started=started, steps=stamps[:position], ended=clock(), losses=losses, sizes=sizes)


def evaluate(
    forward: Forward, batches: Iterable[Batch], count: int, device: torch.device, wait: Wait, clock: Clock = clock
) -> Evaluated:
    """Scores every image once; ``predictions_sha256`` is over the predicted digits, uint8 in the file's order."""
    wait()
    started = clock()
    predictions = torch.empty(count, dtype=torch.uint8, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    samples = 0
    with torch.inference_mode():
        for images, labels in batches:
            predicted = forward(images).argmax(dim=1)
            correct += (predicted == labels).sum()
            predictions[samples : samples + labels.shape[0]] = predicted
            samples += labels.shape[0]
    right = int(correct.item())
    ended = clock()
    digest = hashlib.sha256(predictions.cpu().numpy().tobytes()).hexdigest()
    return Evaluated(seconds=(ended - started) * NS, correct=right, samples=samples, predictions_sha256=digest)


def time_steps_by_clock(step: Callable[[], None], count: int) -> list[int]:
    """The ns of each of ``count`` steps, where work is done when the call returns (the CPU): every step is stamped."""
    stamps = [0] * (count + 1)
    stamps[0] = clock()
    for index in range(1, count + 1):
        step()
        stamps[index] = clock()
    return [second - first for first, second in pairwise(stamps)]


def time_steps_by_events(events: Any, synchronize: Wait, step: Callable[[], None], count: int) -> list[int]:
    """The same by device events: ``events`` makes one, as ``torch.cuda.Event`` does.

    An event between steps costs about a microsecond of launch and no synchronisation.
    """
    marks = [events(enable_timing=True) for _ in range(count + 1)]
    synchronize()
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    synchronize()
    return [round(first.elapsed_time(second) * 1e6) for first, second in pairwise(marks)]
