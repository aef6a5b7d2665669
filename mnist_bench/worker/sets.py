"""A data set that is code: a function that returns images and labels, held to what its use needs."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mnist_bench.errors import TrialError
from mnist_bench.records import MNIST, Channels, DataSet, TrialSpec
from mnist_bench.worker.models import plugged

FORM = "{'train': (images, labels), 'test': (images, labels), 'mean': number, 'std': number}"
PAIR = "(images, labels): uint8 (N, C, H, W), and whole numbers from 0, one for each image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """uint8 (N, C, H, W) and their labels, int64 (N,); by index, an image under ``transform`` (of uint8 (H, W, C))."""

    data: torch.Tensor
    targets: torch.Tensor
    transform: Any = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.data[index].permute(1, 2, 0).numpy()), int(self.targets[index])


def opened(spec: TrialSpec) -> tuple[DataSet, Images, Images]:
    """What the set is; its training and its test images. The function is called once in a process.

    Raises:
        TrialError: it is not allowed, is not found, or returns something else: than a data set, or than at the start.
    """
    function = plugged(spec.data.name, allow_plugins=spec.allow_plugins, plugin_path=spec.plugin_path)
    found = _called(spec.data.name, function)
    if spec.data.sha256 and found[0] != spec.data:
        raise TrialError(f"{spec.data.name} returned another data set than at the start: seed what is random in it")
    return found


@lru_cache(maxsize=1)
def _called(name: str, function: Callable[..., Any]) -> tuple[DataSet, Images, Images]:
    found = function()
    if not isinstance(found, Mapping) or {*found} != {"train", "test", "mean", "std"}:
        what = f"the keys {', '.join(map(str, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise TrialError(f"{name}() returned {what}, not {FORM}")
    train, test = (_images(f"{name}: {key}", found[key]) for key in ("train", "test"))
    channels, height, width = shape = train.data.shape[1:]
    if (other := test.data.shape[1:]) != shape:
        raise TrialError(f"{name}: training images are {tuple(shape)}, test images {tuple(other)}: make them alike")
    mean = _channels(f"{name}: mean", found["mean"], channels, least=0.0)
    std = _channels(f"{name}: std", found["std"], channels, least=1e-6)
    classes, sizes = 1 + int(torch.cat([train.targets, test.targets]).max()), (len(train), len(test))
    about = replace(MNIST, name=name, mean=mean, std=std, shape=(channels, height, width), classes=classes, sizes=sizes)
    digest = hashlib.sha256(repr(about).encode())
    for values in (train.data, train.targets, test.data, test.targets):
        digest.update(values.numpy().data)
    return replace(about, sha256=digest.hexdigest()), train, test


def blank() -> Mapping[str, Any]:
    """What ``doctor`` times steps on: images of noise, labels in turn."""
    images = np.random.default_rng(0).integers(0, 256, (2000, *MNIST.shape), dtype=np.uint8)
    pair = images, np.arange(len(images)) % MNIST.classes
    return {"train": pair, "test": pair, "mean": MNIST.mean, "std": MNIST.std}


def _images(where: str, pair: Any) -> Images:
    arrays = [np.array(np.asarray(one), order="C") for one in pair] if isinstance(pair, tuple | list) else []
    if len(arrays) != 2 or not _sound(*arrays):
        found = ", ".join(f"{one.dtype} {one.shape}" for one in arrays) or f"a {type(pair).__name__}"
        raise TrialError(f"{where} is {found}: make it {PAIR}")
    return Images(data=torch.from_numpy(arrays[0]), targets=torch.from_numpy(arrays[1].astype(np.int64)))


def _sound(images: Any, labels: Any) -> bool:
    fit = images.dtype == np.uint8 and images.ndim == 4 and images.size and labels.shape == images.shape[:1]
    return bool(fit and labels.dtype.kind in "iu" and labels.min() >= 0)


def _channels(where: str, value: Any, channels: int, *, least: float) -> Channels:
    numbers = np.asarray(value)
    fit = numbers.dtype.kind in "iuf" and numbers.shape in ((), (channels,))
    if not fit or not ((numbers >= least) & (numbers <= 1)).all():
        wanted = f"a number from {least:g} to 1 (pixels are scaled to that), or {channels}, one for each channel"
        raise TrialError(f"{where}: should be {wanted}")
    return tuple(map(float, numbers)) if numbers.ndim else float(numbers)
