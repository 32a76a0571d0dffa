"""Per-example convolution in C++ that mixes kernels where it uses them, and its gradients."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.native.build import call


def _call(name: str, shapes: Any, geometry: Geometry, *arrays: Array) -> Any:
    return call(
        f"Fused{name}",
        arrays[0],
        shapes,
        *arrays,
        strides=np.array(geometry.strides, np.int64),
        dilation=np.array(geometry.kernel_dilation, np.int64),
        low=np.array([low for low, _ in geometry.padding], np.int64),
    )


# The shape of x travels with the geometry: an output does not tell it.
Shape = tuple[int, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def forward(x: Array, experts: Array, routing: Array, geometry: Geometry, x_shape: Shape) -> Array:
    """Returns the per-example convolution of x (b, h, w, c), (b, h', w', f).

    All arrays are float32. Differentiable any number of times, in reverse mode.

    Args:
      x: inputs.
      experts: (e, kh, kw, c, f).
      routing: (b, e).
      geometry: of the convolution, one group.
      x_shape: the shape of x.
    """
    shape = (x_shape[0], *geometry.out_size, experts.shape[-1])
    return _call("Forward", shape, geometry, x, experts, routing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def input_gradient(
    dy: Array, experts: Array, routing: Array, geometry: Geometry, x_shape: Shape
) -> Array:
    """Returns the gradient of <dy, forward(x, experts, routing)> by x, (b, h, w, c)."""
    return _call("InputGradient", x_shape, geometry, dy, experts, routing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def parameter_gradient(
    x: Array, dy: Array, experts: Array, routing: Array, geometry: Geometry, x_shape: Shape
) -> tuple[Array, Array]:
    """Returns the gradients of <dy, forward(x, experts, routing)> by experts and by routing."""
    shapes = experts.shape, routing.shape
    return _call("ParameterGradient", shapes, geometry, x, dy, experts, routing)


# <dy, forward(x, w, r)> is linear in each of its four arrays, and each function here is its
# gradient by one or two of them. So their gradients are made of the same functions.


def _forward_backward(geometry: Geometry, x_shape: Shape, saved: Any, dy: Array) -> Any:
    x, w, r = saved
    return (
        input_gradient(dy, w, r, geometry, x_shape),
        *parameter_gradient(x, dy, w, r, geometry, x_shape),
    )


def _input_backward(geometry: Geometry, x_shape: Shape, saved: Any, x: Array) -> Any:
    dy, w, r = saved
    return (
        forward(x, w, r, geometry, x_shape),
        *parameter_gradient(x, dy, w, r, geometry, x_shape),
    )


def _parameter_backward(geometry: Geometry, x_shape: Shape, saved: Any, slopes: Any) -> Any:
    x, dy, w, r = saved
    dw, dr = slopes
    by_x = functools.partial(input_gradient, geometry=geometry, x_shape=x_shape)
    by_dy = functools.partial(forward, geometry=geometry, x_shape=x_shape)
    by_parameters = functools.partial(parameter_gradient, geometry=geometry, x_shape=x_shape)
    return (
        by_x(dy, dw, r) + by_x(dy, w, dr),
        by_dy(x, dw, r) + by_dy(x, w, dr),
        by_parameters(x, dy, w, dr)[0],
        by_parameters(x, dy, dw, r)[1],
    )


forward.defvjp(lambda *a: (forward(*a), a[:3]), _forward_backward)
input_gradient.defvjp(lambda *a: (input_gradient(*a), a[:3]), _input_backward)
parameter_gradient.defvjp(lambda *a: (parameter_gradient(*a), a[:4]), _parameter_backward)
