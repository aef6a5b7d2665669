"""The pipelines: from an order to batches on the device.

A batch is float32 (B, C, H, W), of MNIST (B, 1, 28, 28) (the tutorial's MLP: (B, 784)), normalised, and int64 (B,),
both on the device. Images are read by torchvision from files that were verified before, or come from a plug-in.
"""

import hashlib
import importlib
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import library
from torch.utils.data import DataLoader, TensorDataset

from mnist_bench.catalogue import MODELS, PLUG_IN, SETS, Training
from mnist_bench.records import EVALUATION_BATCH_SIZE, Channels, TrialSpec
from mnist_bench.worker import sets
from mnist_bench.worker.loop import Batch
from mnist_bench.worker.process import Relocator

# torchvision's own operators, which a CPU build of torch lacks when torchvision is a CUDA build. Data sets and
# transforms never call them; their schemas must only be there at import. Kept alive by this name.
_schemas: list[library.Library] = []


class Pipeline(ABC):
    """Batches for training and scoring. ``train_images`` and ``test_images`` are their numbers.

    One is made in host memory, before the device is known to be there; it is used after ``transfer``.
    """

    train_images: int
    test_images: int

    def transfer(self) -> None:  # noqa: B027 - a loader has nothing
        """Brings to the device, once, what stays there."""

    @abstractmethod
    def train_batches(self, order: torch.Tensor) -> Iterator[Batch]:
        """All images in ``order``; the last batch may be ragged."""

    @abstractmethod
    def test_batches(self) -> Iterator[Batch]:
        """Every scored image once, in the file's order, 1,000 at a time."""

    def relocate(self, relocator: Relocator, rng: random.Random) -> None:  # noqa: B027 - batches of a loader are new
        """Moves what steps read directly to fresh memory; values unchanged."""


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The permutation of an epoch, the one source of order for every pipeline, variant and device: int64 (count,) on
    the CPU, a function of its arguments alone.

    The generator is seeded with the first 8 bytes of SHA-256 of ``seed/epoch``, so that neighbouring seeds and epochs
    have nothing in common.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return torch.randperm(count, generator=generator)


# ── resident ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def resident(spec: TrialSpec, training: Training, device: torch.device) -> Pipeline:
    return Resident(*_read(spec, training), training, spec.cell.batch_size, device)


class Resident(Pipeline):
    """uint8 images on the device, gathered and normalised there: the fastest, and the default."""

    def __init__(self, train: Any, test: Any, training: Training, batch_size: int, device: torch.device) -> None:
        self._images, self._labels = _pixels(train), train.targets
        self._test_images, self._test_labels = _pixels(test), test.targets
        self._batch_size, self._device, self._training = batch_size, device, training
        self.train_images, self.test_images = len(self._labels), len(self._test_labels)

    def transfer(self) -> None:
        # (pixel / 255 - mean) / std as one subtraction and one product: an operation less a batch.
        self._shift = 255.0 * _by_channel(self._training.mean, self._device)
        self._scale = 1.0 / (255.0 * _by_channel(self._training.std, self._device))
        self._images, self._labels = self._images.to(self._device), self._labels.to(self._device)
        self._test_images, self._test_labels = self._test_images.to(self._device), self._test_labels.to(self._device)

    def train_batches(self, order: torch.Tensor) -> Iterator[Batch]:
        return map(self.gather, order.to(self._device).split(self._batch_size))

    def gather(self, indices: torch.Tensor) -> Batch:
        """The training images of these places, (B,) on the device."""
        pixels = self._images.index_select(0, indices).to(torch.float32).sub_(self._shift).mul_(self._scale)
        return pixels, self._labels.index_select(0, indices)

    def test_batches(self) -> Iterator[Batch]:
        for start in range(0, self.test_images, EVALUATION_BATCH_SIZE):
            stop = start + EVALUATION_BATCH_SIZE
            pixels = self._test_images[start:stop].to(torch.float32).sub_(self._shift).mul_(self._scale)
            yield pixels, self._test_labels[start:stop]

    def relocate(self, relocator: Relocator, rng: random.Random) -> None:
        relocator.move([self._images, self._labels], rng)


