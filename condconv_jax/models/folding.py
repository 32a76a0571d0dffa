"""Batch norm folded into the convolutions before it, for inference."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from condconv_jax.models.network import Network

SUFFIX = "_bn"  # of the batch norm that follows the convolution of the same name


def folds(model: Any) -> bool:
    """Whether `fold_batch_norm` takes a network: no relative of CondConv, MSDNet or folded one."""
    if not isinstance(model, Network) or model.folded:
        return False
    return model.cond_layer == "condconv" or not model.conditional_layers()


def fold_batch_norm(model: Network, variables: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
    """Returns a network without batch norms that computes what this one does in inference.

    Each kernel, or each expert of one, is multiplied by what its batch norm multiplies outputs by,
    which leaves a bias:

    (sum_e r_e W_e * x - mean) g + beta = sum_e r_e (g W_e) * x + (beta - g mean)
    g = scale / sqrt(var + epsilon)

    The products are of the experts, not of the mixed kernel, because the batch norm is linear in
    them and the routing is not.

    Args:
      model: a network of CondConv and static layers.
      variables: its {"params": ..., "batch_stats": ...}, NumPy or JAX arrays, float experts.

    Returns:
      The network with `folded` set, and its variables: the same tree, where each NAME_bn has but
      a `bias` (c,) and kernels NAME keep shape and dtype; without "batch_stats".

    Raises:
      ValueError: if it is folded already, of another kind of layer, or its experts are quantised.
    """
    if not isinstance(model, Network):
        raise ValueError(f"fold_batch_norm: {type(model).__name__} has no option to be folded")
    if model.folded:
        raise ValueError("fold_batch_norm: the network is folded already")
    if model.conditional_layers() and model.cond_layer != "condconv":
        raise ValueError(
            f"fold_batch_norm: the kernels of {model.cond_layer!r} layers are more than experts "
            "times weights; only CondConv and static networks fold"
        )
    epsilon = model.batch_norm_epsilon
    params = _fold(variables["params"], variables.get("batch_stats", {}), epsilon)
    others = {k: v for k, v in variables.items() if k not in ("params", "batch_stats")}
    return model.clone(folded=True), {"params": params, **others}


def _fold(params: Mapping[str, Any], stats: Mapping[str, Any], epsilon: float) -> dict[str, Any]:
    folded = {}
    for name, tree in params.items():
        if name.endswith(SUFFIX):
            continue
        bn = f"{name}{SUFFIX}"
        if bn in params:
            scale, bias = np.asarray(params[bn]["scale"]), np.asarray(params[bn]["bias"])
            mean, var = np.asarray(stats[bn]["mean"]), np.asarray(stats[bn]["var"])
            factor = scale / np.sqrt(var + np.asarray(epsilon, var.dtype))
            kernel = np.asarray(tree["kernel"])
            if not jnp.issubdtype(kernel.dtype, jnp.floating):
                raise ValueError(
                    f"fold_batch_norm: the kernel of {name} is {kernel.dtype}; fold before the "
                    "experts are compressed"
                )
            # Output channels are the last axis of every kernel, with experts or without.
            scaled = (kernel.astype(factor.dtype) * factor).astype(kernel.dtype)
            folded[name] = {**tree, "kernel": scaled}
            folded[bn] = {"bias": bias - factor * mean}
        elif isinstance(tree, Mapping):
            folded[name] = _fold(tree, stats.get(name, {}), epsilon)
        else:
            folded[name] = tree
    return folded
