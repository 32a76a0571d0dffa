"""Running a method on a part of its work at a time, in both passes.

Per-example kernels grow with batch times kernel size. A tile of them is mixed, used, and left to
be overwritten by the next; the gradient mixes it again instead of keeping it. What stays in memory
does not grow with the number of kernels, and what fits into the caches is not written to memory.
A gradient that only recomputed all kernels at once would be merged with the forward pass by XLA.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from condconv_jax.ops.precision import wide

# (x (b, h, w, c), experts (e, kh, kw, c, f), routing (b, e)) -> (b, h', w', f)
Op = Callable[[Array, Array, Array], Array]
Gradients = tuple[Array, Array, Array]


def over_examples(op: Op, size: int) -> Op:
    """Returns the op as a loop over `size` examples at a time; size divides the batch."""

    def split(a: Array) -> Array:
        return a.reshape(a.shape[0] // size, size, *a.shape[1:])

    def merge(a: Array) -> Array:
        return a.reshape(a.shape[0] * size, *a.shape[2:])

    def forward(x: Array, experts: Array, routing: Array) -> Array:
        def one(some: tuple[Array, Array]) -> Array:
            return op(some[0], experts, some[1])

        return merge(lax.map(one, (split(x), split(routing))))

    def gradients(x: Array, experts: Array, routing: Array, dy: Array) -> Gradients:
        def one(d_experts: Array, some: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
            x, routing, dy = some
            dx, more, d_routing = jax.vjp(op, x, experts, routing)[1](dy)
            return d_experts + more, (dx, d_routing)

        d_experts = jnp.zeros_like(experts, dtype=wide(experts.dtype))
        d_experts, (dx, d_routing) = lax.scan(one, d_experts, (split(x), split(routing), split(dy)))
        return merge(dx), d_experts.astype(experts.dtype), merge(d_routing)

    return _with_gradients(forward, gradients)


def over_input_channels(op: Op, size: int) -> Op:
    """Returns the op as a sum over `size` input channels at a time; size divides the channels.

    A block of input channels is a block of every expert, so each expert is read once, and its
    gradient written once, whatever the batch.
    """

    def part(a: Array, i: int | Array) -> Array:
        return lax.dynamic_slice_in_dim(a, i * size, size, 3)

    def set_part(a: Array, i: int | Array, value: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(a, value, i * size, 3)

    def forward(x: Array, experts: Array, routing: Array) -> Array:
        def add(i: Array, y: Array) -> Array:
            return y + op(part(x, i), part(experts, i), routing).astype(y.dtype)

        out = jax.eval_shape(op, part(x, 0), part(experts, 0), routing)
        y = jnp.zeros_like(x, shape=out.shape, dtype=wide(x.dtype))
        return lax.fori_loop(0, x.shape[3] // size, add, y).astype(x.dtype)

    def gradients(x: Array, experts: Array, routing: Array, dy: Array) -> Gradients:
        def one(i: Array, sums: Gradients) -> Gradients:
            dx, d_experts, d_routing = sums
            parts = part(x, i), part(experts, i), routing
            dx_part, d_experts_part, more = jax.vjp(op, *parts)[1](dy)
            return (
                set_part(dx, i, dx_part),
                set_part(d_experts, i, d_experts_part),
                d_routing + more.astype(d_routing.dtype),
            )

        start = (
            jnp.zeros_like(x),
            jnp.zeros_like(experts),
            jnp.zeros_like(routing, dtype=wide(routing.dtype)),
        )
        dx, d_experts, d_routing = lax.fori_loop(0, x.shape[3] // size, one, start)
        return dx, d_experts, d_routing.astype(routing.dtype)

    return _with_gradients(forward, gradients)


def _with_gradients(forward: Op, gradients: Callable[..., Gradients]) -> Op:
    op = jax.custom_vjp(forward)
    op.defvjp(
        lambda *arrays: (forward(*arrays), arrays),
        lambda arrays, dy: gradients(*arrays, dy),
    )
    return op


def divisor(number: int, at_least: int | float, at_most: int | float) -> int:
    """Returns the largest divisor of the number up to a limit, or else the next larger one.

    Divisors below `at_least` do not count: a prime number of channels is one tile.
    """
    divisors = [d for d in range(1, number + 1) if number % d == 0 and d >= min(at_least, number)]
    return max([d for d in divisors if d <= at_most] or [min(divisors)])
