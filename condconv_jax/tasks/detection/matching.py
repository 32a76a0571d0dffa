"""Which box each anchor is trained to find."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from condconv_jax.tasks.detection.boxes import pairwise_coverage, pairwise_iou

# tensorflow/models, research/object_detection, argmax_matcher of the SSD configs.
MATCHED_FROM = 0.5  # intersection over union of an anchor and its box
# An anchor that lies in a crowd region by so much of its area says nothing about single objects.
IGNORED_FROM = 0.5


class Targets(NamedTuple):
    """What the anchors of each picture are trained for.

    Attributes:
      box_index: (b, a) int32, the number of the box that an anchor is to find; -1 for none.
      in_loss: (b, a), whether the anchor's classes are part of the loss.
    """

    box_index: Int[Array, "b a"]
    in_loss: Bool[Array, "b a"]


def match_anchors(
    anchors: Float[Array, "a 4"],
    boxes: Float[Array, "b n 4"],
    present: Bool[Array, "b n"],
    crowd: Bool[Array, "b n"],
) -> Targets:
    """Returns the box of each anchor.

    An anchor finds the box that it overlaps most, if their intersection over union is at least
    `MATCHED_FROM`; and each box is found by the anchor that overlaps it most, however little (of
    two boxes with the same such anchor, the one that it overlaps more). Of equals the first. Crowd
    regions are found by no anchor; anchors that lie in one and find nothing do not count.

    Args:
      anchors: (top, left, bottom, right) in shares of height and width.
      boxes: likewise, with filling.
      present: which boxes are there; the others are filling.
      crowd: which are regions of many objects.

    Source: Liu et al., arXiv 1512.02325, section 2.2 (matching strategy); tensorflow/models,
      research/object_detection, matchers/argmax_matcher.py (force_match_for_each_row, where of two
      boxes the first is found).
    """
    single = present & ~crowd
    iou = jnp.where(single[..., None], pairwise_iou(boxes, anchors[None]), 0.0)
    box = jnp.where(iou.max(axis=1) >= MATCHED_FROM, iou.argmax(axis=1), -1)
    # (b, n, a): whether the anchor is the box's best. A box outside all anchors has none.
    best = (jnp.arange(len(anchors))[None, None] == iou.argmax(axis=2)[..., None]) & (
        iou.max(axis=2, keepdims=True) > 0
    )
    box = jnp.where(best.any(axis=1), (iou * best).argmax(axis=1), box).astype(jnp.int32)
    coverage = jnp.swapaxes(pairwise_coverage(anchors[None], boxes), 1, 2)
    inside = ((present & crowd)[..., None] & (coverage >= IGNORED_FROM)).any(axis=1)
    return Targets(box, (box >= 0) | ~inside)
