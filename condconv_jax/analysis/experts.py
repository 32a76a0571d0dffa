"""What experts say without any data: how far apart they are."""

from typing import Any

import jax
import numpy as np

from condconv_jax.nn.compress import EXPERT_NDIM


def expert_spread(params: Any) -> dict[str, float]:
    """Returns how far the experts of each module lie from their mean, over the size of that mean.

    spread = sqrt( mean_e ||W_e - M||^2 / ||M||^2 ),  M = mean_e W_e

    0 for equal experts; sqrt(e - 1) for experts that have nothing in common, such as new ones.

    Args:
      params: of a network, nested dicts; modules without experts are left out.

    Returns:
      By module, "layer_7/depthwise", in the order of `params`; inf where the mean is zero.
    """
    found = {}
    for path, kernel in jax.tree_util.tree_leaves_with_path(params):
        names = [str(key.key) for key in path]
        if names[-1] != "kernel" or kernel.ndim not in EXPERT_NDIM:
            continue
        experts = np.asarray(kernel, np.float64)
        mean = experts.mean(axis=0)
        size = np.mean(mean**2)
        apart = np.mean((experts - mean) ** 2)
        found["/".join(names[:-1])] = float(np.sqrt(apart / size)) if size else float("inf")
    return found
