"""What experts say without any data: how far apart they are."""

from typing import Any

import jax
import numpy as np

from condconv_jax.nn.compress import EXPERT_NDIM, SCALE


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
    for module, experts in _experts(params).items():
        mean = experts.mean(axis=0)
        found[module] = _over(experts - mean, mean)
    return found


def expert_rank(params: Any) -> dict[str, float]:
    """Returns how many experts of each module there are, equal ones and multiples counting as one.

    rank = sum_i s_i^2 / max_i s_i^2,  s the singular values of the matrix of experts (e, -1)

    the stable rank: e where all are of one size and have nothing in common, such as new ones, and
    1 where each is a multiple of the same kernel, so that routing weights only scale it.

    Args:
      params: as of `expert_spread`.

    Returns:
      As `expert_spread`; 0 where all experts are zero.

    Source: Rudelson and Vershynin, arXiv math/0503442, section 1 (stable, there numerical, rank).
    """
    found = {}
    for module, experts in _experts(params).items():
        energies = np.linalg.svd(experts.reshape(len(experts), -1), compute_uv=False) ** 2
        found[module] = float(energies.sum() / energies[0]) if energies[0] else 0.0
    return found


def learned_spread(start: Any, params: Any) -> dict[str, float]:
    """Returns how far the experts of each module have come apart since another checkpoint.

    Differences D_e = W_e - M that training has only kept or shrunk are not counted:

    learned = sqrt( mean_e ||D_e - s D0_e||^2 / ||M||^2 ),  s = sum_e <D_e, D0_e> / sum_e ||D0_e||^2

    0 for experts that were moved all alike, as equal experts always are.

    Args:
      start: parameters that training began with.
      params: parameters that it came to; modules of other shapes, or that were not there, are left
        out.

    Returns:
      As `expert_spread`.
    """
    found, before = {}, _experts(start)
    for module, experts in _experts(params).items():
        if module not in before or before[module].shape != experts.shape:
            continue
        mean, first = experts.mean(axis=0), before[module] - before[module].mean(axis=0)
        apart, size = experts - mean, np.sum(first**2)
        kept = np.sum(apart * first) / size if size else 0.0
        found[module] = _over(apart - kept * first, mean)
    return found


def _experts(params: Any) -> dict[str, np.ndarray]:
    """Kernels with experts, in float64, by module; int8 ones as what they stand for."""
    found, scales = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *parents, name = (str(key.key) for key in path)
        module = "/".join(parents)
        if name == SCALE:
            scales[module] = np.asarray(leaf, np.float64)
        elif name == "kernel" and leaf.ndim in EXPERT_NDIM:
            found[module] = np.asarray(leaf, np.float64)
    for module, scale in scales.items():
        found[module] = found[module] * scale.reshape(-1, *(1,) * (found[module].ndim - 1))
    return found


def _over(differences: np.ndarray, mean: np.ndarray) -> float:
    size = np.mean(mean**2)
    return float(np.sqrt(np.mean(differences**2) / size)) if size else float("inf")
