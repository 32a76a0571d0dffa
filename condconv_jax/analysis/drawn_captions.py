"""A line of text written on a picture, in a strip along its bottom."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Pixels. A width that has room for a name and a number in the smallest letters that read well.
LEAST_WIDTH, LEAST_LETTERS = 160, 13.0
# Pixels of either side, beyond which nothing is enlarged: a picture may be a narrow line.
MOST = 4096
INK, PAPER = (255, 255, 255), (0, 0, 0)


def draw_caption(image: np.ndarray, text: str, number: str = "") -> np.ndarray:
    """Returns a picture with a line of text on its bottom edge, white on black.

    Letters grow with the picture, and one that is too narrow for them is enlarged by a whole
    factor, pixel by pixel. A text that is too long is cut short, its number never. The size of what
    is returned is decided by that of the picture alone, so that the frames of a video stay of one.

    Args:
      image: (h, w, 3) uint8.
      text: to be written.
      number: what follows the text, if anything does.

    Returns:
      (h * factor, w * factor, 3) uint8, a copy; the factor is 1 from 160 pixels of width on.

    Raises:
      ValueError: if the image is not (h, w, 3) uint8.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"draw_caption: image is {image.dtype} {image.shape}; pass uint8 (h, w, 3)"
        )
    factor = max(1, min(-(-LEAST_WIDTH // image.shape[1]), MOST // max(image.shape)))
    picture = Image.fromarray(image.repeat(factor, 0).repeat(factor, 1))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(LEAST_LETTERS, min(picture.size) / 20))
    high = sum(font.getmetrics())
    margin = max(2, high // 6)
    top = picture.height - high - margin
    draw.rectangle((0, top, picture.width, picture.height), fill=PAPER)
    line = _fitting(draw, font, text, number, picture.width - 2 * margin)
    draw.text((margin, top + margin // 2), line, font=font, fill=INK)
    return np.asarray(picture).copy()


def _fitting(draw: Any, font: Any, text: str, number: str, width: int) -> str:
    """As much of the text as there is room for, and the number."""
    for kept in range(len(text), -1, -1):
        shown = text if kept == len(text) else text[:kept].rstrip(" ,") + "…"
        line = f"{shown} {number}".strip()
        if draw.textlength(line, font=font) <= width:
            return line
    return number
