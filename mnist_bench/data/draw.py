"""Digits as letters for a terminal."""

import numpy as np

from mnist_bench.data.mnist import SIDE, Bytes

DIGITS = 16
_COLUMNS = 4
_RAMP = " .:-=+*#%@"
_GAP = 2  # columns between two digits


def text(images: Bytes, labels: Bytes, *, columns: int) -> str:
    """Digits as lines of letters from light to dark, each with its label above, as many beside each other as fit.

    A letter covers two pixels, one above the other.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        columns: width of the terminal; four digits at most stand beside each other.
    """
    across = max(1, min(_COLUMNS, (columns + _GAP) // (SIDE + _GAP)))
    darkness = images[:, ::2].astype(np.uint16) + images[:, 1::2]
    letters = np.array(list(_RAMP))[darkness * (len(_RAMP) - 1) // 510]
    lines: list[str] = []
    for start in range(0, len(images), across):
        part = slice(start, start + across)
        rows = [[f"{label:^{SIDE}}" for label in labels[part].tolist()]]
        rows += [["".join(line) for line in row] for row in letters[part].swapaxes(0, 1)]
        lines += [(" " * _GAP).join(row).rstrip() for row in rows]
    return "\n".join(lines) + "\n"
