"""Arithmetic of boxes (..., 4): top, left, bottom, right, in any unit."""

import numpy as np


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Returns height * width (...), 0 where a box has no inside."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def clip_boxes(boxes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Returns what of the boxes lies inside `limits` (..., 4), itself a box or one for each.

    The sides of a box outside are in the wrong order or equal (`has_inside`).
    """
    return np.concatenate(
        [
            np.maximum(boxes[..., :2], limits[..., :2]),
            np.minimum(boxes[..., 2:], limits[..., 2:]),
        ],
        axis=-1,
    )


def has_inside(boxes: np.ndarray) -> np.ndarray:
    """Returns bool (...), whether both sides are longer than 0."""
    return np.all(boxes[..., 2:] > boxes[..., :2], axis=-1)


def box_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns intersection over union (Jaccard overlap), (..., m, n) of (..., m, 4) and (n, 4).

    0 where both have no inside.
    """
    first = first[..., :, np.newaxis, :]
    shared = box_areas(clip_boxes(*np.broadcast_arrays(first, second)))
    union = box_areas(first) + box_areas(second) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def centres_inside(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Returns bool (m, n), whether the centre of box n lies strictly inside window m."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    above = centres > windows[:, np.newaxis, :2]
    below = centres < windows[:, np.newaxis, 2:]
    return np.all(above & below, axis=-1)
