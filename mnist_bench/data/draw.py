"""Pictures of digits: a PNG grid, or letters for a terminal."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnist_bench.data.mnist import SIDE, Bytes

DIGITS = 16
_COLUMNS = 4
_ZOOM = 5
_MARGIN = 12  # pixels around each digit of the PNG
_CAPTION = 22  # pixels for the label under it
_RAMP = " .:-=+*#%@"
_GAP = 2  # columns between two digits of the terminal


def png(images: Bytes, labels: Bytes) -> bytes:
    """A PNG of digits in rows of four, dark on light, each with its label below.

    Args:
        images: uint8 (N, 28, 28), 255 ink.
        labels: uint8 (N,).
    """
    width, height = SIDE * _ZOOM + 2 * _MARGIN, SIDE * _ZOOM + 2 * _MARGIN + _CAPTION
    rows = -(-len(images) // _COLUMNS)
    sheet = Image.new("L", (width * _COLUMNS, height * rows), 255)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = number % _COLUMNS * width + _MARGIN, number // _COLUMNS * height + _MARGIN
        digit = Image.fromarray(255 - image).resize((SIDE * _ZOOM, SIDE * _ZOOM), Image.Resampling.NEAREST)
        sheet.paste(digit, (left, top))
        pen.text((left + SIDE * _ZOOM / 2, top + SIDE * _ZOOM + 4), str(label), fill=60, font=font, anchor="ma")
    file = BytesIO()
    sheet.save(file, format="PNG", optimize=True)
    return file.getvalue()


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
