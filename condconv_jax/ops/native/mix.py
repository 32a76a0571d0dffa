"""Mixing experts in C++, for a few examples: one pass over those that have a weight."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from condconv_jax.ops.experts import FEW_EXAMPLES
from condconv_jax.ops.native.build import call

DTYPES = ("float32", "bfloat16", "int8")
# A matrix product loads each expert once for all examples, but costs some 20 us before it begins.
# 8 examples of 8 experts: 4,608 values 14 us against 33, 28,800 values 40 against 93, 131,072
# values 162 against 235. 32 examples of 32 experts, 28,800 values: 772 against 351.
FEW_TERMS = 256
FEW_VALUES = 2**15


def pays(batch: Any, experts: Array) -> bool:
    """Whether `mix` is faster than a product, and there is code for experts of this dtype.

    Args:
      batch: b; may be symbolic, in a program that is being exported.
      experts: (e, ...).
    """
    if not isinstance(batch, int) or experts.dtype.name not in DTYPES:
        return False
    e = experts.shape[0]
    small = batch * e <= FEW_TERMS and experts.size <= e * FEW_VALUES
    return batch <= FEW_EXAMPLES or small


@jax.custom_vjp
def mix(experts: Array, routing: Array) -> Array:
    """Returns the mixed kernels (b, p) in float32; experts of weight 0 are not read.

    Args:
      experts: (e, p), float32, bfloat16 or int8.
      routing: (b, e), float32.
    """
    shape = (routing.shape[0], experts.shape[1])
    with jax.named_scope("mix_experts"):
        return call("MixExperts", routing, (shape,), routing, experts)[0]


def _backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array | None, Array]:
    experts, routing = saved
    d_routing = jnp.dot(experts.astype(jnp.float32), slope.T).T
    if jnp.issubdtype(experts.dtype, jnp.integer):
        return None, d_routing  # there are no gradients by integers
    return jnp.dot(routing.T, slope).astype(experts.dtype), d_routing


mix.defvjp(lambda experts, routing: (mix(experts, routing), (experts, routing)), _backward)
