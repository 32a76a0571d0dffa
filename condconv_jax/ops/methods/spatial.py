"""k x k kernels: the windows of each example laid out as rows, times its kernel as a matrix."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from condconv_jax.ops.experts import mix_experts
from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods.method import Method


def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """Returns the per-example convolution, (b, h', w', f)."""
    kernels = mix_experts(experts, routing)
    b, kh, kw, in_channels, features = kernels.shape
    h, w = geometry.out_size
    g, taps = geometry.groups, kh * kw
    # Reshapes in two steps: on an Explicit mesh one reshape may merge axes or split one, not both.
    windows = _windows(x, geometry).reshape(b, h * w, taps, g * in_channels)
    kernels = kernels.reshape(b, taps, in_channels, features)
    y = jnp.einsum(
        "bntgc,btcgf->bngf",
        windows.reshape(b, h * w, taps, g, in_channels),
        kernels.reshape(b, taps, in_channels, g, features // g),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
    return y.astype(x.dtype).reshape(b, h * w, features).reshape(b, h, w, features)


def _windows(x: Array, geometry: Geometry) -> Array:
    """The input under each tap of the kernel, (b, h', w', kh*kw, c)."""
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    return jnp.stack(
        [
            tap(x, i, j, geometry)
            for i in range(geometry.kernel_size[0])
            for j in range(geometry.kernel_size[1])
        ],
        axis=3,
    )


def tap(padded: Array, i: int, j: int, geometry: Geometry) -> Array:
    """Returns what tap (i, j) of the kernel meets at each output position, (b, h', w', c)."""
    b, _, _, c = padded.shape
    (h, w), (sh, sw), (dh, dw) = geometry.out_size, geometry.strides, geometry.kernel_dilation
    top, left = i * dh, j * dw
    return lax.slice(
        padded,
        (0, top, left, 0),
        (b, top + (h - 1) * sh + 1, left + (w - 1) * sw + 1, c),
        (1, sh, sw, 1),
    )


METHOD = Method(run)
