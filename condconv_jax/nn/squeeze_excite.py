"""Squeeze-and-excitation: the channel attention that CondConv is compared and combined with."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from condconv_jax.nn.router import global_average_pool


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all of them.

    y = x * gate(expand(activation(reduce(GAP(x)))))

    Parameters: `reduce/kernel` (c, s), `reduce/bias` (s,), `expand/kernel` (s, c),
    `expand/bias` (c,).

    Attributes:
      features: s, the width of the bottleneck, at least 1.
      activation: after the reduction.
      gate: after the expansion.
      dtype: of the two dense layers; None for that of the inputs.

    Source: Hu et al., arXiv 1709.01507.
    """

    features: int
    activation: Callable[[Array], Array] = nn.relu
    gate: Callable[[Array], Array] = nn.sigmoid
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns x with its channels scaled, in the dtype of x.

        Raises:
          ValueError: if features is below 1.
        """
        if self.features < 1:
            raise ValueError(f"SqueezeExcite: features is {self.features}; pass at least 1")
        dtype = self.dtype or x.dtype
        pooled = global_average_pool(x).astype(dtype)
        hidden = self.activation(nn.Dense(self.features, dtype=dtype, name="reduce")(pooled))
        scale = self.gate(nn.Dense(x.shape[-1], dtype=dtype, name="expand")(hidden))
        return x * scale[:, None, None, :].astype(jnp.result_type(x))
