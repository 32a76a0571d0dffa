"""C++ on the CPU that mixes kernels where it multiplies by them, a panel of one at a time.

A matrix product first copies its right-hand side into panels that suit its inner loop. Here the
panels are mixed from the experts instead of copied: per-example kernels are never in memory, nor
are their gradients, and experts that are loaded serve a group of examples.
"""

import jax.numpy as jnp
from jaxtyping import Array

from condconv_jax.ops import native
from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods import mixed
from condconv_jax.ops.methods.method import Method, refuse_groups
from condconv_jax.ops.native import fused
from condconv_jax.ops.partition import vary_alike


def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """Returns the per-example convolution, (b, h', w', f), computed in float32.

    Raises:
      ValueError: if x is wider than float32, or this machine has no compiled library.
    """
    native.require("fused", x)
    arrays = (a.astype(jnp.float32) for a in (x, experts, routing))
    return fused.forward(*vary_alike(*arrays), geometry, x.shape).astype(x.dtype)


METHOD = Method(run, mixed.product, refuse_groups("fused"))
