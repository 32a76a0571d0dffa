"""How a network makes its layers: what all of them have in common in one forward pass."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from condconv_jax.names import unknown_name
from condconv_jax.nn import (
    CondConv,
    DeformableConv,
    DynamicFilterConv,
    FoldedBatchNorm,
    GroupedBatchNorm,
    ODConv,
    ParallelKernels,
    SqueezeExcite,
)
from condconv_jax.ops import Routing, fan_out_normal
from condconv_jax.ops.geometry import Padding

# Reduction of the attention's hidden layer: Chen et al., arXiv 1912.03458, section 3.2.
DYNAMIC_REDUCTION = 1 / 4

# What may stand where a network has CondConv layers, and how many experts make it one: ODConv has a
# published form with one kernel, a dynamic filter's experts are hidden units, and two have none.
COND_LAYERS = {
    "condconv": 2,
    "dynamic": 2,
    "odconv": 1,
    "dynamic_filter": 1,
    "deformable": 0,
    "parallel_kernels": 0,
}
PADDINGS = ("SAME", "SYMMETRIC")


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of one forward pass; every method is called inside a compact method.

    Attributes:
      train: whether batch norm uses the batch's statistics.
      num_experts: e of the conditional layers.
      cond_layer: what a conditional convolution is, a name in `COND_LAYERS`.
      top_k: experts that a CondConv layer mixes for each example; None for all.
      temperature: of the attention of "dynamic" and "odconv".
      padding: "SAME" as TensorFlow pads, which puts the odd pixel of a strided convolution at the
        end; "SYMMETRIC", as PyTorch's networks do, as many pixels on every side.
      batch_norm_momentum: of the running statistics.
      batch_norm_epsilon: added to variances.
      batch_norm_bias: first value of the biases of batch norms that an activation follows.
      batch_norm_group: examples that share statistics in training; 0 for the whole batch.
      folded: whether batch norms are folded into the kernels before them, which leaves a bias.
      dtype: of the computation.
      method: how convolutions run.
    """

    train: bool
    num_experts: int = 0
    cond_layer: str = "condconv"
    top_k: int | None = None
    temperature: float | Array = 1.0
    padding: str = "SAME"
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-3
    batch_norm_bias: float = 0.0
    batch_norm_group: int = 0
    folded: bool = False
    dtype: DTypeLike = jnp.float32
    method: str = "auto"

    def conv(
        self,
        x: Float[Array, "b h w c"],
        features: int,
        kernel_size: int,
        *,
        name: str,
        conditional: bool = False,
        routing: Routing | None = None,
        stride: int = 1,
        depthwise: bool = False,
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns a convolution of x, without bias.

        Args:
          x: inputs.
          features: f, output channels.
          kernel_size: of a square kernel.
          name: of the module.
          conditional: whether it is one of the network's conditional layers.
          routing: weights that a CondConv layer mixes by; None where the layer computes its own.
          stride: in both directions.
          depthwise: whether each channel is convolved alone.
        """
        c = x.shape[-1]
        groups = c if depthwise else 1
        options = {
            "strides": stride,
            "padding": self._padding(kernel_size),
            "feature_group_count": groups,
            "use_bias": False,
            "dtype": self.dtype,
            "kernel_init": fan_out_normal(groups),
            "method": self.method,
            "name": name,
        }
        kind = self.cond_layer
        if not conditional or kind == "condconv":
            experts = self.num_experts if conditional else 0
            conv = CondConv(features, kernel_size, experts, top_k=self.top_k, **options)
            return conv(x, routing)
        if kind == "dynamic":
            return CondConv(
                features,
                kernel_size,
                self.num_experts,
                activation="softmax",
                temperature=self.temperature,
                router_hidden=max(1, round(c * DYNAMIC_REDUCTION)),
                **options,
            )(x)
        if kind == "odconv":
            return ODConv(
                features,
                kernel_size,
                num_experts=self.num_experts,
                temperature=self.temperature,
                batch_norm_momentum=self.batch_norm_momentum,
                batch_norm_epsilon=self.batch_norm_epsilon,
                **options,
            )(x, train=self.train)
        if kind == "dynamic_filter":
            conv = DynamicFilterConv(features, kernel_size, hidden=self.num_experts, **options)
        elif kind == "deformable":
            conv = DeformableConv(features, kernel_size, **options)
        elif kind == "parallel_kernels":
            conv = ParallelKernels(features, kernel_size, **options)
        else:
            raise unknown_name("Layers", "cond_layer", kind, COND_LAYERS)
        return conv(x, train=self.train)

    def norm(self, x: Array, *, name: str, zero: bool = False, linear: bool = False) -> Array:
        """Returns the batch norm of x.

        Args:
          x: what is normalised.
          name: of the module.
          zero: whether its scale is first 0, not 1.
          linear: whether no activation follows.
        """
        if self.folded:
            return FoldedBatchNorm(dtype=self.dtype, name=name)(x)
        options = {
            "use_running_average": not self.train,
            "momentum": self.batch_norm_momentum,
            "epsilon": self.batch_norm_epsilon,
            "dtype": self.dtype,
            "scale_init": nn.initializers.zeros if zero else nn.initializers.ones,
            "bias_init": nn.initializers.constant(0.0 if linear else self.batch_norm_bias),
            "name": name,
        }
        if self.batch_norm_group:
            return GroupedBatchNorm(self.batch_norm_group, **options)(x)
        return nn.BatchNorm(**options)(x)

    def squeeze_excite(self, x: Array, features: int, *, name: str, activation=nn.relu) -> Array:
        """Returns x after squeeze-and-excitation with so wide a bottleneck; 0 is none."""
        if not features:
            return x
        return SqueezeExcite(features, activation, dtype=self.dtype, name=name)(x)

    def max_pool(self, x: Array, size: int, stride: int) -> Array:
        """Returns the largest value of each window of size x size pixels."""
        padding = self._padding(size)
        if isinstance(padding, int):
            # Apart, because jax2onnx loses a pool's own padding unless it is a word.
            border = [(padding, padding)] * 2
            x = jnp.pad(x, [(0, 0), *border, (0, 0)], constant_values=-jnp.inf)
            padding = "VALID"
        # By name, as jax2onnx wants them.
        return nn.max_pool(x, window_shape=(size, size), strides=(stride, stride), padding=padding)

    def drop_path(self, x: Array, rate: float) -> Array:
        """Returns x with whole examples zeroed in training, the others scaled up to make up for it.

        Source: stochastic depth, Huang et al., arXiv 1603.09382.
        """
        if not rate:
            return x
        return nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not self.train)(x)

    def _padding(self, kernel_size: int) -> Padding:
        if self.padding not in PADDINGS:
            raise unknown_name("models.create", "padding", self.padding, PADDINGS)
        return "SAME" if self.padding == "SAME" else (kernel_size - 1) // 2
