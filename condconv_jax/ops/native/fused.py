"""Per-example convolution in C++ that mixes kernels where it uses them, and its gradients."""

import functools
from typing import Any

import jax
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.native.build import call_convolution

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
    return call_convolution("FusedForward", geometry, (shape,), x, experts, routing)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def input_gradient(
    dy: Array, experts: Array, routing: Array, geometry: Geometry, x_shape: Shape
) -> Array:
    """Returns the gradient of <dy, forward(x, experts, routing)> by x, (b, h, w, c)."""
    arrays = dy, experts, routing
    return call_convolution("FusedInputGradient", geometry, (x_shape,), *arrays)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def parameter_gradient(
    x: Array, dy: Array, experts: Array, routing: Array, geometry: Geometry, x_shape: Shape
) -> tuple[Array, Array]:
    """Returns the gradients of <dy, forward(x, experts, routing)> by experts and by routing."""
    shapes, arrays = (experts.shape, routing.shape), (x, dy, experts, routing)
    d_experts, d_routing = call_convolution("FusedParameterGradient", geometry, shapes, *arrays)
    return d_experts, d_routing


def gradients(
    arrays: tuple[Array, Array, Array], dy: Array, geometry: Geometry
) -> tuple[Array, Array, Array]:
    """Returns the gradients of <dy, forward(x, experts, routing)> by the three arrays."""
    x, experts, routing = arrays
    return (
        input_gradient(dy, experts, routing, geometry, x.shape),
        *parameter_gradient(x, dy, experts, routing, geometry, x.shape),
    )


# <dy, forward(x, w, r)> is linear in each of its four arrays, and each function here is its
# gradient by one or two of them. So their gradients are made of the same functions.


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


forward.defvjp(
    lambda *a: (forward(*a), a[:3]),
    lambda geometry, x_shape, saved, dy: gradients(saved, dy, geometry),
)
input_gradient.defvjp(lambda *a: (input_gradient(*a), a[:3]), _input_backward)
parameter_gradient.defvjp(lambda *a: (parameter_gradient(*a), a[:4]), _parameter_backward)
