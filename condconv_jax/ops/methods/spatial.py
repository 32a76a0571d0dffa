"""k x k kernels: the windows of each example laid out as rows, times its kernel as a matrix."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods.matmul import rows_times_kernels
from condconv_jax.ops.methods.method import mix_then
from condconv_jax.ops.precision import wide


def product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns each example convolved with its own kernel (b, kh, kw, c/g, f), as (b, h', w', f)."""
    b, kh, kw, in_channels, features = kernels.shape
    h, w = geometry.out_size
    g, taps = geometry.groups, kh * kw
    windows = rows_of_windows(x, geometry)
    if g == 1:
        y = rows_times_kernels(windows, kernels.reshape(b, taps * in_channels, features))
    else:
        y = jnp.einsum(
            "bntgc,btcgf->bngf",
            windows.reshape(b, h * w, taps, g, in_channels),
            kernels.reshape(b, taps, in_channels, g, features // g),
            preferred_element_type=wide(x.dtype),
        ).reshape(b, h * w, features)
    return y.astype(x.dtype).reshape(b, h, w, features)


def rows_of_windows(x: Array, geometry: Geometry) -> Array:
    """Returns the inputs under the kernel at each output position, (b, h'*w', kh*kw*c)."""
    b, _, _, c = x.shape
    (h, w), (kh, kw) = geometry.out_size, geometry.kernel_size
    return jnp.concatenate(taps(x, geometry), axis=3).reshape(b, h * w, kh * kw * c)


def taps(x: Array, geometry: Geometry) -> list[Array]:
    """Returns what each tap of the kernel meets, kh*kw arrays of (b, h', w', c)."""
    padded = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    kh, kw = geometry.kernel_size
    return [tap(padded, i, j, geometry) for i in range(kh) for j in range(kw)]


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


METHOD = mix_then(product)
