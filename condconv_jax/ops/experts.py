"""Experts: mixing them into one kernel per example, and initialising each as its own kernel."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Float

Initializer = Callable[..., Array]


def mix_experts(
    experts: Float[Array, "e *s"], routing: Float[Array, "b e"]
) -> Float[Array, "b *s"]:
    """Returns one kernel per example, the experts weighted by its routing weights.

    kernel[b] = sum_e routing[b, e] * experts[e]                        (Yang et al. 2019, eq. 1)

    Args:
      experts: E arrays of one shape, any float dtype; the result has it too.
      routing: weights, not normalised.

    Returns:
      Mixed kernels in the experts' dtype, accumulated in at least float32.

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
    flat = experts.reshape(experts.shape[0], math.prod(experts.shape[1:]))
    with jax.named_scope("mix_experts"):
        mixed = jnp.dot(
            routing.astype(experts.dtype),
            flat,
            preferred_element_type=jnp.promote_types(experts.dtype, jnp.float32),
        )
    return mixed.astype(experts.dtype).reshape(routing.shape[0], *experts.shape[1:])


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
