"""Sparse routing: reading only the experts that an example uses."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Shaped

from condconv_jax.ops.precision import wide


def reads_fewer(batch: object, num_experts: int, k: int) -> bool:
    """Whether k experts for each example are fewer than all experts once.

    Never for a batch without a size, in a program that is being exported.
    """
    return isinstance(batch, int) and 0 < batch * k < num_experts


def mix_top_k(
    experts: Shaped[Array, "e *s"],
    routing: Float[Array, "b e"],
    k: int,
    dtype: DTypeLike,
    scale: Float[Array, " e"],
) -> Float[Array, "b *s"]:
    """Returns `mix_experts(experts, keep_top_k(routing, k) * scale, dtype)`, reading b*k experts.

    Made for a few examples: the program grows with b*k.

    Args:
      experts: E arrays of one shape, of a float or integer dtype.
      routing: weights, not normalised.
      k: how many experts to mix for each example, those of the weights largest in magnitude.
      dtype: of the result.
      scale: factor of each expert's weights.

    Cost: b*k*prod(s) MADDs, and b*k/e of the experts' bytes.
    """
    routing = routing.astype(wide(routing.dtype))
    _, indices = lax.top_k(jnp.abs(routing), k)
    weights = jnp.take_along_axis(routing, indices, axis=1)
    weights = weights * scale.astype(weights.dtype)[indices]

    def one(example: int) -> Array:
        # Sliced rather than gathered: XLA reads a slice inside the sum, and a gather it writes to
        # memory first.
        terms = [
            weights[example, i] * _pick(experts, indices[example, i], weights.dtype)
            for i in range(k)
        ]
        return functools.reduce(jnp.add, terms)

    with jax.named_scope("mix_top_k"):
        return jnp.stack([one(b) for b in range(routing.shape[0])]).astype(dtype)


def _pick(experts: Array, index: Array, dtype: DTypeLike) -> Array:
    return lax.dynamic_index_in_dim(experts, index, keepdims=False).astype(dtype)
