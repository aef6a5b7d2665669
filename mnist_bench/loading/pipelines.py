"""The pipelines: from an order to batches on the device.

A batch is float32 (B, 1, 28, 28) (the tutorial's MLP: (B, 784)), normalised, and int64 (B,), both on the device.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset

from mnist_bench.loading.mnist import import_torchvision
from mnist_bench.measure.relocate import Relocator
from mnist_bench.recipes import Training
from mnist_bench.records import EVALUATION_BATCH_SIZE, TrialSpec

Batch = tuple[torch.Tensor, torch.Tensor]


class Pipeline(Protocol):
    """Batches for training and scoring. ``train_images`` and ``test_images`` are their numbers."""

    train_images: int
    test_images: int

    def transfer(self) -> None:
        """Brings to the device, once, what stays there."""

    def train_batches(self, order: torch.Tensor) -> Iterator[Batch]:
        """All images in ``order``; the last batch may be ragged."""

    def test_batches(self) -> Iterator[Batch]:
        """Every scored image once, in the file's order, 1,000 at a time."""

    def relocate(self, relocator: Relocator, rng: random.Random) -> None:
        """Moves what steps read directly to fresh memory; values unchanged."""


class Resident:
    """uint8 images on the device, gathered and normalised there: the fastest, and the default."""

    def __init__(self, train: Any, test: Any, training: Training, batch_size: int, device: torch.device) -> None:
        self._images, self._labels = train.data.unsqueeze(1), train.targets
        self._test_images, self._test_labels = test.data.unsqueeze(1), test.targets
        self._batch_size, self._device = batch_size, device
        # (pixel / 255 - mean) / std as one subtraction and one product: an operation less a batch.
        self._shift = 255.0 * training.mean
        self._scale = 1.0 / (255.0 * training.std)
        self.train_images, self.test_images = len(self._labels), len(self._test_labels)

    def transfer(self) -> None:
        self._images, self._labels = self._images.to(self._device), self._labels.to(self._device)
        self._test_images, self._test_labels = self._test_images.to(self._device), self._test_labels.to(self._device)

    def train_batches(self, order: torch.Tensor) -> Iterator[Batch]:
        images, labels, shift, scale = self._images, self._labels, self._shift, self._scale
        for indices in order.to(self._device).split(self._batch_size):
            pixels = images.index_select(0, indices).to(torch.float32).sub_(shift).mul_(scale)
            yield pixels, labels.index_select(0, indices)

    def test_batches(self) -> Iterator[Batch]:
        for start in range(0, self.test_images, EVALUATION_BATCH_SIZE):
            stop = start + EVALUATION_BATCH_SIZE
            yield self._normalise(self._test_images[start:stop]), self._test_labels[start:stop]

    def relocate(self, relocator: Relocator, rng: random.Random) -> None:
        relocator.move([self._images, self._labels], rng)

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(torch.float32).sub_(self._shift).mul_(self._scale)


class FixedOrder(Sampler[int]):
    """Yields the indices that it was last given."""

    def __init__(self, order: torch.Tensor) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order.tolist())

    def __len__(self) -> int:
        return len(self.order)


class Loader:
    """A DataLoader over any data set of (image, label), in the order that it is given.

    A step's batch is collated anew every time, so ``relocate`` has nothing to move.
    """

    def __init__(
        self, train: Any, test: Any, batch_size: int, *, workers: int, device: torch.device, pin: bool
    ) -> None:
        self._device = device
        self._sampler = FixedOrder(torch.arange(len(train)))
        common: dict[str, Any] = {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": pin and device.type == "cuda",
        }
        # A generator of its own: the loader would else draw from the one that dropout draws from.
        self._train = DataLoader(
            train, batch_size=batch_size, sampler=self._sampler, generator=torch.Generator(), **common
        )
        self._test = DataLoader(test, batch_size=EVALUATION_BATCH_SIZE, generator=torch.Generator(), **common)
        self.train_images, self.test_images = len(train), len(test)

    def transfer(self) -> None:
        return None

    def train_batches(self, order: torch.Tensor) -> Iterator[Batch]:
        self._sampler.order = order
        return self._on_device(self._train)

    def test_batches(self) -> Iterator[Batch]:
        return self._on_device(self._test)

    def relocate(self, relocator: Relocator, rng: random.Random) -> None:
        return None

    def _on_device(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        for images, labels in loader:
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


def build(spec: TrialSpec, training: Training, device: torch.device) -> Pipeline:
    """The pipeline of ``spec``, its images read by torchvision (the files are verified before).

    ``tutorial`` is the one that the tutorial uses for that model: a list of (vector, label) pairs made once for the
    MLP, per-image transforms for the others.
    """
    variant = spec.variant
    if variant.pipeline == "resident":
        train = _read(spec, train=True, transform=None)
        test = train if training.scored_on_training_images else _read(spec, train=False, transform=None)
        return Resident(train, test, training, spec.cell.batch_size, device)
    if variant.pipeline == "tensors":
        sets: list[Any] = [
            _tensors(_read(spec, train=wanted, transform=None), training) for wanted in _wanted(training)
        ]
    elif variant.pipeline == "tutorial" and spec.model.model == "mlp":
        sets = [_pairs(_read(spec, train=wanted, transform=None), training) for wanted in _wanted(training)]
    else:
        transforms = import_torchvision().transforms
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((training.mean,), (training.std,))])
        sets = [_read(spec, train=wanted, transform=transform) for wanted in _wanted(training)]
    train, test = sets
    pin = variant.pipeline != "tutorial"
    return Loader(train, test, spec.cell.batch_size, workers=variant.workers, device=device, pin=pin)


def _wanted(training: Training) -> tuple[bool, bool]:
    """Which files are trained on and scored, as torchvision's ``train`` has it."""
    return True, training.scored_on_training_images


def _read(spec: TrialSpec, *, train: bool, transform: Any) -> Any:
    return import_torchvision().datasets.MNIST(spec.data.root, train=train, transform=transform, download=False)


def _normalised(images: torch.Tensor, training: Training) -> torch.Tensor:
    return images.unsqueeze(1).to(torch.float32).div_(255.0).sub_(training.mean).div_(training.std)


def _tensors(read: Any, training: Training) -> TensorDataset:
    return TensorDataset(_normalised(read.data, training), read.targets)


def _pairs(read: Any, training: Training) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """``list(zip(images, labels))`` over two tensors, as the tutorial has it: the labels are tensors without axes."""
    return list(zip(_normalised(read.data, training).flatten(start_dim=1), read.targets, strict=True))
