"""The mixture of experts: E convolutions, their outputs weighted by the routing.

y = sum_e r_e (x * W_e). No kernel is ever mixed, so nothing per example is stored but
activations; the price is E times the arithmetic. On a CPU it was measured to win where a map has
one position (the classifier), and to lose on 7x7 maps already (`choose.py`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods import native, reference
from condconv_jax.ops.methods.choose import choose
from condconv_jax.ops.methods.depthwise import shifted_products
from condconv_jax.ops.methods.method import Method
from condconv_jax.ops.methods.pointwise import window_positions
from condconv_jax.ops.precision import wide


def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """Returns the per-example convolution, (b, h', w', f)."""
    experts = experts.astype(x.dtype)
    if geometry.is_pointwise():
        return _weight_inputs(x, experts, routing, geometry)
    return _weight_outputs(x, experts, routing, geometry)


def _weight_inputs(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """(r outer x) as (b*h'*w', e*c) times the experts as (e*c, f): one matrix multiplication."""
    x = window_positions(x, geometry)
    b, h, w, c = x.shape
    e, features = experts.shape[0], experts.shape[-1]
    weighted = routing.astype(x.dtype)[:, None, None, :, None] * x[:, :, :, None, :]
    y = jnp.dot(
        weighted.reshape(b, h * w, e * c),
        experts.reshape(e * c, features),
        preferred_element_type=wide(x.dtype),
    )
    return y.astype(x.dtype).reshape(b, h, w, features)


def _weight_outputs(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """One convolution with e*f output channels, then the weighted sum over e."""
    e, kh, kw, in_channels, features = experts.shape
    g = geometry.groups
    # A grouped convolution owns a contiguous run of output channels per group, so the experts
    # have to lie inside the groups.
    stacked = experts.reshape(e, kh, kw, in_channels, g, features // g)
    stacked = stacked.transpose(1, 2, 3, 4, 0, 5).reshape(kh, kw, in_channels, e * features)
    by_channel = geometry.groups == x.shape[3] and jax.default_backend() == "cpu"
    outputs = (_depthwise if by_channel else reference.convolve)(x, stacked, geometry)
    b, h, w, _ = outputs.shape
    dtype = wide(x.dtype)
    weights = routing.astype(dtype)[:, None, None, None, :, None]
    # Element-wise: the contraction is over e alone, too short to be a matrix multiplication.
    y = (outputs.reshape(b, h, w, g, e, features // g).astype(dtype) * weights).sum(axis=4)
    return y.astype(x.dtype).reshape(b, h, w, features)


# XLA's convolution until it is differentiated: on a CPU its gradient takes 169 ms for 8 experts, 16
# channels of 8x8 and batch 64 on one core; that of "native", on a core shared with another process,
# 21, and that of "depthwise" 72.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return reference.convolve(x, kernel, geometry)


def _forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, Any]:
    chosen = choose(x.shape, kernel.shape[-1], geometry, itemsize=x.dtype.itemsize)
    product = native.depthwise_product if chosen == "native" else shifted_products
    return jax.vjp(lambda x, kernel: product(x, kernel[None], geometry), x, kernel)


def _backward(geometry: Geometry, pull_back: Any, dy: Array) -> tuple[Array, Array]:
    del geometry
    return pull_back(dy)


_depthwise.defvjp(_forward, _backward)


def product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns each example convolved with its own kernel, in either mode of differentiation."""
    if not geometry.is_pointwise():
        return reference.product(x, kernels, geometry)
    y = jnp.einsum(
        "bhwc,bcf->bhwf",
        window_positions(x, geometry),
        kernels[:, 0, 0],
        preferred_element_type=wide(x.dtype),
    )
    return y.astype(x.dtype)


METHOD = Method(run, product)
