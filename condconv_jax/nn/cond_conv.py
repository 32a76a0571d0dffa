"""CondConv as a drop-in for `flax.linen.Conv`."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers
from jaxtyping import Array, DTypeLike, Float

from condconv_jax import ops
from condconv_jax.nn.arguments import kernel_shape, static_method
from condconv_jax.nn.compress import computation_dtype, expert_scale
from condconv_jax.nn.router import Router, mixed_bias, record_routing
from condconv_jax.ops.experts import Initializer
from condconv_jax.ops.geometry import Padding


class CondConv(nn.Module):
    """A 2-D convolution whose kernel each example mixes from experts.

    Takes the arguments of `flax.linen.Conv` by name, and `num_experts`. Without experts (0 or 1)
    it is that convolution, with the same parameters.

    Parameters: `kernel` (e, kh, kw, c/g, f), `bias` (e, f), and `router/...` where the module
    routes for itself; without experts `kernel` (kh, kw, c/g, f), `bias` (f,).
    Sows the routing weights used, (b, e), as `weights` into the collection `routing`.

    Attributes:
      features: f, output channels.
      kernel_size: (kh, kw), or one number for both.
      num_experts: e; 0 or 1 for a static convolution.
      strides: one number or (rows, columns).
      padding: "SAME", "SAME_LOWER", "VALID", pixels, or ((top, bottom), (left, right)).
      input_dilation: accepted for `flax.linen.Conv`'s sake; only 1.
      kernel_dilation: one number or (rows, columns).
      feature_group_count: g; equal to the input channels for a depthwise convolution.
      use_bias: whether a bias, mixed from the experts' too, is added.
      mask: accepted for `flax.linen.Conv`'s sake; only None.
      dtype: of the computation; None for that of inputs and parameters. Routing is float32.
      param_dtype: of the parameters.
      precision: accepted for `flax.linen.Conv`'s sake; only None.
      kernel_init: initialiser of one expert's kernel.
      bias_init: initialiser of one expert's bias.
      activation: of the module's own router: "sigmoid", "softmax", "relu" or "tanh".
      temperature: of the module's own router; may be traced.
      router_hidden: width of a hidden ReLU layer in the module's own router; None for none. With
        "softmax" and c/4 this is dynamic convolution (arXiv 1912.03458).
      top_k: experts to mix for each example, those of its largest weights; None for all.
      method: how to run it, a name in `ops.METHODS` or "auto".

    Source: arXiv 1904.04971, section 3.
    """

    features: int
    kernel_size: int | Sequence[int]
    num_experts: int
    strides: int | Sequence[int] | None = 1
    padding: Padding = "SAME"
    input_dilation: int | Sequence[int] | None = 1
    kernel_dilation: int | Sequence[int] | None = 1
    feature_group_count: int = 1
    use_bias: bool = True
    mask: Array | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: None = None
    kernel_init: Initializer = initializers.lecun_normal()
    bias_init: Initializer = initializers.zeros
    activation: str = "sigmoid"
    temperature: float | Array = 1.0
    router_hidden: int | None = None
    top_k: int | None = None
    method: str = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: ops.Routing | None = None
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the convolution of each example with its own kernel.

        Args:
          x: inputs.
          routing: weights (b, e) to mix by, which may be shaken; None lets the module route by
            its own input.

        Raises:
          ValueError: for an argument of `flax.linen.Conv` that has no meaning here, routing
            without experts, or as `ops.cond_conv` does.
        """
        self._refuse()
        groups = self.feature_group_count
        shape = kernel_shape("CondConv", x, self.features, self.kernel_size, groups)
        geometry: dict[str, Any] = {
            "strides": 1 if self.strides is None else self.strides,
            "padding": self.padding,
            "kernel_dilation": 1 if self.kernel_dilation is None else self.kernel_dilation,
            "feature_group_count": groups,
        }
        if self.num_experts <= 1:
            if routing is not None:
                raise ValueError(
                    f"CondConv: routing was passed but num_experts is {self.num_experts}; "
                    "pass num_experts of 2 or more, or no routing"
                )
            return self._static(x, shape, geometry)
        e = self.num_experts
        kernel = self.param(
            "kernel", ops.per_expert(self.kernel_init), (e, *shape), self.param_dtype
        )
        bias = None
        if self.use_bias:
            bias = self.param(
                "bias", ops.per_expert(self.bias_init), (e, self.features), self.param_dtype
            )
        if routing is None:
            routing = Router(
                e, self.activation, self.temperature, self.router_hidden, name="router"
            )(x)
        record_routing(self, routing, self.top_k)
        x = x.astype(computation_dtype(self.dtype, x, kernel, bias))
        y = ops.apply_routing(
            functools.partial(
                ops.cond_conv,
                top_k=self.top_k,
                scale=expert_scale(self),
                method=self.method,
                **geometry,
            ),
            x,
            kernel,
            routing,
        )
        return y if bias is None else y + mixed_bias(bias, routing, self.top_k, y)

    def _static(self, x: Array, shape: tuple[int, ...], geometry: dict) -> Array:
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        method = static_method("CondConv", self.method)
        y = ops.conv(x, kernel, method=method, **geometry)
        return y if bias is None else y + jnp.reshape(bias, (1, 1, 1, -1))

    def _refuse(self) -> None:
        if not isinstance(self.num_experts, int) or self.num_experts < 0:
            raise ValueError(
                f"CondConv: num_experts is {self.num_experts!r}; pass 0 or more (it comes third, "
                "where flax.linen.Conv has strides: pass those by name)"
            )
        if self.padding in ("CIRCULAR", "CAUSAL", "REFLECT"):
            raise ValueError(
                f"CondConv: padding {self.padding!r} is not supported; pad the inputs with "
                "jnp.pad and pass padding='VALID'"
            )
        if self.input_dilation not in (None, 1, (1, 1), [1, 1]):
            raise ValueError(
                f"CondConv: input_dilation is {self.input_dilation}; only 1 is supported, "
                "dilate the inputs with jax.lax.pad for a transposed convolution"
            )
        if self.mask is not None:
            raise ValueError(
                "CondConv: mask is not supported; multiply the parameters by it before apply"
            )
        if self.precision is not None:
            raise ValueError(
                "CondConv: precision is not supported; use jax.default_matmul_precision(...)"
            )
