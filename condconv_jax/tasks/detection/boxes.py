"""Boxes: areas and overlaps.

A box is (top, left, bottom, right), in shares 0..1 of the picture's height and width. One whose
bottom is not below its top, or right not beyond its left, has no size: its area is 0, and it
overlaps nothing.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def areas(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    """Returns the area of each box, in shares of the picture; 0 for a box of no size.

    Args:
      boxes: (..., 4), any float dtype.
    """
    top, left, bottom, right = _sides(boxes)
    return jnp.maximum(bottom - top, 0) * jnp.maximum(right - left, 0)


def pairwise_iou(a: Float[Array, "*#b n 4"], b: Float[Array, "*#b m 4"]) -> Float[Array, "*b n m"]:
    """Returns the intersection over union of each box of `a` with each of `b`.

    It is symmetric, exactly 1 for equal boxes, and 0, never NaN, where one of them has no size.

    Args:
      a: (..., n, 4).
      b: (..., m, 4), as many leading axes as `a`; those of size 1 are repeated.

    Returns:
      (..., n, m) in 0..1.
    """
    shared = _intersections(a, b)
    return _ratio(shared, areas(a)[..., :, None] + areas(b)[..., None, :] - shared)


def pairwise_coverage(
    a: Float[Array, "*#b n 4"], b: Float[Array, "*#b m 4"]
) -> Float[Array, "*b n m"]:
    """Returns the share of each box of `a` that lies inside each of `b`.

    It takes the place of intersection over union where `b` are regions that hold several objects
    not told apart: a box on one of them is right however small a part of the region it is.

    Args:
      a: (..., n, 4).
      b: (..., m, 4), as many leading axes as `a`; those of size 1 are repeated.

    Returns:
      (..., n, m) in 0..1; 0 where one of the boxes has no size.

    Source: COCO's evaluation of crowd regions, bbIou in cocoapi/common/maskApi.c.
    """
    return _ratio(_intersections(a, b), areas(a)[..., :, None])


def clip(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """Returns the part of each box inside the picture; one outside it ends up without size."""
    return jnp.clip(boxes, 0, 1)


def _sides(boxes: Array) -> tuple[Array, Array, Array, Array]:
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _intersections(a: Array, b: Array) -> Array:
    """The area (..., n, m) that each box of `a` shares with each of `b`."""
    top, left, bottom, right = _sides(a[..., :, None, :])
    other_top, other_left, other_bottom, other_right = _sides(b[..., None, :, :])
    height = jnp.minimum(bottom, other_bottom) - jnp.maximum(top, other_top)
    width = jnp.minimum(right, other_right) - jnp.maximum(left, other_left)
    return jnp.maximum(height, 0) * jnp.maximum(width, 0)


def _ratio(part: Array, whole: Array) -> Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)
