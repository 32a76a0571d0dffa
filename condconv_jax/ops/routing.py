"""Routing: from pooled features to one weight per example and expert."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from condconv_jax.names import unknown_name

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
}


def route(
    pooled: Float[Array, "b c"],
    weight: Float[Array, "c e"],
    bias: Float[Array, " e"] | None = None,
    *,
    activation: str = "sigmoid",
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, "b e"]:
    """Returns the routing weights of each example.

    r[b] = activation((pooled[b] @ weight + bias) / temperature)       (Yang et al. 2019, eq. 2)

    Args:
      pooled: globally average-pooled features, any float dtype.
      weight: kernel of the routing function.
      bias: its bias, if any.
      activation: "sigmoid" (the paper's choice), "softmax" (over experts), "relu" or "tanh".
      temperature: divides the logits; over 1 flattens the weights. May be traced (annealing).

    Returns:
      Routing weights, at least float32 whatever the inputs: they are few, and every output
      depends on them. Only softmax normalises them.

    Raises:
      ValueError: if the shapes disagree, the activation is unknown or the temperature is not
        positive.

    Cost: b*c*e MADDs.
    Source: arXiv 1904.04971, sections 3 and 4.4 (activations); temperature: arXiv 1912.03458.
    """
    if activation not in ACTIVATIONS:
        raise unknown_name("route", "activation", activation, ACTIVATIONS)
    if pooled.ndim != 2 or weight.ndim != 2 or pooled.shape[1] != weight.shape[0]:
        raise ValueError(
            f"route: pooled is {pooled.shape} and weight {weight.shape}; pass (b, c) and (c, e), "
            "pooling each example to one row first"
        )
    if bias is not None and bias.shape != weight.shape[1:]:
        raise ValueError(
            f"route: bias is {bias.shape}, weight {weight.shape}; pass one bias per expert"
        )
    if isinstance(temperature, int | float) and temperature <= 0:
        raise ValueError(f"route: temperature is {temperature}; pass a positive number")
    dtype = jnp.promote_types(jnp.promote_types(pooled.dtype, weight.dtype), jnp.float32)
    # Accelerators multiply float32 in bfloat16 passes unless told otherwise.
    logits = jnp.dot(pooled.astype(dtype), weight.astype(dtype), precision=lax.Precision.HIGHEST)
    if bias is not None:
        logits = logits + bias.astype(dtype)[None, :]
    return ACTIVATIONS[activation](logits / temperature)


def keep_top_k(routing: Float[Array, "b e"], k: int) -> Float[Array, "b e"]:
    """Returns the routing with the k largest weights of each example kept and the rest 0.

    Largest by magnitude, which is what a weight adds to the mix; of "sigmoid", "softmax" and "relu"
    none is negative. The weights kept are not rescaled. Of equal ones those of lower index are
    kept, so that exactly k remain. The gradient passes through the kept weights only.

    Args:
      routing: routing weights of any float dtype.
      k: how many to keep, 1 to e.

    Raises:
      ValueError: if k is not between 1 and the number of experts.
    """
    num_experts = routing.shape[-1]
    if not 1 <= k <= num_experts:
        raise ValueError(f"keep_top_k: k is {k}; pass 1 to {num_experts}, the number of experts")
    if k == num_experts:
        return routing
    # Each weight's place among all, by comparing every two: not all runtimes that networks are
    # exported to have the sort that lax.top_k needs.
    size = jnp.abs(lax.stop_gradient(routing))
    mine, other = size[..., :, None], size[..., None, :]
    earlier = np.tri(num_experts, k=-1, dtype=np.bool_)[None]
    place = ((other > mine) | ((other == mine) & earlier)).sum(axis=-1, dtype=jnp.int32)
    # Not a bare 0, which jax2onnx takes for a float64.
    return jnp.where(place < k, routing, jnp.zeros_like(routing))
