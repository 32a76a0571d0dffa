"""What a detector predicts of a box: its offset from an anchor."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Of the centre's and the size's offsets; they bring what is learned to about unit variance.
# Source: faster_rcnn_box_coder in ssd_mobilenet_v1's pipeline, y_scale to width_scale.
CENTRE_SCALE = 10.0
SIZE_SCALE = 5.0

# Sizes below this are taken for it, so that no box is at a logarithm of minus infinity. Source:
# EPSILON in box_coders/faster_rcnn_box_coder.py, where it is added instead; the difference is
# beyond float32 for any box of a pixel or more.
SMALLEST_SIZE = 1e-8

# exp(10) anchors: from any anchor, far beyond the picture, and its square far below overflow.
LARGEST_LOG_SIZE = 10.0


def encode(boxes: Float[Array, "*#b 4"], anchors: Float[Array, "*#b 4"]) -> Float[Array, "*b 4"]:
    """Returns the codes of boxes, each relative to its anchor.

    With centres (y, x) and sizes (h, w):

    (10 (y - ya) / ha, 10 (x - xa) / wa, 5 log(h / ha), 5 log(w / wa))

    The codes of a box, or an anchor, of no size are finite, but far from any other; they are not
    for learning.

    Args:
      boxes: (..., 4) as (top, left, bottom, right).
      anchors: (..., 4), as many axes as `boxes`.

    Source: Ren et al., arXiv 1506.01497, eq. 2; the scales, of TensorFlow's object detection API,
      box_coders/faster_rcnn_box_coder.py.
    """
    y, x, h, w = _centres_and_sizes(boxes)
    ya, xa, ha, wa = _centres_and_sizes(anchors)
    return jnp.stack(
        [
            CENTRE_SCALE * (y - ya) / ha,
            CENTRE_SCALE * (x - xa) / wa,
            SIZE_SCALE * jnp.log(h / ha),
            SIZE_SCALE * jnp.log(w / wa),
        ],
        axis=-1,
    )


def decode(codes: Float[Array, "*#b 4"], anchors: Float[Array, "*#b 4"]) -> Float[Array, "*b 4"]:
    """Returns the boxes (top, left, bottom, right) that codes stand for: `encode` undone.

    Boxes may reach beyond the picture. A size is at most exp(10) times the anchor's, so that an
    untrained network's codes do not overflow.

    Args:
      codes: (..., 4).
      anchors: (..., 4), as many axes as `codes`.

    Source: as `encode`, but for the largest size.
    """
    ya, xa, ha, wa = _centres_and_sizes(anchors)
    dy, dx, dh, dw = _columns(codes)
    y = ya + dy / CENTRE_SCALE * ha
    x = xa + dx / CENTRE_SCALE * wa
    h = ha * jnp.exp(jnp.minimum(dh / SIZE_SCALE, LARGEST_LOG_SIZE))
    w = wa * jnp.exp(jnp.minimum(dw / SIZE_SCALE, LARGEST_LOG_SIZE))
    return jnp.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], axis=-1)


def _centres_and_sizes(boxes: Array) -> tuple[Array, Array, Array, Array]:
    top, left, bottom, right = _columns(boxes)
    height = jnp.maximum(bottom - top, SMALLEST_SIZE)
    width = jnp.maximum(right - left, SMALLEST_SIZE)
    return (top + bottom) / 2, (left + right) / 2, height, width


def _columns(values: Array) -> tuple[Array, ...]:
    """The four columns of (..., 4), each (...).

    Sliced, not indexed: with a symbolic batch an index is a gather, which LiteRT does not have.
    """
    columns = (lax.slice_in_dim(values, k, k + 1, axis=-1) for k in range(4))
    return tuple(column.reshape(values.shape[:-1]) for column in columns)
