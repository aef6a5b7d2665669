"""The synthetic digits: drawn from hand-made strokes, no two alike.

Each image is a hand-made style of its digit (strokes.txt) whose line wanders a little, bent by a smooth field,
slanted, turned and stretched, fitted into MNIST's 20-pixel box, centred, and drawn with a round pen of random width.

The same seed gives the same bytes on every machine: random numbers are PCG64's raw bits, whose stream numpy freezes,
and arithmetic is +, -, *, / and sqrt, which IEEE 754 rounds alike everywhere: no sin, no exp, no BLAS, and no ``sum``
of floats, whose order numpy may choose (``cumsum`` adds from left to right).
"""

import functools
import math
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from mnist_bench.catalogue import FILE_NAMES
from mnist_bench.data import mnist
from mnist_bench.data.mnist import CLASSES, SIDE, Bytes
from mnist_bench.errors import DataError, UsageError
from mnist_bench.records import TEST_IMAGES, TRAIN_IMAGES

# Part of the folder's name: raise it with any change that changes a byte.
VERSION = 2
SEED = 0
SIZES = (TRAIN_IMAGES, TEST_IMAGES)
# Pen positions per digit: the longest digits are 3.3 units, 66 pixels, long, so that they lie less than a pixel apart.
STAMPS = 72
_KNOTS = 8  # places along the line that wander by themselves
_CUTS = 5  # rounds of cutting corners (Chaikin), after which a stroke is smooth
_CHUNK = 1000  # images per stream of random numbers
_TAG = 28  # keeps these streams apart from other uses of the same seed
_BLOCK = 64  # images drawn at once: what fits the second-level cache
_SOFTNESS = 1.3  # pixels from ink to paper, across the pen's edge

Floats = npt.NDArray[np.float32]
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
        if not mnist.is_drawn(root):
            with FileLock(root.with_name(f"{root.name}.lock")):
                if not mnist.is_drawn(root):
                    shutil.rmtree(root, ignore_errors=True)
                    notify(f"drawing the synthetic set of {sum(SIZES):,} digits into {root} (some seconds, once)")
                    write_set(root, seed=seed, sizes=SIZES)
    except OSError as error:
        mend = "set XDG_CACHE_HOME to a folder that can be written and has 60 MB left"
        raise DataError(f"{error.filename or root}: {error.strerror or error}: {mend}") from error
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
        first, second, third = (self.uniform(-spread, spread, *shape) for _ in range(3))
        return first + second + third

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
    images = np.empty((count, SIDE, SIDE), np.uint8)
    labels = np.empty(count, np.uint8)

    def fill(start: int) -> None:
        # Always a whole chunk, so that a smaller set is the beginning of a larger one.
        dice, stop = _Dice(seed, split, start // _CHUNK), min(start + _CHUNK, count)
        drawn = dice.below(np.full(_CHUNK, CLASSES, np.intp))
        labels[start:stop] = drawn[: stop - start]
        pen = _centred(dice, _bent(dice, _written(dice, drawn)))
        radius = 0.98 + dice.uniform(0.0, 1.0, _CHUNK) * dice.uniform(0.3, 1.05, _CHUNK)
        for first in range(start, stop, _BLOCK):
            part = slice(first - start, min(first + _BLOCK, stop) - start)
            images[first : first + _BLOCK][: part.stop - part.start] = _ink(pen[:, part], radius[part])

    # Threads suffice: numpy releases the interpreter's lock in the loops that take the time. Their number is no matter.
    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(0, count, _CHUNK)))
    return images, labels


def _written(dice: _Dice, labels: Indices) -> Floats:
    """Where the pen goes, in the square [-0.5, 0.5]^2: x and y, float32 (2, images, STAMPS)."""
    pens, first = styles()
    pen = pens[:, first[labels] + dice.below(first[labels + 1] - first[labels])] - 0.5
    # Some hands are sloppier than others.
    sloppiness = dice.uniform(0.4, 1.0, _CHUNK, 1)
    along = np.arange(STAMPS, dtype=np.float32) * (_KNOTS - 1) / (STAMPS - 1)
    for knot in range(_KNOTS):
        near = np.maximum(1 - np.abs(along - knot), 0)  # the line between the knots follows both
        pen += near * dice.bell(0.07, 2, _CHUNK, 1) * (sloppiness * sloppiness)
    return pen


