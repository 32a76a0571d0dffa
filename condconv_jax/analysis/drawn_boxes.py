"""Boxes drawn on a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from condconv_jax.analysis.figures import COLORS

# Of lines on white; on a picture black is no colour, and Okabe and Ito's yellow is a good one.
PALETTE = (*COLORS[:6], "#F0E442")

# What later rounds through the palette are mixed with: white or black, and the share of it.
SHADES = ((255, 0.0), (255, 0.5), (0, 0.4), (255, 0.7), (0, 0.6))

Color = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)

# (left, top, right, bottom) in pixels, all of them inside.
Rectangle = tuple[int, int, int, int]


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None = None,
    *,
    class_names: Sequence[str],
    truth_boxes: np.ndarray | None = None,
    truth_labels: np.ndarray | None = None,
) -> np.ndarray:
    """Returns a picture with boxes on it, and the name and score of each.

    Every class has its colour, to be told apart with any colour vision; past seven classes the
    colours come again in other shades. Lines and letters grow with the picture and have an edge
    that shows on dark and on light. True boxes are dashed, under the others. A box without size is
    not drawn, nor one whose label is -1.

    Args:
      image: (h, w, 3) uint8.
      boxes: (n, 4) as (top, left, bottom, right) in shares of height and width; only what is inside
        the picture is drawn.
      labels: (n,) int.
      scores: (n,), 0 to 1, if they are to be written; the higher is drawn over the lower. Without
        them the smaller box is drawn over the larger.
      class_names: the name of each label.
      truth_boxes: (t, 4), of the objects that are there.
      truth_labels: (t,) int, to draw them in their classes' colours instead of white.

    Returns:
      (h, w, 3) uint8, a copy.

    Raises:
      ValueError: if the image is not (h, w, 3) uint8, if boxes, labels and scores are not of the
        same number, or a label has no name.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"draw_boxes: image is {image.dtype} {image.shape}; pass uint8 (h, w, 3), as "
            "it was before normalising"
        )
    _check_boxes("", boxes, labels, class_names)
    if scores is not None and np.shape(scores) != np.shape(labels):
        raise ValueError(
            f"draw_boxes: scores are {np.shape(scores)}, labels {np.shape(labels)}; pass one score "
            "per label"
        )
    if truth_boxes is not None:
        unnamed = np.zeros(len(truth_boxes), int) if truth_labels is None else truth_labels
        _check_boxes("truth_", truth_boxes, unnamed, class_names)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(image.shape[:2]) / 240))

    for i, box in _to_draw(truth_boxes, truth_labels, image.shape):
        color = WHITE if truth_labels is None else class_color(int(truth_labels[i]))
        _dashed(draw, box, line, color)

    shown = dict(_to_draw(boxes, labels, image.shape))
    # The first are to be seen best: they are drawn last, and their texts choose their places first.
    first = {i: _pixels(box) if scores is None else -scores[i] for i, box in shown.items()}
    shown = {i: shown[i] for i in sorted(shown, key=lambda i: first[i])}
    for i, box in reversed(shown.items()):
        _outlined(draw, box, line, class_color(int(labels[i])))
    font = ImageFont.load_default(size=max(10.0, min(image.shape[:2]) / 30))
    texts = {
        i: class_names[labels[i]] + ("" if scores is None else f" {scores[i]:.2f}") for i in shown
    }
    placed = _places(draw, font, texts, shown, line, image.shape)
    for i, place in reversed(placed.items()):
        _write(draw, font, texts[i], place, line, class_color(int(labels[i])))
    return np.asarray(picture).copy()


