"""Anchors: the boxes that a single-shot detector's predictions start from."""

import math
from collections.abc import Sequence

import numpy as np

# Width / height of the anchors of each cell, Liu et al., arXiv 1512.02325, section 2.2.
ASPECT_RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
# Of the first feature map, whose cells are many: a smaller square, and two of its own scale.
FIRST_ASPECT_RATIOS = (1.0, 2.0, 1 / 2)


def anchors_per_cell(maps: int) -> tuple[int, ...]:
    """Returns how many anchors each cell of each feature map has.

    Args:
      maps: number of feature maps, at least 1.
    """
    return (len(FIRST_ASPECT_RATIOS), *(len(ASPECT_RATIOS) + 1 for _ in range(maps - 1)))


def make_anchors(
    sizes: Sequence[tuple[int, int]], *, min_scale: float = 0.2, max_scale: float = 0.95
) -> np.ndarray:
    """Returns the anchors of all feature maps, in the order of the predictions.

    Map k of n has the scale s_k = min_scale + (max_scale - min_scale) k / (n - 1), and s_n = 1. Its
    cells have anchors of height s_k / sqrt(r) and width s_k sqrt(r) for each aspect ratio r, and a
    square of scale sqrt(s_k s_{k+1}). The first map has a square of half its scale and two
    anchors of its scale, of ratio 2 and 1/2. An anchor is centred in its cell; parts outside the
    picture stay.

    Args:
      sizes: (h_k, w_k) of each feature map, finest first, cells.
      min_scale: of the first map, as a share of the picture's side.
      max_scale: of the last.

    Returns:
      float32 (a, 4): (top, left, bottom, right) in shares of height and width; maps one after
      another, rows, columns, anchors of a cell.

    Raises:
      ValueError: if there are fewer than two maps, or the scales are not 0 < lowest <= highest.

    Source: arXiv 1512.02325, section 2.2; tensorflow/models, research/object_detection,
      anchor_generators/multiple_grid_anchor_generator.py (create_ssd_anchors with
      reduce_boxes_in_lowest_layer, whose 0.1 is half of its min_scale of 0.2).
    """
    if len(sizes) < 2:
        raise ValueError(f"make_anchors: {len(sizes)} feature maps; pass at least 2")
    if not 0 < min_scale <= max_scale:
        raise ValueError(
            f"make_anchors: min_scale is {min_scale}, max_scale {max_scale}; pass 0 < min_scale <= "
            "max_scale"
        )
    steps = len(sizes) - 1
    scales = [min_scale + (max_scale - min_scale) * k / steps for k in range(len(sizes))] + [1.0]
    found = []
    for k, (rows, columns) in enumerate(sizes):
        scale, following = scales[k], scales[k + 1]
        if k == 0:
            square, *others = FIRST_ASPECT_RATIOS
            shapes = [_shape(scale / 2, square), *(_shape(scale, r) for r in others)]
        else:
            shapes = [_shape(scale, r) for r in ASPECT_RATIOS]
            shapes.append(_shape(math.sqrt(scale * following), 1.0))
        found.append(_on_grid(rows, columns, np.array(shapes)))
    return np.concatenate(found).astype(np.float32)


def _shape(scale: float, ratio: float) -> tuple[float, float]:
    """Height and width of an anchor."""
    return scale / math.sqrt(ratio), scale * math.sqrt(ratio)


def _on_grid(rows: int, columns: int, shapes: np.ndarray) -> np.ndarray:
    """Anchors of shapes (k, 2) in every cell, (rows * columns * k, 4)."""
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij"
    )
    centres = np.stack([y, x], axis=-1)[:, :, None, :]
    corners = np.concatenate([centres - shapes / 2, centres + shapes / 2], axis=-1)
    return corners.reshape(-1, 4)