def _bent(dice: _Dice, pen: Floats) -> Floats:
    """Moved by a smooth random field (all terms of second and third degree), narrowed, slanted and turned."""
    x, y = pen
    for term in (x * x, x * y, y * y, x * x * x, x * x * y, x * y * y, y * y * y):
        pen = pen + term * dice.bell(0.3, 2, _CHUNK, 1)
    x, y = pen
    x = x * dice.uniform(0.68, 1.08, _CHUNK, 1) - y * (dice.bell(0.22, _CHUNK, 1) + 0.12)
    # Half the angle's tangent gives sine and cosine by division alone; 0.15 is 17 degrees.
    tangent = dice.bell(0.06, _CHUNK, 1)
    square = tangent * tangent
    cosine, sine = (1 - square) / (1 + square), (tangent + tangent) / (1 + square)
    return np.stack((cosine * x - sine * y, sine * x + cosine * y))


def _centred(dice: _Dice, pen: Floats) -> Floats:
    """In pixels: fitted into MNIST's box of 20 (the pen's width comes on top), the ink in the middle of the frame."""
    extent = (pen.max(axis=2) - pen.min(axis=2)).max(axis=0)
    pen = pen * (dice.uniform(15.5, 19.5, _CHUNK) / extent)[:, None]
    pen += (SIDE - 1) / 2 - pen.cumsum(axis=2)[..., -1:] / STAMPS + dice.bell(0.4, 2, _CHUNK, 1)
    # Long tails must not be cut off by the frame.
    pen += np.maximum(2 - pen.min(axis=2, keepdims=True), 0)
    pen -= np.maximum(pen.max(axis=2, keepdims=True) - (SIDE - 3), 0)
    return pen


def _ink(pen: Floats, radius: Floats) -> Bytes:
    """Draws with round pens: uint8 (images, 28, 28), darker the nearer a pixel is to the nearest pen position.

    Images are the last axis on the way: the longest, so that each inner loop of numpy is long.
    """
    pixels = np.arange(SIDE, dtype=np.float32)[:, None]
    nearest = np.full((SIDE, SIDE, len(radius)), np.inf, np.float32)
    for x, y in np.moveaxis(pen, 2, 0):
        across, down = pixels - x, pixels - y
        np.minimum(nearest, (down * down)[:, None] + across * across, out=nearest)
    ink = (radius - np.sqrt(nearest)) / _SOFTNESS + 0.5
    images: Bytes = (np.moveaxis(np.clip(ink, 0, 1), 2, 0) * 255 + 0.5).astype(np.uint8)
    return images


# ── strokes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def styles() -> tuple[Floats, Indices]:
    """The table of strokes.txt.

    Returns:
        Pen positions in the unit square, float32 (2, S, STAMPS); and intp (11,): each digit's first style, then S.
    """
    lines = Path(__file__).with_name("strokes.txt").read_text(encoding="ascii").splitlines()
    written = [line for line in lines if not line.startswith("#")]
    first = np.searchsorted([int(line[0]) for line in written], range(CLASSES + 1))
    return np.stack([_pen(line[2:]) for line in written], axis=1), first


def _pen(style: str) -> Floats:
    """STAMPS positions at equal distances along the strokes of a style: x and y, float32 (2, STAMPS)."""
    tracks, steps = [], []
    for stroke in style.split("|"):
        points = np.array([point.split(",") for point in stroke.split()], np.int64) / 100
        for _ in range(_CUTS):
            here, there = points[:-1], points[1:]
            cut = np.stack((0.75 * here + 0.25 * there, 0.25 * here + 0.75 * there), axis=1).reshape(-1, 2)
            points = np.concatenate((points[:1], cut, points[-1:]))
        x, y = np.diff(points, axis=0, prepend=points[:1]).T
        tracks.append(points)
        steps.append(np.sqrt(x * x + y * y))  # unlike hypot, rounded alike on every platform
    track, reached = np.concatenate(tracks), np.cumsum(np.concatenate(steps))
    places = np.searchsorted(reached, reached[-1] * np.arange(STAMPS) / (STAMPS - 1))
    pen: Floats = track[places].T.astype(np.float32)
    return pen
