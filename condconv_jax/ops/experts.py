"""Experts: mixing them into one kernel per example, and initialising each as its own kernel."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, DTypeLike, Float, Shaped

from condconv_jax.ops.partition import over_batch, vary_alike
from condconv_jax.ops.precision import wide

Initializer = Callable[..., Array]

# Up to so many examples are mixed expert by expert; for more a matrix product loads each once.
FEW_EXAMPLES = 4


def mix_experts(
    experts: Shaped[Array, "e *s"],
    routing: Float[Array, "b e"],
    dtype: DTypeLike | None = None,
) -> Float[Array, "b *s"]:
    """Returns one kernel per example, the experts weighted by its routing weights.

    kernel[b] = sum_e routing[b, e] * experts[e]                        (Yang et al. 2019, eq. 1)

    Experts narrower than the result (bfloat16, int8) are widened while they are mixed where the
    batch is small, so that reading them costs their own bytes.

    Args:
      experts: E arrays of one shape, of a float or integer dtype. A scale per expert, of quantised
        ones, is a factor of the routing: sum_e (routing * scale)[b, e] * experts[e].
      routing: weights, not normalised.
      dtype: of the result; None for the experts' own (float32 if that is an integer).

    Returns:
      Mixed kernels, accumulated in at least float32. Reverse mode only.

    Raises:
      ValueError: if experts and routing disagree on e.

    Cost: b*e*prod(s) MADDs: one matrix multiplication.
    Source: arXiv 1904.04971, section 3.
    """
    if routing.ndim != 2 or experts.ndim < 1 or experts.shape[0] != routing.shape[1]:
        raise ValueError(
            f"mix_experts: experts are {experts.shape}, routing is {routing.shape}; "
            "pass (e, ...) and (b, e)"
        )
    if dtype is None:
        is_float = jnp.issubdtype(experts.dtype, jnp.floating)
        dtype = experts.dtype if is_float else jnp.float32
    flat = experts.reshape(experts.shape[0], math.prod(experts.shape[1:]))
    with jax.named_scope("mix_experts"):
        batch = routing.shape[0]
        few = isinstance(batch, int) and batch <= FEW_EXAMPLES
        if few and _is_narrower(experts.dtype, dtype):
            mixed = _widening_sum(flat, routing, wide(dtype)).astype(dtype)
        else:
            mixed = over_batch(
                lambda routing, flat: _mix(*vary_alike(flat, routing)),
                (routing,),
                (),
                (flat.astype(dtype),),
            )
    return mixed.reshape(routing.shape[0], *experts.shape[1:])


@jax.custom_vjp
def _mix(experts: Array, routing: Array) -> Array:
    mixed = jnp.dot(
        routing.astype(experts.dtype), experts, preferred_element_type=wide(experts.dtype)
    )
    return mixed.astype(experts.dtype)


def _mix_backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    experts, routing = saved
    dtype = wide(experts.dtype)
    # Neither is what JAX derives: a product with one row or one column is slow on a CPU in some
    # orders of its arguments. For 8 experts of 1 M values and one example slope @ experts.T takes
    # 9.3 ms, this 1.1; for 32 of 131 k all gradients take 6.0 ms as JAX derives them, 1.0 so.
    d_experts = jnp.dot(routing.astype(slope.dtype).T, slope, preferred_element_type=dtype)
    d_routing = jnp.dot(experts, slope.T, preferred_element_type=dtype).T
    return d_experts.astype(experts.dtype), d_routing.astype(routing.dtype)


_mix.defvjp(lambda *arrays: (_mix(*arrays), arrays), _mix_backward)


def _is_narrower(dtype: DTypeLike, other: DTypeLike) -> bool:
    return jnp.dtype(dtype).itemsize < jnp.dtype(other).itemsize


def _widening_sum(flat: Array, routing: Array, dtype: DTypeLike) -> Array:
    """The same sum, expert by expert: one pass over the experts, each value widened in a register.

    As a product XLA would first write the widened experts to memory; as a multiplication and a
    reduction over e it takes seconds.
    """
    weights = routing.astype(dtype)
    terms = (weights[:, e, None] * flat[e][None].astype(dtype) for e in range(flat.shape[0]))
    return functools.reduce(jnp.add, terms)


def per_expert(initializer: Initializer) -> Initializer:
    """Returns an initialiser of (e, ...) that draws each expert as a kernel of its own.

    Fans are then those of the true kernel; an initialiser applied to the stacked shape would take
    the expert axis for part of the receptive field and shrink the weights by sqrt(e).

    Args:
      initializer: `init(key, shape, dtype)` for one kernel, as in `jax.nn.initializers`.

    Source: tensorflow/tpu, models/official/efficientnet/condconv (initialisers per expert).
    """

    def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        keys = jax.random.split(key, shape[0])
        return jax.vmap(lambda expert_key: initializer(expert_key, shape[1:], dtype))(keys)

    return init


def fan_out_normal(feature_group_count: int = 1) -> Initializer:
    """Returns the official initialiser of one kernel: normal, variance 2 / fan_out.

    fan_out = kh*kw*f/g: a depthwise kernel has kh*kw outputs per input, not kh*kw*f.

    Args:
      feature_group_count: g of the convolution.

    Source: tensorflow/tpu, efficientnet_model.py, conv_kernel_initializer.
    """
    return initializers.variance_scaling(2.0 * feature_group_count, "fan_out", "normal")


def fan_out_truncated_normal(feature_group_count: int = 1) -> Initializer:
    """Returns `fan_out_normal` truncated at two standard deviations, with the same variance."""
    return initializers.variance_scaling(2.0 * feature_group_count, "fan_out", "truncated_normal")


# For one kernel (kh, kw, c/g, f); wrap in per_expert for a stack of them. Fan-in of a grouped
# kernel is right as it stands, since its shape holds c/g.
INITIALIZERS: dict[str, Callable[[], Initializer]] = {
    "lecun_normal": initializers.lecun_normal,
    "lecun_uniform": initializers.lecun_uniform,
    "he_normal": initializers.he_normal,
    "he_uniform": initializers.he_uniform,
    "glorot_normal": initializers.glorot_normal,
    "glorot_uniform": initializers.glorot_uniform,
    "fan_out_normal": fan_out_normal,
    "fan_out_truncated_normal": fan_out_truncated_normal,
}
