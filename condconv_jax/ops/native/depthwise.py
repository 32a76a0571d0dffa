"""Depthwise convolution in C++, as three bilinear functions that are each other's gradients."""

import functools

import jax
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.native.build import call_convolution

# The sizes of x and of the kernels travel with the geometry: an output does not tell them.
Sizes = tuple[tuple[int, ...], tuple[int, ...]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def forward(x: Array, kernels: Array, geometry: Geometry, sizes: Sizes) -> Array:
    """Returns the convolution of x (b, h, w, c) with kernels (n, kh, kw, c), n = b or 1.

    All arrays are float32. Differentiable any number of times, in reverse mode.

    Args:
      x: inputs.
      kernels: one for each example, or one for all.
      geometry: of the convolution.
      sizes: the shapes of x and kernels.
    """
    shape = (x.shape[0], *geometry.out_size, x.shape[3])
    return call_convolution("DepthwiseForward", geometry, (shape,), x, kernels)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def input_gradient(dy: Array, kernels: Array, geometry: Geometry, sizes: Sizes) -> Array:
    """Returns the gradient of <dy, forward(x, kernels)> by x, (b, h, w, c)."""
    return call_convolution("DepthwiseInputGradient", geometry, sizes[:1], dy, kernels)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def kernel_gradient(x: Array, dy: Array, geometry: Geometry, sizes: Sizes) -> Array:
    """Returns the gradient of <dy, forward(x, kernels)> by the kernels, (n, kh, kw, c)."""
    return call_convolution("DepthwiseKernelGradient", geometry, sizes[1:], x, dy)[0]


# <dy, forward(x, k)> = <input_gradient(dy, k), x> = <kernel_gradient(x, dy), k>: one trilinear
# form, so the gradient of each function is made of the two others.
forward.defvjp(
    lambda x, k, geometry, sizes: (forward(x, k, geometry, sizes), (x, k)),
    lambda geometry, sizes, saved, dy: (
        input_gradient(dy, saved[1], geometry, sizes),
        kernel_gradient(saved[0], dy, geometry, sizes),
    ),
)
input_gradient.defvjp(
    lambda dy, k, geometry, sizes: (input_gradient(dy, k, geometry, sizes), (dy, k)),
    lambda geometry, sizes, saved, x: (
        forward(x, saved[1], geometry, sizes),
        kernel_gradient(x, saved[0], geometry, sizes),
    ),
)
kernel_gradient.defvjp(
    lambda x, dy, geometry, sizes: (kernel_gradient(x, dy, geometry, sizes), (x, dy)),
    lambda geometry, sizes, saved, k: (
        input_gradient(saved[1], k, geometry, sizes),
        forward(saved[0], k, geometry, sizes),
    ),
)
