"""The synthetic digit set, for machines that cannot have MNIST: 28 x 28 images of hand-made strokes, no two alike.

Each image is a hand-made style of its digit (strokes.txt), with every point of it moved a little, bent by a smooth
field, slanted, turned and stretched, fitted into MNIST's 20-pixel box, centred, and drawn with a round pen of random
width and pressure.

The same seed gives the same bytes on every machine: random numbers are PCG64's raw bits, whose stream numpy freezes,
and arithmetic is +, -, *, / and sqrt, which IEEE 754 rounds alike everywhere: no sin, no exp, no BLAS, and no ``sum``
of floats, whose order numpy may choose, and which from Python 3.12 on compensates what rounding lost.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from mnist_bench.catalogue import FILE_NAMES
from mnist_bench.data import mnist
from mnist_bench.data.mnist import CLASSES, SIDE, Bytes
from mnist_bench.errors import DataError, UsageError
from mnist_bench.records import TEST_IMAGES, TRAIN_IMAGES

# Part of the folder's name: raise it with any change that changes a byte.
VERSION = 1
SEED = 0
SIZES = (TRAIN_IMAGES, TEST_IMAGES)
# Pen positions per digit: the longest digits are 3.3 units, 66 pixels, long, so that they lie less than a pixel apart.
STAMPS = 72
_FINE = 24  # steps per span for measuring lengths
_CHUNK = 1000  # images per stream of random numbers
_TAG = 28  # keeps these streams apart from other uses of the same seed
_BLOCK = 64  # images drawn at once: what fits the second-level cache

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


# ── the set on disk ──────────────────────────────────────────────────────────────────────────────────────────────────


def cached_root(seed: int, environ: Mapping[str, str]) -> Path:
    """Where the cache folder has a set; of another size than the full one it is another set."""
    size = "" if SIZES == (TRAIN_IMAGES, TEST_IMAGES) else f"-{SIZES[0]}+{SIZES[1]}"
    return mnist.cache_root(environ) / f"synthetic-v{VERSION}-seed{seed}{size}"


def ensure(seed: int, *, notify: Callable[[str], None], environ: Mapping[str, str]) -> Path:
    """Draws the set of a seed into the cache folder unless it is there and whole; returns its root.

    Two processes that want it at once draw it once.

    Raises:
        DataError: the folder cannot be written.
    """
    root = cached_root(seed, environ)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # Without the lock where it is whole: the cache may be one that cannot be written.
        if not mnist.is_drawn(root, environ):
            with FileLock(root.with_name(f"{root.name}.lock")):
                if not mnist.is_drawn(root, environ):
                    shutil.rmtree(root, ignore_errors=True)
                    notify(f"drawing the synthetic set of {sum(SIZES):,} digits into {root} (some seconds, once)")
                    write_set(root, seed=seed, sizes=SIZES)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {error.strerror or error}: the synthetic set cannot be put there; "
            f"mend the folder, or set XDG_CACHE_HOME to one that can be written and has 60 MB left"
        ) from error
    return root


def write_set(root: Path, *, seed: int, sizes: tuple[int, int]) -> None:
    """Draws a set into ``root/MNIST``: four IDX files, and last of all its SHA256SUMS.

    Args:
        sizes: training and test images.

    Raises:
        UsageError: ``root/MNIST`` is there already.
        OSError: the folder cannot be written; nothing is left.
    """
    raw = mnist.raw_folder(root)
    if raw.parent.exists():
        raise UsageError(f"{raw.parent}: is there already; delete it or give another folder")
    try:
        raw.mkdir(parents=True)
        for split, count in enumerate(sizes):
            drawn = draw_digits(count, seed=seed, split=split)
            for name, values in zip(FILE_NAMES[2 * split :], drawn, strict=False):
                mnist.write_idx(raw / name, values)
        mnist.write_sums(raw)
    except BaseException:
        shutil.rmtree(raw.parent, ignore_errors=True)
        raise


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Dice:
    """Random numbers of one chunk, the same on every platform and numpy."""

    def __init__(self, seed: int, split: int, chunk: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([_TAG, seed, split, chunk]))

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """float32 in [low, high): 24 random bits each, which float32 holds exactly."""
        raw = np.asarray(self._bits.random_raw(math.prod(shape)), np.uint64) >> np.uint64(40)
        return (raw.astype(np.float32) * 2.0**-24 * (high - low) + low).reshape(shape)

    def bell(self, spread: float, *shape: int) -> Floats:
        """Bell-shaped around 0: the sum of three uniforms in [-spread, spread); its deviation is ``spread``."""
        total = self.uniform(-spread, spread, *shape)
        total += self.uniform(-spread, spread, *shape)
        total += self.uniform(-spread, spread, *shape)
        return total

    def below(self, limits: Indices) -> Indices:
        """Integers in [0, limit) for each limit."""
        return (self.uniform(0, 1, *limits.shape) * limits.astype(np.float32)).astype(np.intp)


def draw_digits(count: int, *, seed: int, split: int) -> tuple[Bytes, Bytes]:
    """Draws digits.

    Args:
        count: how many.
        seed: any non-negative integer.
        split: 0 for training, 1 for test images: another stream of random numbers.

    Returns:
        images uint8 (count, 28, 28), 0 paper and 255 ink, and labels uint8 (count,).
    """
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    labels = np.zeros(count, np.uint8)

    def fill(start: int) -> None:
        # Always a whole chunk, so that a smaller set is the beginning of a larger one.
        dice = _Dice(seed, split, start // _CHUNK)
        part = slice(start, min(start + _CHUNK, count))
        drawn = dice.below(np.full(_CHUNK, CLASSES, np.intp))
        x, y = _pen_positions(dice, drawn)
        labels[part] = drawn[: part.stop - start]
        images[part] = _ink(dice, x, y, part.stop - start)

    # Threads suffice: numpy releases the interpreter's lock in the loops that take the time. Their number is no matter.
    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(0, count, _CHUNK)))
    return images, labels


def _pen_positions(dice: _Dice, labels: Indices) -> tuple[Floats, Floats]:
    """Where the pen goes, in pixels: x and y, each float32 (images, STAMPS)."""
    table = styles()
    style = table.first[labels] + dice.below(table.first[labels + 1] - table.first[labels])
    controls = table.controls[style]
    # Some hands are sloppier than others.
    sloppiness = dice.uniform(0.4, 1.0, _CHUNK)
    sloppiness *= sloppiness
    controls = controls + dice.bell(0.07, *controls.shape) * sloppiness[:, None, None]
    x = np.zeros((_CHUNK, STAMPS), np.float32)
    y = np.zeros((_CHUNK, STAMPS), np.float32)
    for corner in range(4):
        which, weight = table.points[style, :, corner], table.weights[style, :, corner]
        x += weight * np.take_along_axis(controls[:, :, 0], which, axis=1)
        y += weight * np.take_along_axis(controls[:, :, 1], which, axis=1)
    x, y = _turn(dice, *_bend(dice, x - 0.5, y - 0.5))
    # Into MNIST's box of 20 pixels: the pen's width comes on top.
    extent = np.maximum(x.max(axis=1) - x.min(axis=1), y.max(axis=1) - y.min(axis=1))
    scale = (dice.uniform(15.5, 19.5, _CHUNK) / extent)[:, None]
    return _centre(dice, x * scale), _centre(dice, y * scale)


def _bend(dice: _Dice, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Moves points of the square [-0.5, 0.5]^2 by a smooth random field: all terms of second and third degree."""
    bent_x, bent_y = x.copy(), y.copy()
    for term in (x * x, x * y, y * y, x * x * x, x * x * y, x * y * y, y * y * y):
        bent_x += term * dice.bell(0.3, _CHUNK)[:, None]
        bent_y += term * dice.bell(0.3, _CHUNK)[:, None]
    return bent_x, bent_y


