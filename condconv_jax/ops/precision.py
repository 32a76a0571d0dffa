"""The precision that sums are accumulated in."""

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike


def wide(dtype: DTypeLike) -> jnp.dtype:
    """Returns the dtype to add up values of this one in: itself, or float32 if it is narrower."""
    return jnp.promote_types(dtype, jnp.float32)


def widen(a: Array) -> Array:
    """Returns the array in the dtype that its sums are accumulated in."""
    return a.astype(wide(a.dtype))
