"""1x1 kernels: one matrix multiplication per example, batched."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods.matmul import rows_times_kernels
from condconv_jax.ops.methods.method import mix_then
from condconv_jax.ops.precision import wide


def product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns each example times its own kernel (b, 1, 1, c, f), as (b, h', w', f)."""
    x = window_positions(x, geometry)
    b, h, w, c = x.shape
    # Not kernels[:, 0, 0], which with a symbolic batch is a gather that LiteRT does not have.
    kernels = kernels.reshape(b, c, kernels.shape[-1])
    # Rows and columns merged: one (h'*w', c) x (c, f) product per example.
    y = rows_times_kernels(x.reshape(b, h * w, c), kernels)
    return y.reshape(b, h, w, kernels.shape[-1])


def multiply(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Returns the convolution of x with one 1x1 kernel (1, 1, c, f), as a matrix product.

    On a CPU the gradients of XLA's convolution are the slower ones.
    """
    x = window_positions(x, geometry)
    # All positions of all examples merged: for products over three axes XLA copies its operands.
    rows = x.reshape(-1, x.shape[-1])
    y = jnp.dot(rows, kernel[0, 0], preferred_element_type=wide(x.dtype))
    return y.astype(x.dtype).reshape(*x.shape[:-1], kernel.shape[-1])


def window_positions(x: Array, geometry: Geometry) -> Array:
    """Returns the pixels that a 1x1 window visits: x padded, then strided, (b, h', w', c)."""
    if geometry.pads():
        x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    if geometry.strides != (1, 1):
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, *geometry.strides, 1))
    return x


def refusal(channels: int, geometry: Geometry) -> str | None:
    """Why this method cannot run the convolution, or None."""
    if geometry.is_pointwise():
        return None
    can = "depthwise" if geometry.is_depthwise(channels) else "spatial"
    kh, kw = geometry.kernel_size
    return (
        f"method 'pointwise' runs 1x1 kernels in one group, not {kh}x{kw} in {geometry.groups}; "
        f"use method={can!r}"
    )


METHOD = mix_then(product, refusal)