def class_color(label: int) -> Color:
    """Returns the colour of a class, 0 to 255 in red, green and blue.

    Args:
      label: of the class, 0 or more.
    """
    color = PALETTE[label % len(PALETTE)].lstrip("#")
    other, share = SHADES[label // len(PALETTE) % len(SHADES)]
    red, green, blue = (
        round((1 - share) * int(color[i : i + 2], 16) + share * other) for i in (0, 2, 4)
    )
    return red, green, blue


def _check_boxes(which: str, boxes: Any, labels: Any, names: Sequence[str]) -> None:
    if np.shape(boxes) != (*np.shape(labels), 4) or np.ndim(labels) != 1:
        raise ValueError(
            f"draw_boxes: {which}boxes are {np.shape(boxes)} and {which}labels {np.shape(labels)}; "
            "pass (n, 4) and (n,), of one picture"
        )
    if len(labels) and np.max(labels) >= len(names):
        raise ValueError(
            f"draw_boxes: there are {len(names)} class_names, and label {np.max(labels)}; pass one "
            "name per label"
        )


def _to_draw(boxes: Any, labels: Any, shape: Sequence[int]) -> list[tuple[int, Rectangle]]:
    """The boxes that have a place in the picture, with their indices."""
    if boxes is None:
        return []
    height, width = shape[:2]
    found = []
    for i, box in enumerate(np.clip(np.asarray(boxes, np.float64), 0, 1)):
        top, left, bottom, right = box
        # False for NaN, too.
        if bottom > top and right > left and (labels is None or labels[i] >= 0):
            x, y = min(round(left * width), width - 1), min(round(top * height), height - 1)
            last = max(x, round(right * width) - 1), max(y, round(bottom * height) - 1)
            found.append((i, (x, y, *last)))
    return found


def _outlined(draw: Any, box: Rectangle, line: int, color: Color) -> None:
    left, top, right, bottom = box
    # On one side only: on a small picture two edges would drown the colour between them.
    edge = -(-line // 3)
    draw.rectangle(
        (left - edge, top - edge, right + edge, bottom + edge), outline=_contrast(color), width=edge
    )
    draw.rectangle(box, outline=color, width=line)


def _dashed(draw: Any, box: Rectangle, line: int, color: Color) -> None:
    left, top, right, bottom = box
    draw.rectangle(box, outline=_contrast(color), width=line)
    dash = 4 * line
    for x in range(left, right + 1, 2 * dash):
        end = min(x + dash - 1, right)
        draw.rectangle((x, top, end, min(top + line - 1, bottom)), fill=color)
        draw.rectangle((x, max(bottom - line + 1, top), end, bottom), fill=color)
    for y in range(top, bottom + 1, 2 * dash):
        end = min(y + dash - 1, bottom)
        draw.rectangle((left, y, min(left + line - 1, right), end), fill=color)
        draw.rectangle((max(right - line + 1, left), y, right, end), fill=color)


def _places(
    draw: Any,
    font: Any,
    texts: dict[int, str],
    boxes: dict[int, Rectangle],
    line: int,
    shape: Sequence[int],
) -> dict[int, Rectangle]:
    """Where each text goes: at its box, inside the picture, and off the others if it can be."""
    height, width = shape[:2]
    placed: dict[int, Rectangle] = {}
    for i, (left, top, right, bottom) in boxes.items():
        size = draw.textbbox((0, 0), texts[i], font=font)
        wide, high = round(size[2]) + 2 * line, sum(font.getmetrics()) + line
        corners = [
            (x, y)
            for y in (top - high, top, bottom + 1 - high, bottom + 1)
            for x in (left, right + 1 - wide)
        ]
        inside = [
            (min(max(x, 0), max(width - wide, 0)), min(max(y, 0), max(height - high, 0)))
            for x, y in corners
        ]
        choices = [(x, y, x + wide - 1, y + high - 1) for x, y in inside]
        free = [c for c in choices if not any(_meet(c, other) for other in placed.values())]
        placed[i] = (free or choices)[0]
    return placed


def _pixels(box: Rectangle) -> int:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _write(draw: Any, font: Any, text: str, place: Rectangle, line: int, color: Color) -> None:
    draw.rectangle(place, fill=color)
    draw.text((place[0] + line, place[1]), text, font=font, fill=_contrast(color))


def _contrast(color: Color) -> Color:
    """Black on light colours, white on dark ones: whichever has the greater contrast.

    Source: WCAG 2.1, relative luminance and contrast ratio; the ratios with black and with white
      are equal at a luminance of sqrt(1.05 * 0.05) - 0.05.
    """
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if luminance > 0.179 else WHITE
