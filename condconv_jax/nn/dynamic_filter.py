"""The dynamic filter network's layer: a kernel generated outright from the input."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Float

from condconv_jax import ops
from condconv_jax.nn.arguments import ConvArguments, kernel_shape
from condconv_jax.nn.compress import computation_dtype, expert_scale
from condconv_jax.nn.router import Router, record_routing
from condconv_jax.ops.experts import Initializer


class DynamicFilterConv(ConvArguments):
    """A convolution whose kernel a small network generates for each example.

    kernel[b] = dense(relu(dense(GAP(x[b]))))

    The last dense layer's matrix, of one row of kh*kw*(c/g)*f numbers per hidden unit, is a stack
    of `hidden` experts and the hidden units are their routing weights; its bias is one more
    expert, of weight 1. So it is run as a CondConv of hidden + 1 experts: nothing but the methods
    that mix first ever holds a kernel per example. What tells it from CondConv is the routing
    alone: ReLU, not bounded, and one expert that is always on.

    Parameters: `router/kernel` (c, hidden), `router/bias` (hidden,): the generator's first layer;
    `kernel` (hidden + 1, kh, kw, c/g, f): its second layer, whose last row is the layer's bias;
    `bias` (f,): of the convolution, not generated.
    Sows the routing weights used, (b, hidden + 1), as `weights` into the collection `routing`.

    At the start half of the variance of a generated kernel is that of its constant part and half
    that of the rest, for pooled inputs of mean square 1: together that of `kernel_init`, and no
    less than half of it for smaller ones.

    Attributes, beside those of `ConvArguments` or more exactly:
      hidden: units of the hidden layer.
      dtype: of the computation; None for that of inputs and parameters. The hidden layer is
        float32.

    Cost: as `ops.cond_conv` with hidden + 1 experts, and b*c*hidden MADDs.
    Source: De Brabandere et al., arXiv 1605.09673, section 3 (dynamic convolutional layer).
    """

    hidden: int = 8

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the convolution of each example with its own kernel.

        Args:
          x: inputs.
          train: without effect; other layers of this interface have batch norms.

        Raises:
          ValueError: if hidden is below 1, or as `ops.cond_conv` does.
        """
        del train
        if self.hidden < 1:
            raise ValueError(f"DynamicFilterConv: hidden is {self.hidden}; pass at least 1")
        shape = kernel_shape(
            "DynamicFilterConv", x, self.features, self.kernel_size, self.feature_group_count
        )
        kernel = self.param(
            "kernel", generator_init(self.kernel_init), (self.hidden + 1, *shape), self.param_dtype
        )
        bias = None
        if self.use_bias:
            bias = self.param("bias", initializers.zeros, (self.features,), self.param_dtype)
        # He's initialisation keeps the mean square of the pooled features through the ReLU.
        hidden = Router(self.hidden, "relu", kernel_init=initializers.he_normal(), name="router")(x)
        routing = jnp.concatenate([hidden, jnp.ones_like(hidden[:, :1])], axis=1)
        record_routing(self, routing, None)
        y = ops.cond_conv(
            x.astype(computation_dtype(self.dtype, x, kernel, bias)),
            kernel,
            routing,
            **self.geometry(),
            scale=expert_scale(self),
            method=self.method,
        )
        return y if bias is None else y + bias.astype(y.dtype).reshape(1, 1, 1, -1)


def generator_init(initializer: Initializer) -> Initializer:
    """Returns an initialiser of the generator's matrix and bias, (hidden + 1, kh, kw, c/g, f).

    The last row gets half of the initialiser's variance, the others share the other half.

    Args:
      initializer: of one kernel.
    """

    def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        experts = ops.per_expert(initializer)(key, shape, dtype)
        hidden = shape[0] - 1
        deviations = jnp.full(shape[0], math.sqrt(0.5 / hidden), dtype).at[-1].set(math.sqrt(0.5))
        return experts * deviations.reshape(-1, *(1,) * (len(shape) - 1))

    return init
