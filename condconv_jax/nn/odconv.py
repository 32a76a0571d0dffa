"""Omni-dimensional dynamic convolution: attention over every axis of the kernel."""

import flax.linen as nn
import jax
from jax import lax
from jax.nn import initializers
from jaxtyping import Array, Float

from condconv_jax import ops
from condconv_jax.nn.arguments import ConvArguments, kernel_shape, static_method
from condconv_jax.nn.compress import computation_dtype, expert_scale
from condconv_jax.nn.router import global_average_pool, record_routing
from condconv_jax.ops.per_example import per_example_conv

# The narrowest trunk (OSVAI/ODConv, modules/odconv.py, min_channel).
MIN_HIDDEN = 16


class ODConv(ConvArguments):
    """A convolution whose kernel is weighted along each of its axes, by attention to the input.

    y[b] = filter[b] * ((sum_e expert[b, e] * spatial[b] * W[e]) * (channel[b] * x[b]))

    The weights channel (c,), filter (f,) and spatial (kh, kw) are sigmoids, expert (e,) is a
    softmax, all four of one trunk: GAP -> dense to max(c * reduction, 16) -> batch norm -> ReLU,
    a dense layer for each, divided by the temperature. Weighting inputs and outputs instead of
    the kernel's axes gives the same for less. As in the official code all experts share the first
    three (the paper's equation gives each its own), and there is no spatial attention to a 1x1
    kernel, none to the filters of a depthwise convolution that has as many outputs as inputs (it
    would be that to its inputs over again), and none to a single expert.

    In training the trunk's batch norm takes statistics of one value per example. Of a batch of 1
    it returns its bias whatever the input, so attention is blind to it and `reduce` has no
    gradient: train with larger batches (over all devices of a mesh, whose statistics are common).
    At the start each sigmoid is about 1/2 and each expert weighs about 1/e, so the output is some
    1/(8 sqrt(e)) of an ordinary convolution's: follow the layer with a batch norm.

    Parameters: `kernel` (e, kh, kw, c/g, f), or (kh, kw, c/g, f) of a single expert; `bias` (f,),
    not mixed; `router/reduce/kernel` (c, hidden); `router/norm/...`; of each attention that there
    is, `router/channel/...`, `router/filter/...`, `router/spatial/...`, `router/expert/...`.
    Statistics `router/norm/mean`, `router/norm/var` in the collection `batch_stats`.
    Sows the expert attention, (b, e), as `weights` into the collection `routing`.

    Attributes, beside those of `ConvArguments` or more exactly:
      num_experts: e, at least 1.
      reduction: width of the trunk over input channels.
      temperature: divides the logits of all attentions; may be traced. The official training
        lowers it from 30 to 1 over the first 10 epochs.
      batch_norm_momentum: of the trunk's running statistics.
      batch_norm_epsilon: added to the trunk's variances.
      use_bias: whether a bias is added to the output; the official layer has none.
      dtype: of the computation; None for that of inputs and parameters. Attention is float32.
      kernel_init: initialiser of one expert's kernel.
      method: how to run it, a name in `ops.METHODS` or "auto". With spatial attention there is no
        form as a mixture of convolutions: "mixture" then mixes the kernels as all others do.

    Cost: b*h'*w'*kh*kw*(c/g)*f MADDs, + b*e*kh*kw*(c/g)*f for mixing where e > 1, +
      b*hidden*(c + c + f + kh*kw + e) for attention, less those that there are not.
    Source: Li et al., arXiv 2209.07947, eq. 2 and section 3.2; OSVAI/ODConv, modules/odconv.py.
    """

    num_experts: int = 4
    reduction: float = 1 / 16
    temperature: float | Array = 1.0
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the convolution of each example with its own kernel.

        Args:
          x: inputs.
          train: whether the trunk's batch norm uses the batch's statistics, and updates the
            running ones.

        Raises:
          ValueError: if num_experts is below 1, or reduction or temperature not positive, or as
            `ops.cond_conv` does.
        """
        self._refuse()
        groups, e = self.feature_group_count, self.num_experts
        shape = kernel_shape("ODConv", x, self.features, self.kernel_size, groups)
        kh, kw, _, f = shape
        b, _, _, c = x.shape
        if e == 1:
            kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        else:
            init = ops.per_expert(self.kernel_init)
            kernel = self.param("kernel", init, (e, *shape), self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", initializers.zeros, (f,), self.param_dtype)

        sizes = {"channel": c}
        if not groups == c == f:
            sizes["filter"] = f
        if kh * kw > 1:
            sizes["spatial"] = kh * kw
        if e > 1:
            sizes["expert"] = e
        # Named as the routers of other layers are, so that its products count as routing.
        attention = Attention(
            sizes,
            max(int(c * self.reduction), MIN_HIDDEN),
            self.temperature,
            self.batch_norm_momentum,
            self.batch_norm_epsilon,
            name="router",
        )(x, train=train)
        if "expert" in attention:
            record_routing(self, attention["expert"], None)

        x = x.astype(computation_dtype(self.dtype, x, kernel, bias))
        x = x * attention["channel"].astype(x.dtype)[:, None, None, :]
        spatial = None
        if "spatial" in attention:
            spatial = attention["spatial"].astype(x.dtype).reshape(b, kh, kw, 1, 1)
        y = self._convolve(x, kernel, attention.get("expert"), spatial)
        if "filter" in attention:
            y = y * attention["filter"].astype(y.dtype)[:, None, None, :]
        return y if bias is None else y + bias.astype(y.dtype).reshape(1, 1, 1, -1)

    def _convolve(
        self, x: Array, kernel: Array, routing: Array | None, spatial: Array | None
    ) -> Array:
        geometry = self.geometry()
        if routing is None:
            if spatial is None:
                method = static_method("ODConv", self.method)
                return ops.conv(x, kernel, method=method, **geometry)
            kernels = kernel.astype(x.dtype)[None]
        else:
            scale = expert_scale(self)
            if spatial is None:
                return ops.cond_conv(
                    x, kernel, routing, scale=scale, method=self.method, **geometry
                )
            kernels = ops.mix_experts(
                kernel, routing if scale is None else routing * scale[None], x.dtype
            )
        return per_example_conv(x, kernels * spatial, method=self.method, **geometry)

    def _refuse(self) -> None:
        if self.num_experts < 1:
            raise ValueError(f"ODConv: num_experts is {self.num_experts}; pass at least 1")
        if self.reduction <= 0:
            raise ValueError(f"ODConv: reduction is {self.reduction}; pass a positive number")
        if isinstance(self.temperature, int | float) and self.temperature <= 0:
            raise ValueError(f"ODConv: temperature is {self.temperature}; pass a positive number")


class Attention(nn.Module):
    """Weights of several axes from one trunk; all but those named "expert" sigmoids.

    Parameters and statistics: see `ODConv`, under `router`.

    Attributes:
      sizes: number of weights of each axis, by its name.
      hidden: width of the trunk.
      temperature: divides the logits.
      batch_norm_momentum: of the running statistics.
      batch_norm_epsilon: added to variances.

    Source: see `ODConv`.
    """

    sizes: dict[str, int]
    hidden: int
    temperature: float | Array
    batch_norm_momentum: float
    batch_norm_epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> dict[str, Array]:
        """Returns the weights (b, size) of each axis, at least float32."""

        def dense(x: Array, size: int, name: str, *, use_bias: bool = True) -> Array:
            # As in `ops.route`: accelerators multiply in bfloat16 passes unless told otherwise.
            return nn.Dense(
                size,
                use_bias,
                precision=lax.Precision.HIGHEST,
                kernel_init=ops.fan_out_normal(),
                name=name,
            )(x)

        trunk = dense(global_average_pool(x), self.hidden, "reduce", use_bias=False)
        trunk = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            name="norm",
        )(trunk)
        trunk = nn.relu(trunk)
        weights = {}
        for name, size in self.sizes.items():
            activation = jax.nn.softmax if name == "expert" else jax.nn.sigmoid
            weights[name] = activation(dense(trunk, size, name) / self.temperature)
        return weights
