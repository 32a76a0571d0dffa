"""The passes of a layer that are timed, compiled."""

from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array

from condconv_jax.performance.layers import with_gradients

# y; or y and the gradients of x, experts and routing, as in training.
PASSES = ("forward", "gradients")


def compile_pass(
    op: Callable[..., Array], arrays: Sequence[Array], direction: str
) -> jax.stages.Compiled:
    """Returns a pass of an op, compiled; call it with `pass_arrays(arrays, direction)`.

    Args:
      op: a layer's `op()` or `static_op()`.
      arrays: its arguments, and the gradient of y.
      direction: one of `PASSES`.
    """
    function = with_gradients(op, len(arrays) - 1) if direction == "gradients" else op
    return jax.jit(function).lower(*pass_arrays(arrays, direction)).compile()


def pass_arrays(arrays: Sequence[Array], direction: str) -> Sequence[Array]:
    """Returns those of (*arguments, gradient of y) that a pass takes."""
    return arrays if direction == "gradients" else arrays[:-1]
