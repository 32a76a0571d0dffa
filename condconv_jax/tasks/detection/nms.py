"""From scored boxes to detections: non-maximum suppression, class by class."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from condconv_jax.ops.partition import over_batch
from condconv_jax.tasks.detection.boxes import pairwise_iou


class Detections(NamedTuple):
    """The detections of each picture, the highest score first.

    Attributes:
      boxes: (b, m, 4) float32 as (top, left, bottom, right); zeros where there is none.
      scores: (b, m) float32; 0 where there is none.
      labels: (b, m) int32 classes; -1 where there is none.
    """

    boxes: Float[Array, "b m 4"]
    scores: Float[Array, "b m"]
    labels: Int[Array, "b m"]


def select_detections(
    boxes: Float[Array, "b a 4"],
    scores: Float[Array, "b a k"],
    *,
    iou_threshold: float = 0.6,
    score_threshold: float = 1e-8,
    max_per_class: int = 100,
    max_detections: int = 100,
) -> Detections:
    """Returns the detections that greedy non-maximum suppression leaves of each picture.

    In each class, boxes are taken from the highest score to the lowest, each unless its
    intersection over union with one that was taken before exceeds the threshold. Of all classes
    together the highest scores are returned. Of equal scores the lower class goes first, within
    a class the lower anchor. Boxes of no size overlap nothing, and are neither suppressed nor
    suppress. Nothing here has a gradient.

    Only those returned are ever looked for: each of `max_detections` steps takes the best box
    left of any class and strikes out what it suppresses in its class. That needs no sorting, and
    the same time whatever the boxes, for one class or for 80.

    On a mesh each device selects in its own pictures and stops when they are done; left to the
    partitioner, all devices would ask each other after every step whether to go on.

    Args:
      boxes: (b, a, 4) of any float dtype, one per anchor, shared by the classes; clip them first
        if the picture's edge should count.
      scores: (b, a, k) of any float dtype, without a background class.
      iou_threshold: overlap, 0 to 1, above which the lower score is suppressed.
      score_threshold: only scores above it are detections; NaN never is.
      max_per_class: of each picture.
      max_detections: m, of each picture.

    Raises:
      ValueError: if the shapes disagree or a limit makes no sense.

    Cost: m*b*a overlaps.
    Source: multiclass_non_max_suppression of TensorFlow's object detection API,
      core/post_processing.py, and the values of ssd_mobilenet_v1's pipeline.
    """
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape != (*scores.shape[:2], 4):
        raise ValueError(
            f"select_detections: boxes are {boxes.shape} and scores {scores.shape}; pass (b, a, 4) "
            "and (b, a, k), one box and k scores per anchor"
        )
    if 0 in scores.shape[1:]:
        raise ValueError(
            f"select_detections: scores are {scores.shape}; pass at least one anchor and one class"
        )
    if not 0 <= iou_threshold <= 1:
        raise ValueError(
            f"select_detections: iou_threshold is {iou_threshold}; pass an overlap, 0 to 1"
        )
    for name, limit in (("max_per_class", max_per_class), ("max_detections", max_detections)):
        if limit < 1:
            raise ValueError(f"select_detections: {name} is {limit}; pass 1 or more")
    select = functools.partial(
        _select,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        max_per_class=max_per_class,
        max_detections=max_detections,
    )
    return over_batch(select, (boxes, scores), ())


class _Left(NamedTuple):
    """What a picture has left to take.

    Attributes:
      scores: (k, a), minus infinity for what was taken, suppressed or below the threshold.
      best: (k,) the highest score of each class that may take more.
      anchor: (k,) whose it is.
      taken: (k,) how many each class has taken.
    """

    scores: Array
    best: Array
    anchor: Array
    taken: Array


def _select(
    boxes: Array,
    scores: Array,
    *,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_detections: int,
) -> Detections:
    boxes, scores = jax.lax.stop_gradient((boxes, scores))
    # In bfloat16 sides near 1 are 1/256 apart, and overlaps come out wrong by as much.
    boxes, scores = boxes.astype(jnp.float32), scores.astype(jnp.float32)
    scores = jnp.where(scores > score_threshold, scores, -jnp.inf).swapaxes(1, 2)
    best = scores.max(axis=2)
    left = _Left(
        scores, best, scores.argmax(axis=2).astype(jnp.int32), jnp.zeros_like(best, jnp.int32)
    )
    batch = boxes.shape[0]
    none = Detections(
        jnp.zeros_like(boxes, shape=(batch, max_detections, 4)),
        jnp.zeros_like(scores, shape=(batch, max_detections)),
        jnp.full_like(scores, -1, shape=(batch, max_detections), dtype=jnp.int32),
    )
    take = jax.vmap(
        functools.partial(_take, iou_threshold=iou_threshold, max_per_class=max_per_class)
    )

    def unfinished(state: tuple[Array, _Left, Detections]) -> Array:
        step, left, _ = state
        return (step < max_detections) & (left.best > -jnp.inf).any()

    def advance(state: tuple[Array, _Left, Detections]) -> tuple[Array, _Left, Detections]:
        step, left, found = state
        left, new = take(left, boxes)
        found = jax.tree.map(lambda all_, one: all_.at[:, step].set(one), found, new)
        return step + 1, left, found

    return jax.lax.while_loop(unfinished, advance, (jnp.int32(0), left, none))[2]


def _take(
    left: _Left, boxes: Float[Array, "a 4"], *, iou_threshold: float, max_per_class: int
) -> tuple[_Left, Detections]:
    """Takes a picture's best box; what is left without it, and the detection."""
    label = left.best.argmax().astype(jnp.int32)
    score, anchor = left.best[label], left.anchor[label]
    box = boxes[anchor]
    found = score > -jnp.inf
    detection = Detections(
        jnp.where(found, box, 0), jnp.where(found, score, 0), jnp.where(found, label, -1)
    )
    # A box of no size does not even overlap itself.
    struck = pairwise_iou(box[None], boxes)[0] > iou_threshold
    struck |= jnp.arange(boxes.shape[0]) == anchor
    own = jnp.where(struck, -jnp.inf, left.scores[label])
    taken = left.taken[label] + 1
    best = jnp.where(taken < max_per_class, own.max(), -jnp.inf)
    return _Left(
        left.scores.at[label].set(own),
        left.best.at[label].set(best),
        left.anchor.at[label].set(own.argmax().astype(jnp.int32)),
        left.taken.at[label].set(taken),
    ), detection