def _turn(dice: _Dice, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Narrows, slants and rotates."""
    width = dice.uniform(0.68, 1.08, _CHUNK)[:, None]
    slant = dice.bell(0.22, _CHUNK)[:, None] + 0.12
    # Half the angle's tangent gives sine and cosine by division alone; 0.15 is 17 degrees.
    tangent = dice.bell(0.06, _CHUNK)[:, None]
    square = tangent * tangent
    cosine: Floats = (1 - square) / (1 + square)
    sine: Floats = (tangent + tangent) / (1 + square)
    x = x * width - y * slant
    return cosine * x - sine * y, sine * x + cosine * y


def _centre(dice: _Dice, values: Floats) -> Floats:
    """Puts the middle of the ink into the middle of the frame."""
    total = np.zeros(_CHUNK, np.float32)
    for stamp in range(STAMPS):
        total += values[:, stamp]
    moved = values + ((SIDE - 1) / 2 - total / np.float32(STAMPS) + dice.bell(0.4, _CHUNK))[:, None]
    # Long tails must not be cut off by the frame.
    low, high = moved.min(axis=1), moved.max(axis=1)
    moved += np.maximum(2.0 - low, 0.0)[:, None]
    moved -= np.maximum(high - (SIDE - 3.0), 0.0)[:, None]
    return moved


def _ink(dice: _Dice, x: Floats, y: Floats, count: int) -> Bytes:
    """Draws with a round pen: uint8 (count, 28, 28)."""
    radius = dice.uniform(0.0, 1.0, _CHUNK)
    radius = 0.98 + radius * dice.uniform(0.3, 1.05, _CHUNK)
    softness = dice.uniform(0.9, 1.7, _CHUNK)
    darkness = np.minimum(dice.uniform(0.9, 1.3, _CHUNK), 1.0) * 255.0
    # The pen presses harder at one end: distances there count less.
    along = np.arange(STAMPS, dtype=np.float32) / np.float32(STAMPS - 1) - np.float32(0.5)
    pressure: Floats = 1 + along[None, :] * dice.bell(0.3, _CHUNK)[:, None]
    grain = 1.0 - dice.uniform(0.0, 0.12, _CHUNK, SIDE, SIDE)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, _BLOCK):
        part = slice(start, min(start + _BLOCK, count))
        distance = np.sqrt(_nearest(x[part].T, y[part].T, pressure[part].T))
        ink = (radius[part] + 0.5 * softness[part] - distance) / softness[part]
        ink = np.minimum(np.maximum(ink, 0.0), 1.0) * darkness[part]
        images[part] = (np.moveaxis(ink, 2, 0) * grain[part] + 0.5).astype(np.uint8)
    return images


def _nearest(x: Floats, y: Floats, pressure: Floats) -> Floats:
    """Squared distance in pixels from each pixel to the nearest stamp: (28, 28, images), from (STAMPS, images).

    Images are the last axis: the longest, so that each inner loop of numpy is long.
    """
    pixels = np.arange(SIDE, dtype=np.float32)[:, None]
    best = np.full((SIDE, SIDE, x.shape[1]), np.inf, np.float32)
    here = np.empty_like(best)
    for stamp in range(STAMPS):
        across, down = pixels - x[stamp], pixels - y[stamp]
        np.add((down * down * pressure[stamp])[:, None], (across * across * pressure[stamp])[None], out=here)
        np.minimum(best, here, out=best)
    return best


# ── strokes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Styles(NamedTuple):
    """All styles as arrays. S styles, at most K points each; a pen position is a weighted sum of four points.

    Attributes:
        controls: float32 (S, K, 2), the points, padded with zeros.
        points: intp (S, STAMPS, 4), which points a pen position is made of.
        weights: float32 (S, STAMPS, 4), how much of each.
        first: intp (11,), the first style of each digit, and after the last digit S.
    """

    controls: Floats
    points: Indices
    weights: Floats
    first: Indices


@functools.cache
def styles() -> Styles:
    """The table of strokes.txt."""
    lines = Path(__file__).with_name("strokes.txt").read_text(encoding="ascii").splitlines()
    written = [line for line in lines if not line.startswith("#")]
    strokes = [[_parse(stroke) for stroke in line[2:].split("|")] for line in written]
    most = max(sum(map(len, style)) for style in strokes)
    controls = np.zeros((len(strokes), most, 2), np.float32)
    points = np.zeros((len(strokes), STAMPS, 4), np.intp)
    weights = np.zeros((len(strokes), STAMPS, 4), np.float32)
    for row, style in enumerate(strokes):
        flat = np.concatenate(style)
        controls[row, : len(flat)] = flat
        points[row], weights[row] = _stamps(style)
    first = np.searchsorted([int(line[0]) for line in written], range(CLASSES + 1))
    return Styles(controls, points, weights, first)


def _parse(stroke: str) -> Doubles:
    """Points (N, 2) of the unit square."""
    return np.array([[int(x) / 100 for x in point.split(",")] for point in stroke.split()])


def _stamps(style: list[Doubles]) -> tuple[Indices, Doubles]:
    """STAMPS pen positions at equal distances along the strokes: of each, which four points, and their weights."""
    tracks = [_track(stroke) for stroke in style]
    lengths = [float(reached[-1]) for reached, _, _ in tracks]
    total = np.cumsum(lengths)[-1]
    # By length, at least two; the longest takes what rounding leaves.
    counts = [max(2, round(STAMPS * length / total)) for length in lengths]
    counts[lengths.index(max(lengths))] += STAMPS - sum(counts)
    points, weights, offset = [], [], 0
    for stroke, (reached, which, share), length, count in zip(style, tracks, lengths, counts, strict=True):
        places = np.searchsorted(reached, length * np.arange(count) / (count - 1)).clip(max=len(reached) - 1)
        points.append(offset + which[places])
        weights.append(share[places])
        offset += len(stroke)
    return np.concatenate(points), np.concatenate(weights)


def _track(stroke: Doubles) -> tuple[Doubles, Indices, Doubles]:
    """Fine positions along one stroke: of each the length up to it, which four points it is made of, their weights."""
    spans = len(stroke) - 1
    t = np.arange(_FINE + 1) / _FINE
    catmull_rom = (
        0.5 * (-t + 2 * t * t - t * t * t),
        0.5 * (2 - 5 * t * t + 3 * t * t * t),
        0.5 * (t + 4 * t * t - 3 * t * t * t),
        0.5 * (-t * t + t * t * t),
    )
    share = np.tile(np.stack(catmull_rom, axis=1), (spans, 1))
    which = (np.arange(spans)[:, None] + np.arange(-1, 3)).clip(0, spans).repeat(_FINE + 1, axis=0)
    terms = share[:, :, None] * stroke[which]
    here = terms[:, 0] + terms[:, 1] + terms[:, 2] + terms[:, 3]
    dx, dy = np.diff(here, axis=0, prepend=stroke[:1]).T
    # sqrt, unlike hypot, is rounded alike on every platform; cumsum adds from left to right.
    return np.cumsum(np.sqrt(dx * dx + dy * dy)), which, share
