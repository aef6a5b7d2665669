"""Digits drawn with a pen: 28 x 28 images of hand-made strokes, no two alike.

Each image is a hand-made style of its digit (strokes.py), with every point of it moved a little, bent by a smooth
field, slanted, turned and stretched, fitted into MNIST's 20-pixel box, centred, and drawn with a round pen of random
width and pressure.

The same seed gives the same bytes on every machine: random numbers are PCG64's raw bits, whose stream numpy freezes,
and arithmetic is +, -, *, / and sqrt of float32, which IEEE 754 rounds alike everywhere (no sin, no exp, no BLAS, no
sum whose order numpy may choose).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from mnist_bench.data.idx import CLASSES, SIDE, Bytes
from mnist_bench.data.strokes import STAMPS, pens

_CHUNK = 1000  # images per stream of random numbers
_TAG = 28  # keeps these streams apart from other uses of the same seed
_ONE = np.float32(1)
_MIDDLE = np.float32(SIDE / 2 - 0.5)
_BLOCK = 64  # images drawn at once: what fits the second-level cache

Floats = npt.NDArray[np.float32]


class _Dice:
    """Random numbers of one chunk, the same on every platform and numpy."""

    def __init__(self, seed: int, split: int, chunk: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([_TAG, seed, split, chunk]))

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """float32 in [low, high): 24 random bits each, which float32 holds exactly."""
        count = 1
        for axis in shape:
            count *= axis
        raw = np.asarray(self._bits.random_raw(count), np.uint64) >> np.uint64(40)
        return (raw.astype(np.float32) * 2.0**-24 * (high - low) + low).reshape(shape)

    def bell(self, spread: float, *shape: int) -> Floats:
        """Bell-shaped around 0: the sum of three uniforms in [-spread, spread); its deviation is ``spread``."""
        total = self.uniform(-spread, spread, *shape)
        total += self.uniform(-spread, spread, *shape)
        total += self.uniform(-spread, spread, *shape)
        return total

    def below(self, limits: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Integers in [0, limit) for each limit."""
        return (self.uniform(0, 1, *limits.shape) * limits.astype(np.float32)).astype(np.intp)


def draw_digits(count: int, *, seed: int, split: int, threads: int | None = None) -> tuple[Bytes, Bytes]:
    """Draws digits.

    Args:
        count: how many.
        seed: any non-negative integer.
        split: 0 for training, 1 for test images: another stream of random numbers.
        threads: None: as many as this process has cores. The bytes are the same for any number.

    Returns:
        images uint8 (count, 28, 28), 0 paper and 255 ink, and labels uint8 (count,).
    """
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    labels = np.zeros(count, np.uint8)

    def fill(start: int) -> None:
        # Always a whole chunk, so that a smaller set is the beginning of a larger one.
        dice = _Dice(seed, split, start // _CHUNK)
        part = slice(start, min(start + _CHUNK, count))
        drawn = _labels(dice)
        x, y = _pen_positions(dice, drawn)
        labels[part] = drawn[: part.stop - start]
        images[part] = _ink(dice, x, y, part.stop - start)

    # Threads suffice: numpy releases the interpreter's lock in the loops that take the time.
    pool = ThreadPoolExecutor(threads or _cores())
    try:
        list(pool.map(fill, range(0, count, _CHUNK)))
    finally:
        pool.shutdown(cancel_futures=True)
    return images, labels


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _labels(dice: _Dice) -> npt.NDArray[np.intp]:
    return dice.below(np.full(_CHUNK, CLASSES, np.intp))


def _pen_positions(dice: _Dice, labels: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Where the pen goes, in pixels: x and y, each float32 (images, STAMPS)."""
    table = pens()
    first = np.asarray(table.first, np.intp)
    style = first[labels] + dice.below(first[labels + 1] - first[labels])
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
    x, y = _bend(dice, x - 0.5, y - 0.5)
    return _fit(dice, *_turn(dice, x, y))


def _bend(dice: _Dice, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Moves points of the square [-0.5, 0.5]^2 by a smooth random field: all terms of second and third degree."""
    terms = (x * x, x * y, y * y, x * x * x, x * x * y, x * y * y, y * y * y)
    bent_x, bent_y = x.copy(), y.copy()
    for term in terms:
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
    cosine: Floats = (_ONE - square) / (_ONE + square)
    sine: Floats = (tangent + tangent) / (_ONE + square)
    x = x * width - y * slant
    return cosine * x - sine * y, sine * x + cosine * y


def _fit(dice: _Dice, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Scales into MNIST's box of 20 pixels (the pen's width comes on top) and centres by the middle of the ink."""
    extent_x, extent_y = x.max(axis=1) - x.min(axis=1), y.max(axis=1) - y.min(axis=1)
    scale = (dice.uniform(15.5, 19.5, _CHUNK) / np.maximum(extent_x, extent_y))[:, None]
    x, y = x * scale, y * scale
    return _centre(dice, x), _centre(dice, y)


def _centre(dice: _Dice, values: Floats) -> Floats:
    total = np.zeros(_CHUNK, np.float32)
    for stamp in range(STAMPS):  # not sum(): its order, and so its rounding, is numpy's own affair
        total += values[:, stamp]
    moved = values + (_MIDDLE - total / np.float32(STAMPS) + dice.bell(0.4, _CHUNK))[:, None]
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
    pressure: Floats = _ONE + along[None, :] * dice.bell(0.3, _CHUNK)[:, None]
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
