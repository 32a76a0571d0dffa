"""Losses of anchors: where the box is, and what it holds."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

# Names of `class_loss`.
CLASS_LOSSES = ("focal", "hard_negative")
# Empty anchors for each one with a box, Liu et al., arXiv 1512.02325, section 2.2.
NEGATIVES = 3
# Empty anchors of a picture without boxes, which would else teach nothing: our choice.
LEAST_NEGATIVES = 3


def smooth_l1(codes: Float[Array, "*n 4"], wanted: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Returns the sum over the four codes of d^2 / 2 where |d| < 1, else |d| - 1/2.

    Args:
      codes: as predicted.
      wanted: as encoded.

    Source: Girshick, arXiv 1504.08083, equation 3.
    """
    return optax.huber_loss(codes, wanted, delta=1.0).sum(axis=-1)


def focal_loss(
    logits: Float[Array, "*n classes"],
    labels: Int[Array, "*n"],
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Float[Array, "*n"]:
    """Returns the sigmoid focal loss of each anchor, summed over the classes.

    FL = -alpha_t (1 - p_t)^gamma log(p_t);  p_t = p, alpha_t = alpha where the class is the
    anchor's, else 1 - p and 1 - alpha

    Args:
      logits: of the classes, without the background.
      labels: class of each anchor; -1 for none.
      alpha: weight of the anchor's own class.
      gamma: how much what is well classified is passed over; 0 is cross-entropy.

    Source: Lin et al., arXiv 1708.02002, equation 5.
    """
    # one_hot of -1 is all zeros.
    wanted = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.sigmoid_focal_loss(logits, wanted, alpha=alpha, gamma=gamma).sum(axis=-1)


def hard_negative_loss(
    logits: Float[Array, "b a classes"],
    labels: Int[Array, "b a"],
    counts: Bool[Array, "b a"],
) -> Float[Array, "b a"]:
    """Returns the softmax cross-entropy of anchors with a box and of the worst ones without.

    For each anchor with a box, the `NEGATIVES` empty ones of the same picture with the largest loss
    count, and at least `LEAST_NEGATIVES`; the loss of all others is 0.

    Args:
      logits: with the background first.
      labels: class of each anchor, without the background; -1 for none.
      counts: anchors that may count.

    Source: Liu et al., arXiv 1512.02325, section 2.2 (hard negative mining).
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels + 1)
    positive = labels >= 0
    wanted = jnp.maximum(NEGATIVES * positive.sum(axis=1), LEAST_NEGATIVES)
    eligible = counts & ~positive
    worst_first = jnp.argsort(
        jnp.where(eligible, -jax.lax.stop_gradient(losses), jnp.inf), axis=1, stable=True
    )
    rank = jnp.argsort(worst_first, axis=1, stable=True)
    mined = eligible & (rank < wanted[:, None])
    return jnp.where(positive | mined, losses, 0.0)