# ── loaders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tensors(spec: TrialSpec, training: Training, device: torch.device) -> Pipeline:
    both = [TensorDataset(_normalised(read, training), read.targets) for read in _read(spec, training)]
    return Loader(spec, device, *both)


def transformed(spec: TrialSpec, training: Training, device: torch.device) -> Pipeline:
    """torchvision's transforms, image by image."""
    transforms = import_torchvision().transforms
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(training.mean, training.std)])
    return Loader(spec, device, *_read(spec, training, transform))


def tutorial(spec: TrialSpec, training: Training, device: torch.device) -> Pipeline:
    """The one that the tutorial uses for that model: a list of (vector, label) pairs made once, ``list(zip(images,
    labels))`` over two tensors, so that labels are tensors without axes; or transforms."""
    if not MODELS.get(spec.model.model, PLUG_IN).tutorial_vectors:
        return transformed(spec, training, device)
    vectors = [(_normalised(read, training).flatten(start_dim=1), read.targets) for read in _read(spec, training)]
    return Loader(spec, device, *(list(zip(*both, strict=True)) for both in vectors))


class Loader(Pipeline):
    """A DataLoader over any data set of (image, label), in the order that it is given; another over what is scored."""

    def __init__(self, spec: TrialSpec, device: torch.device, train: Any, test: Any) -> None:
        self.train_images, self.test_images = len(train), len(test)
        self._device, self._order = device, [*range(len(train))]

        def loader(images: Any, batch_size: int, order: list[int] | None) -> DataLoader[Any]:
            return DataLoader(
                images,
                batch_size,
                sampler=order,
                generator=torch.Generator(),  # of its own: it would else draw from the one that dropout draws from
                num_workers=spec.variant.workers,
                persistent_workers=spec.variant.workers > 0,
                pin_memory=device.type == "cuda" and spec.variant.pipeline != "tutorial",  # whose loaders pin nothing
            )

        self._train = loader(train, spec.cell.batch_size, self._order)
        self._test = loader(test, EVALUATION_BATCH_SIZE, None)

    def train_batches(self, order: torch.Tensor) -> Iterator[Batch]:
        self._order[:] = order.tolist()
        return self._on_device(self._train)

    def test_batches(self) -> Iterator[Batch]:
        return self._on_device(self._test)

    def _on_device(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        for images, labels in loader:
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def import_torchvision() -> ModuleType:
    """Imports torchvision, also the CUDA build beside a CPU build of torch (``doctor`` names that mismatch)."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    operators = library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _schemas.append(operators)
    return importlib.import_module("torchvision")


def _read(spec: TrialSpec, training: Training, transform: Any = None) -> tuple[Any, Any]:
    """The images of training, and those that are scored."""

    def read(*, train: bool) -> Any:
        if spec.data.is_code:
            return replace(sets.opened(spec)[1 if train else 2], transform=transform)
        kind = getattr(import_torchvision().datasets, SETS[spec.data.name].folder)
        return kind(spec.data.root, train=train, transform=transform, download=False)

    images = read(train=True)
    return images, images if training.scored_on_training_images else read(train=False)


def _pixels(read: Any) -> Any:
    """uint8 (N, C, H, W)."""
    return read.data if read.data.ndim == 4 else read.data.unsqueeze(1)


def _normalised(read: Any, training: Training) -> Any:
    return _pixels(read).float().div_(255.0).sub_(_by_channel(training.mean)).div_(_by_channel(training.std))


def _by_channel(values: Channels, device: torch.device | None = None) -> Any:
    """A number, or a tensor that has one for each channel of a batch."""
    return values if isinstance(values, float) else torch.tensor(values, device=device).view(1, -1, 1, 1)
