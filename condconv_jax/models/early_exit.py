"""Leaving a network at the first exit that is sure enough (Huang et al. 2018, section 4).

Axes: k exits, b examples. Exits are numbered from 1, as in the field `exit` of `MSDNet`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Exited(NamedTuple):
    """Where examples left and with what.

    Attributes:
      prediction: (b,) int32, the class.
      exit: (b,) int32, 1 to k.
    """

    prediction: Int[Array, " b"]
    exit: Int[Array, " b"]


def leave_early(
    logits: Float[Array, "k b classes"], thresholds: Float[Array, " k-1"] | Sequence[float]
) -> Exited:
    """Returns each example's prediction at the first exit that is sure enough of it.

    exit[b] = min { i : max_c softmax(logits[i, b])[c] > thresholds[i] },  k if there is none

    It takes the logits of all exits, so it says what leaving early would give and saves nothing
    itself: what it would cost is `average_madds`.

    Args:
      logits: of all exits, such as a network sows into the collection `exits`.
      thresholds: probabilities, of all exits but the last, which keeps whoever comes so far. 0 lets
        everyone leave at an exit and 1 nobody.

    Raises:
      ValueError: if there is not one threshold for each exit but the last.

    Source: arXiv 1703.09844, section 4. The authors' port, adaptive_inference.py, lets an example
      leave at a probability equal to the threshold, too.
    """
    thresholds = jnp.asarray(thresholds, jnp.float32)
    if logits.ndim != 3 or thresholds.shape != (logits.shape[0] - 1,):
        raise ValueError(
            f"leave_early: logits are {logits.shape}, thresholds {thresholds.shape}; pass "
            "(k, b, classes) and (k - 1,), one for each exit but the last"
        )
    confidence = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).max(axis=-1)
    sure = jnp.concatenate(
        [confidence[:-1] > thresholds[:, None], jnp.ones((1, logits.shape[1]), bool)]
    )
    first = jnp.argmax(sure, axis=0)  # the first True
    own = jnp.take_along_axis(logits, first[None, :, None], axis=0)[0]
    return Exited(jnp.argmax(own, axis=-1).astype(jnp.int32), first.astype(jnp.int32) + 1)


def average_madds(exits: Int[Array, " b"], madds: Sequence[int]) -> Float[Array, ""]:
    """Returns the mean multiply-adds of examples that left at these exits.

    Args:
      exits: the exit of each example, 1 to k; others are not checked for.
      madds: of leaving at each of the k exits. The classifiers of the exits that an example passes
        run for it too; what `analysis.count_madds` counts of `model.clone(exit=i)` leaves them out.

    Raises:
      ValueError: if madds is empty.
    """
    if not len(madds):
        raise ValueError("average_madds: madds is empty; pass those of leaving at each exit")
    return jnp.asarray(madds, jnp.float32)[exits - 1].mean()
