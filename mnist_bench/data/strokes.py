"""How hands write the ten digits: pen strokes through points, several styles of each digit.

Points are (x, y) in the unit square, x to the right and y down. A stroke is the Catmull-Rom spline through its points;
a point given twice makes a corner.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Stroke = tuple[Point, ...]
Style = tuple[Stroke, ...]

# Pen positions per digit: the longest digits are 3.3 units, 66 pixels, long; the stamps then lie less than a pixel apart.
STAMPS = 72
_FINE = 24  # steps per span for measuring lengths

STYLES: dict[int, tuple[Style, ...]] = {
    0: (
        (((0.52, 0.0), (0.22, 0.14), (0.1, 0.5), (0.2, 0.86), (0.5, 1.0), (0.8, 0.86), (0.9, 0.5), (0.78, 0.14), (0.5, 0.0)),),
        (((0.62, 0.03), (0.36, 0.12), (0.2, 0.5), (0.26, 0.88), (0.48, 1.0), (0.7, 0.82), (0.78, 0.45), (0.7, 0.1), (0.48, 0.06)),),
        (((0.3, 0.1), (0.08, 0.4), (0.14, 0.8), (0.45, 1.0), (0.82, 0.84), (0.94, 0.46), (0.74, 0.1), (0.4, 0.0), (0.24, 0.14), (0.4, 0.22)),),
    ),
    1: (
        (((0.5, 0.0), (0.5, 0.5), (0.5, 1.0)),),
        (((0.32, 0.2), (0.54, 0.0), (0.54, 0.0), (0.52, 0.5), (0.5, 1.0)),),
        (((0.3, 0.22), (0.52, 0.0), (0.52, 0.0), (0.5, 1.0)), ((0.26, 1.0), (0.76, 0.99))),
        (((0.66, 0.0), (0.52, 0.48), (0.36, 1.0)),),
    ),
    2: (
        (((0.14, 0.25), (0.28, 0.05), (0.55, 0.0), (0.8, 0.14), (0.8, 0.36), (0.56, 0.66), (0.14, 1.0), (0.14, 1.0), (0.9, 0.97)),),
        (((0.16, 0.2), (0.44, 0.0), (0.78, 0.12), (0.76, 0.42), (0.46, 0.8), (0.16, 0.98), (0.1, 0.84), (0.3, 0.78), (0.6, 0.96), (0.94, 0.92)),),
        (((0.12, 0.1), (0.5, 0.0), (0.84, 0.08), (0.7, 0.4), (0.12, 0.96), (0.12, 0.96), (0.5, 0.98), (0.92, 1.0)),),
        (((0.2, 0.32), (0.22, 0.08), (0.56, 0.0), (0.78, 0.22), (0.6, 0.56), (0.28, 0.86), (0.3, 0.98), (0.62, 0.86), (0.92, 0.98)),),
    ),
    3: (
        (((0.15, 0.12), (0.48, 0.0), (0.78, 0.15), (0.72, 0.38), (0.42, 0.48), (0.42, 0.48), (0.8, 0.6), (0.84, 0.82), (0.54, 1.0), (0.12, 0.9)),),
        (((0.16, 0.02), (0.8, 0.0), (0.8, 0.0), (0.44, 0.4), (0.44, 0.4), (0.8, 0.54), (0.82, 0.84), (0.5, 1.0), (0.1, 0.9)),),
        (((0.2, 0.1), (0.56, 0.0), (0.74, 0.2), (0.56, 0.42), (0.36, 0.46), (0.46, 0.52), (0.74, 0.6), (0.78, 0.86), (0.46, 1.0), (0.18, 0.94)),),
    ),
    4: (
        (((0.24, 0.02), (0.14, 0.34), (0.12, 0.54), (0.12, 0.54), (0.5, 0.54), (0.9, 0.48)), ((0.76, 0.0), (0.7, 0.5), (0.64, 1.0))),
        (((0.66, 0.0), (0.36, 0.34), (0.08, 0.66), (0.08, 0.66), (0.5, 0.66), (0.94, 0.64)), ((0.68, 0.02), (0.67, 0.5), (0.66, 1.0))),
        (((0.22, 0.0), (0.16, 0.28), (0.3, 0.46), (0.6, 0.42), (0.78, 0.28)), ((0.84, 0.0), (0.76, 0.5), (0.66, 1.0))),
        (((0.3, 0.0), (0.1, 0.5), (0.1, 0.5), (0.5, 0.52), (0.86, 0.5)), ((0.62, 0.24), (0.6, 0.6), (0.56, 1.0))),
    ),
    5: (
        (((0.24, 0.02), (0.18, 0.44), (0.18, 0.44), (0.5, 0.38), (0.82, 0.55), (0.8, 0.86), (0.5, 1.0), (0.12, 0.92)), ((0.22, 0.02), (0.52, 0.02), (0.86, 0.0))),
        (((0.88, 0.02), (0.3, 0.04), (0.3, 0.04), (0.22, 0.46), (0.22, 0.46), (0.6, 0.46), (0.78, 0.7), (0.6, 0.95), (0.14, 0.96)),),
        (((0.86, 0.04), (0.46, 0.04), (0.26, 0.24), (0.38, 0.44), (0.7, 0.58), (0.8, 0.82), (0.5, 1.0), (0.14, 0.9)),),
    ),
    6: (
        (((0.7, 0.0), (0.38, 0.24), (0.16, 0.64), (0.28, 0.95), (0.58, 1.0), (0.8, 0.8), (0.64, 0.58), (0.36, 0.62), (0.2, 0.82)),),
        (((0.52, 0.0), (0.26, 0.4), (0.2, 0.8), (0.44, 1.0), (0.74, 0.88), (0.7, 0.64), (0.46, 0.58), (0.24, 0.74)),),
        (((0.82, 0.08), (0.56, 0.0), (0.26, 0.22), (0.12, 0.62), (0.3, 0.96), (0.66, 0.98), (0.84, 0.74), (0.62, 0.52), (0.32, 0.58), (0.16, 0.72)),),
    ),
    7: (
        (((0.1, 0.06), (0.48, 0.04), (0.86, 0.02), (0.86, 0.02), (0.6, 0.46), (0.42, 1.0)),),
        (((0.12, 0.04), (0.84, 0.04), (0.84, 0.04), (0.6, 0.5), (0.42, 1.0)), ((0.34, 0.5), (0.82, 0.48))),
        (((0.12, 0.24), (0.14, 0.06), (0.14, 0.06), (0.5, 0.08), (0.88, 0.02), (0.88, 0.02), (0.58, 0.5), (0.5, 1.0)),),
        (((0.1, 0.14), (0.4, 0.04), (0.74, 0.06), (0.8, 0.2), (0.64, 0.56), (0.52, 1.0)),),
    ),
    8: (
        (((0.78, 0.14), (0.5, 0.0), (0.24, 0.16), (0.44, 0.44), (0.78, 0.7), (0.62, 0.97), (0.3, 0.95), (0.2, 0.74), (0.5, 0.47), (0.76, 0.24), (0.7, 0.08)),),
        (((0.5, 0.0), (0.26, 0.1), (0.26, 0.34), (0.5, 0.46), (0.74, 0.34), (0.74, 0.1), (0.5, 0.0)), ((0.5, 0.46), (0.2, 0.6), (0.2, 0.88), (0.5, 1.0), (0.8, 0.88), (0.8, 0.6), (0.5, 0.46))),
        (((0.82, 0.04), (0.5, 0.02), (0.32, 0.18), (0.5, 0.46), (0.66, 0.72), (0.5, 0.98), (0.24, 0.9), (0.34, 0.62), (0.62, 0.36), (0.84, 0.06)),),
    ),
    9: (
        (((0.8, 0.16), (0.52, 0.0), (0.2, 0.2), (0.28, 0.46), (0.56, 0.46), (0.8, 0.16), (0.8, 0.16), (0.74, 0.56), (0.66, 1.0)),),
        (((0.76, 0.12), (0.46, 0.02), (0.2, 0.24), (0.34, 0.48), (0.66, 0.36), (0.8, 0.08), (0.8, 0.08), (0.82, 0.6), (0.62, 0.96), (0.22, 0.94)),),
        (((0.72, 0.1), (0.42, 0.0), (0.18, 0.22), (0.36, 0.44), (0.66, 0.32), (0.76, 0.12), (0.7, 0.4), (0.52, 0.7), (0.36, 1.0)),),
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
    styles = [style for digit in sorted(STYLES) for style in STYLES[digit]]
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
                sum(w * stroke[k][0] for w, k in zip(share, which, strict=True)),
                sum(w * stroke[k][1] for w, k in zip(share, which, strict=True)),
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
    counts = [max(2, round(STAMPS * length / sum(lengths))) for length in lengths]
    counts[lengths.index(max(lengths))] += STAMPS - sum(counts)
    return counts


def _at(track: list[tuple[float, Stamp]], length: float) -> Stamp:
    return next((stamp for reached, stamp in track if reached >= length), track[-1][1])
