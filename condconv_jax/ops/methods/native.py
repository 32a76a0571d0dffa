"""Depthwise kernels in C++ on the CPU: each value is loaded once for all the taps that meet it.

XLA's loop over shifted products loads input and kernel anew for every product.
"""

import jax.numpy as jnp
from jaxtyping import Array

from condconv_jax.ops import native
from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods.method import mix_then
from condconv_jax.ops.partition import vary_alike


def product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns the depthwise convolution of x with kernels (n, kh, kw, 1, f), n = b or 1.

    Computed in float32; x may be narrower.

    Raises:
      ValueError: if x is wider, or there is no compiled library on this machine.
    """
    if x.dtype.itemsize > 4:
        raise ValueError(f"method 'native' has no {x.dtype}; use method='depthwise'")
    if not native.available():
        raise ValueError(
            "method 'native' needs a C++ compiler (c++, g++, clang++ or $CXX), a CPU and no "
            "CONDCONV_NATIVE=0; use method='depthwise'"
        )
    multiplier = kernels.shape[-1] // x.shape[-1]
    if multiplier > 1:
        x = jnp.repeat(x, multiplier, axis=-1)
    wide, kernels = vary_alike(x.astype(jnp.float32), kernels[:, :, :, 0, :].astype(jnp.float32))
    return native.forward(wide, kernels, geometry, (wide.shape, kernels.shape)).astype(x.dtype)


def refusal(channels: int, geometry: Geometry) -> str | None:
    """Why this method cannot run the convolution, or None."""
    if geometry.groups == channels:
        return None
    can = "pointwise" if geometry.is_pointwise() else "spatial"
    return (
        f"method 'native' runs one group per channel, not {geometry.groups} for {channels} "
        f"channels; use method={can!r}"
    )


METHOD = mix_then(product, refusal)
