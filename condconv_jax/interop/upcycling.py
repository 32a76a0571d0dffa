"""Upcycling: a trained static network as a CondConv network that computes the same function.

The routers start at 0, where every routing weight is r = activation(0), and the experts such that
r times their sum is the kernel that was trained:

    W_e = W / (E r) + d_e,  sum_e d_e = 0        (for the sigmoid, whose r is 1/2: 2 W / E + d_e)

d_e is noise: with equal experts every gradient of the router would be the same for all, and theirs
would keep them equal.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from condconv_jax.interop.misfit import refuse_misfits
from condconv_jax.models.network import Network
from condconv_jax.nn.variables import SCHEDULE
from condconv_jax.ops import ACTIVATIONS

# Of the root mean square of W / (E r). At a tenth of it experts learn a sixth as much apart in the
# same run (docs/results.md), and the function to begin with is the same.
NOISE = 1.0


def upcycle(
    static: Mapping[str, Any],
    model: Network,
    variables: Mapping[str, Any],
    *,
    noise: float = NOISE,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns variables with which a CondConv network computes what the static one does.

    Args:
      static: {"params": ..., "batch_stats": ...} of the static network, arrays.
      model: the CondConv network: the static one's options but for those of experts.
      variables: its variables as `jax.ShapeDtypeStruct`, by `jax.eval_shape` of its `init`.
      noise: standard deviation of d_e over the root mean square of W / (E r); biases have none.
      seed: of the noise.

    Returns:
      NumPy arrays in the structure, shapes and dtypes of `variables`. The network's routing noise
      and annealing change what training computes, not evaluation.

    Raises:
      ValueError: if the networks differ in more than experts, naming every parameter, or the
        routing cannot compute the same function (an activation that is 0 at 0, or top_k).
    """
    if not 0 <= noise < math.inf:
        raise ValueError(f"upcycle: noise is {noise}; pass 0 or more")
    routing, num_experts = model.routing, model.num_experts
    if model.cond_layer != "condconv" or not model.conditional_layers():
        raise ValueError(
            f"upcycle: the network has {num_experts} experts, cond_layer {model.cond_layer!r}; "
            "pass one with CondConv layers, num_experts of 2 or more"
        )
    # Softmax, of all experts alike, gives 1 / E each.
    at_zero = float(ACTIVATIONS[routing.activation](jnp.zeros((1, num_experts)))[0, 0])
    if at_zero == 0:
        raise ValueError(
            f"upcycle: routing.activation {routing.activation!r} is 0 at 0, which would mix no "
            "expert at all; use 'sigmoid' or 'softmax'"
        )
    if routing.top_k:
        raise ValueError(
            f"upcycle: routing.top_k {routing.top_k} would leave experts out of the sum; upcycle "
            "with top_k=0 and set it in training"
        )
    wanted = traverse_util.flatten_dict(dict(variables), sep="/")
    given = traverse_util.flatten_dict(dict(static), sep="/")
    if routers := sorted({p.split("/")[1] for p in given if p.startswith("params/router_")}):
        raise ValueError(
            f"upcycle: the network has {', '.join(routers)} already; pass a static one, whose "
            "num_experts is 0"
        )
    problems = [f"{path}: extra, {given[path].shape}" for path in given if path not in wanted]
    upcycled = {}
    for path, leaf in wanted.items():
        if _starts_anew(path):
            upcycled[path] = _initial(path, leaf, seed)
        elif path not in given:
            problems.append(f"{path}: missing, wanted {leaf.shape}")
        elif given[path].shape == leaf.shape:
            upcycled[path] = np.asarray(given[path], leaf.dtype)
        elif (num_experts, *given[path].shape) == leaf.shape:
            spread = noise if path.endswith("/kernel") else 0.0
            experts = _experts(np.asarray(given[path]), num_experts, at_zero, spread, path, seed)
            upcycled[path] = experts.astype(leaf.dtype)
        else:
            problems.append(f"{path}: {given[path].shape}, wanted {leaf.shape} or its experts")
    refuse_misfits(
        "upcycle: the static network is another one",
        problems,
        upcycled,
        "change no options but those of experts and routing",
    )
    return traverse_util.unflatten_dict(upcycled, sep="/")


def _starts_anew(path: str) -> bool:
    """Whether a variable is of routing: no static network has it."""
    return path.split("/")[1].startswith("router_") or path.startswith(f"{SCHEDULE}/")


def _initial(path: str, leaf: jax.ShapeDtypeStruct, seed: int) -> np.ndarray:
    """The routing that gives every expert the same weight, whatever the input."""
    if "/hidden/kernel" not in path:
        return np.zeros(leaf.shape, leaf.dtype)
    # The last layer is 0; with a hidden one of 0 too there would be no gradient at all.
    scale = math.sqrt(2 / leaf.shape[0])
    return (scale * _generator(path, seed).standard_normal(leaf.shape)).astype(leaf.dtype)


def _experts(
    kernel: np.ndarray, num_experts: int, weight: float, noise: float, path: str, seed: int
) -> np.ndarray:
    """Experts of which `weight` times the sum is the kernel, in float64."""
    mean = kernel.astype(np.float64) / (num_experts * weight)
    spread = noise * math.sqrt(np.mean(mean**2)) if kernel.size else 0.0
    drawn = _generator(path, seed).standard_normal((num_experts, *kernel.shape))
    # Taking the mean away leaves (E - 1) / E of the variance.
    drawn = (drawn - drawn.mean(axis=0)) * math.sqrt(num_experts / (num_experts - 1))
    return mean + spread * drawn


def _generator(path: str, seed: int) -> np.random.Generator:
    """Random numbers of a parameter's own: not those of another network's, or in another order."""
    return np.random.default_rng([seed, zlib.crc32(path.encode())])
