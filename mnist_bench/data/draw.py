"""Pictures of digits: a PNG grid for people, half-blocks or letters for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
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
# The grey levels of the 256-colour palette, and black and white at their ends.
_GREYS = (16, *range(232, 256), 231)


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


def text(images: Bytes, labels: Bytes, *, columns: int, colour: bool) -> str:
    """Digits as lines of text, each with its label above, as many beside each other (4 at most) as fit.

    A character covers two pixels, one above the other.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        columns: width of the terminal.
        colour: grey half-blocks (256 colours, UTF-8); else ten letters from light to dark (ASCII).
    """
    across = max(1, min(_COLUMNS, (columns + _GAP) // (SIDE + _GAP)))
    line = _coloured_line if colour else _plain_line
    lines: list[str] = []
    for start in range(0, len(images), across):
        part = slice(start, start + across)
        lines.append((" " * _GAP).join(f"{label:^{SIDE}}" for label in labels[part].tolist()).rstrip())
        for y in range(0, SIDE, 2):
            lines.append((" " * _GAP).join(line(image[y], image[y + 1]) for image in images[part]).rstrip())
    return "\n".join(lines) + "\n"


def _plain_line(upper: Bytes, lower: Bytes) -> str:
    mean = (upper.astype(np.uint16) + lower) // 2
    return "".join(_RAMP[int(value) * (len(_RAMP) - 1) // 255] for value in mean)


def _coloured_line(upper: Bytes, lower: Bytes) -> str:
    pairs = zip(_greys(upper), _greys(lower), strict=True)
    return "".join(f"\x1b[38;5;{above};48;5;{below}m▀" for above, below in pairs) + "\x1b[0m"


def _greys(values: Bytes) -> Sequence[int]:
    return [_GREYS[int(value) * (len(_GREYS) - 1) // 255] for value in values]
