"""The clock of a trial, where its time goes, when it is warm, and the only hot loops (docs/measurement.md).

Steps, an epoch, an evaluation: nothing here reads a device's value inside a loop.
"""

import hashlib
import math
import operator
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import torch

from mnist_bench.records import StepTimes
from mnist_bench.running.protocol import Evaluated

Batch = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Forward = Callable[[torch.Tensor], torch.Tensor]
Wait = Callable[[], None]  # for the device
Clock = Callable[[], int]

NS = 1e-9
clock = time.perf_counter_ns  # bound before a model's code is imported: one that replaces it is not read by us
_ASLEEP = "asleep"
WINDOW_NS = 50_000_000  # a window of steps lasts about this long
WINDOWS = 3  # so many windows in a row must agree
AGREEMENT = 0.05  # their medians, within this fraction
LIMIT_NS = 3_000_000_000  # a machine that never settles is taken as it is; the session's noise will tell


class Waterfall:
    """Adds up durations by phase. What no phase claims stays visible: ``elapsed - asleep - sum(phases)`` (rule 6).

    Args:
        now: nanoseconds, the same clock as ``started_ns``.
        started_ns: when the runner started the process.
    """

    def __init__(self, now: Callable[[], int], started_ns: int) -> None:
        self._now, self._started_ns = now, started_ns
        self._phases: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = self._now()
        try:
            yield
        finally:
            self.add(name, self._now() - begin)

    def asleep(self) -> AbstractContextManager[None]:
        return self.phase(_ASLEEP)

    def add(self, name: str, duration_ns: int) -> None:
        self._phases[name] = self._phases.get(name, 0) + duration_ns

    def phases_s(self) -> dict[str, float]:
        return {name: duration * NS for name, duration in self._phases.items() if name != _ASLEEP}

    def elapsed_s(self) -> float:
        return (self._now() - self._started_ns) * NS

    def asleep_s(self) -> float:
        return self._phases.get(_ASLEEP, 0) * NS


def settle(time_steps: Callable[[int], list[int]]) -> list[int]:
    """Executes steps until they are steady: warm-up is found, not assumed.

    Args:
        time_steps: executes that many steps and returns the ns of each.

    Returns:
        The durations of all steps executed, in ns; the last window's are the steady ones.
    """
    durations = time_steps(2)
    medians: list[float] = []
    while True:
        count = max(1, round(WINDOW_NS / max(1, median(durations[-5:]))))
        durations += (window := time_steps(count))
        medians.append(median(window))
        recent = medians[-WINDOWS:]
        if len(recent) == WINDOWS and max(recent) <= (1 + AGREEMENT) * min(recent):
            return durations
        if sum(durations) >= LIMIT_NS:
            return durations


def block_steps(durations: list[int], block_ns: int = 100_000_000) -> int:
    """How many steps make a block of about 0.1 s, from the latest steps' median."""
    return max(1, round(block_ns / max(1, median(durations[-50:]))))


# ── the hot loops ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedEpoch:
    """Clock readings of an epoch in ns: ``started``, then for each step ``loaded`` and ``done``, then ``ended``; and of
    each step the mean loss, on the device, and the number of images.

    On a device that works asynchronously the stamps inside are those of the launches; ``started`` and ``ended`` are
    synchronised.
    """

    started: int
    steps: "array[int]"  # loaded, done, loaded, done, ...
    ended: int
    losses: Sequence[torch.Tensor] = ()
    sizes: Sequence[int] = ()

    @property
    def images(self) -> int:
        return sum(self.sizes)

    def mean_loss(self) -> float:
        """Over the images, in double precision; not finite where a step's is not."""
        means = torch.stack([loss.mean() for loss in self.losses]).tolist()  # of several whole batches, one loss each
        return math.fsum(map(operator.mul, means, self.sizes)) / self.images

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
    forward: Forward, batches: Iterable[Batch], predictions: torch.Tensor, wait: Wait, clock: Clock = clock
) -> Evaluated:
    """Scores every image once; ``predictions_sha256`` is over the predicted classes in the file's order.

    Args:
        predictions: room for them, on the device.
    """
    wait()
    started = clock()
    correct = torch.zeros((), dtype=torch.int64, device=predictions.device)
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


def step_times(durations_ns: Sequence[int]) -> StepTimes:
    """The percentiles of durations."""
    p50, p95, p99 = np.percentile(np.asarray(durations_ns) * 1e-6, (50, 95, 99)).tolist()
    return StepTimes(p50_ms=p50, p95_ms=p95, p99_ms=p99, count=len(durations_ns))


def time_steps_by_clock(step: Callable[[], object], count: int) -> list[int]:
    """The ns of each of ``count`` steps, where work is done when the call returns (the CPU): every step is stamped."""
    stamps = [0] * (count + 1)
    stamps[0] = clock()
    for index in range(1, count + 1):
        step()
        stamps[index] = clock()
    return [second - first for first, second in pairwise(stamps)]


def time_steps_by_events(events: Any, synchronize: Wait, step: Callable[[], object], count: int) -> list[int]:
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
