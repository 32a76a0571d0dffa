"""A dense layer whose matrix each example mixes from experts."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers
from jaxtyping import Array, DTypeLike, Float

from condconv_jax import ops
from condconv_jax.names import unknown_name
from condconv_jax.nn.compress import computation_dtype, expert_scale
from condconv_jax.nn.router import Router, mixed_bias, record_routing
from condconv_jax.ops.experts import Initializer
from condconv_jax.ops.methods import CHOOSING


class CondDense(nn.Module):
    """A dense layer whose matrix each example mixes from experts; the paper's classifier.

    Without experts (0 or 1) it is `flax.linen.Dense`, with the same parameters.

    Parameters: `kernel` (e, c, f), `bias` (e, f), and `router/...` where the module routes for
    itself; without experts `kernel` (c, f), `bias` (f,).
    Sows the routing weights used, (b, e), as `weights` into the collection `routing`.

    Attributes:
      features: f, output channels.
      num_experts: e; 0 or 1 for a static layer.
      use_bias: whether a bias, mixed from the experts' too, is added.
      dtype: of the computation; None for that of inputs and parameters. Routing is float32.
      param_dtype: of the parameters.
      kernel_init: initialiser of one expert's matrix.
      bias_init: initialiser of one expert's bias.
      activation: of the module's own router: "sigmoid", "softmax", "relu" or "tanh".
      temperature: of the module's own router; may be traced.
      top_k: experts to mix for each example, those of its largest weights; None for all.
      method: how to run it, as `ops.cond_dense` takes it.

    Source: arXiv 1904.04971, section 4.1.
    """

    features: int
    num_experts: int
    use_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = initializers.lecun_normal()
    bias_init: Initializer = initializers.zeros
    activation: str = "sigmoid"
    temperature: float | Array = 1.0
    top_k: int | None = None
    method: str = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *n c"], routing: ops.Routing | None = None
    ) -> Float[Array, "b *n f"]:
        """Returns each example multiplied by its own matrix.

        Args:
          x: inputs.
          routing: weights (b, e) to mix by, which may be shaken; None lets the module route by
            its own input, averaged over the axes between first and last.

        Raises:
          ValueError: if routing is passed without experts, or as `ops.cond_dense` does.
        """
        if self.num_experts < 0:
            raise ValueError(f"CondDense: num_experts is {self.num_experts}; pass 0 or more")
        if self.num_experts <= 1:
            if routing is not None:
                raise ValueError(
                    f"CondDense: routing was passed but num_experts is {self.num_experts}; "
                    "pass num_experts of 2 or more, or no routing"
                )
            if self.method not in (*CHOOSING, *ops.METHODS):
                raise unknown_name("CondDense", "method", self.method, [*CHOOSING, *ops.METHODS])
            return self._static(x)
        e, c = self.num_experts, x.shape[-1]
        kernel = self.param(
            "kernel", ops.per_expert(self.kernel_init), (e, c, self.features), self.param_dtype
        )
        bias = None
        if self.use_bias:
            bias = self.param(
                "bias", ops.per_expert(self.bias_init), (e, self.features), self.param_dtype
            )
        if routing is None:
            routing = Router(e, self.activation, self.temperature, name="router")(x)
        record_routing(self, routing, self.top_k)
        x = x.astype(computation_dtype(self.dtype, x, kernel, bias))
        y = ops.apply_routing(
            functools.partial(
                ops.cond_dense, top_k=self.top_k, scale=expert_scale(self), method=self.method
            ),
            x,
            kernel,
            routing,
        )
        return y if bias is None else y + mixed_bias(bias, routing, self.top_k, y)

    def _static(self, x: Array) -> Array:
        kernel = self.param(
            "kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype
        )
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = jnp.dot(x, kernel)
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
