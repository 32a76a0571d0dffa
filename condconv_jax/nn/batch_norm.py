"""Batch norms of our own: over groups of examples, and what is left of one that is folded."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers
from jaxtyping import Array, DTypeLike, Float

from condconv_jax.ops.experts import Initializer


class GroupedBatchNorm(nn.Module):
    """Batch norm whose training statistics are those of each group of consecutive examples.

    y[b] = (x[b] - mean[group(b)]) / sqrt(var[group(b)] + epsilon) * scale + bias

    `flax.linen.BatchNorm` under jit takes the statistics of the whole global batch, however many
    devices share it. Large published runs do not: of 2048 examples the official EfficientNet
    code takes groups of 128, a few devices each. With groups no larger than a device's part of the
    batch nothing is sent between devices.

    The running statistics move by the mean over groups of mean and variance. Parameters and
    statistics are those of `flax.linen.BatchNorm`, and so is evaluation: `scale`, `bias` (c,);
    `mean`, `var` (c,) in the collection `batch_stats`.

    Attributes:
      group_size: examples of a group, a divisor of the (micro-)batch.
      use_running_average: whether to use the running statistics instead.
      momentum: of the running statistics.
      epsilon: added to variances.
      dtype: of the output; None for that of x. Statistics are at least float32.
      scale_init: initialiser of the scale.
      bias_init: initialiser of the bias.

    Source: Ioffe and Szegedy, arXiv 1502.03167; groups: tensorflow/tpu,
      models/official/efficientnet/main.py (batch_norm_batch_size) and utils.py
      (TpuBatchNormalization); Goyal et al., arXiv 1706.02677, section 2.3.
    """

    group_size: int
    use_running_average: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: DTypeLike | None = None
    scale_init: Initializer = initializers.ones
    bias_init: Initializer = initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *n c"]:
        """Returns x normalised.

        Raises:
          ValueError: if the groups do not divide the batch.
        """
        c = x.shape[-1]
        scale = self.param("scale", self.scale_init, (c,), jnp.float32)
        bias = self.param("bias", self.bias_init, (c,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        if self.use_running_average:
            mean, var = running_mean.value[None], running_var.value[None]
        else:
            mean, var = self._statistics(x)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var)):
                    moved = self.momentum * running.value + (1 - self.momentum) * new.mean(axis=0)
                    running.value = moved.astype(running.value.dtype)
        # (groups, c) -> (groups, 1, ..., 1, c), beside x as (groups, examples, ..., c).
        groups = len(mean)
        grouped = x.reshape(groups, x.shape[0] // groups, *x.shape[1:])
        shape = (groups, *(1,) * (x.ndim - 1), c)
        factor = lax.rsqrt(var + self.epsilon) * scale[None]
        y = (grouped - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(
            (1,) * x.ndim + (c,)
        )
        return y.reshape(x.shape).astype(self.dtype or x.dtype)

    def _statistics(self, x: Array) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
        """Mean and variance of each group."""
        b, c = x.shape[0], x.shape[-1]
        if self.group_size < 1 or b % self.group_size:
            raise ValueError(
                f"GroupedBatchNorm: group_size is {self.group_size}, the batch has {b} examples; "
                "pass a divisor"
            )
        groups = b // self.group_size
        values = x.reshape(groups, -1, c).astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = values.mean(axis=1)
        # In one pass over x, as Flax does; rounding may leave a little less than 0.
        var = jnp.maximum(jnp.square(values).mean(axis=1) - jnp.square(mean), 0)
        return mean, var


class FoldedBatchNorm(nn.Module):
    """What is left of a batch norm whose factor went into the kernel before it: a `bias` (c,).

    Attributes:
      dtype: of the output; None for that of x.
    """

    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *n c"]:
        """Returns x with the bias added."""
        bias = self.param("bias", initializers.zeros, (x.shape[-1],), jnp.float32)
        y = x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
        return y.astype(self.dtype or x.dtype)
