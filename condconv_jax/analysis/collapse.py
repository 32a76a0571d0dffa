"""Whether experts are used at all: collapse, and how many of them one image mixes.

Pure functions on the routing weights (n, e) of one layer, n images and e experts. Weights need not
sum to one (sigmoid), nor be positive (tanh): an expert counts by the size of its weight, and by its
share of all experts' where shares are needed.
"""

import numpy as np
from jaxtyping import Float, Int

from condconv_jax.analysis.routing import Weights, check_routing

IDLE = 0.05  # of the layer's largest weight; what stays below hardly moves the mixed kernel


def effective_experts(routing: Weights) -> float:
    """Returns how many equally used experts would be used as unevenly as these are.

    N = exp( - sum_e p_e log p_e ),   p_e = sum_i |r[i, e]| / sum_e sum_i |r[i, e]|

    the perplexity of the mean use: e if all experts are used alike, 1 if all weight has collapsed
    into one. It says nothing of one image, which may mix all experts or a single one; see
    `experts_per_image`.

    Args:
      routing: weights (n, e).

    Returns:
      1 to e; 0 if all weights are 0.
    """
    check_routing(routing)
    return float(_perplexity(np.abs(routing.astype(np.float64)).sum(axis=0, keepdims=True))[0])


def experts_per_image(routing: Weights) -> float:
    """Returns how many experts an image mixes, effectively, as a mean over images.

    (1/n) sum_i exp( - sum_e p_ie log p_ie ),   p_ie = |r[i, e]| / sum_e |r[i, e]|

    e if every image weighs all experts alike, 1 if each uses a single one; an image without any
    weight counts as 0.
    """
    check_routing(routing)
    return float(_perplexity(np.abs(routing.astype(np.float64))).mean())


def idle_experts(routing: Weights, below: float = IDLE) -> Int[np.ndarray, " k"]:
    """Returns the experts that no image weighs more than a share of the layer's largest weight.

    The largest weight is the scale, and not 1: softmax over 32 experts has weights of 0.03 where
    it uses all alike, and none of them is idle.

    Args:
      routing: weights (n, e).
      below: the share, 0 to 1.
    """
    check_routing(routing)
    largest = np.abs(routing.astype(np.float64)).max(axis=0)
    return np.flatnonzero(largest <= below * largest.max())


def _perplexity(sizes: Float[np.ndarray, "r e"]) -> Float[np.ndarray, " r"]:
    """The exponential of the entropy of each row's shares; 0 for a row of zeros."""
    totals = sizes.sum(axis=1, keepdims=True)
    shares = sizes / np.where(totals > 0, totals, 1)
    # x log x is 0 at 0.
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    return np.where(totals[:, 0] > 0, np.exp(entropy), 0.0)
