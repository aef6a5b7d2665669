"""How hands write the ten digits: pen strokes through points, several styles of each digit.

A style is written ``x,y x,y ... | x,y ...``: points in hundredths of the unit square, x to the right and y down, and
``|`` where the pen is lifted. A stroke is the Catmull-Rom spline through its points; a point given twice is a corner.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Stroke = tuple[Point, ...]
Style = tuple[Stroke, ...]

# Pen positions per digit: the longest digits are 3.3 units, 66 pixels, long, so that they lie less than a pixel apart.
STAMPS = 72
_FINE = 24  # steps per span for measuring lengths

STYLES: dict[int, tuple[str, ...]] = {
    0: (
        "52,0 22,14 10,50 20,86 50,100 80,86 90,50 78,14 50,0",
        "62,3 36,12 20,50 26,88 48,100 70,82 78,45 70,10 48,6",
        "30,10 8,40 14,80 45,100 82,84 94,46 74,10 40,0 24,14 40,22",
    ),
    1: (
        "50,0 50,50 50,100",
        "32,20 54,0 54,0 52,50 50,100",
        "30,22 52,0 52,0 50,100 | 26,100 76,99",
        "66,0 52,48 36,100",
    ),
    2: (
        "14,25 28,5 55,0 80,14 80,36 56,66 14,100 14,100 90,97",
        "16,20 44,0 78,12 76,42 46,80 16,98 10,84 30,78 60,96 94,92",
        "12,10 50,0 84,8 70,40 12,96 12,96 50,98 92,100",
        "20,32 22,8 56,0 78,22 60,56 28,86 30,98 62,86 92,98",
    ),
    3: (
        "15,12 48,0 78,15 72,38 42,48 42,48 80,60 84,82 54,100 12,90",
        "16,2 80,0 80,0 44,40 44,40 80,54 82,84 50,100 10,90",
        "20,10 56,0 74,20 56,42 36,46 46,52 74,60 78,86 46,100 18,94",
    ),
    4: (
        "24,2 14,34 12,54 12,54 50,54 90,48 | 76,0 70,50 64,100",
        "66,0 36,34 8,66 8,66 50,66 94,64 | 68,2 67,50 66,100",
        "22,0 16,28 30,46 60,42 78,28 | 84,0 76,50 66,100",
        "30,0 10,50 10,50 50,52 86,50 | 62,24 60,60 56,100",
    ),
    5: (
        "24,2 18,44 18,44 50,38 82,55 80,86 50,100 12,92 | 22,2 52,2 86,0",
        "88,2 30,4 30,4 22,46 22,46 60,46 78,70 60,95 14,96",
        "86,4 46,4 26,24 38,44 70,58 80,82 50,100 14,90",
    ),
    6: (
        "70,0 38,24 16,64 28,95 58,100 80,80 64,58 36,62 20,82",
        "52,0 26,40 20,80 44,100 74,88 70,64 46,58 24,74",
        "82,8 56,0 26,22 12,62 30,96 66,98 84,74 62,52 32,58 16,72",
    ),
    7: (
        "10,6 48,4 86,2 86,2 60,46 42,100",
        "12,4 84,4 84,4 60,50 42,100 | 34,50 82,48",
        "12,24 14,6 14,6 50,8 88,2 88,2 58,50 50,100",
        "10,14 40,4 74,6 80,20 64,56 52,100",
    ),
    8: (
        "78,14 50,0 24,16 44,44 78,70 62,97 30,95 20,74 50,47 76,24 70,8",
        "50,0 26,10 26,34 50,46 74,34 74,10 50,0 | 50,46 20,60 20,88 50,100 80,88 80,60 50,46",
        "82,4 50,2 32,18 50,46 66,72 50,98 24,90 34,62 62,36 84,6",
    ),
    9: (
        "80,16 52,0 20,20 28,46 56,46 80,16 80,16 74,56 66,100",
        "76,12 46,2 20,24 34,48 66,36 80,8 80,8 82,60 62,96 22,94",
        "72,10 42,0 18,22 36,44 66,32 76,12 70,40 52,70 36,100",
    ),
}


@dataclass(frozen=True, slots=True)
class Pens:
    """All styles as arrays. S styles, at most K points each; a pen position is a weighted sum of four points.

    Attributes:
        controls: float32 (S, K, 2), the points, padded with zeros.
        points: intp (S, STAMPS, 4), which points a pen position is made of.
        weights: float32 (S, STAMPS, 4), how much of each.
        first: the first style of each digit, and after the last digit S.
    """

    controls: npt.NDArray[np.float32]
    points: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float32]
    first: tuple[int, ...]


@functools.cache
def pens() -> Pens:
    """The table of all styles."""
    styles = [_parse(style) for digit in sorted(STYLES) for style in STYLES[digit]]
    most = max(sum(len(stroke) for stroke in style) for style in styles)
    controls = np.zeros((len(styles), most, 2), np.float32)
    points = np.zeros((len(styles), STAMPS, 4), np.intp)
    weights = np.zeros((len(styles), STAMPS, 4), np.float32)
    for row, style in enumerate(styles):
        flat = [point for stroke in style for point in stroke]
        controls[row, : len(flat)] = flat
        stamps = _stamps(style)
        points[row] = [which for which, _ in stamps]
        weights[row] = [share for _, share in stamps]
    counts = [len(STYLES[digit]) for digit in sorted(STYLES)]
    first = tuple(sum(counts[:digit]) for digit in range(len(counts) + 1))
    return Pens(controls, points, weights, first)


def _parse(style: str) -> Style:
    return tuple(
        tuple((int(x) / 100, int(y) / 100) for x, y in (point.split(",") for point in stroke.split()))
        for stroke in style.split("|")
    )


Stamp = tuple[tuple[int, ...], tuple[float, ...]]


def _stamps(style: Style) -> list[Stamp]:
    """STAMPS pen positions at equal distances along the strokes, each as (four points, four weights)."""
    tracks = []
    offset = 0
    for stroke in style:
        tracks.append(_track(stroke, offset))
        offset += len(stroke)
    lengths = [track[-1][0] for track in tracks]
    counts = _shares(lengths)
    return [
        _at(track, length * step / (count - 1))
        for track, length, count in zip(tracks, lengths, counts, strict=True)
        for step in range(count)
    ]


def _track(stroke: Stroke, offset: int) -> list[tuple[float, Stamp]]:
    """Fine positions along one stroke, each with the length up to it."""
    track: list[tuple[float, Stamp]] = []
    length, last = 0.0, stroke[0]
    for span in range(len(stroke) - 1):
        which = tuple(min(max(span + step, 0), len(stroke) - 1) for step in (-1, 0, 1, 2))
        for fine in range(_FINE + 1):
            share = _catmull_rom(fine / _FINE)
            here = (
                _total(w * stroke[k][0] for w, k in zip(share, which, strict=True)),
                _total(w * stroke[k][1] for w, k in zip(share, which, strict=True)),
            )
            dx, dy = here[0] - last[0], here[1] - last[1]
            # sqrt, unlike hypot, is rounded alike on every platform.
            length, last = length + math.sqrt(dx * dx + dy * dy), here
            track.append((length, (tuple(offset + k for k in which), share)))
    return track


def _catmull_rom(t: float) -> tuple[float, ...]:
    """Weights of the four points around a span, at ``t`` of 1 of the way along it."""
    return (
        0.5 * (-t + 2 * t * t - t * t * t),
        0.5 * (2 - 5 * t * t + 3 * t * t * t),
        0.5 * (t + 4 * t * t - 3 * t * t * t),
        0.5 * (-t * t + t * t * t),
    )


def _shares(lengths: list[float]) -> list[int]:
    """How many stamps each stroke gets: by length, at least two; the longest takes what rounding leaves."""
    total = _total(lengths)
    counts = [max(2, round(STAMPS * length / total)) for length in lengths]
    counts[lengths.index(max(lengths))] += STAMPS - sum(counts)
    return counts


def _total(values: Iterable[float]) -> float:
    """From left to right. ``sum`` is another one from Python 3.12 on: it compensates what rounding lost."""
    return functools.reduce(operator.add, values)


def _at(track: list[tuple[float, Stamp]], length: float) -> Stamp:
    return next((stamp for reached, stamp in track if reached >= length), track[-1][1])
