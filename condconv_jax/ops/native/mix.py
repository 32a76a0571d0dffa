"""Mixing experts in C++, for a few examples: one pass over those that have a weight."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from condconv_jax.ops.native.build import call

# More examples are mixed faster by a matrix product, which loads each expert once for all.
MAX_BATCH = 4
DTYPES = ("float32", "bfloat16", "int8")


def takes(experts: Array) -> bool:
    """Whether there is code for experts of this dtype."""
    return experts.dtype.name in DTYPES


@jax.custom_vjp
def mix(experts: Array, routing: Array) -> Array:
    """Returns the mixed kernels (b, p) in float32; experts of weight 0 are not read.

    Args:
      experts: (e, p), float32, bfloat16 or int8.
      routing: (b, e), float32.
    """
    shape = (routing.shape[0], experts.shape[1])
    with jax.named_scope("mix_experts"):
        return call("MixExperts", routing, shape, routing, experts)


def _backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array | None, Array]:
    experts, routing = saved
    d_routing = jnp.dot(experts.astype(jnp.float32), slope.T).T
    if jnp.issubdtype(experts.dtype, jnp.integer):
        return None, d_routing  # there are no gradients by integers
    return jnp.dot(routing.T, slope).astype(experts.dtype), d_routing


mix.defvjp(lambda experts, routing: (mix(experts, routing), (experts, routing)), _backward)
