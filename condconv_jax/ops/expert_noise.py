"""Regularising experts: random weights for them in training, their expectation in evaluation.

ResNet-50 with 8 experts fits ImageNet's training set better than with 2 and its validation set
worse; the authors' response to its reviewers mends that by a regularisation "in the style of
Shake-Shake" without giving it. These are two readings.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class ShakenRouting(NamedTuple):
    """Routing weights of the forward pass, and others that its gradient is computed with.

    Attributes:
      forward: (b, e).
      backward: (b, e).
    """

    forward: Float[Array, "b e"]
    backward: Float[Array, "b e"]


Routing = Array | ShakenRouting


def drop_experts(routing: Float[Array, "b e"], key: Array, rate: float) -> Float[Array, "b e"]:
    """Returns the routing with each example's experts dropped at random.

    r'[b, e] = r[b, e] * m[b, e] / (1 - rate),  m ~ Bernoulli(1 - rate), independent

    Its expectation is r, so that evaluation uses r itself. Where all experts of an example are
    dropped, its kernel is zero and only what passes by the layer is left of it.

    Args:
      routing: weights.
      key: random key.
      rate: probability of dropping each, 0 to below 1.

    Raises:
      ValueError: if the rate is out of its range.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_experts: rate is {rate}; pass 0 (none) to below 1")
    kept = jax.random.bernoulli(key, 1 - rate, routing.shape)
    return jnp.where(kept, routing / (1 - rate), 0)


def shake_experts(routing: Float[Array, "b e"], key: Array) -> ShakenRouting:
    """Returns the routing shaken: each expert's weight times a random convex coefficient.

    forward[b] = E a[b] r[b],  backward[b] = E a'[b] r[b],  a, a' ~ uniform on the simplex

    drawn for each example alone. With two experts a is (u, 1 - u), u uniform on [0, 1], as
    Shake-Shake draws it for two branches. The expectation of either is r, so that evaluation uses r
    itself. As in Shake-Shake's best setting, the backward pass draws anew: gradients of inputs,
    experts and routing are those of the layer at `backward`.

    Args:
      routing: weights.
      key: random key.

    Source: Gastaldi 2017, arXiv 1705.07485, sections 1.2 and 2.2 (Shake-Shake-Image).
    """
    num_experts = routing.shape[1]

    def coefficients(key: Array) -> Array:
        # Exponential variables over their sum are uniform on the simplex.
        drawn = jax.random.exponential(key, routing.shape, routing.dtype)
        return num_experts * drawn / drawn.sum(axis=1, keepdims=True)

    forward, backward = map(coefficients, jax.random.split(key))
    return ShakenRouting(forward * routing, backward * routing)


def apply_routing(
    op: Callable[[Array, Array, Array], Array], x: Array, experts: Array, routing: Routing
) -> Array:
    """Returns op(x, experts, routing), whose gradients are taken at the backward routing if shaken.

    Args:
      op: of inputs, experts and a routing (b, e).
      x: inputs.
      experts: experts.
      routing: a routing, or one that is shaken.
    """
    if isinstance(routing, ShakenRouting):
        return _shaken(op, x, experts, *routing)
    return op(x, experts, routing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shaken(op: Callable, x: Array, experts: Array, forward: Array, backward: Array) -> Array:
    del backward
    return op(x, experts, forward)


def _shaken_forward(
    op: Callable, x: Array, experts: Array, forward: Array, backward: Array
) -> tuple[Array, tuple[Array, ...]]:
    return op(x, experts, forward), (x, experts, forward, backward)


def _shaken_backward(
    op: Callable, saved: tuple[Array, ...], slope: Array
) -> tuple[Array, Array, Array, Array]:
    x, experts, forward, backward = saved
    _, pull = jax.vjp(op, x, experts, backward)
    d_x, d_experts, d_backward = pull(slope)
    return d_x, d_experts, jnp.zeros_like(forward), d_backward


_shaken.defvjp(_shaken_forward, _shaken_backward)
