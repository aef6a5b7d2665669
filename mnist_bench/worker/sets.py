"""A data set that is code: a function that returns images and labels, held to what its use needs."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mnist_bench.errors import TrialError
from mnist_bench.records import Channels, DataSet, TrialSpec
from mnist_bench.worker.models import plugged

KEYS = ("train", "test", "mean", "std")
FORM = "{'train': (images, labels), 'test': (images, labels), 'mean': number, 'std': number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """uint8 (N, C, H, W) and their labels, int64 (N,); by index, an image under ``transform`` (of uint8 (H, W, C))."""

    data: torch.Tensor
    targets: torch.Tensor
    transform: Callable[[Any], torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        assert self.transform
        return self.transform(self.data[index].permute(1, 2, 0).numpy()), int(self.targets[index])


def opened(spec: TrialSpec) -> tuple[DataSet, Images, Images]:
    """What the set is; its training and its test images. The function is called once in a process.

    Raises:
        TrialError: it is not allowed, is not found, or returns something else.
    """
    function = plugged(spec.data.name, allow_plugins=spec.allow_plugins, plugin_path=spec.plugin_path)
    return _called(spec.data.name, function)


def verified(spec: TrialSpec) -> None:
    """Raises a TrialError where the function returns something else than at the start."""
    found, wanted = opened(spec)[0], spec.data
    if found != wanted:
        sums = f"SHA-256 {found.sha256[:12]}, not {wanted.sha256[:12]}"
        mend = "it must return the same at every call (seed what is random)"
        raise TrialError(f"{wanted.name} returned another data set than at the start ({sums}): {mend}")


@lru_cache(maxsize=1)
def _called(name: str, function: Callable[..., Any]) -> tuple[DataSet, Images, Images]:
    found = function()
    if not isinstance(found, Mapping) or {*found} != {*KEYS}:
        what = f"the keys {', '.join(map(str, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise TrialError(f"{name}() returned {what}, not {FORM}")
    train, test = (_images(f"{name}: {key}", found[key]) for key in ("train", "test"))
    channels, height, width = train.data.shape[1:]
    if test.data.shape[1:] != train.data.shape[1:]:
        sizes = [" x ".join(map(str, one.data.shape[1:])) for one in (train, test)]
        raise TrialError(f"{name}: training images are {sizes[0]}, test images {sizes[1]}: make them alike")
    mean, std = (_channels(f"{name}: {key}", found[key], channels) for key in ("mean", "std"))
    if 0.0 in np.atleast_1d(std):
        raise TrialError(f"{name}: std is 0: images are divided by it")
    shape, sizes_ = (channels, height, width), (len(train), len(test))
    classes = 1 + max(int(one.targets.max()) for one in (train, test))
    digest = hashlib.sha256(repr((shape, sizes_, classes, mean, std)).encode())
    for one in (train, test):
        digest.update(one.data.numpy().data)
        digest.update(one.targets.numpy().data)
    about = DataSet(
        name=name, root="", sha256=digest.hexdigest(), mean=mean, std=std, shape=shape, classes=classes, sizes=sizes_
    )
    return about, train, test


def _images(where: str, pair: Any) -> Images:
    arrays = isinstance(pair, tuple | list) and all(isinstance(one, np.ndarray | torch.Tensor) for one in pair)
    if not arrays or len(pair) != 2:
        raise TrialError(f"{where}: should be (images, labels), two numpy arrays or torch tensors")
    images, labels = (np.asarray(one.cpu() if isinstance(one, torch.Tensor) else one) for one in pair)
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        found = f"{images.dtype} {images.shape}"
        raise TrialError(f"{where}: images are {found}: make them uint8 (N, C, H, W), 0 to 255, as np.uint8 does")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or labels.min() < 0:
        wanted = f"whole numbers from 0, one for each of the {len(images):,} images"
        raise TrialError(f"{where}: labels are {labels.dtype} {labels.shape}: make them {wanted}")
    own = [np.require(one, requirements=["C", "W"]) for one in (images, labels.astype(np.int64))]
    return Images(data=torch.from_numpy(own[0]), targets=torch.from_numpy(own[1]))


def _channels(where: str, value: Any, channels: int) -> Channels:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full(1, np.nan)
    if numbers.shape not in ((), (channels,)) or not ((numbers >= 0) & (numbers <= 1)).all():
        wanted = f"a number from 0 to 1 (pixels are scaled to that), or {channels} of them, one for each channel"
        raise TrialError(f"{where}: should be {wanted}")
    return tuple(numbers.tolist()) if numbers.ndim else float(numbers)
