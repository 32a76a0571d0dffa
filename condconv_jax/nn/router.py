"""The routing function as a module."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers
from jaxtyping import Array, Float

from condconv_jax.ops import (
    Routing,
    ShakenRouting,
    apply_routing,
    keep_top_k,
    mix_experts,
    route,
)
from condconv_jax.ops.experts import Initializer


def global_average_pool(x: Float[Array, "b *n c"]) -> Float[Array, "b c"]:
    """Returns the mean of each channel over all positions, in at least float32."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return x.mean(axis=tuple(range(1, x.ndim - 1)), dtype=dtype)


class Router(nn.Module):
    """Routing weights from a layer's input: GAP -> (ReLU layer) -> dense -> activation.

    Parameters: `kernel` (c, e), `bias` (e,); with a hidden layer also `hidden/kernel` (c, hidden)
    and `hidden/bias` (hidden,). All in float32, as is the computation.

    Attributes:
      num_experts: e, at least 1.
      activation: "sigmoid", "softmax", "relu" or "tanh".
      temperature: divides the logits; may be traced.
      hidden: width of a hidden ReLU layer; None for none.
      top_k: keep this many weights of each example, the rest 0; None keeps all.
      centred: whether to return the weights' deviations from a parameter `centre` (e,), and after
        them a 1, (b, e + 1), for experts that `models.sparsify` extended.
      kernel_init: initialiser of the routing kernel (Keras' default, as the official code uses).
      bias_init: initialiser of its bias.

    Source: arXiv 1904.04971, sections 3 and 4.4.
    """

    num_experts: int
    activation: str = "sigmoid"
    temperature: float | Array = 1.0
    hidden: int | None = None
    top_k: int | None = None
    centred: bool = False
    kernel_init: Initializer = initializers.glorot_uniform()
    bias_init: Initializer = initializers.zeros

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *n c"], previous: Float[Array, "b p"] | None = None
    ) -> Float[Array, "b e"]:
        """Returns the routing weights of each example.

        Args:
          x: the layer's input, pooled over all axes between first and last; (b, c) is taken as
            pooled.
          previous: routing weights of the layer before, appended to the pooled features
            (hierarchical routing).

        Raises:
          ValueError: if num_experts is below 1, or as `ops.route` and `ops.keep_top_k` do.
        """
        if self.num_experts < 1:
            raise ValueError(f"Router: num_experts is {self.num_experts}; pass at least 1")
        features = global_average_pool(x)
        if previous is not None:
            features = jnp.concatenate([features, previous.astype(features.dtype)], axis=-1)
        if self.hidden is not None:
            hidden = nn.Dense(
                self.hidden,
                kernel_init=initializers.he_normal(),
                precision=lax.Precision.HIGHEST,  # not the fewer bits of accelerators' products
                name="hidden",
            )
            features = nn.relu(hidden(features))
        kernel = self.param("kernel", self.kernel_init, (features.shape[-1], self.num_experts))
        bias = self.param("bias", self.bias_init, (self.num_experts,))
        routing = route(
            features, kernel, bias, activation=self.activation, temperature=self.temperature
        )
        if self.centred:
            centre = self.param("centre", initializers.zeros, (self.num_experts,))
            deviations = routing - centre[None, :].astype(routing.dtype)
            routing = jnp.pad(deviations, ((0, 0), (0, 1)), constant_values=1)
        return routing if self.top_k is None else keep_top_k(routing, self.top_k)


def record_routing(module: nn.Module, routing: Routing, top_k: int | None) -> None:
    """Sows the weights (b, e) that a layer uses as `weights` in the collection `routing`.

    Overwrites, so that a second call of the module does not grow the collection, and stays out
    of the variables that `init` returns.

    Args:
      module: the layer.
      routing: what it mixes by.
      top_k: weights kept of each example; None for all.
    """
    if not module.is_initializing():
        weights = routing.forward if isinstance(routing, ShakenRouting) else routing
        kept = weights if top_k is None else keep_top_k(weights, top_k)
        module.sow("routing", "weights", kept, init_fn=lambda: None, reduce_fn=lambda _, new: new)


def mixed_bias(
    bias: Float[Array, "e f"], routing: Routing, top_k: int | None, y: Float[Array, "b *n f"]
) -> Float[Array, "b ... f"]:
    """Returns each example's bias, in the dtype of y, with axes of one for its positions.

    Args:
      bias: of the experts.
      routing: what the layer mixes by.
      top_k: weights kept of each example; None for all.
      y: what it is to be added to.
    """

    def mix(_: Array, bias: Array, routing: Array) -> Array:
        kept = routing if top_k is None else keep_top_k(routing, top_k)
        return mix_experts(bias, kept, y.dtype)

    mixed = apply_routing(mix, jnp.zeros(()), bias, routing)
    return mixed.reshape(y.shape[0], *(1,) * (y.ndim - 2), y.shape[-1])
